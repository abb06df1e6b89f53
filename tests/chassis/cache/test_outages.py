"""The service under load while Redis goes and comes back."""

import signal
from pathlib import Path
from typing import Any

import pytest

from chassis.development.private_servers import embedded_valkey
from tests.accounts import editors_token
from tests.databases import mariadb_only
from tests.load import load
from tests.metrics import scrape, total
from tests.process import Service, freeze, running, wait_until
from tests.shop import Shop

pytestmark = pytest.mark.drill


async def lookups(service: Service, result: str) -> float:
    async with service.client() as client:
        return total(await scrape(client), "cache_lookups_total", result=result)


@mariadb_only
@pytest.mark.parametrize("outage", [signal.SIGKILL, signal.SIGSTOP])
async def test_redis_that_goes_under_load_fails_no_request_and_serves_nothing_old(
    environment: dict[str, Any], tmp_path: Path, outage: signal.Signals
):
    """Killed, it is refused at once and comes back empty; stopped, it is silent and keeps all."""
    with embedded_valkey(tmp_path / "valkey") as valkey:
        variables = environment | {"REDIS_URL": valkey.url, "LIMITS_ENABLED": True}
        variables |= {"LIMITS_READS_RATE": 100_000, "LIMITS_READS_BURST": 100_000}
        async with (
            running(tmp_path / "log", **variables) as service,
            service.client() as client,
        ):
            shop = Shop(client, await editors_token(environment["DATABASE_URL"]))
            path = f"/v1/purchases/{(await shop.add_purchase('Before'))['id']}"
            async with load(service.url, path) as under_load:
                await under_load.until(200)
                assert valkey.process is not None
                if outage is signal.SIGSTOP:
                    freeze(valkey.process)
                else:
                    valkey.process.kill()
                await under_load.until(200)
                changed = await shop.change(path, note="During")
                during = [(await client.get(path)).json()["note"] for _ in range(20)]
                if outage is signal.SIGSTOP:
                    valkey.process.send_signal(signal.SIGCONT)
                else:
                    valkey.process.wait()
                    valkey.start()
                after = [(await client.get(path)).json()["note"] for _ in range(50)]
                hits = await lookups(service, "hit")
                while await lookups(service, "hit") < hits + 100:
                    await under_load.until(50)
            after += [(await client.get(path)).json()["note"] for _ in range(50)]
            await wait_until(
                lambda: bool(service.messages("Redis is reachable again")), "Redis to be back"
            )

    assert under_load.failures == []
    assert under_load.responses.keys() == {200}
    assert changed.status_code == 200
    assert set(during + after) == {"During"}
    assert service.messages("Redis is unreachable")
