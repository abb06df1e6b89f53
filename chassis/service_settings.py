"""All settings of the chassis, read from the environment, `.env` and secret files."""

import re
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from chassis.addresses import in_both_forms
from chassis.auth.settings import (
    MAKE_KEY,
    MIN_SECRET_LENGTH,
    NO_KEY,
    AuditSettings,
    KeySettings,
    PasswordSettings,
    TokenSettings,
)
from chassis.browsers.settings import CorsSettings
from chassis.cache.settings import CacheSettings
from chassis.database.settings import DatabaseSettings
from chassis.files.settings import FilesSettings
from chassis.jobs.settings import JobsSettings
from chassis.limits.settings import LimitsSettings, RequestSettings
from chassis.mail.settings import MailSettings
from chassis.processes.settings import ProcessesSettings
from chassis.redis.settings import RedisSettings
from chassis.server.settings import WebSettings
from chassis.settings.redis_urls import is_cluster
from chassis.settings.sources import Sources
from chassis.settings.urls import HttpUrl
from chassis.telemetry.settings import LogSettings, MetricsSettings, SentrySettings
from chassis.upstream.settings import HttpSettings


class ChassisSettings(Sources):
    """The groups of the chassis. A service derives its settings, with its name and its groups."""

    service: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str]

    environment: Literal["development", "production"] = Field(
        "development",
        description="`production` refuses settings that are only good for development",
    )
    bind: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on")
    public_url: HttpUrl | None = Field(
        None,
        validate_default=True,
        description="Where links in mails lead: this service or a front end, such as "
        "https://example.com; required in production, else `BIND` and `PORT`",
    )
    forwarded_allow_ips: str = Field(
        "127.0.0.1,::1", description="Proxies trusted to set `X-Forwarded-*`: addresses or CIDRs"
    )
    database: DatabaseSettings
    redis: RedisSettings
    web: WebSettings = Field(default_factory=WebSettings)
    request: RequestSettings = Field(default_factory=RequestSettings)
    cors: CorsSettings = Field(default_factory=CorsSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    limits: LimitsSettings = Field(default_factory=LimitsSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    sentry: SentrySettings = Field(default_factory=SentrySettings)
    tokens: TokenSettings = Field(default_factory=TokenSettings)
    keys: KeySettings = Field(default_factory=KeySettings)
    passwords: PasswordSettings = Field(default_factory=PasswordSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    files: FilesSettings = Field(default_factory=FilesSettings)
    processes: ProcessesSettings = Field(default_factory=ProcessesSettings)
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    mail: MailSettings = Field(default_factory=MailSettings)

    @property
    def queue(self) -> RedisSettings:
        """The server that evicts nothing: of limits, locks and wake-ups."""
        if self.jobs.url is None:
            return self.redis
        own = {"url": self.jobs.url, "password": self.jobs.password}
        return self.redis.model_copy(update=own)

    @property
    def ports(self) -> list[int]:
        """The ports that Gunicorn listens on, the API's first."""
        return [self.port] if self.metrics.port is None else [self.port, self.metrics.port]

    def link(self, path: str) -> str:
        base = self.public_url or f"http://{self.address(self.port)}"
        return base.rstrip("/") + path

    def address(self, port: int) -> str:
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return f"{host}:{port}"

    @model_validator(mode="after")
    def fill_in_the_name(self) -> Self:
        sender = f"{self.title} <{self.service}@example.com>"
        _fill_in(self.cache, "namespace", self.service)
        if is_cluster(self.redis.url) or is_cluster(self.jobs.url):
            # A hash tag: what a script or MGET touches together must be on one node.
            self.cache.namespace = f"{{{self.cache.namespace.strip('{}')}}}"
        _fill_in(self.tokens, "audience", self.service)
        _fill_in(self.keys, "prefix", f"{self.service}_key")
        _fill_in(self.mail, "sender", sender)
        return self

    @field_validator("files")
    @classmethod
    def refuse_half_of_the_credentials(cls, value: FilesSettings) -> FilesSettings:
        if value.access_key_id is not None and value.secret_access_key is None:
            raise PydanticCustomError(
                "named", "FILES_SECRET_ACCESS_KEY: is not set, but FILES_ACCESS_KEY_ID is"
            )
        return value

    # A validator for each field: one start names all faults.
    @field_validator("public_url")
    @classmethod
    def refuse_links_that_lead_nowhere(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("environment") == "production":
            raise PydanticCustomError(
                "named", "PUBLIC_URL: is not set, so links in mails would lead nowhere"
            )
        if value is not None and set("?#") & set(value):
            raise PydanticCustomError("named", "PUBLIC_URL: has a query or a fragment")
        # docker-compose.yml makes it of DOMAIN, which may have several names.
        return value and re.split(r"[\s,]", value)[0]

    @field_validator("forwarded_allow_ips")
    @classmethod
    def refuse_forged_addresses(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("environment") == "production" and _trusts_everybody(value):
            raise PydanticCustomError(
                "named",
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
            raise PydanticCustomError("named", "METRICS_PORT: is the same as PORT")
        return value

    @field_validator("web")
    @classmethod
    def refuse_an_account_for_all(cls, value: WebSettings, info: ValidationInfo) -> WebSettings:
        is_production = info.data.get("environment") == "production"
        if is_production and value.development_account is not None:
            raise PydanticCustomError(
                "named", "WEB_DEVELOPMENT_ACCOUNT: is only for development; unset it"
            )
        return value

    @field_validator("tokens")
    @classmethod
    def refuse_a_weak_key(cls, value: TokenSettings, info: ValidationInfo) -> TokenSettings:
        # The published key is refused where tokens are signed: by `SigningSettings`.
        weak = [len(key) < MIN_SECRET_LENGTH for key in value.keys]
        if info.data.get("environment") == "production" and any(weak):
            raise PydanticCustomError(
                "named",
                f"TOKENS_KEY: production needs a secret of at least {MIN_SECRET_LENGTH} characters"
                f"; {MAKE_KEY}",
            )
        return value


class SigningSettings(ChassisSettings):
    """For processes that sign or verify tokens: refuses the published key."""

    @field_validator("tokens")
    @classmethod
    def refuse_the_published_key(cls, value: TokenSettings) -> TokenSettings:
        if value.is_published:
            raise PydanticCustomError("named", NO_KEY)
        return value


def _fill_in(group: BaseModel, name: str, value: str) -> None:
    if not getattr(group, name):
        setattr(group, name, value)
        group.model_fields_set.discard(name)  # nobody has set it


def _trusts_everybody(proxies: str) -> bool:
    forms = in_both_forms(proxies).split(",")
    return any(proxy == "*" or proxy.endswith("/0") for proxy in forms)
