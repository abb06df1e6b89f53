"""DDL on MariaDB while the service runs: no lock on a table, and no long wait for one."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from alembic.ddl.mysql import MariaDBImpl
from alembic.util import CommandError
from sqlalchemy import CursorResult, Executable, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from chassis.database.engines import reason_of
from chassis.migrations.online import allowed

LOCK_WAIT = 2  # s; DDL that waits for a long transaction makes all other statements wait behind it
PAUSE = 5.0  # s, in which those go on
ATTEMPTS = 10  # about a minute

LOCK_TIMEOUT = 1205
LOCK_REFUSED = (1845, 1846)

NAME = r"`?(\w+)`?"
CREATED = re.compile(rf"\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{NAME}", re.IGNORECASE)
CHANGED = re.compile(
    r"\s*(?:(ALTER)\s+TABLE\s+(?:IF\s+EXISTS\s+)?"
    rf"|CREATE\s+(?:\w+\s+)*?INDEX\s.*?\sON\s+){NAME}",
    re.IGNORECASE | re.DOTALL,
)
DDL = re.compile(r"\s*(ALTER|CREATE|DROP|RENAME|TRUNCATE)\b", re.IGNORECASE)
# MariaDB knows no lock for the first, and in the second the migration has chosen one.
LEFT_ALONE = re.compile(r"\bRENAME\s+(TO|AS)\b|\b(LOCK|ALGORITHM)\s*=", re.IGNORECASE)


class OnlineMariaDBImpl(MariaDBImpl):
    """Has MariaDB refuse a change that would block writers, and tries again after a short wait.

    With `LOCK=NONE` MariaDB uses the cheapest algorithm that lets others read and write (INSTANT,
    NOCOPY, INPLACE; from 11.2 on COPY as well), or none. Tables that the same revision has created
    need none of that, and within `may_lock` a change that is refused is repeated with a lock.
    Alembic uses the class that was defined last for a dialect: importing this module suffices.
    """

    __dialect__ = "mariadb"

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._created: set[str] = set()

    def _exec(
        self,
        construct: Executable | str,
        execution_options: Mapping[str, Any] | None = None,
        multiparams: Sequence[Mapping[str, Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> CursorResult[Any] | None:
        if getattr(getattr(construct, "table", None), "name", None) == "alembic_version":
            self._created.clear()  # a revision is complete
        construct = text(construct) if isinstance(construct, str) else construct
        statement = ""
        if isinstance(construct, ExecutableDDLElement | TextClause):
            statement = str(construct.compile(dialect=self.dialect))
        if self.as_sql or DDL.match(statement) is None:
            return super()._exec(construct, execution_options, multiparams, params or {})
        if (created := CREATED.match(statement)) is not None:
            self._created.add(created[1])
        self._run(statement)
        return None

    def _run(self, statement: str) -> None:
        try:
            self._retry(without_lock(statement, self._created))
        except DBAPIError as error:
            if _number(error) not in LOCK_REFUSED:
                raise
            if "locks" not in allowed.get():
                raise CommandError(refused(statement, error)) from error
            self._retry(statement)

    def _retry(self, statement: str) -> None:
        assert self.connection is not None  # noqa: S101
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self.connection.exec_driver_sql(statement)
                return
            except DBAPIError as error:
                if _number(error) != LOCK_TIMEOUT:
                    raise
                if attempt == ATTEMPTS:
                    raise CommandError(in_use(statement)) from error
            time.sleep(PAUSE)


def without_lock(statement: str, created: set[str]) -> str:
    changed = CHANGED.match(statement)
    if changed is None or changed[2] in created or LEFT_ALONE.search(statement):
        return statement
    return f"{statement.rstrip().rstrip(';')}{',' if changed[1] else ''} LOCK=NONE"


def _number(error: DBAPIError) -> int | None:
    return error.orig.args[0] if error.orig is not None and error.orig.args else None


def refused(statement: str, error: DBAPIError) -> str:
    return (
        f"{_short(statement)!r} would block all writes to the table: {reason_of(error)}. It has "
        "changed nothing. See docs/migrations.md for what to do instead; for a small table, "
        'write it within `with may_lock("why"):`'
    )


FIND = (
    "SELECT trx_mysql_thread_id, trx_started, trx_query FROM information_schema.innodb_trx "
    "ORDER BY trx_started"
)


def in_use(statement: str) -> str:
    return (
        f"{_short(statement)!r} has changed nothing: for {ATTEMPTS} times {LOCK_WAIT} s it waited "
        "for a transaction that has used the table and has not ended. Wait for it, or find it "
        f"with: {FIND}; and end it with KILL and its thread. Then migrate again"
    )


def _short(statement: str) -> str:
    words = " ".join(statement.removesuffix(" LOCK=NONE").removesuffix(",").split())
    return words if len(words) <= 100 else f"{words[:100]}..."
