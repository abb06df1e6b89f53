import threading

import pytest
from pydantic import SecretStr

from app.settings import Settings
from chassis.redis.settings import RedisSettings
from chassis.resources import open_resources


async def test_start_that_fails_half_way_closes_what_it_had_opened(settings: Settings):
    unusable = RedisSettings.model_construct(url=SecretStr("nowhere"))

    with pytest.raises(ValueError, match="Redis URL"):
        async with open_resources(settings.model_copy(update={"redis": unusable})):
            pass

    assert "logs" not in [thread.name for thread in threading.enumerate()]


async def test_what_was_opened_is_closed_at_the_end(settings: Settings):
    async with open_resources(settings) as resources:
        pool = resources["sessions"].read.kw["bind"].pool
        async with resources["sessions"].read() as session:
            await session.connection()
        # The cache may ask for its epoch with this connection, or with another one.
        assert pool.checkedin() + pool.checkedout() >= 1
        assert "logs" in [thread.name for thread in threading.enumerate()]

    assert pool.checkedin() == 0
    assert "logs" not in [thread.name for thread in threading.enumerate()]
