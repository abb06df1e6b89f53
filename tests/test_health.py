import httpx2

from app.main import create_app
from app.resources import Resources, open_resources
from app.settings import RedisSettings, Settings
from tests.conftest import client_of
from tests.queries import recorded


async def test_health_asks_nobody(client: httpx2.AsyncClient, resources: Resources):
    with recorded(resources["sessions"]) as queries:
        answer = await client.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert queries == []


async def test_service_is_ready_without_redis_and_says_so(settings: Settings):
    gone = settings.model_copy(update={"redis": RedisSettings(url="unix:///nowhere.sock")})
    async with open_resources(gone) as resources, client_of(create_app(gone), resources) as client:
        answer = await client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "ok", "redis": "unavailable"}
