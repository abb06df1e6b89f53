"""Whatever a schema holds comes back, and whatever step fails, the old database serves on."""

import gzip
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compose.stack import Finished, Stack, Started, wait_until
from tests.compose.subject import (
    PATH,
    RANKING,  # sample
    TABLE,
    TEXT,
    new,
)

# All that cannot simply be renamed into another schema, or whose name or type asks for care.
SCHEMA = f"""
    CREATE DATABASE seen;
    CREATE TABLE seen.schemas (name VARCHAR(64));
    CREATE TABLE audit (
        id INT AUTO_INCREMENT PRIMARY KEY,
        what TEXT,
        length INT AS (LENGTH(what)) STORED,
        `order` VARCHAR(20) COLLATE utf8mb4_danish_ci
    ) CHARSET latin1;
    CREATE TABLE `select ``näme`` - x` (
        id INT PRIMARY KEY,
        parent INT REFERENCES `select ``näme`` - x` (id)
    );
    CREATE SEQUENCE numbers START 5;
    CREATE TABLE numbered (id INT PRIMARY KEY DEFAULT NEXT VALUE FOR numbers, x INT);
    INSERT INTO numbered (x) VALUES (1), (2);
    CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3;
    CREATE TABLE versioned (id INT PRIMARY KEY, x INT) WITH SYSTEM VERSIONING;
    INSERT INTO versioned VALUES (1, 1);
    UPDATE versioned SET x = 2;
    CREATE VIEW `a view` AS SELECT id, {TEXT} AS name FROM {TABLE};
    CREATE VIEW on_a_view AS SELECT * FROM `a view` WHERE id > 0;
    ALTER DATABASE bookshelf COLLATE latin1_swedish_ci;
    DELIMITER //
    CREATE TRIGGER first AFTER INSERT ON {TABLE} FOR EACH ROW
        BEGIN INSERT INTO audit (what) VALUES (CONCAT('first; ', NEW.{TEXT})); END//
    CREATE TRIGGER `second one` AFTER INSERT ON {TABLE} FOR EACH ROW FOLLOWS first
        INSERT INTO audit (what) VALUES ('second')//
    CREATE FUNCTION shout(t TEXT) RETURNS TEXT DETERMINISTIC RETURN UPPER(t)//
    CREATE PROCEDURE nothing() BEGIN SELECT 1; END//
    CREATE EVENT daily ON SCHEDULE EVERY 1 DAY DO DELETE FROM audit//
    CREATE EVENT `an ``odd ENABLE one` ON SCHEDULE EVERY '1:30' HOUR_MINUTE ENDS '2099-01-01'
        ON COMPLETION PRESERVE DISABLE COMMENT 'x' DO SELECT ' ON COMPLETION PRESERVE ENABLE '//
    CREATE EVENT `each second` ON SCHEDULE EVERY 1 SECOND ON COMPLETION PRESERVE
        COMMENT ' ON COMPLETION PRESERVE DISABLE ON SLAVE '
        DO INSERT INTO seen.schemas SELECT SCHEMA()//
    DELIMITER ;
    ALTER DATABASE bookshelf COLLATE utf8mb4_unicode_ci;
    CREATE VIEW loud AS SELECT shout(name) AS name FROM `a view`;
"""
NAMES = f"""
    SELECT table_schema, table_name, table_type,
        IF(table_type = 'SEQUENCE', 'of the schema', table_collation) -- a dump does not say it
        FROM information_schema.tables
        WHERE table_schema IN ('bookshelf', 'bookshelf_before') ORDER BY 1, 2;
    SELECT trigger_name, action_order, definer, database_collation, action_statement
        FROM information_schema.triggers WHERE trigger_schema = 'bookshelf' ORDER BY 1;
    SELECT routine_name, routine_type, database_collation FROM information_schema.routines
        WHERE routine_schema = 'bookshelf' ORDER BY 1;
    SELECT event_name, status, event_comment, event_definition, database_collation
        FROM information_schema.events WHERE event_schema = 'bookshelf' ORDER BY 1;
    SELECT constraint_schema, constraint_name, table_name, unique_constraint_schema
        FROM information_schema.referential_constraints WHERE constraint_schema = 'bookshelf'
        ORDER BY 1, 2, 3;
    SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = 'bookshelf';
    SELECT * FROM loud ORDER BY 1;
    SELECT id, x FROM versioned FOR SYSTEM_TIME ALL ORDER BY row_start;
    CHECKSUM TABLE {TABLE}, audit, numbered, users, alembic_version;
"""


DEFAULT = """SELECT default_collation_name FROM information_schema.schemata
    WHERE schema_name = 'bookshelf'"""
SEEN = "SELECT DISTINCT name FROM seen.schemas"  # where events have run


def set_default(stack: Stack, collation: str) -> None:
    stack.sql(f"ALTER DATABASE bookshelf COLLATE {collation}")


@dataclass
class Restorable:
    stack: Stack
    backup: Path
    saved: str  # what the database was at the backup
    before: str  # and what it is now: there was a write since

    def restore(self, file: Path | None = None, **variables: str) -> Finished:
        path = (file or self.backup).relative_to(self.stack.folder)
        return self.stack.run("make", "--silent", "restore", f"FILE={path}", **variables)

    def variant(self, change: Callable[[str], str]) -> Path:
        """The backup with something else in it."""
        file = self.backup.with_name("variant.sql.gz")
        file.write_bytes(
            gzip.compress(change(gzip.decompress(self.backup.read_bytes()).decode()).encode())
        )
        return file

    def serves(self, text: str) -> bool:
        with self.stack.client(**{"Cache-Control": "no-cache"}) as client:
            response = client.get(f"{PATH}?limit=100")
        return response.status_code == 200 and text in response.text

    def is_unlocked(self) -> bool:
        lock = self.stack.folder / "var" / "operation.lock"
        return self.stack.run("flock", "--nonblock", str(lock), "true").returncode == 0

    def old_serves_on(self) -> None:
        """Soon, after a kill; with all of its containers, and with nothing that is left over."""
        wait_until(self.is_unlocked, "the end of what takes it back")
        wait_until(lambda: self.serves("Since"), "the old database")
        assert self.stack.query(NAMES).stdout == self.before
        assert len(self.stack.containers("api")) == 2
        assert len(self.stack.containers("worker")) == 1
        assert not (self.stack.folder / "backups" / "restoring").exists()


@pytest.fixture(scope="module")
def restorable(small: Stack) -> Restorable:
    small.sql(SCHEMA)
    with small.editor() as client:
        assert client.post(PATH, json=new("Saved")).status_code == 201
    saved = small.sql(NAMES)
    small.done("make", "--silent", "backup")
    [backup] = (small.folder / "backups").glob("*.sql.gz")
    with small.editor() as client:
        assert client.post(PATH, json=new("Since")).status_code == 201
    return Restorable(small, backup, saved, small.sql(NAMES))


def without_table(dump: str, name: str) -> str:
    return re.sub(
        rf"(?s)\n-- Table structure for table `{name}`.*?(?=\n-- Table structure)", "\n", dump
    )


VIEW = "CREATE VIEW bad AS SELECT * FROM elsewhere.nothing;\n-- Dump completed"
TRIGGER = f"CREATE TRIGGER bad AFTER INSERT ON {TABLE} FOR EACH ROW SELEKT 1;\n-- Dump completed"
EVENT = "CREATE EVENT by_hand ON SCHEDULE EVERY 1 DAY DO SELECT 1;\n-- Dump completed"
REFUSED: dict[str, tuple[Callable[[str], str], str]] = {
    "view": (lambda dump: dump.replace("-- Dump completed", VIEW), "elsewhere"),
    "trigger": (lambda dump: dump.replace("-- Dump completed", TRIGGER), "SELEKT"),
    "names a schema": (lambda dump: "USE `bookshelf`;\n" + dump, "names a schema of its own"),
    "no table": (lambda dump: "-- Dump completed\n", "has no table"),
    "cut off": (lambda dump: dump[:-200], "is not complete"),
    "newer schema": (lambda dump: re.sub(r"\('(0\d+)'\)", "('9999')", dump), "ahead of this code"),
    "event by hand": (
        lambda dump: dump.replace("-- Dump completed", EVENT),
        "would run too early: by",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_dump_that_cannot_be_restored_is_refused_before_anything_stops(
    restorable: Restorable, name: str
):
    change, line = REFUSED[name]
    containers = restorable.stack.containers("api")
    started = [restorable.stack.inspect(one)["State"]["StartedAt"] for one in containers]
    refused = restorable.restore(restorable.variant(change))

    assert refused.returncode != 0
    assert line in refused.stdout + refused.stderr
    assert "nothing has changed" in refused.stderr
    assert started == [restorable.stack.inspect(one)["State"]["StartedAt"] for one in containers]
    restorable.old_serves_on()


def test_disk_that_is_full_of_backups_stops_the_restore(restorable: Restorable):
    """As a limit on the size of a file, which gzip meets in the same way."""
    command = f"ulimit -f 1; make --silent restore FILE={restorable.backup}"
    refused = restorable.stack.run("bash", "-c", command)
    kept = list((restorable.stack.folder / "backups").glob("*.partial"))

    assert refused.returncode != 0
    assert "cannot be backed up" in refused.stderr
    assert kept == []
    restorable.old_serves_on()


def test_disk_of_the_database_that_is_too_small_is_seen_before_the_dump_is_read(
    restorable: Restorable,
):
    """As a `df` that says so."""
    folder = restorable.stack.folder
    script = folder / "docker" / "database.sh"
    text = script.read_text()
    script.write_text(
        text + '\nin_mariadb() { [ "$1" != df ] || { echo; echo "x 9 9 1 9 /"; }; }\n'
    )
    script.write_text(
        text.replace(
            "in_mariadb() {", 'in_mariadb() {\n[ "$1" != df ] || { echo; echo x 9 9 1; return; }'
        )
    )
    refused = restorable.restore()
    script.write_text(text)

    assert refused.returncode != 0
    assert "the disk of MariaDB has 1 KiB" in refused.stderr
    restorable.old_serves_on()


def test_view_that_fails_after_the_swap_takes_the_old_database_back(restorable: Restorable):
    """It names a table of the old database, which is there while it is tried."""
    view = "CREATE VIEW bad AS SELECT * FROM bookshelf.numbered;\n-- Dump completed"
    variant = restorable.variant(
        lambda dump: without_table(dump, "numbered").replace("-- Dump completed", view)
    )
    # As that of its objects: none of the statements that put them back sets it.
    set_default(restorable.stack, "latin1_swedish_ci")
    failed = restorable.restore(variant)
    default = restorable.stack.sql(DEFAULT).strip()
    set_default(restorable.stack, "utf8mb4_unicode_ci")

    assert failed.returncode != 0
    assert default == "latin1_swedish_ci"
    assert "failed while letting the databases change places" in failed.stderr
    assert "undone: the database of before serves" in failed.stderr
    restorable.old_serves_on()


def has_tables(restorable: Restorable, schema: str) -> bool:
    seen = f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{schema}'"
    return restorable.stack.query(seen).stdout.strip() not in ("", "0")


MOMENTS: dict[str, Callable[[Restorable], bool]] = {
    "reading": lambda restorable: has_tables(restorable, "bookshelf_restored"),
    "stopping": lambda restorable: (restorable.stack.folder / "backups" / "restoring").exists(),
    "swapped": lambda restorable: has_tables(restorable, "bookshelf_before"),
}


def restore_until(restorable: Restorable, moment: str) -> Started:
    script = restorable.stack.start("docker/restore.sh", str(restorable.backup))
    ended = script.process.poll
    wait_until(lambda: MOMENTS[moment](restorable) or ended() is not None, moment)
    assert ended() is None, script.ended()
    return script


@pytest.mark.parametrize(
    ("moment", "all_of_it"),
    [("reading", False), ("stopping", False), ("swapped", False), ("swapped", True)],
)
def test_killed_script_leaves_the_old_database(
    restorable: Restorable, moment: str, all_of_it: bool
):
    script = restore_until(restorable, moment)
    if all_of_it:
        script.signal(signal.SIGKILL)
    else:
        script.process.kill()
    script.ended()

    restorable.old_serves_on()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_database_comes_back_as_it_was(restorable: Restorable, moment: str):
    script = restore_until(restorable, moment)
    [database] = restorable.stack.containers("mariadb")
    restorable.stack.done("docker", "kill", database)
    output = script.ended()
    restorable.stack.done("docker", "start", database)

    assert "failed while" in output
    assert ("stays in the schema bookshelf_restored" in output) == (moment == "reading")
    restorable.old_serves_on()


def test_interrupted_restore_takes_the_old_database_back(restorable: Restorable):
    script = restore_until(restorable, "stopping")
    second = restorable.stack.run("make", "--silent", "deploy")
    script.signal(signal.SIGINT)
    output = script.ended()

    assert "restore (process" in second.stderr
    assert script.process.returncode != 0
    assert "undone: the database of before serves" in output
    restorable.old_serves_on()


def test_restore_that_was_cut_off_with_its_guard_is_undone_by_the_next(restorable: Restorable):
    """As after a power failure."""
    stack = restorable.stack
    script = restore_until(restorable, "swapped")
    for process in stack.done("pgrep", "-f", "docker/restore.sh").split():
        folder = Path(f"/proc/{process}/cwd")
        if folder.exists() and folder.resolve() == stack.folder:
            os.kill(int(process), signal.SIGKILL)
    script.ended()
    wait_until(restorable.is_unlocked, "the end of what it had started")
    refused = stack.run("make", "--silent", "deploy")
    again = stack.run("make", "--silent", "restore")

    assert "a restore was cut off; run: make restore" in refused.stderr
    assert "which file?" in again.stderr
    restorable.old_serves_on()


def test_everything_a_schema_holds_comes_back(restorable: Restorable):
    """The last of this file: after all that failed before, it is restored.

    Events run where the database serves, and nowhere else: not while they are read and tried.
    """
    stack = restorable.stack
    stack.sql("SET GLOBAL event_scheduler = ON")
    set_default(stack, "utf8mb4_danish_ci")
    # sample: begin
    ranking = f"{RANKING}?limit=3"
    with stack.client() as client:
        stored = [client.get(ranking).headers["X-Edge-Cache"] for _ in range(2)]
    # sample: end
    with stack.editor() as client:
        session = client.get("/v1/users/me").status_code
        restored = restorable.restore()
        default = stack.sql(DEFAULT).strip()
        set_default(stack, "utf8mb4_unicode_ci")
        after = stack.sql(NAMES)
        ended = client.get("/v1/users/me").status_code
    assert restored.returncode == 0, restored.stdout + restored.stderr
    # sample: begin
    with stack.client() as client:
        stored.append(client.get(ranking).headers["X-Edge-Cache"])
    # sample: end
    schemas = stack.sql("SHOW DATABASES LIKE 'bookshelf%'").split()
    logins = stack.sql("SELECT COUNT(*) FROM user_sessions").strip()
    with stack.editor() as client:
        assert client.post(PATH, json=new("After")).status_code == 201
    audit = stack.sql("SELECT what FROM audit ORDER BY id").split("\n")
    events = stack.sql(SEEN)
    stack.sql("DELETE FROM seen.schemas")
    wait_until(lambda: bool(stack.sql(SEEN)), "an event of what was restored")

    assert stored[1:] == ["HIT", "MISS"]  # sample
    assert default == "utf8mb4_danish_ci"  # of the schema before, whatever the backup had
    assert events == "bookshelf\n"
    assert after == restorable.saved
    assert schemas == ["bookshelf"]
    assert (session, ended, logins) == (200, 401, "0")
    assert "first; After" in audit
    kept = re.findall(r"what was there is in (\S+)", restored.stdout)
    assert "Since" in gzip.decompress((stack.folder / kept[0]).read_bytes()).decode()
    assert restorable.serves("Saved")
    assert not restorable.serves("Since")
