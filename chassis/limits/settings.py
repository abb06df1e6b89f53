from pydantic import BaseModel, Field

from chassis.settings.types import Count, Rate, Seconds


class LimitsSettings(BaseModel):
    enabled: bool = Field(True, description="Enforce rate limits")
    reads_rate: Rate = Field(100, description="Reads per client or account, 1/s")
    reads_burst: int = Field(200, ge=1, description="Burst of reads per client or account")
    writes_rate: Rate = Field(10, description="Writes per client or account, 1/s")
    writes_burst: int = Field(50, ge=1, description="Burst of writes per client or account")
    key_reads_rate: Rate = Field(100, description="Reads per API key, 1/s")
    key_reads_burst: int = Field(200, ge=1, description="Burst of reads per API key")
    key_writes_rate: Rate = Field(10, description="Writes per API key, 1/s")
    key_writes_burst: int = Field(50, ge=1, description="Burst of writes per API key")
    address_rate: Rate = Field(1000, description="Requests of all accounts per address, 1/s")
    address_burst: int = Field(2000, ge=1, description="Burst of requests per address")
    login_rate: Rate = Field(
        0.1, description="Logins per network, and wrong passwords per account and network, 1/s"
    )
    login_burst: int = Field(20, ge=1, description="Burst of logins per network")
    account_rate: Rate = Field(
        0.2, description="Wrong passwords per account, from all networks new to it, 1/s"
    )
    account_burst: int = Field(100, ge=1, description="Burst of wrong passwords per account")
    otp_rate: Rate = Field(
        0.002, description="Wrong one-time passwords per account, after the right password, 1/s"
    )
    otp_burst: int = Field(10, ge=1, description="Burst of wrong one-time passwords per account")
    stores_rate: Rate = Field(
        64, description="Data that a client's requests may add to the cache, KiB/s"
    )
    stores_burst: int = Field(4096, ge=1, description="Burst of data that they may add, KiB")
    mails_rate: Rate = Field(
        0.002, description="Mails that anybody may have sent to an e-mail address, 1/s"
    )
    mails_burst: int = Field(5, ge=1, description="Burst of these mails to an e-mail address")


class RequestSettings(BaseModel):
    timeout: Seconds = Field(15, description="Timeout for a request and its background tasks, s")
    max_body: Count = Field(1_048_576, description="Largest request body, bytes")
    body_timeout: Seconds = Field(10, description="Timeout for receiving a body (then 408), s")
    body_memory: Count = Field(
        33_554_432, description="Memory for bodies per worker (above it 503), bytes"
    )
    max_in_flight: int = Field(
        500,
        ge=1,
        description="Requests in progress per worker, and as many receiving a body (above it 503)",
    )
    max_working: int = Field(
        64,
        ge=1,
        description="Requests in progress that the cache does not serve, per worker (above it 503)",
    )
    replay_ttl: int = Field(86_400, ge=1, description="Lifetime of an idempotency record, s")
