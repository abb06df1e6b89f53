"""Backups are made, copied and restored, and whatever step fails, the earlier ones remain."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.about import NAME
from tests.compose.stack import PRODUCTION, Finished, Stack, stack, wait_until
from tests.compose.subject import TABLE, TEXT

METRIC = r'backup_last_success_timestamp_seconds\{kind="%s"\} (\d+)'
SNAPSHOT = "docker compose -f docker-compose.yml run --rm --no-deps -T %s backup now"


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A binary log, and copies in the S3 server of the stack; without the service itself."""
    folder = tmp_path_factory.mktemp("backups")
    with stack(folder, "test-backups", PRODUCTION) as made:
        made.variables |= {"API_REPLICAS": "1", "WEB_CONCURRENCY": "1"}
        made.variables |= {
            "DATABASE_BINLOG_DAYS": "1",
            "BACKUP_OFFSITE": f"s3:http://s3:9000/{NAME}/copies",
            "BACKUP_OFFSITE_KEY_ID": NAME,
        }
        made.done("make", "--silent", "secrets")
        secrets = folder / "secrets"
        shutil.copy(secrets / "files_secret_access_key", secrets / "backup_offsite_key")
        made.compose("up", "--detach", "--wait", "s3", "backup")
        yield made


def metric(made: Stack, kind: str) -> int:
    text = made.inside("backup", "cat /var/lib/node-exporter/backup.prom").stdout
    found = re.search(METRIC % kind, text)
    return int(found[1]) if found else -1


def snapshots(made: Stack) -> list[str]:
    """Their identities by time, as `make snapshots` lists them, but without a new container."""
    command = "bash /etc/backup/start.sh restic snapshots --no-lock --tag backup"
    listed = made.inside("backup", command)
    assert listed.returncode == 0, listed.stderr
    return identities(listed.stdout)


def identities(listed: str) -> list[str]:
    return re.findall(r"(?m)^([0-9a-f]{8}) ", listed)


def snapshot(made: Stack, options: str = "", **variables: str) -> Finished:
    return made.run(*(SNAPSHOT % options).split(), **variables)


@contextmanager
def edited(file: Path, old: str, new: str) -> Iterator[None]:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    try:
        yield
    finally:
        file.write_text(text)


def restart(made: Stack, service: str) -> None:
    made.compose("restart", service)
    made.compose("up", "--detach", "--wait", "--no-deps", service)


def rows(made: Stack) -> str:
    return made.sql(f"SELECT {TEXT} FROM {TABLE} ORDER BY id")


def add_row(made: Stack, text: str) -> None:
    made.sql(f"INSERT IGNORE INTO {TABLE} ({TEXT}) VALUES ('{text}')")


def test_first_backup_is_made_and_copied_when_the_stack_starts(backed_up: Stack):
    wait_until(lambda: metric(backed_up, "offsite") > 0, "the first backup")
    mode = backed_up.inside("backup", "stat -c %a /var/lib/node-exporter/backup.prom").stdout
    user = backed_up.inside("backup", "id -u; touch /etc/x").stdout
    listed = [
        identities(backed_up.done("make", "--silent", "snapshots", *options))
        for options in ([], ["OFFSITE=1"])
    ]

    assert time.time() - metric(backed_up, "database") < 600
    assert metric(backed_up, "drill") == 0
    assert mode == "644\n"
    assert user == "10001\n"
    assert [len(each) for each in listed] == [1, 1]
    assert listed[0] == snapshots(backed_up)


def test_restore_brings_back_rows_up_to_a_moment_and_files(backed_up: Stack):
    add_row(backed_up, "In the backup")
    # sample: begin
    # Of which the drill looks for the files.
    backed_up.sql("INSERT IGNORE INTO books (id, title) VALUES (7, 'B')")
    backed_up.sql("INSERT IGNORE INTO covers (book_id, `key`) VALUES (7, 'covers/7/x')")
    # sample: end
    folder = "/srv/files/objects/covers/7/x"
    backed_up.inside("s3", f"mkdir -p {folder} && echo content >{folder}/large.webp")
    made = snapshot(backed_up)
    add_row(backed_up, "In the log")
    until = backed_up.sql("DO SLEEP(1.1); SELECT UTC_TIMESTAMP(0); DO SLEEP(1.1)").strip()
    add_row(backed_up, "Too late")
    backed_up.inside("s3", "rm -r /srv/files/objects/covers")
    early = backed_up.run("make", "--silent", "restore", "FILE=latest", "UNTIL=2026-01-01 00:00:00")
    wrong = backed_up.run("make", "--silent", "restore", "FILE=latest", "UNTIL=yesterday")
    served = rows(backed_up)
    restored = backed_up.run("make", "--silent", "restore", "FILE=latest", f"UNTIL={until}")
    content = backed_up.inside("s3", f"cat {folder}/large.webp").stdout
    again = backed_up.run(
        "make", "--silent", "restore", "FILE=latest", f"UNTIL={datetime.now(UTC):%F %T}"
    )

    assert made.returncode == 0, made.stderr
    assert "after UNTIL: choose an older one" in early.stderr
    assert "is not a time (UTC) such as" in wrong.stderr
    assert served == "In the backup\nIn the log\nToo late\n"
    assert restored.returncode == 0, restored.stderr
    assert rows(backed_up) == "In the backup\nIn the log\n"
    assert content == "content\n"
    assert "another database was restored between" in again.stderr
    assert not list((backed_up.folder / "backups").glob("????????.sql.gz"))


def test_drill_restores_the_copy_beside_the_service(backed_up: Stack):
    containers = backed_up.containers("mariadb")
    served = rows(backed_up)
    drill = backed_up.run("make", "--silent", "restore-drill", "OFFSITE=1")

    assert drill.returncode == 0, drill.stdout + drill.stderr
    assert "rows are as they were" in drill.stdout
    assert "those of all 1 covers are there" in drill.stdout  # sample
    assert metric(backed_up, "drill") > 0
    assert backed_up.containers("mariadb") == containers
    assert rows(backed_up) == served
    assert backed_up.compose("--profile", "drill", "ps", "--all", "--quiet", "drill") == ""


def test_drill_notices_rows_that_are_not_those_of_the_backup(backed_up: Stack):
    drilled = metric(backed_up, "drill")
    figures = backed_up.folder / "docker" / "backup" / "figures.awk"
    with edited(figures, "    rows++\n", "    rows++\n    if (rows == 1) next\n"):
        drill = backed_up.run("make", "--silent", "restore-drill")

    assert drill.returncode != 0
    assert "rows or checksums differ" in drill.stderr
    assert "docs/backups.md#a-damaged-repository" in drill.stderr
    assert metric(backed_up, "drill") == drilled
    assert backed_up.compose("--profile", "drill", "ps", "--all", "--quiet", "drill") == ""


KILLED = {
    "dumping": (
        'step="dumping the database"\n',
        'step="dumping the database"\nsay held; sleep 600\n',
    ),
    "reading": ('"${paths[@]}"', "--stdin-from-command -- sh -c 'echo held >&2; sleep 600'"),
    "copying": (
        'step="copying to $offsite"\n',
        'step="copying to $offsite"\nsay held; sleep 600\n',
    ),
}


@pytest.mark.parametrize("step", KILLED)
def test_killed_backup_leaves_the_earlier_ones(backed_up: Stack, step: str):
    before = snapshots(backed_up)
    project = f"label=com.docker.compose.project={backed_up.project}"
    oneoff = ["docker", "ps", "--quiet", "--filter", project, "--filter"]
    oneoff.append("label=com.docker.compose.oneoff=True")
    with edited(backed_up.folder / "docker" / "backup" / "backup.sh", *KILLED[step]):
        script = backed_up.start(*(SNAPSHOT % "").split())
        wait_until(lambda: "held" in script.output.read_text(), step)
        second = snapshot(backed_up)
        for container in backed_up.done(*oneoff).split():
            backed_up.done("docker", "kill", container)
        script.ended()
    between = snapshots(backed_up)
    after = snapshot(backed_up)

    assert "a backup is running already" in second.stderr
    assert between[: len(before)] == before
    assert after.returncode == 0, after.stdout + after.stderr
    assert len(snapshots(backed_up)) > len(between)


@contextmanager
def tiny_disk(made: Stack) -> Iterator[str]:
    name = f"{made.project}-tiny"
    options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=64k,uid=10001"]
    label = f"--label=com.docker.compose.project={made.project}"
    made.done("docker", "volume", "create", label, *options, name)
    try:
        yield name
    finally:
        made.done("docker", "volume", "rm", name)


def test_failed_step_says_what_to_do_and_leaves_the_earlier_backups(backed_up: Stack):
    before = snapshots(backed_up)
    password = backed_up.folder / "secrets" / "backup_password"
    right = password.read_text()
    with tiny_disk(backed_up) as volume:
        full = snapshot(backed_up, f"-v {volume}:/var/lib/backup")
    refused = snapshot(backed_up, BACKUP_OFFSITE="sftp://nobody@127.0.0.1:1//copies")
    password.write_text("another")
    wrong = snapshot(backed_up)
    password.write_text(right)
    script = backed_up.folder / "docker" / "backup" / "backup.sh"
    with edited(script, "--timeout 600", "--timeout 0"):
        holder = backed_up.start("flock", "var/operation.lock", "sleep", "600")
        free = ("flock", "--nonblock", "var/operation.lock", "true")
        wait_until(lambda: backed_up.run(*free).returncode != 0, "the lock")
        restoring = snapshot(backed_up)
        holder.signal(signal.SIGKILL)
        holder.ended()
    gone = snapshot(backed_up, "-e NAME=nothing")

    assert re.search("(?i)no space left|errno 28", full.stderr), full.stderr
    assert "s the disk full (df)" in full.stderr
    assert "failed while copying to sftp://" in refused.stderr
    assert "The local backup is complete" in refused.stderr
    assert "secrets/backup_password is not the password of the local repository" in wrong.stderr
    assert "waiting for a deployment or a restore to end" in restoring.stderr
    assert "failed while dumping the database" in gone.stderr
    assert all(failed.returncode != 0 for failed in (full, refused, wrong, restoring, gone))
    assert snapshots(backed_up)[: len(before)] == before


def test_missed_backup_is_made_up_for_and_old_ones_are_thinned_out(backed_up: Stack):
    made = "/etc/backup/start.sh restic backup --quiet --host $NAME --tag backup --time"
    for hour in ("01", "02", "03"):
        old = backed_up.inside("backup", f"bash {made} '2026-03-01 {hour}:00:00' /etc/backup")
        assert old.returncode == 0, old.stderr
    before = snapshots(backed_up)
    backed_up.inside("backup", "echo 0 >/var/lib/backup/succeeded/database")
    stamp = "cat /var/lib/backup/succeeded/database"
    wait_until(lambda: backed_up.inside("backup", stamp).stdout != "0\n", "what was missed")
    wait_until(lambda: before[1] not in snapshots(backed_up), "the end of one of an old day")
    is_free = "flock --nonblock /var/lib/backup/lock true"
    wait_until(lambda: backed_up.inside("backup", is_free).returncode == 0, "the end of the backup")

    # The last of that day; and the first one of all stays while there are fewer days than are kept.
    assert {before[0], before[2]} <= set(snapshots(backed_up))


def test_files_of_a_bucket_are_backed_up_and_return(backed_up: Stack):
    variables = {
        "FILES_URL": f"s3://{NAME}/covers",
        "FILES_ENDPOINT": "http://s3:9000",
        "FILES_ACCESS_KEY_ID": NAME,
    }
    folder = f"/srv/files/s3/{NAME}/covers"
    backed_up.inside("s3", f"mkdir {folder} && echo content >{folder}/a.webp")
    restart(backed_up, "s3")  # it remembers folders
    made = snapshot(backed_up, **variables)
    backed_up.inside("s3", f"rm {folder}/a.webp")
    restart(backed_up, "s3")
    start = "run --rm --no-deps -T backup return latest"
    returned = backed_up.compose(*start.split(), **variables)

    assert made.returncode == 0, made.stdout + made.stderr + returned
    assert backed_up.inside("s3", f"cat {folder}/a.webp").stdout == "content\n"


def test_damaged_repository_is_noticed_by_the_drill(backed_up: Stack):
    """The last of this file."""
    each = "for f in /var/lib/backup/repository/data/*/*; do chmod u+w $f && %s; done"
    size = "count=$(($(stat -c %s $f) / 64))"  # of all: which one has the rows is chance
    rot = each % f"dd if=/dev/zero of=$f bs=64 {size} conv=notrunc status=none"
    rotten = backed_up.inside("backup", rot)
    refused = backed_up.run("make", "--silent", "restore", "FILE=latest")
    short = backed_up.inside("backup", each % "truncate -s -20 $f")
    drill = backed_up.run("make", "--silent", "restore-drill")
    backed_up.inside("backup", "mv /var/lib/backup/repository /var/lib/backup/damaged")
    anew = snapshot(backed_up)

    assert (rotten.stderr, short.stderr) == ("", "")
    assert refused.returncode != 0
    assert "cannot be read" in refused.stderr
    assert "nothing has changed" in refused.stderr
    assert drill.returncode != 0
    assert "failed while checking the repository" in drill.stderr
    assert anew.returncode == 0, anew.stdout + anew.stderr
    assert len(snapshots(backed_up)) == 1
