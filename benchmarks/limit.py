"""The least that a cached answer can cost: raw ASGI, and one GET by redis-py."""

import os

from redis.asyncio import Redis
from starlette.types import Receive, Scope, Send

KEY = "benchmark:limit"


class App:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._live(scope, receive, send)

        body = await self.redis.get(KEY) or b""
        assert isinstance(body, bytes)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.redis = Redis.from_url(os.environ["REDIS_URL"])
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.redis.aclose()
        await send({"type": "lifespan.shutdown.complete"})


app = App()
