"""What operators do while the service serves, and what goes wrong then."""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.about import NAME
from tests.compose.stack import PRODUCTION, Finished, Stack, free_subnet, remove, stack, wait_until
from tests.compose.subject import PATH, TABLE, TEXT, change, new
from tests.load import Load, load
from tests.process import ROOT

# A reload of an older nginx closes connections that wait for their client's next request, also
# where that is on its way. Clients ask again then; newer ones have no need to.
LINGERS_SINCE = (1, 27, 4)
CUT = "Server disconnected without sending a response"


def version(stack: Stack) -> str:
    with stack.client() as client:
        return str(client.get("/openapi.json").json()["info"]["version"])


def change_version(stack: Stack, to: str) -> None:
    about = stack.folder / "app" / "about.py"
    text, count = re.subn('^VERSION = ".*"$', f'VERSION = "{to}"', about.read_text(), flags=re.M)
    assert count == 1
    about.write_text(text)


async def make(stack: Stack, *arguments: str, **variables: str) -> Finished:
    return await asyncio.to_thread(stack.run, "make", "--silent", *arguments, **variables)


def failures(stack: Stack, seen: Load) -> list[str]:
    text = stack.inside("nginx", "nginx -v").stderr
    numbers = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", text)
    assert numbers, text
    lingers = tuple(map(int, numbers.groups())) >= LINGERS_SINCE
    return [failure for failure in seen.failures if lingers or CUT not in failure]


def image_of(stack: Stack, service: str) -> str:
    [container] = stack.containers(service)
    return str(stack.inspect(container)["Image"])


def previous(stack: Stack) -> str:
    """The image that a rollback has put away."""
    return f"{stack.variables['IMAGE']}:previous"


async def test_deploy_and_rollback_under_load_fail_no_request(production: Stack):
    before = version(production)
    old = production.containers("api")
    change_version(production, "9.9.9")
    async with load(production.url, PATH) as seen:
        await seen.until(100)
        deployed = await make(production, "deploy")
        new = production.containers("api")
        workers = {image_of(production, "worker")}
        after = version(production)
        rolled = await make(production, "rollback")
        await seen.until(100)

    assert deployed.returncode == rolled.returncode == 0, deployed.stderr + rolled.stderr
    assert seen.responses.keys() == {200}, seen.errors
    assert (seen.refused, failures(production, seen)) == (0, [])
    assert (after, version(production)) == ("9.9.9", before)
    assert workers == {production.done("docker", "inspect", "-f", "{{.Id}}", previous(production))}
    assert len(new) == 3
    assert not set(old) & set(new)
    assert not set(new) & set(production.containers("api"))


def of_project(stack: Stack) -> tuple[str, str]:
    return "--filter", f"label=com.docker.compose.project={stack.project}"


async def test_plain_up_after_a_deployment_replaces_nothing(production: Stack):
    """Whatever the version of Compose: not all hash a service alike with and without --no-deps."""
    change_version(production, "9.9.8")
    [backup] = production.containers("backup")
    mounts = production.inspect(backup)["Mounts"]
    unnamed = {each["Name"] for each in mounts if len(each.get("Name", "")) == 64}
    deployed = await make(production, "deploy")
    volumes = set(production.done("docker", "volume", "ls", "--quiet").split())
    services = ("nginx", "api", "worker", "mariadb", "valkey", "queue")
    before = {service: set(production.containers(service)) for service in services}
    images = production.done("docker", "images", *of_project(production), "--format={{.Tag}}")
    async with load(production.url, PATH) as seen:
        await seen.until(100)
        await asyncio.to_thread(production.compose, "up", "--detach", "--wait")
        await seen.until(100)

    assert deployed.returncode == 0, deployed.stderr
    assert set(images.split()) == {"latest", "next", "previous"}  # none of before
    assert not unnamed & volumes  # MariaDB's image declares one
    assert {service: set(production.containers(service)) for service in services} == before
    assert seen.responses.keys() == {200}, seen.errors
    assert (seen.refused, seen.failures) == (0, [])


MIGRATE = ("run", "--rm", "--no-deps", "-T", "migrate", "python", "-m", "app", "migrate")
ADDS_A_TABLE = """
import sqlalchemy as sa
from alembic import op

revision = "9998"
down_revision = "{head}"


def upgrade() -> None:
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))


def downgrade() -> None:
    op.drop_table("notes")
"""


@pytest.fixture
def rolled_back(production: Stack) -> Iterator[Stack]:
    """To the version before one that has migrated the schema."""
    versions = production.folder / "migrations" / "versions"
    migration = versions / "9998_notes.py"
    head = max(path.stem[:4] for path in versions.glob("0*.py"))
    migration.write_text(ADDS_A_TABLE.format(head=head))
    production.done("make", "--silent", "deploy")
    migration.unlink()
    try:
        production.done("make", "--silent", "rollback")
        yield production
    finally:
        production.compose(*MIGRATE, "--to=-1", TAG="previous")
        latest = f"{production.variables['IMAGE']}:latest"
        production.done("docker", "tag", latest, previous(production))


async def test_plain_up_after_a_rollback_takes_the_newer_schema(rolled_back: Stack):
    containers = set(rolled_back.compose("ps", "--quiet").split())
    async with load(rolled_back.url, PATH) as seen:
        await seen.until(10)
        await asyncio.to_thread(rolled_back.compose, "up", "--detach", "--wait")
        await seen.until(100)
    log = rolled_back.compose("logs", "--no-log-prefix", "migrate")
    by_hand = rolled_back.run("docker", "compose", *rolled_back.files, *MIGRATE)
    deployed = await make(rolled_back, "deploy")

    assert "Schema: 9998, newer than this code needs; left as it is" in log
    assert set(rolled_back.compose("ps", "--quiet").split()) == containers
    assert seen.responses.keys() == {200}, seen.errors
    assert (seen.refused, failures(rolled_back, seen)) == (0, [])
    for refused in (by_hand, deployed):
        assert refused.returncode != 0
        assert "the database is ahead of this code" in refused.stderr


def test_interrupted_deployment_leaves_what_ran(production: Stack):
    before = production.containers("api")
    image = image_of(production, "worker")
    change_version(production, "9.9.10")
    deployment = production.start("make", "--silent", "deploy")
    wait_until(lambda: len(production.containers("api")) == 4, "the first new container")
    second = production.run("make", "--silent", "deploy")
    deployment.signal(signal.SIGINT)
    output = deployment.ended()

    assert deployment.process.returncode != 0, output
    assert second.returncode != 0
    assert re.search(r"deploy \(process \d+\) is running", second.stderr)
    assert set(production.containers("api")) == set(before)
    latest = f"{production.variables['IMAGE']}:latest"
    assert production.done("docker", "inspect", "-f", "{{.Id}}", latest) == image


async def test_writes_during_a_roll_are_done_once_each(production: Stack):
    names: list[str] = []

    async def write(rolling: "asyncio.Task[Finished]") -> None:
        with production.editor() as client:
            while not rolling.done():
                name = f"Write {len(names)}"
                # A connection for each: what a client does whose connections nobody cuts.
                headers = {"Connection": "close"}
                response = await asyncio.to_thread(
                    client.post, PATH, json=new(name), headers=headers
                )
                assert response.status_code == 201, response.text
                names.append(name)

    rolling = asyncio.create_task(make(production, "roll"))
    await write(rolling)

    assert rolling.result().returncode == 0, rolling.result().stderr
    command = f"mariadb -N -uroot {NAME} -e 'SELECT {TEXT} FROM {TABLE}'"
    stored = production.inside("mariadb", f"{PASSWORD} {command}").stdout.splitlines()
    assert len(names) > 20
    assert sorted(set(names) & set(stored)) == sorted(names)
    assert len(stored) == len(set(stored))


async def test_killed_container_fails_no_read_and_no_deployment(production: Stack):
    one, *others = production.containers("api")
    async with load(production.url, PATH) as seen:
        await seen.until(100)
        production.done("docker", "kill", one)
        await seen.until(500)

    assert seen.responses.keys() == {200}, seen.errors
    assert failures(production, seen) == []
    assert set(production.containers("api")) == set(others)
    rolled = await make(production, "roll")
    assert rolled.returncode == 0, rolled.stderr
    assert "replaced 2 of 2" in rolled.stdout
    assert not {one, *others} & set(production.containers("api"))
    production.compose("up", "--detach", "--wait")
    assert len(production.containers("api")) == 3


@pytest.mark.parametrize(("server", "statuses"), [("mariadb", {200, 503}), ("valkey", {200})])
async def test_servers_restart_and_the_service_stays(
    production: Stack, server: str, statuses: set[int]
):
    def started() -> list[str]:
        containers = production.containers("api")
        return [str(production.inspect(one)["State"]["StartedAt"]) for one in containers]

    before = started()
    uncached = {"Cache-Control": "no-cache"} if server == "mariadb" else {}
    async with load(production.url, f"{PATH}?limit=1", headers=uncached) as seen:
        await seen.until(100)
        await asyncio.to_thread(production.compose, "restart", server)
        await asyncio.to_thread(production.ready)
        await seen.until(100)

    assert seen.responses.keys() <= statuses
    assert failures(production, seen) == []
    assert started() == before


def unchanged(stack: Stack, containers: list[str], finished: Finished, line: str) -> None:
    """It ended with such a line, and who served goes on."""
    assert finished.returncode != 0
    assert re.search(line, finished.stdout + finished.stderr), finished.stdout + finished.stderr
    assert stack.containers("api") == containers
    with stack.client() as client:
        assert {client.get(PATH).status_code for _ in range(20)} == {200}


async def test_migration_that_fails_stops_the_deployment(production: Stack):
    before = production.containers("api")
    migration = production.folder / "migrations" / "versions" / "9999_wrong.py"
    head = max(path.stem[:4] for path in migration.parent.glob("0*.py"))
    migration.write_text(
        f'revision = "9999"\ndown_revision = "{head}"\n\n\n'
        'def upgrade() -> None:\n    from alembic import op\n\n    op.execute("SELEKT 1")\n'
    )
    finished = await make(production, "deploy")
    migration.unlink()

    unchanged(production, before, finished, "The migration failed: .*SELEKT")


async def test_version_that_does_not_start_is_taken_back(production: Stack):
    before = production.containers("api")
    main = production.folder / "app" / "main.py"
    source = main.read_text()
    main.write_text(source + '\nraise RuntimeError("broken on purpose")\n')
    finished = await make(production, "deploy")
    main.write_text(source)

    unchanged(production, before, finished, "it does not become healthy; the old one goes on")
    assert "broken on purpose" in finished.stdout + finished.stderr
    change = await make(production, "roll")
    assert change.returncode == 0, change.stderr  # `latest` is what ran before


@pytest.mark.parametrize(
    ("secret", "content", "line"),
    [
        ("database_migrate_password", "wrong", "The migration failed: .*Access denied"),
        ("database_password", "wrong", "it does not become healthy; the old one goes on"),
        ("tokens_key", "short", "TOKENS_KEY: production needs a secret of at least 32"),
        ("redis_password", None, "redis_password is missing or empty; run: make secrets"),
    ],
)
async def test_secret_that_is_wrong_or_missing_stops_the_deployment(
    production: Stack, tmp_path: Path, secret: str, content: str | None, line: str
):
    before = production.containers("api")
    shutil.copytree(production.folder / "secrets", tmp_path / "secrets")
    (tmp_path / "secrets" / secret).unlink()
    if content is not None:
        (tmp_path / "secrets" / secret).write_text(content)
    finished = await make(production, "deploy", SECRETS=str(tmp_path / "secrets"))

    unchanged(production, before, finished, line)


def test_stack_without_secrets_names_what_is_missing(production: Stack, tmp_path: Path):
    command = ["docker", "compose", *production.files, "up", "--detach"]
    alone = {"COMPOSE_PROJECT_NAME": f"{production.project}-alone", "WEB_SUBNET": free_subnet()}
    try:
        finished = production.run(*command, SECRETS=str(tmp_path / "secrets"), **alone)
        running = production.run("docker", "compose", *production.files, "ps", "--quiet", **alone)
    finally:
        remove(alone["COMPOSE_PROJECT_NAME"])

    assert finished.returncode != 0
    assert re.search("secrets/[a-z_]+", finished.stderr.splitlines()[-1])
    assert running.stdout == ""


PASSWORD = 'MYSQL_PWD="$(cat /run/secrets/database_root_password)"'


def checksums(stack: Stack) -> str:
    tables = f"{TABLE}, login_networks, alembic_version"
    count = f"SELECT COUNT(*) FROM {TABLE}"
    command = f"mariadb -N -uroot {NAME} -e 'CHECKSUM TABLE {tables}; {count}'"
    finished = stack.inside("mariadb", f"{PASSWORD} {command}")
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


async def test_backup_brings_back_what_was_dropped(production: Stack):
    before = checksums(production)
    made = await make(production, "backup")
    [file] = (production.folder / "backups").iterdir()
    with production.editor() as client:
        [one] = client.get(f"{PATH}?limit=1").json()["items"]
        text = client.get(f"{PATH}/{one['id']}").json()[TEXT]
        changed = client.patch(f"{PATH}/{one['id']}", json=change("Written after it"))
        assert client.get(f"{PATH}/{one['id']}").json()[TEXT] == "Written after it"
    drop = f"DROP TABLE {NAME}.login_networks"
    production.inside("mariadb", f"{PASSWORD} mariadb -uroot -e '{drop}'")
    restored = await make(production, "restore", f"FILE=backups/{file.name}")
    after = checksums(production)
    with production.client() as client:
        shown = client.get(f"{PATH}/{one['id']}").json()[TEXT]

    assert made.returncode == 0, made.stderr
    assert changed.status_code == 200
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert after == before
    assert shown == text  # and not what the cache had
    assert len(list((production.folder / "backups").glob("*-before-restore.sql.gz"))) == 1


async def test_backup_brings_back_a_database_that_is_gone_without_valkey(production: Stack):
    before = checksums(production)
    await make(production, "backup")
    [*_, file] = sorted((production.folder / "backups").glob("*Z.sql.gz"))
    production.inside("mariadb", f"{PASSWORD} mariadb -uroot -e 'DROP DATABASE bookshelf'")
    careful = await make(production, "restore", f"FILE={file}")
    production.compose("stop", "valkey")
    forced = await make(production, "restore", f"FILE={file}", FORCE="1")
    production.compose("start", "valkey")

    assert careful.returncode != 0
    assert "FORCE=1" in careful.stderr
    assert forced.returncode == 0, forced.stderr
    assert checksums(production) == before
    assert file.stat().st_mode & 0o077 == 0
    production.ready()


async def test_nginx_that_cannot_go_on_keeps_the_old_containers(production: Stack):
    """Its notes are on a file system of their own, which is full here."""
    before = production.containers("api")
    production.inside("nginx", "dd if=/dev/zero of=/run/conf/fill bs=4k")
    refused = await make(production, "roll")
    unchanged(production, before, refused, "nginx|healthy")
    production.inside("nginx", "rm /run/conf/fill")
    rolled = await make(production, "roll")

    assert rolled.returncode == 0, rolled.stderr


async def test_rollback_to_what_runs_says_so(production: Stack):
    await make(production, "rollback")
    await make(production, "rollback")
    before = production.containers("api")
    name = production.variables["IMAGE"]
    production.done("docker", "tag", f"{name}:latest", f"{name}:previous")
    refused = await make(production, "rollback")

    unchanged(production, before, refused, "it is what runs already")


async def test_backup_that_is_cut_off_is_not_restored(production: Stack):
    before = checksums(production)
    await make(production, "backup")
    [*_, whole] = sorted((production.folder / "backups").glob("*Z.sql.gz"))
    half = whole.with_name("half.sql.gz")
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refused = await make(production, "restore", "FILE=backups/half.sql.gz")

    assert refused.returncode != 0
    assert "is not complete; nothing has changed" in refused.stderr
    assert checksums(production) == before


def commands(heading: str) -> list[str]:
    """The blocks of shell below a heading of the runbook."""
    text = (ROOT / "docs" / "deploy.md").read_text().split(f"\n## {heading}\n")[1]
    return re.findall(r"(?s)```sh\n(.*?)```", text.partition("\n## ")[0])


def test_scale_as_the_runbook_says(production: Stack):
    [block] = commands("Scale")
    production.done("bash", "-euc", block.replace("api=3", "api=4"))
    known = "wget -q -O - http://127.0.0.1:8081/servers"
    wait_until(lambda: len(production.inside("nginx", known).stdout.split()) == 4, "the fourth")
    production.done("bash", "-euc", block)
    wait_until(lambda: len(production.inside("nginx", known).stdout.split()) == 3, "its end")


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Stack]:
    """With a volume in memory, as small as it can be, in place of the database's."""
    with stack(tmp_path, "test-crowded", [*PRODUCTION, "-f", "small.yml"]) as made:
        (made.folder / "small.yml").write_text(
            "services: {mariadb: {volumes: !override "
            "['small:/var/lib/mysql', './docker/mariadb:/etc/mysql/conf.d:ro']}}\n"
            "volumes: {small: {driver_opts: "
            "{type: tmpfs, device: tmpfs, o: 'size=420m,uid=999,gid=999'}}}\n"
        )
        made.variables |= {"WEB_CONCURRENCY": "1"}
        made.done("make", "--silent", "secrets")
        made.compose("up", "--detach", "--wait")
        yield made


def test_full_disk_of_the_database_is_no_end_of_reads(crowded: Stack):
    with crowded.editor() as client:
        assert client.post(PATH, json=new("First")).status_code == 201
        crowded.inside("mariadb", "dd if=/dev/zero of=/var/lib/mysql/fill bs=1M")
        long = "x" * 190
        for number in range(5000):
            refused = client.post(PATH, json=new(f"{long} {number}"))
            if refused.status_code != 201:
                break
        read = client.get(f"{PATH}?limit=1")
        health = client.get("/health")
        crowded.inside("mariadb", "rm /var/lib/mysql/fill")

        def is_writing() -> bool:
            return client.post(PATH, json=new("After")).status_code == 201

        wait_until(is_writing, "writes to go on")
    logs = [crowded.done("docker", "logs", one) for one in crowded.containers("api")]

    assert refused.status_code == 503, refused.text
    assert refused.headers["Retry-After"]
    assert (read.status_code, health.status_code) == (200, 200)
    warnings = [line for log in logs for line in log.splitlines() if '"status":503' in line]
    assert json.loads(warnings[0])["path"] == PATH
