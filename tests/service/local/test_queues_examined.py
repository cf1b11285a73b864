"""The doctor says of each queue whether a worker reads it; a Redis that cannot be asked is another look's."""

from __future__ import annotations

import pytest

from service.local.checkup import examine_queues
from service.local.given_servers import examine_servers
from service.local.ports import free_port
from service.settings import Settings
from tenants.settings import RedisSettings


@pytest.mark.parametrize("url", ["http://h:1", "redis://h:port/0", "redis://h:6379/zero", "no address"])
async def test_an_address_of_the_cache_that_cannot_be_used_is_one_finding(url: str) -> None:
    redis = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", cache_url=url)
    settings = Settings(redis=redis)
    assert await examine_queues(settings) == []
    [found] = [one for one in await examine_servers(settings) if one.subject == "Redis cache"]
    assert (found.good, found.mend) == (False, "correct TESSERA_REDIS_CACHE_URL")
