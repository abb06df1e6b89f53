"""Every knob of the service, read from the environment, `.env` and secret files."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.addresses import in_both_forms
from app.cpus import available_cpus
from app.database_urls import DatabaseUrl, ReplicaUrl
from app.server_urls import (
    FilesUrl,
    HttpUrl,
    MailUrl,
    RedisUrl,
    Seller,
    SellerUrls,
    Sender,
    read_sellers,
)
from app.settings_sources import Sources, read, unused_variables

DEVELOPMENT_KEY = "only-good-for-development-and-tests"
MIN_SECRET_LENGTH = 32
MAKE_KEY = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
NO_KEY = f"TOKENS_KEY: is not set, or is the published one, so anybody can sign tokens; {MAKE_KEY}"

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


class DatabaseSettings(BaseModel):
    url: DatabaseUrl = Field(description="SQLAlchemy URL of the primary database")
    read_url: ReplicaUrl | None = Field(None, description="URL of a replica for anonymous reads")
    read_lag: Seconds = Field(
        5, description="Longest time that the replica may be behind, s; above it, the primary reads"
    )
    password: SecretStr | None = Field(None, description="Password put into both URLs")
    pool_size: int = Field(20, ge=2, description="Connections a worker keeps, reads and writes")
    max_overflow: Count = Field(40, description="Connections it may open above that, for a burst")
    pool_timeout: Seconds = Field(3, description="Longest wait for a connection, s")
    max_waiting: Count = Field(50, description="Requests that may wait for a connection, per pool")
    pool_recycle: Seconds = Field(300, description="Age at which a connection is replaced, s")
    ping_after: Seconds = Field(5, description="Idle time after which it is pinged before use, s")
    connect_timeout: Seconds = Field(3, description="Longest wait for a new connection, s")
    statement_timeout: Seconds = Field(5, description="Longest statement of a request (MariaDB), s")
    echo: bool = Field(False, description="Log every SQL statement")


class RedisSettings(BaseModel):
    url: RedisUrl = Field(description="URL of the Redis or Valkey server")
    password: SecretStr | None = Field(None, description="Password, where that URL has none")
    max_connections: int = Field(50, ge=1, description="Connections a worker may open")
    pool_timeout: Seconds = Field(0.5, description="Longest wait for a free connection, s")
    timeout: Seconds = Field(0.2, description="Longest wait for a connect or an answer, s")


class WebSettings(BaseModel):
    concurrency: int = Field(
        default_factory=available_cpus, ge=1, description="Worker processes; usable CPUs if unset"
    )
    replicas: int = Field(1, ge=1, description="Copies of this service that share the database")
    timeout: int = Field(30, ge=1, description="A worker silent for this long is replaced, s")
    graceful_timeout: int = Field(30, ge=6, description="Time for running requests at a stop, s")
    keepalive: int = Field(75, ge=1, description="Idle time before a client is disconnected, s")
    header_timeout: Seconds = Field(
        15, description="Longest time from a connect, or a request's first byte, to its headers, s"
    )
    max_connections: int = Field(
        5000, ge=1, description="Connections of a worker; further ones are closed at once"
    )
    max_requests: Count = Field(
        50_000, description="Requests before a worker is replaced; 0: never"
    )
    max_requests_jitter: Count = Field(5_000, description="Random addition to that, at most")


class RequestSettings(BaseModel):
    timeout: Seconds = Field(
        15, description="Longest time for one request and its background tasks, s"
    )
    max_body: Count = Field(1_048_576, description="Largest request body, bytes")
    max_in_flight: int = Field(
        500, ge=1, description="Requests in a worker's hands; above it: 503, at once"
    )
    max_working: int = Field(
        64, ge=1, description="Those among them that no cache answered; above it: 503, at once"
    )
    replay_ttl: int = Field(
        86_400, ge=1, description="Time that an answer is kept under its Idempotency-Key, s"
    )


class CacheSettings(BaseModel):
    enabled: bool = Field(True, description="Keep answers in Redis")
    namespace: str = Field(
        "books", min_length=1, description="What the names of all keys in Redis begin with"
    )
    max_value: Count = Field(262_144, description="Largest value that is kept, bytes")


class LimitsSettings(BaseModel):
    enabled: bool = Field(True, description="Limit how often a client may ask")
    reads_rate: Rate = Field(100, description="Reads of one client or account, 1/s")
    reads_burst: int = Field(200, ge=1, description="Reads it may make at once, after a pause")
    writes_rate: Rate = Field(10, description="Writes of one client or account, 1/s")
    writes_burst: int = Field(50, ge=1, description="Writes it may make at once, after a pause")
    address_rate: Rate = Field(1000, description="Requests of all accounts of one address, 1/s")
    address_burst: int = Field(2000, ge=1, description="Those they may make at once, after a pause")
    login_rate: Rate = Field(0.1, description="Logins of one address, and of one account, 1/s")
    login_burst: int = Field(20, ge=1, description="Logins it may try at once, after a pause")


class LogSettings(BaseModel):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is `console` on a terminal, else `json`"
    )
    access_sample: float = Field(
        1, ge=0, le=1, description="Part of the requests that get a line; errors and slow ones do"
    )
    slow_request: Seconds = Field(1, description="A request that takes longer is a warning, s")
    slow_statement: Seconds = Field(0.5, description="A statement that takes longer is one, s")


class MetricsSettings(BaseModel):
    port: int | None = Field(
        None, ge=1, le=65535, description="Second port; `/metrics` answers only there"
    )
    token: SecretStr | None = Field(
        None, description="Bearer token that `/metrics` wants, then through a proxy too"
    )


class TokenSettings(BaseModel):
    key: SecretStr = Field(
        SecretStr(DEVELOPMENT_KEY),
        description="Key that signs access tokens; the service does not start with the default",
    )
    old_keys: SecretStr | None = Field(
        None, description="Keys before that, with commas between, whose tokens still count"
    )
    audience: str = Field("books", description="Whom access tokens are from and for")
    access_ttl: int = Field(900, ge=1, description="Time that an access token counts, s")
    refresh_ttl: int = Field(
        2_592_000, ge=1, description="Time after which a session ends that is not refreshed, s"
    )
    session_ttl: int = Field(
        7_776_000, ge=1, description="Time after its login when a session ends anyway, s"
    )
    refresh_overlap: float = Field(
        10,
        ge=0,
        le=600,
        description="Time from its first use in which a refresh token works again, s",
    )

    @property
    def keys(self) -> list[str]:
        """The newest first."""
        old = self.old_keys.get_secret_value().split(",") if self.old_keys else []
        return [self.key.get_secret_value(), *(key.strip() for key in old if key.strip())]

    @property
    def is_published(self) -> bool:
        """Whether tokens that anybody can sign would be accepted."""
        return DEVELOPMENT_KEY in self.keys


class PasswordSettings(BaseModel):
    min_length: int = Field(12, ge=1, description="Characters of a new password, at least")
    threads: int = Field(1, ge=1, description="Passwords that a worker hashes at once")
    max_waiting: int = Field(100, ge=1, description="Passwords that may wait for that; else 503")
    time_cost: int = Field(3, ge=1, description="Passes of argon2id")
    memory_cost: int = Field(65_536, ge=8, description="Memory of argon2id, KiB")


class FilesSettings(BaseModel):
    url: FilesUrl | None = Field(
        None, description="Where files are kept: s3://bucket or file:///a/folder"
    )
    endpoint: HttpUrl | None = Field(
        None, description="URL of the S3-compatible server, where it is not Amazon's"
    )
    public_endpoint: HttpUrl | None = Field(
        None, description="The same as clients reach it, where that is another URL"
    )
    region: str | None = Field(None, description="Region of the bucket")
    access_key_id: str | None = Field(None, description="Whose credentials; else those of AWS_*")
    secret_access_key: SecretStr | None = Field(None, description="Secret that belongs to that")
    timeout: Seconds = Field(5, description="Longest wait for that server, retries included, s")
    url_ttl: int = Field(300, ge=1, description="Time that a signed URL is good for, at least, s")
    accel: str | None = Field(
        None, description="Path under which nginx serves the folder (X-Accel-Redirect)"
    )

    uploads: Path | None = Field(
        None,
        description="Folder for uploads on their way; else one beside the files",
    )

    @property
    def folder(self) -> Path | None:
        """None where files are in a bucket, or nowhere."""
        parts = urlsplit(self.url or "")
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def upload_folder(self) -> Path:
        temporary = Path(tempfile.gettempdir(), f"books-{os.getuid()}")
        return self.uploads or (self.folder or temporary) / "uploads"


class CoversSettings(BaseModel):
    max_body: int = Field(5_242_880, ge=1, description="Largest image that is taken, bytes")
    max_pixels: int = Field(16_000_000, ge=1, description="Most pixels it may have, decoded")


class ProcessesSettings(BaseModel):
    count: int = Field(1, ge=1, description="Processes of each worker for work that needs a CPU")
    max_waiting: int = Field(
        16, ge=1, description="Requests of a worker that may wait for them, be it to upload"
    )
    max_wait: Seconds = Field(
        5, description="Longest wait for them, by what work has taken on average, s; else 503"
    )
    timeout: Seconds = Field(10, description="Longest time for one piece of such work, s")


class JobsSettings(BaseModel):
    url: RedisUrl | None = Field(
        None, description="URL of the Redis server that carries jobs; else that of REDIS_URL"
    )
    password: SecretStr | None = Field(None, description="Password, where that URL has none")
    replicas: int = Field(1, ge=0, description="Job workers that share the database")
    concurrency: int = Field(10, ge=1, description="Jobs that a job worker does at once")
    timeout: Seconds = Field(30, description="Longest time for one job, s")
    attempts: int = Field(12, ge=1, description="Attempts before a job is put aside as dead")
    backoff: Seconds = Field(
        5, description="Wait after the first failure, s; it doubles each time, up to an hour"
    )
    graceful_timeout: Seconds = Field(20, description="Time for running jobs at a stop, s")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port on which a job worker shows its metrics"
    )
    heartbeat: Path | None = Field(
        None, description="File that a job worker touches while it lives, for health checks"
    )


class MailSettings(BaseModel):
    url: MailUrl | None = Field(
        None, description="Where mail goes: smtp://, smtps:// or, as files, file:///a/folder"
    )
    password: SecretStr | None = Field(None, description="Password, where that URL has none")
    sender: Sender = Field("Books <books@example.com>", description="Whom mail is from")
    timeout: Seconds = Field(10, description="Longest wait for the mail server, s")


class HttpSettings(BaseModel):
    max_connections: int = Field(100, ge=1, description="Connections to other services, per worker")
    keepalive: Seconds = Field(30, description="Idle time until such a connection is closed, s")
    connect_timeout: Seconds = Field(1, description="Longest wait for such a connection, s")
    read_timeout: Seconds = Field(5, description="Longest wait for the next bytes of an answer, s")
    write_timeout: Seconds = Field(5, description="Longest wait until bytes are taken, s")
    pool_timeout: Seconds = Field(1, description="Longest wait for one of those connections, s")
    timeout: Seconds = Field(10, description="Longest exchange, with retries and body, s")
    retries: Count = Field(2, description="Further attempts of a request that may be repeated")
    backoff: Seconds = Field(0.05, description="Wait before the first of them, s; it doubles")
    max_response: Count = Field(1_048_576, description="Largest body of an answer, bytes")
    breaker_failures: int = Field(5, ge=1, description="Failures in a row that open the circuit")
    breaker_open_for: Seconds = Field(10, description="Time until one request may try again, s")


class OffersSettings(BaseModel):
    sellers: SellerUrls = Field(
        "", description="NAME=URL of each seller, with commas between; `{isbn13}` is the book's"
    )
    deadline: Seconds = Field(0.8, description="Longest wait for each seller, s")

    @property
    def all(self) -> list[Seller]:
        return read_sellers(self.sellers)


class Settings(Sources):
    """`DATABASE_POOL_SIZE` sets `database.pool_size`, and so on; docs/settings.md has them all."""

    environment: Literal["development", "production"] = Field(
        "development", description="`production` refuses what is only good for development"
    )
    bind: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on")
    forwarded_allow_ips: str = Field(
        "127.0.0.1", description="Proxies whose `X-Forwarded-*` is believed: addresses or CIDRs"
    )
    database: DatabaseSettings
    redis: RedisSettings
    web: WebSettings = Field(default_factory=WebSettings)
    request: RequestSettings = Field(default_factory=RequestSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    limits: LimitsSettings = Field(default_factory=LimitsSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    tokens: TokenSettings = Field(default_factory=TokenSettings)
    passwords: PasswordSettings = Field(default_factory=PasswordSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    offers: OffersSettings = Field(default_factory=OffersSettings)
    files: FilesSettings = Field(default_factory=FilesSettings)
    covers: CoversSettings = Field(default_factory=CoversSettings)
    processes: ProcessesSettings = Field(default_factory=ProcessesSettings)
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    mail: MailSettings = Field(default_factory=MailSettings)

    @property
    def ports(self) -> list[int]:
        """All that Gunicorn listens on, the API's first."""
        return [self.port] if self.metrics.port is None else [self.port, self.metrics.port]

    def address(self, port: int) -> str:
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return f"{host}:{port}"

    @field_validator("files")
    @classmethod
    def refuse_half_of_the_credentials(cls, value: FilesSettings) -> FilesSettings:
        if value.access_key_id is not None and value.secret_access_key is None:
            raise PydanticCustomError(
                "half_of_two", "FILES_SECRET_ACCESS_KEY: is not set, but FILES_ACCESS_KEY_ID is"
            )
        return value

    # Each field on its own, so that one start names all that is wrong.
    @field_validator("forwarded_allow_ips")
    @classmethod
    def refuse_forged_addresses(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("environment") == "production" and _trusts_everybody(value):
            raise PydanticCustomError(
                "production",
                f"FORWARDED_ALLOW_IPS: `{value}` lets every client forge its address; "
                "name the proxy's address or network, for example 10.0.0.0/24",
            )
        return value

    @field_validator("metrics")
    @classmethod
    def refuse_one_port_for_two(
        cls, value: MetricsSettings, info: ValidationInfo
    ) -> MetricsSettings:
        if value.port is not None and value.port == info.data.get("port"):
            raise PydanticCustomError("same_port", "METRICS_PORT: is the same as PORT")
        return value

    @field_validator("tokens")
    @classmethod
    def refuse_a_weak_key(cls, value: TokenSettings, info: ValidationInfo) -> TokenSettings:
        # The published key is refused where tokens are signed: by `ServiceSettings`.
        weak = [len(key) < MIN_SECRET_LENGTH for key in value.keys]
        if info.data.get("environment") == "production" and any(weak):
            raise PydanticCustomError(
                "production",
                f"TOKENS_KEY: production needs a secret of at least {MIN_SECRET_LENGTH} characters"
                f"; {MAKE_KEY}",
            )
        return value


class ServiceSettings(Settings):
    """For processes that sign or accept tokens; job workers and commands do neither."""

    @field_validator("tokens")
    @classmethod
    def refuse_the_published_key(cls, value: TokenSettings) -> TokenSettings:
        if value.is_published:
            raise PydanticCustomError("production", NO_KEY)
        return value


def _trusts_everybody(proxies: str) -> bool:
    forms = in_both_forms(proxies).split(",")
    return any(proxy == "*" or proxy.endswith("/0") for proxy in forms)


def read_settings() -> Settings:
    """The settings, or SystemExit (code 1) with one line for each variable that is wrong."""
    return read(Settings, hints=settings_warnings)


def read_service_settings() -> ServiceSettings:
    """The same for a process that signs tokens."""
    return read(ServiceSettings, hints=settings_warnings)


def settings_warnings() -> list[str]:
    """One line for each variable that looks like a setting and has no effect."""
    return unused_variables(Settings)


class _DatabaseOnly(Sources):
    database: DatabaseSettings


def read_database_settings() -> DatabaseSettings:
    """For what needs nothing but the database."""
    return read(_DatabaseOnly).database
