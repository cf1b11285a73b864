"""Stands in for the scheduler: only its sign of life."""

import os
import signal

from service.alive import SignOfLife
from service.redis_access import RedisAddress
from service.settings import Settings

SignOfLife(RedisAddress("TESSERA_REDIS_URL", os.environ["TESSERA_REDIS_URL"]), "scheduler", Settings().process)
signal.pause()
