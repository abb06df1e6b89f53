from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr
from pydantic_core import PydanticCustomError

from chassis.settings.sources import Sources, read
from chassis.settings.types import Seconds


class LogSettings(BaseModel):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: `console` on a terminal, else `json`"
    )
    access_sample: float = Field(
        1,
        ge=0,
        le=1,
        description="Fraction of requests with a log line; errors and slow ones always have one",
    )
    slow_request: Seconds = Field(1, description="Slow-request threshold, s")
    slow_statement: Seconds = Field(0.5, description="Slow-statement threshold, s")


class MetricsSettings(BaseModel):
    port: int | None = Field(
        None, ge=1, le=65535, description="Port for `/metrics`, which is then on no other port"
    )
    token: SecretStr | None = Field(
        None, description="Bearer token for `/metrics`, which then works through a proxy too"
    )


def _usable_dsn(secret: SecretStr) -> SecretStr:
    parts = urlsplit(secret.get_secret_value())
    if parts.scheme not in ("http", "https") or not (parts.username and parts.path.strip("/")):
        raise PydanticCustomError("dsn", "is not of the form https://KEY@HOST/PROJECT")
    if find_spec("sentry_sdk") is None:
        reason = "needs the package sentry-sdk: install requirements-sentry.lock"
        raise PydanticCustomError("dsn", "{reason}", {"reason": reason})
    return secret


class SentrySettings(BaseModel):
    dsn: Annotated[SecretStr, AfterValidator(_usable_dsn)] | None = Field(
        None, description="Where unhandled errors are reported: the DSN of a project in Sentry"
    )


class _LogOnly(Sources):
    log: LogSettings = Field(default_factory=LogSettings)


def read_log_settings() -> LogSettings:
    return read(_LogOnly).log
