"""Where settings come from, and the errors for wrong ones."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from chassis.settings.names import describe_unused, groups_of, is_foreign


class Sources(BaseSettings):
    """The environment beats `.env`, which beats a file of that name in /run/secrets.

    What is empty counts as not set, in each of them.
    """

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
        groups = groups_of(settings_cls)
        for source in (env_settings, dotenv_settings, secrets):
            if isinstance(source, EnvSettingsSource):
                source.env_vars = {
                    name: value
                    for name, value in source.env_vars.items()
                    if not is_foreign(name, value, groups) and (value or source is not secrets)
                }
        return init_settings, env_settings, dotenv_settings, secrets


S = TypeVar("S", bound=Sources)


def read(kind: type[S], hints: Callable[[], Iterable[str]] = tuple) -> S:
    """SystemExit with a line for each fault, and those of `hints`."""
    try:
        return kind()
    except ValidationError as error:
        lines = [f"  {line}" for line in (*map(_explain, error.errors()), *hints())]
        raise SystemExit("\n".join(["The settings are not usable:", *lines])) from None
    except (ValueError, OSError) as error:  # a file of settings
        raise SystemExit(f"The settings cannot be read: {error}") from None


def unused_variables(kind: type[Sources]) -> list[str]:
    """A line for each variable that looks like a setting of `kind` and has no effect."""
    secrets = NestedSecretsSettingsSource(SecretsSettingsSource(kind), secrets_nested_delimiter="_")
    return [
        *describe_unused(kind, EnvSettingsSource(kind).env_vars),
        *describe_unused(kind, DotEnvSettingsSource(kind).env_vars, ".env"),
        *describe_unused(kind, secrets.env_vars, f"{kind.model_config['secrets_dir']}"),
    ]


def _explain(fault: ErrorDetails) -> str:
    name = "_".join(map(str, fault["loc"])).upper()
    if fault["type"] == "named":  # the message names its variable
        return fault["msg"]
    if fault["type"] == "missing":
        # pydantic reports a group without any variable; what these require is a URL.
        return f"{name.removesuffix('_URL')}_URL: is not set; see docs/settings.md"
    return f"{name}: {fault['msg']}"
