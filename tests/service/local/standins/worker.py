"""Stands in for the worker: a real Celery worker of Tessera's settings with one task that takes its time."""

import os
import time
from pathlib import Path

from celery.signals import worker_ready
from redis import Redis

from service.alive import keep_alive
from service.broker import make_celery

app = make_celery(os.environ["TESSERA_REDIS_URL"])
app.conf.include = []


@app.task(name="standin.write")
def write(path: str, seconds: float) -> None:
    Path(path + ".begun").touch()
    time.sleep(seconds)
    Path(path).touch()


@worker_ready.connect
def ready(**_):
    keep_alive(Redis.from_url(os.environ["TESSERA_REDIS_URL"]), "worker")
