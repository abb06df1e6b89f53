from pydantic import BaseModel, Field, SecretStr

from chassis.settings.redis_urls import RedisUrl
from chassis.settings.types import Seconds


class RedisSettings(BaseModel):
    url: RedisUrl = Field(
        description="URL of the Redis or Valkey server for the cache, of Sentinels or of a cluster"
    )
    password: SecretStr | None = Field(None, description="Password, where the URL has none")
    max_connections: int = Field(50, ge=1, description="Connections per worker")
    pool_timeout: Seconds = Field(0.5, description="Timeout for a connection from the pool, s")
    timeout: Seconds = Field(0.2, description="Timeout for a connect or a response, s")
