"""Nothing that is secret is in a log line, a metric or an error, whatever happens."""

import secrets
from pathlib import Path
from typing import Any

import httpx2 as httpx
from redis.asyncio import Redis
from sqlalchemy import URL, make_url

from chassis.development.private_servers import embedded_valkey
from tests.authenticator import App
from tests.conftest import execute
from tests.databases import mariadb_only
from tests.job_process import job_worker
from tests.process import free_port, running

SECRETS = {
    name: f"hidden-{name.lower()}-{secrets.token_hex(16)}"
    for name in (
        "DATABASE_PASSWORD",
        "REDIS_PASSWORD",
        "TOKENS_KEY",
        "TOKENS_OLD_KEYS",
        "METRICS_TOKEN",
        "MAIL_PASSWORD",
    )
}


@mariadb_only
async def test_no_secret_is_in_what_the_service_says(
    environment: dict[str, Any], resources: object, mariadb: URL, tmp_path: Path
):
    url = make_url(environment["DATABASE_URL"])
    name, password = f"user-{secrets.token_hex(4)}", SECRETS["DATABASE_PASSWORD"]
    await execute(mariadb, f"CREATE USER '{name}'@localhost IDENTIFIED BY '{password}'")
    await execute(mariadb, f"GRANT ALL ON {url.database}.* TO '{name}'@localhost")
    with embedded_valkey(tmp_path / "valkey") as valkey:
        async with Redis.from_url(valkey.url) as redis:
            await redis.config_set("requirepass", SECRETS["REDIS_PASSWORD"])
        variables = environment | {"REDIS_URL": valkey.url}
        variables["DATABASE_URL"] = url.set(username=name).render_as_string(hide_password=False)
        await say_everything(variables, tmp_path)
    await execute(mariadb, f"DROP USER '{name}'@localhost")


async def say_everything(environment: dict[str, Any], tmp_path: Path) -> None:
    smtp = f"smtp://user@127.0.0.1:{free_port()}"  # nobody is there, which is an error to be logged
    port = free_port()
    variables = environment | SECRETS | {"LOG_LEVEL": "DEBUG", "MAIL_URL": smtp}
    variables |= {"PASSWORDS_TIME_COST": 1, "PASSWORDS_MEMORY_COST": 8, "JOBS_METRICS_PORT": port}
    variables |= {"TOKENS_REFRESH_OVERLAP": 0}
    async with (
        running(tmp_path / "log", **variables) as service,
        job_worker(tmp_path / "jobs", **variables) as worker,
        service.client() as client,
    ):
        said: list[str] = []
        hidden = {*SECRETS.values(), *await everything_that_may_go_wrong(client, said)}
        await worker.wait_for("send_welcome failed")
        bearer = {"Authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}
        metrics = [
            await client.get("/metrics", headers=bearer),
            await client.get(f"http://127.0.0.1:{port}/metrics"),
        ]
        assert [response.status_code for response in metrics] == [200, 200]
        said += [response.text for response in metrics]
    said += [service.output.read_text(), worker.output.read_text()]

    assert len(hidden) > 10
    assert all(len(text) > 200 for text in said[-4:])
    lines = "\n".join(said).splitlines()
    assert [line for line in lines if any(secret in line for secret in hidden)] == []


async def everything_that_may_go_wrong(client: httpx.AsyncClient, said: list[str]) -> set[str]:
    """The secrets of it; `said` gets the bodies of all errors."""
    email, password = "mary@example.com", f"first-{secrets.token_hex(8)}"
    new, wrong, short = f"second-{secrets.token_hex(8)}", f"wrong-{secrets.token_hex(8)}", "sh0rt!"

    async def ask(method: str, path: str, **options: Any) -> httpx.Response:
        response = await client.request(method, path, **options)
        if response.is_error:
            said.append(response.text)
        return response

    async def log_in(password: str) -> httpx.Response:
        form = {"grant_type": "password", "username": email, "password": password}
        return await ask("POST", "/v1/tokens", data=form, headers={"Idempotency-Key": password})

    body = {"email": email, "name": "Mary", "password": password}
    assert (await ask("POST", "/v1/users", json=body)).status_code == 201
    assert (await ask("POST", "/v1/users", json=body)).status_code == 409
    assert (await ask("POST", "/v1/users", json=body | {"password": short})).status_code == 422
    assert (await ask("POST", "/v1/users", json=body | {"passwort": wrong})).status_code == 422
    broken = f'{{"password": "{wrong}'
    assert (await ask("POST", "/v1/users", content=broken)).status_code == 422
    assert (await log_in(wrong)).status_code == 401
    tokens = (await log_in(password)).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    refresh = {"refresh_token": tokens["refresh_token"]}
    newer = (await ask("POST", "/v1/tokens/refresh", json=refresh)).json()
    change = {"password": new, "current_password": wrong}
    assert (await ask("PATCH", "/v1/users/me", json=change, headers=bearer)).status_code == 422
    change["current_password"] = password
    assert (await ask("PATCH", "/v1/users/me", json=change, headers=bearer)).status_code == 200
    assert (await ask("POST", "/v1/tokens/refresh", json=refresh)).status_code == 401
    forged = {"Authorization": f"Bearer {tokens['access_token'][:-4]}AAAA"}
    assert (await ask("GET", "/v1/users/me", headers=forged)).status_code == 401
    in_query = {"access_token": newer["access_token"]}
    assert (await ask("GET", "/v1/users/me", params=in_query)).status_code == 422
    wanted = {"name": "A machine", "scopes": ["read"]}
    headers = bearer | {"Idempotency-Key": "key"}
    key = (await ask("POST", "/v1/users/me/keys", json=wanted, headers=headers)).json()["key"]
    assert (await ask("GET", "/v1/users/me", headers={"X-API-Key": key})).status_code == 200
    assert (await ask("GET", "/v1/users/me", headers={"X-API-Key": f"{key}x"})).status_code == 401
    assert (await ask("PATCH", "/v1/users/me", json={}, headers={"X-API-Key": key})).is_error
    mine = {"current_password": new}
    begun = (await ask("POST", "/v1/users/me/totp", json=mine, headers=bearer)).json()
    refused = await ask("POST", "/v1/users/me/totp", json=mine | {"otp": wrong}, headers=bearer)
    mine["otp"] = App(begun["secret"]).code()
    enabled = (await ask("POST", "/v1/users/me/totp", json=mine, headers=bearer)).json()
    form = {"grant_type": "password", "username": email, "password": new, "otp": wrong}
    assert (refused.status_code, (await ask("POST", "/v1/tokens", data=form)).status_code) == (
        422,
        401,
    )
    basic = {"Authorization": f"Basic {secrets.token_hex(12)}"}
    await ask("GET", "/v1/users/me", headers=basic)
    await ask("GET", "/metrics", headers={"Authorization": f"Bearer {wrong}"})
    signatures = {found["access_token"].rpartition(".")[2] for found in (tokens, newer)}
    every = {found[name] for found in (tokens, newer) for name in ("access_token", "refresh_token")}
    every |= {begun["secret"], *enabled["recovery_codes"]}
    return {password, new, wrong, short, basic["Authorization"][6:], key, *signatures, *every}
