"""What operators do while the service serves, and what goes wrong then."""

import asyncio
import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.compose.stack import Finished, Stack, wait_until
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
    (stack.folder / "app" / "version.py").write_text(f'VERSION = "{to}"\n')


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
    async with load(production.url, "/v1/books") as seen:
        await seen.until(100)
        deployed = await make(production, "deploy")
        new = production.containers("api")
        workers = {image_of(production, name) for name in ("worker", "scheduler")}
        after = version(production)
        rolled = await make(production, "rollback")
        await seen.until(100)

    assert deployed.returncode == rolled.returncode == 0, deployed.stderr + rolled.stderr
    assert seen.answers.keys() == {200}
    assert (seen.refused, failures(production, seen)) == (0, [])
    assert (after, version(production)) == ("9.9.9", before)
    assert workers == {production.done("docker", "inspect", "-f", "{{.Id}}", previous(production))}
    assert len(new) == 3
    assert not set(old) & set(new)
    assert not set(new) & set(production.containers("api"))


async def test_plain_up_after_a_deployment_replaces_nothing(production: Stack):
    """Whatever the version of Compose: not all hash a service alike with and without --no-deps."""
    deployed = await make(production, "deploy")
    services = ("nginx", "api", "worker", "scheduler", "mariadb", "valkey", "queue")
    before = {service: set(production.containers(service)) for service in services}
    async with load(production.url, "/v1/books") as seen:
        await seen.until(100)
        await asyncio.to_thread(production.compose, "up", "--detach", "--wait")
        await seen.until(100)

    assert deployed.returncode == 0, deployed.stderr
    assert {service: set(production.containers(service)) for service in services} == before
    assert seen.answers.keys() == {200}
    assert (seen.refused, seen.failures) == (0, [])


def test_interrupted_deployment_leaves_what_ran(production: Stack):
    before = production.containers("api")
    image = image_of(production, "scheduler")
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
                name = f"Author {len(names)}"
                # A connection for each: what a client does whose connections nobody cuts.
                headers = {"Connection": "close"}
                answer = await asyncio.to_thread(
                    client.post, "/v1/authors", json={"name": name}, headers=headers
                )
                assert answer.status_code == 201, answer.text
                names.append(name)

    rolling = asyncio.create_task(make(production, "roll"))
    await write(rolling)

    assert rolling.result().returncode == 0, rolling.result().stderr
    command = "mariadb -N -uroot books -e 'SELECT name FROM authors'"
    stored = production.inside("mariadb", f"{PASSWORD} {command}").stdout.splitlines()
    assert len(names) > 20
    assert sorted(set(names) & set(stored)) == sorted(names)
    assert len(stored) == len(set(stored))


async def test_killed_container_fails_no_read_and_no_deployment(production: Stack):
    one, *others = production.containers("api")
    async with load(production.url, "/v1/books") as seen:
        await seen.until(100)
        production.done("docker", "kill", one)
        await seen.until(500)

    assert seen.answers.keys() == {200}
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
    async with load(production.url, "/v1/books?q=nothing", headers=uncached) as seen:
        await seen.until(100)
        await asyncio.to_thread(production.compose, "restart", server)
        await asyncio.to_thread(production.ready)
        await seen.until(100)

    assert seen.answers.keys() <= statuses
    assert failures(production, seen) == []
    assert started() == before


def unchanged(stack: Stack, containers: list[str], finished: Finished, line: str) -> None:
    """It ended with such a line, and who served goes on."""
    assert finished.returncode != 0
    assert re.search(line, finished.stdout + finished.stderr), finished.stdout + finished.stderr
    assert stack.containers("api") == containers
    with stack.client() as client:
        assert {client.get("/v1/books").status_code for _ in range(20)} == {200}


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
        ("database_password", "wrong", "The migration failed: .*Access denied"),
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
    alone = {"COMPOSE_PROJECT_NAME": f"{production.project}-alone", "WEB_SUBNET": "10.89.203.0/24"}
    finished = production.run(*command, SECRETS=str(tmp_path / "secrets"), **alone)
    running = production.run("docker", "compose", *production.files, "ps", "--quiet", **alone)
    production.compose("down", "--volumes", **alone)

    assert finished.returncode != 0
    assert re.search("secrets/[a-z_]+", finished.stderr.splitlines()[-1])
    assert running.stdout == ""


PASSWORD = 'MYSQL_PWD="$(cat /run/secrets/database_root_password)"'


def checksums(stack: Stack) -> str:
    tables = "authors, books, book_authors, alembic_version"
    command = f"mariadb -N -uroot books -e 'CHECKSUM TABLE {tables}; SELECT COUNT(*) FROM books'"
    finished = stack.inside("mariadb", f"{PASSWORD} {command}")
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


async def test_backup_brings_back_what_was_dropped(production: Stack):
    before = checksums(production)
    made = await make(production, "backup")
    [file] = (production.folder / "backups").iterdir()
    with production.editor() as client:
        [book] = client.get("/v1/books?limit=1").json()["items"]
        title = client.get(f"/v1/books/{book['id']}").json()["title"]
        changed = client.patch(f"/v1/books/{book['id']}", json={"title": "Written after it"})
        assert client.get(f"/v1/books/{book['id']}").json()["title"] == "Written after it"
    production.inside("mariadb", f"{PASSWORD} mariadb -uroot -e 'DROP TABLE books.book_authors'")
    restored = await make(production, "restore", f"FILE=backups/{file.name}")
    after = checksums(production)
    with production.client() as client:
        shown = client.get(f"/v1/books/{book['id']}").json()["title"]

    assert made.returncode == 0, made.stderr
    assert changed.status_code == 200
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert after == before
    assert shown == title  # and not what the cache had
    assert len(list((production.folder / "backups").glob("*-before-restore.sql.gz"))) == 1


async def test_backup_brings_back_a_database_that_is_gone_without_valkey(production: Stack):
    before = checksums(production)
    await make(production, "backup")
    [*_, file] = sorted((production.folder / "backups").glob("*Z.sql.gz"))
    production.inside("mariadb", f"{PASSWORD} mariadb -uroot -e 'DROP DATABASE books'")
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


async def test_old_key_of_tokens_counts_while_it_is_named(production: Stack):
    with production.editor() as client:
        secret = production.folder / "secrets" / "tokens_key"
        old = secret.read_text()
        secret.unlink()
        production.done("make", "--silent", "secrets")
        named = await make(production, "roll", TOKENS_OLD_KEYS=old)
        during = client.get("/v1/users/me")
        unnamed = await make(production, "roll")
        after = client.get("/v1/users/me")

    assert (named.returncode, unnamed.returncode) == (0, 0)
    assert (during.status_code, after.status_code) == (200, 401)


@pytest.mark.parametrize("number", range(4))
async def test_secrets_change_as_the_runbook_says(production: Stack, number: int):
    before = {file.name: file.read_text() for file in (production.folder / "secrets").iterdir()}
    block = commands("Other secrets")[number]
    async with load(production.url, "/v1/books", headers={"Cache-Control": "no-cache"}) as seen:
        await seen.until(10)
        finished = await asyncio.to_thread(production.run, "bash", "-euc", block)
        await seen.until(100)
    after = {file.name: file.read_text() for file in (production.folder / "secrets").iterdir()}
    with production.editor() as client:
        written = client.post("/v1/authors", json={"name": f"After change {number}"})
    with production.client() as client:
        cached = [client.get("/v1/authors?limit=3").headers["X-Cache"] for _ in range(2)]

    assert finished.returncode == 0, finished.stdout + finished.stderr
    changed = {name for name in before if before[name] != after[name]}
    names = ["tokens_key", "database_password", "redis_password", "jobs_password"]
    assert changed == {names[number]}
    assert written.status_code == 201
    assert cached[1] == "HIT"
    assert seen.answers.keys() == {200}
    assert failures(production, seen) == []


def test_scale_as_the_runbook_says(production: Stack):
    [block] = commands("Scale")
    production.done("bash", "-euc", block.replace("api=3", "api=4"))
    known = "wget -q -O - http://127.0.0.1:8081/servers"
    wait_until(lambda: len(production.inside("nginx", known).stdout.split()) == 4, "the fourth")
    production.done("bash", "-euc", block)
    wait_until(lambda: len(production.inside("nginx", known).stdout.split()) == 3, "its end")


async def test_full_disk_of_the_database_is_no_end_of_reads(production: Stack):
    """A volume in memory, as small as it can be, in place of the database's."""
    override = production.folder / "small.yml"
    override.write_text(
        "services: {mariadb: {volumes: !override "
        "['small:/var/lib/mysql', './docker/mariadb:/etc/mysql/conf.d:ro']}}\n"
        "volumes: {small: {driver_opts: "
        "{type: tmpfs, device: tmpfs, o: 'size=420m,uid=999,gid=999'}}}\n"
    )
    production.compose("down", "--volumes")  # all of it: this test is the last
    small = Stack(production.folder, [*production.files, "-f", "small.yml"], production.variables)
    small.compose("up", "--detach", "--wait")
    with small.editor() as client:
        assert client.post("/v1/authors", json={"name": "First"}).status_code == 201
        small.inside("mariadb", "dd if=/dev/zero of=/var/lib/mysql/fill bs=1M")
        long = "x" * 200
        for number in range(5000):
            refused = client.post("/v1/authors", json={"name": f"{long} {number}"})
            if refused.status_code != 201:
                break
        read = client.get("/v1/authors?limit=1")
        health = client.get("/health")
        small.inside("mariadb", "rm /var/lib/mysql/fill")

        def is_writing() -> bool:
            return client.post("/v1/authors", json={"name": "After"}).status_code == 201

        wait_until(is_writing, "writes to go on")
    logs = [small.done("docker", "logs", one) for one in small.containers("api")]
    small.compose("down", "--volumes")

    assert refused.status_code == 503, refused.text
    assert refused.headers["Retry-After"]
    assert (read.status_code, health.status_code) == (200, 200)
    warnings = [line for log in logs for line in log.splitlines() if '"status":503' in line]
    assert json.loads(warnings[0])["path"] == "/v1/authors"
