from pydantic import BaseModel, Field

from chassis.settings.types import Count, Seconds


class HttpSettings(BaseModel):
    max_connections: int = Field(100, ge=1, description="Outbound requests at once per worker")
    keepalive: Seconds = Field(30, description="Idle time after which a connection is closed, s")
    connect_timeout: Seconds = Field(1, description="Timeout for a new connection, s")
    read_timeout: Seconds = Field(5, description="Timeout for the next bytes of a response, s")
    pool_timeout: Seconds = Field(1, description="Timeout for a connection from the pool, s")
    timeout: Seconds = Field(10, description="Timeout for an exchange, with retries and body, s")
    retries: Count = Field(2, description="Retries of a request that may be repeated")
    backoff: Seconds = Field(0.05, description="Wait before the first retry, s; it doubles")
    max_response: Count = Field(1_048_576, description="Largest response body, bytes")
    breaker_failures: int = Field(5, ge=1, description="Failures in a row that open the circuit")
    breaker_open_for: Seconds = Field(10, description="Time until an open circuit is probed, s")
