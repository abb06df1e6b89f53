"""Changed configuration: checked before anything is touched, and taken without a failed request."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.compose.stack import Finished, Stack, wait_until
from tests.compose.subject import PATH
from tests.compose.test_operations import failures
from tests.load import load

SERVERS = ("nginx", "mariadb", "valkey", "queue")


def reload(stack: Stack, **variables: str) -> Finished:
    return stack.run("make", "--silent", "reload", **variables)


def started(stack: Stack) -> dict[str, str]:
    """Which containers there are, and since when they run."""
    containers = {service: stack.containers(service)[0] for service in SERVERS}
    return {
        service: f"{one} {stack.inspect(one)['State']['StartedAt']}"
        for service, one in containers.items()
    }


def write(stack: Stack, path: str, change: str, to: str) -> str:
    """As editors and git do, by another file in the place of the old one; returns the old text."""
    file = stack.folder / "docker" / path
    text = file.read_text()
    assert change in text
    new = file.with_suffix(".new")
    new.write_text(text.replace(change, to, 1))
    new.rename(file)
    return text


def put_back(stack: Stack, path: str, text: str) -> None:
    (stack.folder / "docker" / path).write_text(text)


async def test_nginx_takes_its_files_under_load(small: Stack):
    before = started(small)
    text = write(small, "nginx/service.conf", "nosniff", "changed")
    async with load(small.url, PATH) as seen:
        await seen.until(100)
        finished = await asyncio.to_thread(reload, small)
        await seen.until(200)
    with small.client() as client:
        header = client.get(PATH).headers["X-Content-Type-Options"]
    put_back(small, "nginx/service.conf", text)
    again, nothing = reload(small), reload(small)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert header == "changed"
    assert seen.responses.keys() == {200}, seen.errors
    assert (seen.refused, failures(small, seen)) == (0, [])
    assert started(small) == before
    assert "nginx: reloaded" in again.stdout
    assert "nginx: has this configuration already" in nothing.stdout


@pytest.mark.parametrize(
    ("path", "change", "to", "line"),
    [
        ("nginx/service.conf", "proxy_http_version 1.1;", "proxy_http_version nine;", "nine"),
        ("nginx/nginx.conf", "include server.conf;", "include missing.conf;", "missing.conf"),
        ("mariadb/server.cnf", "skip-name-resolve", "skip-everything", "skip-everything"),
        ("valkey/valkey.conf", "maxmemory 256mb", "maxmemory plenty", "maxmemory"),
        ("valkey/queue.conf", "appendonly yes", "apendonly yes", "apendonly"),
    ],
)
def test_wrong_file_is_refused_before_anything_changes(
    small: Stack, path: str, change: str, to: str, line: str
):
    before = started(small)
    # A good change beside it is not taken either.
    other = "valkey/valkey.conf" if path.startswith("nginx") else "nginx/service.conf"
    good = write(small, other, "\n", "\n# a comment\n")
    text = write(small, path, change, to)
    refused = reload(small)
    put_back(small, path, text)
    put_back(small, other, good)

    assert refused.returncode != 0
    assert line in refused.stderr
    assert "is wrong; nothing has changed" in refused.stderr
    assert started(small) == before
    with small.client() as client:
        assert client.get(PATH).status_code == 200


def test_half_edited_file_is_not_taken_by_a_deployment(small: Stack):
    """nginx is reloaded for each container that is replaced."""
    text = write(small, "nginx/service.conf", "nosniff", 'half "')
    rolled = small.run("make", "--silent", "roll")
    put_back(small, "nginx/service.conf", text)

    assert rolled.returncode == 0, rolled.stderr
    with small.client() as client:
        assert client.get(PATH).headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("server", "path", "change", "to", "command", "value"),
    [
        (
            *("mariadb", "mariadb/server.cnf", "wait-timeout = 600", "wait-timeout = 601"),
            *('mariadb -uroot -p"$(cat /run/secrets/database_root_password)" -Ne', "601"),
        ),
        ("valkey", "valkey/valkey.conf", "256mb", "255mb", "config", str(255 * 1024 * 1024)),
        ("queue", "valkey/queue.conf", "64mb", "63mb", "config", str(63 * 1024 * 1024)),
    ],
)
def test_server_whose_file_has_changed_is_restarted_and_no_other(
    small: Stack, server: str, path: str, change: str, to: str, command: str, value: str
):
    before = started(small)
    text = write(small, path, change, to)
    finished = reload(small)
    after = started(small)
    if command == "config":
        command = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli config get maxmemory"
    else:
        command += " 'SELECT @@global.wait_timeout'"
    seen = small.inside(server, command).stdout.split()[-1]
    put_back(small, path, text)
    again = reload(small)

    assert finished.returncode == again.returncode == 0, finished.stderr + again.stderr
    assert {name for name in SERVERS if before[name] != after[name]} == {server}
    assert after[server].split()[0] == before[server].split()[0]
    assert seen == value


def certbot(folder: Path, number: int, name: str = "localhost") -> Path:
    """`live` as certbot leaves it: links into `archive`, and a key for root only."""
    live, archive = folder / "live" / "example", folder / "archive" / "example"
    for each in (live, archive):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
        each.parent.chmod(0o700)
    key, chain = archive / f"privkey{number}.pem", archive / f"fullchain{number}.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={name}"
    command += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {chain}"
    subprocess.run(command.split(), check=True, capture_output=True)
    key.chmod(0o600)
    for target in (key, chain):
        link = live / target.name.replace(str(number), "")
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, live))
    return live


def served(stack: Stack) -> bytes:
    """The certificate that a client gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", int(stack.variables["HTTPS_PORT"]))
    with (
        socket.create_connection(address) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def of(live: Path) -> bytes:
    text = (live / "fullchain.pem").read_text()
    return ssl.PEM_cert_to_DER_cert(text)


def test_certificates_that_nginx_cannot_read_are_refused_before_it_is_replaced(
    small: Stack, tmp_path: Path
):
    live = certbot(tmp_path, 1)
    before = started(small)
    refused = reload(small, CERTIFICATES=str(live))

    assert refused.returncode != 0
    assert "that user 101 can read" in refused.stderr
    assert "docker/certificates.sh" in refused.stderr
    assert started(small) == before
    with small.client() as client:
        assert client.get(PATH).status_code == 200


def test_certificates_that_a_plain_up_took_unseen_are_mended_as_the_runbook_says(
    small: Stack, tmp_path: Path
):
    """Compose removes the old container before it starts the new one."""
    live = certbot(tmp_path, 1)
    plain_up = ("docker", "compose", *small.files, "up", "--detach", "--no-deps", "nginx")
    small.run(*plain_up, CERTIFICATES=str(live))
    [container] = small.containers("nginx")
    wait_until(
        lambda: "that user 101 can read" in small.run("docker", "logs", container).stderr,
        "what is wrong",
    )
    # In .env the line CERTIFICATES is gone again.
    mended = small.run("docker/certificates.sh", str(live))
    certificate = served(small)
    for file in (small.folder / "docker" / "nginx" / "certificates").glob("*.pem"):
        file.unlink()
    back = reload(small)

    assert mended.returncode == back.returncode == 0, mended.stderr + back.stderr
    assert certificate == of(live)
    wait_until(lambda: responses(small), "plain HTTP again")


async def test_certificates_of_certbot_are_copied_and_taken_by_its_hook(
    small: Stack, tmp_path: Path
):
    live = certbot(tmp_path, 1)
    first = small.run("docker/certificates.sh", str(live))
    one = served(small)
    before = started(small)
    certbot(tmp_path, 2)
    expected = of(live)
    secure = f"https://127.0.0.1:{small.variables['HTTPS_PORT']}"
    async with load(secure, PATH, verify=False) as seen:
        await seen.until(100)
        renewed = await asyncio.to_thread(
            small.run, "docker/certificates.sh", RENEWED_LINEAGE=str(live)
        )
        await seen.until(100)
    two = served(small)
    (tmp_path / "archive" / "example" / "privkey2.pem").write_text("no key")
    broken = small.run("docker/certificates.sh", str(live))
    kept = served(small)
    key = small.folder / "docker" / "nginx" / "certificates" / "privkey.pem"
    status = key.stat()
    after = started(small)
    for file in key.parent.glob("*.pem"):
        file.unlink()
    plain = reload(small)

    assert first.returncode == 0, first.stdout + first.stderr
    assert renewed.returncode == 0, renewed.stdout + renewed.stderr
    assert one != two == expected == kept
    assert seen.responses.keys() == {200}, seen.errors
    assert (seen.refused, failures(small, seen)) == (0, [])
    assert broken.returncode != 0
    assert "it goes on as it was" in broken.stderr
    assert (status.st_uid, status.st_mode & 0o777) == (101, 0o600)
    assert after == before
    assert plain.returncode == 0, plain.stderr
    wait_until(lambda: responses(small), "plain HTTP again")


def responses(stack: Stack) -> bool:
    with suppress(httpx.TransportError), stack.client() as client:  # Docker listens first
        return client.get(PATH).status_code == 200
    return False


def test_hook_does_not_copy_the_files_of_certbot_onto_themselves(small: Stack, tmp_path: Path):
    live = certbot(tmp_path, 1)
    shutil.copy(live / "fullchain.pem", tmp_path)
    refused = small.run("docker/certificates.sh", str(live), CERTIFICATES=str(live))

    assert refused.returncode != 0
    assert "CERTIFICATES names the folder of certbot" in refused.stderr
    assert (live / "privkey.pem").is_symlink()


def test_changed_setting_replaces_the_container_and_a_bad_one_brings_the_old_back(small: Stack):
    before = started(small)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        bad = reload(small, HTTP_PORT=str(taken.getsockname()[1]))
    unchanged = small.containers("nginx")
    wait_until(lambda: responses(small), "the old one")
    good = reload(small, EDGE_CONNECTIONS="999")
    after = started(small)
    small.compose("up", "--detach", "--wait", EDGE_CONNECTIONS="999")
    plain = started(small)
    back = reload(small)

    assert bad.returncode != 0
    assert "the old one is back" in bad.stderr
    assert unchanged == [before["nginx"].split()[0]]
    assert good.returncode == back.returncode == 0, good.stderr + back.stderr
    assert {name for name in SERVERS if before[name] != after[name]} == {"nginx"}
    assert plain == after  # a plain `up` has nothing to add
    assert responses(small)
