"""Settings of the service, by the files that docs/deploy.md names."""

import json
from collections.abc import Iterator

import pytest

from app.about import NAME
from app.settings import Settings
from chassis.settings.names import fields_of
from tests.compose.stack import PRODUCTION, Stack, stack

NAMES = {name for name, _ in fields_of(Settings)}
# What depends on other containers, or on each other.
FIXED = {
    *("ENVIRONMENT", "BIND", "PORT", "DATABASE_NAME", "DATABASE_URL", "REDIS_URL", "JOBS_URL"),
    *(
        "JOBS_HEARTBEAT",
        "JOBS_REPLICAS",
        "FILES_ACCEL",
        "FILES_UPLOADS",
        "METRICS_PORT",
        "FORWARDED_ALLOW_IPS",
    ),
    "LOG_FORMAT",
}
SERVICES = ("api", "worker", "migrate")


@pytest.fixture(scope="module")
def unstarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("unstarted"), "test-unstarted", PRODUCTION) as made:
        for name in NAMES & made.variables.keys():
            del made.variables[name]
        yield made


def settings_of(stack: Stack, *files: str) -> dict[str, dict[str, str]]:
    output = stack.done("docker", "compose", *files, "config", "--format", "json")
    services = json.loads(output)["services"]
    return {service: services[service]["environment"] for service in SERVICES}


def test_each_setting_that_is_not_fixed_can_be_set_in_one_of_two_files(unstarted: Stack):
    lines = settings_of(unstarted, *PRODUCTION)["api"].keys()
    value = "7"
    (unstarted.folder / ".env").write_text("".join(f"{name}={value}\n" for name in lines))
    (unstarted.folder / "production.env").write_text(
        "".join(f"{name}={value}\n" for name in NAMES - lines)
    )
    seen = settings_of(unstarted, *PRODUCTION)
    development = settings_of(unstarted)
    (unstarted.folder / "production.env").unlink()

    assert lines >= FIXED
    for service in SERVICES:
        settable = {name for name in NAMES if seen[service].get(name) == value}
        assert NAMES - settable - {"JOBS_METRICS_PORT"} == FIXED, service
        assert not {name for name in NAMES - lines if development[service].get(name) == value}


def test_no_container_is_given_a_secret_as_a_variable(unstarted: Stack):
    """Of any profile: the name of a variable may be that of a file."""
    command = ("docker", "compose", *PRODUCTION, "--profile", "*", "config", "--format", "json")
    document = json.loads(unstarted.done(*command))
    secrets = {name.upper() for name in document["secrets"]}
    variables = {
        (service, name)
        for service, options in document["services"].items()
        for name in options.get("environment") or {}
    }

    assert {"MAIL_PASSWORD", "TOKENS_OLD_KEYS"} < secrets
    assert {(service, name) for service, name in variables if name in secrets} == set()
    ends = ("PASSWORD", "SECRET", "TOKEN", "_KEYS")
    assert {(service, name) for service, name in variables if name.endswith(ends)} == set()


def test_setting_in_the_file_that_does_not_count_for_it_stops_a_roll(unstarted: Stack):
    file = unstarted.folder / "production.env"
    file.write_text("# more\nREQUEST_TIMEOUT=7\nWEB_CONCURRENCY=2\n")
    refused = unstarted.run("make", "--silent", "roll")
    file.unlink()

    assert refused.returncode != 0
    assert "production.env: WEB_CONCURRENCY has a line in docker-compose.yml" in refused.stderr


@pytest.mark.parametrize(("files", "project"), [(PRODUCTION, NAME), ([], f"{NAME}-development")])
def test_project_image_and_database_have_the_name_of_the_service(
    unstarted: Stack, files: list[str], project: str
):
    """The database has it whatever the project is called: backups of one fit into another."""
    config = ("docker", "compose", *files, "config", "--format", "json")
    for asked in ({"COMPOSE_PROJECT_NAME": ""}, {"COMPOSE_PROJECT_NAME": "mine"}):
        document = json.loads(unstarted.done(*config, **asked, IMAGE=""))
        services = document["services"]
        called = asked["COMPOSE_PROJECT_NAME"] or project

        assert document["name"] == called
        assert {services[each]["image"].partition(":")[0] for each in SERVICES} == {called}
        assert services["mariadb"]["environment"]["MARIADB_DATABASE"] == NAME
        assert {services[each]["environment"]["DATABASE_NAME"] for each in SERVICES} == {NAME}
