from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from sqlalchemy import URL, make_url

from chassis.database.urls import DatabaseUrl, ReplicaUrls, split_urls, with_database
from chassis.settings.sources import Sources, read
from chassis.settings.types import Count, Seconds


class DatabaseSettings(BaseModel):
    name: str | None = Field(
        None, description="Database of MariaDB and its user, where a URL names none"
    )
    url: DatabaseUrl = Field(description="SQLAlchemy URL of the primary database")
    read_url: ReplicaUrls | None = Field(
        None, description="URLs of replicas for anonymous reads, with commas between them"
    )
    read_lag: Seconds = Field(
        5, description="Replication lag above which reads go to the primary, s"
    )
    password: SecretStr | None = Field(None, description="Password for all these URLs")
    pool_size: int = Field(20, ge=2, description="Connections per worker, for reads and writes")
    max_overflow: Count = Field(40, description="Further connections per worker in a burst")
    pool_timeout: Seconds = Field(3, description="Timeout for a connection from the pool, s")
    max_waiting: Count = Field(50, description="Requests that may wait for a connection, per pool")
    pool_recycle: Seconds = Field(300, description="Age at which a connection is replaced, s")
    ping_after: Seconds = Field(
        5, description="Idle time after which a connection is pinged first, s"
    )
    connect_timeout: Seconds = Field(3, description="Timeout for a new connection, s")
    statement_timeout: Seconds = Field(5, description="Timeout for a statement (MariaDB only), s")
    echo: bool = Field(False, description="Log every SQL statement")

    @field_validator("url", "read_url", mode="before")
    @classmethod
    def name_the_database(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.data.get("name")
        if not name or not isinstance(value, str):
            return value
        urls = [value] if info.field_name == "url" else split_urls(value)
        return ",".join(with_database(url, name) for url in urls)


class _DatabaseOnly(Sources):
    database: DatabaseSettings


def read_database_settings() -> DatabaseSettings:
    return read(_DatabaseOnly).database


def database_url(settings: DatabaseSettings) -> URL:
    return _with_password(settings, settings.url.get_secret_value())


def replica_urls(settings: DatabaseSettings) -> list[URL]:
    if settings.read_url is None:
        return []
    urls = split_urls(settings.read_url.get_secret_value())
    return [_with_password(settings, url) for url in urls]


def _with_password(settings: DatabaseSettings, url: str) -> URL:
    if settings.password is None:
        return make_url(url)
    return make_url(url).set(password=settings.password.get_secret_value())
