"""An account made over the API, and how it logs in."""

from typing import Any

import httpx2

EMAIL, PASSWORD = "mary@example.com", "frankenstein"
REGISTER = {"email": EMAIL, "name": "Mary", "password": PASSWORD}


async def log_in(
    client: httpx2.AsyncClient, password: str = PASSWORD, email: str = EMAIL
) -> httpx2.Response:
    form = {"grant_type": "password", "username": email, "password": password}
    return await client.post("/v1/tokens", data=form)


async def tokens_of(client: httpx2.AsyncClient, **form: str) -> dict[str, Any]:
    answer = await log_in(client, **form)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def me(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.get("/v1/users/me", headers=bearing(token))


async def refresh(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.post("/v1/tokens/refresh", json={"refresh_token": token})


def is_unauthorized(answer: httpx2.Response, invalid: bool = True) -> bool:
    """As RFC 6750 wants it, and as a problem."""
    scheme = 'Bearer error="invalid_token"' if invalid else "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    return (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, scheme)
