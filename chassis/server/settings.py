from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from chassis.settings.cpus import available_cpus
from chassis.settings.types import Count, Seconds
from chassis.settings.urls import HttpUrl


class WebSettings(BaseModel):
    concurrency: int = Field(default_factory=available_cpus, ge=1, description="Worker processes")
    replicas: int = Field(1, ge=1, description="Copies of this service that share the database")
    timeout: int = Field(
        30, ge=1, description="Time without a heartbeat after which a worker is replaced, s"
    )
    graceful_timeout: int = Field(
        30, ge=6, description="Time for running requests to finish at a stop, s"
    )
    keepalive: int = Field(75, ge=1, description="Idle time after which a connection is closed, s")
    header_timeout: Seconds = Field(
        15, description="Timeout for the headers, from the connect or the request's first byte, s"
    )
    write_timeout: Seconds = Field(
        15, description="Time in which a client must read 16 KiB of its response, or the rest, s"
    )
    max_connections: int = Field(
        5000, ge=1, description="Connections per worker; further ones are closed at once"
    )
    max_requests: Count = Field(
        50_000, description="Requests after which a worker is replaced; 0: never"
    )
    max_requests_jitter: Count = Field(5_000, description="Largest random addition to that")
    hsts: str = Field(
        "max-age=31536000",
        pattern="^(max-age=[0-9]+(; includeSubDomains)?(; preload)?)?$",
        description="`Strict-Transport-Security` of responses over HTTPS; empty: none",
    )
    docs: bool = Field(True, description="Serve `/docs` and `/openapi.json`")
    development_account: SecretStr | None = Field(
        None, description="Shown at `/` in development: address and password; `make run` sets it"
    )
    development_mail: HttpUrl | None = Field(
        None, description="Shown at `/` in development: where a browser finds the mail"
    )

    @field_validator("development_account")
    @classmethod
    def require_address_and_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().split(maxsplit=1)) != 2:
            raise PydanticCustomError("account", "is not an address, a space and a password")
        return value
