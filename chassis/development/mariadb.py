"""Three ways to run MariaDB: programs on the PATH, a Docker container, Debian packages."""

import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import make_url

from chassis.development import debian_packages
from chassis.development.server_process import Place, Server, ServerUnavailable, probe, run

PULL_TIMEOUT = 900
MARIADB_URL = make_url("mariadb+asyncmy://root@?charset=utf8mb4")
MARIADB_IMAGE = "mariadb:lts"
MARIADB_PACKAGES = ("mariadb-server-core", "mariadb-client-core")
MARIADB_OPTIONS = (
    "--max-connections=300",
    "--character-set-server=utf8mb4",
    # A commit waits for the kernel, not for the disk: it survives a crash of the server.
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-log-file-size=32M",
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Programs:
    source: str
    mariadbd: str
    install_db: str
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def mariadb_on_path(place: Place, database: str, options: Sequence[str] = ()) -> Server:
    mariadbd, install_db = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if mariadbd is None or install_db is None:
        raise ServerUnavailable("not there, or without mariadb-install-db")
    programs = Programs("mariadbd on the PATH", mariadbd, install_db)
    return _mariadb(place, database, programs, options)


def mariadb_from_packages(
    place: Place, database: str, cache: Path, say: Say, options: Sequence[str] = ()
) -> Server:
    if shutil.which("dpkg-deb") is None:
        raise ServerUnavailable(f"only on Debian and Ubuntu; this is {platform.system()}")
    # The folder may be mounted in another system, which has other libraries.
    system = platform.freedesktop_os_release()
    name = f"{system['ID']}-{system.get('VERSION_ID', 'rolling')}-{platform.machine()}"
    root = cache / "mariadb-server" / name
    if not root.exists():
        debian_packages.unpack(MARIADB_PACKAGES, root, say)
    programs = Programs(
        source=f"Debian packages unpacked in {root.resolve()}",
        mariadbd=str(root / "usr/sbin/mariadbd"),
        install_db=str(root / "usr/bin/mariadb-install-db"),
        options=[f"--basedir={root}/usr"],
        environment={"LD_LIBRARY_PATH": debian_packages.library_path(root)},
    )
    return _mariadb(place, database, programs, options)


def _mariadb(
    place: Place, database: str, programs: Programs, more_options: Sequence[str]
) -> Server:
    environment = {**os.environ, **programs.environment}
    version = re.search(r"(\d+\.\d+)\.\d+", run(programs.mariadbd, "--version", env=environment))
    if version is None:
        raise ServerUnavailable("its version is unknown")
    # A folder for each series: an older server cannot read what a newer one wrote.
    data = place.folder / f"data-{version[1]}"
    options = ["--no-defaults", *programs.options, *MARIADB_OPTIONS]
    # A server empties the folder of its temporary tables: in /tmp that would hit others.
    options.append(f"--tmpdir={place.folder}")
    if os.geteuid() == 0:
        options.append("--user=root")
    if not data.exists():
        _install_data(data, [programs.install_db, *options], environment)
    options += [f"--datadir={data}", "--skip-networking", f"--socket={place.socket}"]
    options += more_options
    url = MARIADB_URL.set(database=database).update_query_dict({"unix_socket": place.socket})
    return Server(
        url=url.render_as_string(hide_password=False),
        source=f"{programs.source} ({version[0]})",
        command=[programs.mariadbd, *options],
        is_ready=lambda: _greets(place.socket),
        log=place.log,
        environment=programs.environment,
    )


def _install_data(data: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    unfinished = data.with_name(f"{data.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    # root has no password: nobody else can enter the folder of the socket.
    authentication = "--auth-root-authentication-method=normal"
    arguments = [f"--datadir={unfinished}", authentication, "--skip-test-db"]
    run(*command, *arguments, env=environment)
    unfinished.rename(data)


@dataclass(kw_only=True)
class Container(Server):
    """MariaDB in Docker; the process is the client of Docker, which passes SIGTERM on."""

    name: str
    password_file: Path

    def start(self) -> None:
        super().start()
        self.password_file.write_text(self.environment["MARIADB_ROOT_PASSWORD"])

    def stop(self) -> None:
        super().stop()
        with suppress(subprocess.SubprocessError):  # it is gone, unless the client was killed
            run("docker", "rm", "--force", self.name)


def mariadb_in_docker(place: Place, database: str, say: Say) -> Server:
    run("docker", "version", timeout=5)
    if not run("docker", "images", "--quiet", MARIADB_IMAGE):
        say(f"Pulling the Docker image {MARIADB_IMAGE} ...")
        run("docker", "pull", "--quiet", MARIADB_IMAGE, timeout=PULL_TIMEOUT)

    data, password_file = place.folder / "data-docker", place.folder / "docker-password"
    password = _prepare_docker_data(data, password_file)
    name, port = f"mariadb-{secrets.token_hex(4)}", _free_port()
    command = ["docker", "run", "--rm", "--init", "--name", name]
    # A bind mount goes with its folder; a volume would stay. As this user, the server leaves files
    # that this user can delete.
    command += ["--user", f"{os.getuid()}:{os.getgid()}"]
    command += ["--volume", f"{data.resolve()}:/var/lib/mysql"]
    command += ["--publish", f"127.0.0.1:{port}:3306", "--env", "MARIADB_ROOT_PASSWORD"]
    command += ["--env", "MARIADB_AUTO_UPGRADE=1", "--env", "MARIADB_INITDB_SKIP_TZINFO=1"]
    url = MARIADB_URL.set(password=password, host="127.0.0.1", port=port, database=database)
    return Container(
        url=url.render_as_string(hide_password=False),
        source=f"Docker image {MARIADB_IMAGE}",
        command=[*command, MARIADB_IMAGE, *MARIADB_OPTIONS],
        is_ready=lambda: _greets(("127.0.0.1", port)),
        log=place.log,
        environment={"MARIADB_ROOT_PASSWORD": password},
        name=name,
        password_file=password_file,
    )


def _prepare_docker_data(data: Path, password_file: Path) -> str:
    """Data without a stored password come from a start that failed: they are deleted."""
    if password_file.exists():
        return password_file.read_text()
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    return secrets.token_hex()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _greets(address: str | tuple[str, int]) -> bool:
    """MariaDB sends the first packet: a header of four bytes, then 10, its protocol version."""
    return probe(address)[4:5] == b"\x0a"
