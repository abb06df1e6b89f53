from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from chassis.database.urls import DatabaseUrl, ReplicaUrl, with_database
from chassis.settings.sources import Sources, read
from chassis.settings.types import Count, Seconds


class DatabaseSettings(BaseModel):
    name: str | None = Field(
        None, description="Database of MariaDB and its user, where a URL names none"
    )
    url: DatabaseUrl = Field(description="SQLAlchemy URL of the primary database")
    read_url: ReplicaUrl | None = Field(None, description="URL of a replica for anonymous reads")
    read_lag: Seconds = Field(
        5, description="Replication lag above which reads go to the primary, s"
    )
    password: SecretStr | None = Field(None, description="Password for both URLs")
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
        return with_database(value, name) if name and isinstance(value, str) else value


class _DatabaseOnly(Sources):
    database: DatabaseSettings


def read_database_settings() -> DatabaseSettings:
    return read(_DatabaseOnly).database
