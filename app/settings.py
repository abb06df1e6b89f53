"""Every setting of the service: the groups of the chassis, and those of its own."""

from collections.abc import Mapping
from typing import Self, cast

from pydantic import BaseModel, Field, model_validator

from app.about import NAME, TITLE, VERSION
from app.sample.settings import CoversSettings, OffersSettings, RankingsSettings  # sample
from chassis.service_settings import ChassisSettings, SigningSettings
from chassis.settings.sources import read, unused_variables


class UsersSettings(BaseModel):
    verify: bool | None = Field(
        None,
        description="Only accounts with a verified e-mail address can log in, and registrations "
        "show nothing of other accounts; else on in production",
    )
    verify_ttl: int = Field(86_400, ge=1, description="Lifetime of a link that verifies, s")
    reset_ttl: int = Field(3_600, ge=1, description="Lifetime of a link for a new password, s")


class Settings(ChassisSettings):
    """`DATABASE_POOL_SIZE` sets `database.pool_size`, and so on; docs/settings.md lists all."""

    service = NAME
    title = TITLE
    version = VERSION

    users: UsersSettings = Field(default_factory=UsersSettings)
    # sample: begin
    rankings: RankingsSettings = Field(default_factory=RankingsSettings)
    offers: OffersSettings = Field(default_factory=OffersSettings)
    covers: CoversSettings = Field(default_factory=CoversSettings)
    # sample: end

    @model_validator(mode="after")
    def verify_in_production(self) -> Self:
        if self.users.verify is None:
            self.users.verify = self.environment == "production"
            self.users.model_fields_set.discard("verify")  # nobody has set it
        return self


def settings_of(resources: Mapping[str, object]) -> Settings:
    return cast(Settings, resources["settings"])


class ServiceSettings(SigningSettings, Settings):
    """For processes that sign or accept tokens; job workers and commands do neither."""


def read_settings() -> Settings:
    """The settings, or SystemExit (code 1) with one line for each invalid variable."""
    return read(Settings, hints=settings_warnings)


def read_service_settings() -> ServiceSettings:
    return read(ServiceSettings, hints=settings_warnings)


def settings_warnings() -> list[str]:
    return unused_variables(Settings)
