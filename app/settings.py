"""Every knob of the service, read from the environment, `.env` and secret files."""

from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.cpus import available_cpus
from app.server_urls import DatabaseUrl, RedisUrl

DEVELOPMENT_KEY = "only-good-for-development-and-tests"
MIN_SECRET_LENGTH = 32

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


class DatabaseSettings(BaseModel):
    url: DatabaseUrl = Field(description="SQLAlchemy URL of the primary database")
    read_url: DatabaseUrl | None = Field(None, description="URL of a replica for reads")
    read_lag: Seconds = Field(5, description="Longest time that the replica is behind, s")
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
        SecretStr(DEVELOPMENT_KEY), description="What access tokens are signed with"
    )
    old_keys: SecretStr | None = Field(
        None, description="Keys before that, with commas between, whose tokens still count"
    )
    audience: str = Field("books", description="Whom access tokens are from and for")
    access_ttl: int = Field(900, ge=1, description="Time that an access token counts, s")
    refresh_ttl: int = Field(
        2_592_000, ge=1, description="Time after which a session ends that is not refreshed, s"
    )

    @property
    def keys(self) -> list[str]:
        """The newest first."""
        old = self.old_keys.get_secret_value().split(",") if self.old_keys else []
        return [self.key.get_secret_value(), *(key.strip() for key in old if key.strip())]


class PasswordSettings(BaseModel):
    threads: int = Field(1, ge=1, description="Passwords that a worker hashes at once")
    max_waiting: int = Field(100, ge=1, description="Passwords that may wait for that; else 503")
    time_cost: int = Field(3, ge=1, description="Passes of argon2id")
    memory_cost: int = Field(65_536, ge=8, description="Memory of argon2id, KiB")


class Sources(BaseSettings):
    """The environment beats `.env`, which beats a file of that name in /run/secrets."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        env_file=".env",
        extra="ignore",
        secrets_dir="/run/secrets",
        secrets_dir_missing="ok",
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        secrets = NestedSecretsSettingsSource(file_secret_settings, secrets_nested_delimiter="_")
        return init_settings, env_settings, dotenv_settings, secrets


S = TypeVar("S", bound=Sources)


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

    @property
    def ports(self) -> list[int]:
        """All that Gunicorn listens on, the API's first."""
        return [self.port] if self.metrics.port is None else [self.port, self.metrics.port]

    def address(self, port: int) -> str:
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return f"{host}:{port}"

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
        weak = [key == DEVELOPMENT_KEY or len(key) < MIN_SECRET_LENGTH for key in value.keys]
        if info.data.get("environment") == "production" and any(weak):
            raise PydanticCustomError(
                "production",
                f"TOKENS_KEY: production needs a secret of at least {MIN_SECRET_LENGTH} characters"
                "; make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        return value


def _trusts_everybody(proxies: str) -> bool:
    return any(proxy.strip() == "*" or proxy.strip().endswith("/0") for proxy in proxies.split(","))


def read_settings() -> Settings:
    """The settings, or SystemExit (code 1) with one line for each variable that is wrong."""
    return read(Settings)


def read(kind: type[S]) -> S:
    """The same for other `Sources`."""
    try:
        return kind()
    except ValidationError as error:
        lines = [f"  {_explain(fault)}" for fault in error.errors()]
        raise SystemExit("\n".join(["The settings are not usable:", *lines])) from None
    except (ValueError, OSError) as error:  # a file of them that cannot be read
        raise SystemExit(f"The settings cannot be read: {error}") from None


def _explain(fault: ErrorDetails) -> str:
    name = "_".join(map(str, fault["loc"])).upper()
    if fault["type"] in ("production", "same_port"):
        return fault["msg"]
    if fault["type"] == "missing":
        # A group without any variable is reported as a whole; both groups require their URL.
        return f"{name.removesuffix('_URL')}_URL: is not set; see docs/settings.md"
    return f"{name}: {fault['msg']}"
