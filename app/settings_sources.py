"""Where settings come from, and what is said of those that are wrong."""

from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)


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
    if fault["type"] in ("production", "same_port", "half_of_two"):
        return fault["msg"]
    if fault["type"] == "missing":
        # A group without any variable is reported as a whole; both groups require their URL.
        return f"{name.removesuffix('_URL')}_URL: is not set; see docs/settings.md"
    return f"{name}: {fault['msg']}"
