"""Stands in for the scheduler: only its sign of life."""

import os
import signal

from redis import Redis

from service.alive import keep_alive

keep_alive(Redis.from_url(os.environ["TESSERA_REDIS_URL"]), "scheduler")
signal.pause()
