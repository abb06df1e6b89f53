"""An account made over the API, and how it logs in."""

from typing import Any

import httpx2 as httpx

EMAIL, PASSWORD = "mary@example.com", "frankenstein"
REGISTER = {"email": EMAIL, "name": "Mary", "password": PASSWORD}


async def log_in(
    client: httpx.AsyncClient, password: str = PASSWORD, email: str = EMAIL
) -> httpx.Response:
    form = {"grant_type": "password", "username": email, "password": password}
    return await client.post("/v1/tokens", data=form)


async def tokens_of(client: httpx.AsyncClient, **form: str) -> dict[str, Any]:
    response = await log_in(client, **form)
    assert response.status_code == 200, response.text
    tokens: dict[str, Any] = response.json()
    return tokens


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def me(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.get("/v1/users/me", headers=bearing(token))


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/v1/tokens/refresh", json={"refresh_token": token})


def is_unauthorized(response: httpx.Response, invalid: bool = True) -> bool:
    """As RFC 6750 wants it, and as a problem."""
    scheme = 'Bearer error="invalid_token"' if invalid else "Bearer"
    assert response.headers["Content-Type"] == "application/problem+json"
    return (response.status_code, response.headers["WWW-Authenticate"]) == (401, scheme)
