"""Stands in for the worker: a real Celery worker of Tessera's settings with one task that takes its time."""

import time
from pathlib import Path

from celery.signals import worker_ready

from service.alive import SignOfLife
from service.broker import make_celery
from service.redis_access import broker_address
from service.settings import Settings

ADDRESS = broker_address(Settings().redis)
app = make_celery(ADDRESS)
app.conf.include = []


@app.task(name="standin.write")
def write(path: str, seconds: float) -> None:
    Path(path + ".begun").touch()
    time.sleep(seconds)
    Path(path).touch()


@worker_ready.connect
def ready(**_):
    SignOfLife(ADDRESS, "worker", Settings().process)
