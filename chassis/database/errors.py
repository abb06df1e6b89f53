"""Kinds of database errors: temporary, transaction undone, commit refused."""

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# By number: both drivers raise OperationalError for a misspelt column as for a lost server.
MARIADB_TEMPORARY = {
    (128,),  # a full-text search above innodb_ft_result_cache_limit, as is the next
    (188,),
    (1020,),  # the record has changed since it was read
    (1021,),  # the disk is full
    (1026,),  # error writing a file, as the disk is full
    (1114,),  # a table is full, as the disk is
    (1040,),  # too many connections
    (1053,),  # the server shuts down
    (1205,),  # waited too long for a lock
    (1213,),  # deadlock
    (1317,),  # the statement was interrupted
    (1927,),  # the connection was killed
    (1969,),  # max_statement_time
    (2002,),  # no connection, by socket
    (2003,),  # no connection, by address
    (2006,),  # the server has gone away
    (2013,),  # the connection was lost
}
SQLITE_TEMPORARY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}

# The database has rolled the transaction back, most often to end a deadlock: it may be retried.
MARIADB_UNDONE = {(1020,), (1213,)}
SQLITE_UNDONE = {sqlite3.SQLITE_BUSY_SNAPSHOT}
SQLITE_REFUSED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}


MARIADB_REFERENCES = {(1451,), (1452,)}


def is_broken_reference(error: DBAPIError) -> bool:
    """Whether a row refers to one that is not there, or would, if this one were deleted."""
    if (name := getattr(error.orig, "sqlite_errorname", None)) is not None:
        return bool(name == "SQLITE_CONSTRAINT_FOREIGNKEY")
    return error.orig is not None and error.orig.args[:1] in MARIADB_REFERENCES


def is_temporary(error: DBAPIError | PoolTimeout) -> bool:
    if isinstance(error, PoolTimeout | InterfaceError) or error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in SQLITE_TEMPORARY
    return error.orig is not None and error.orig.args[:1] in MARIADB_TEMPORARY


def is_undone(error: BaseException | None) -> bool:
    """Whether the database has rolled the transaction back and may accept it at once.

    Not after a lock timeout: the other transaction still holds the lock.
    """
    sqlite_code = getattr(error, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code in SQLITE_UNDONE
    return error is not None and error.args[:1] in MARIADB_UNDONE


def is_refused_commit(error: BaseException) -> bool:
    """Whether a COMMIT that failed with this was certainly not carried out.

    Other errors leave that open: a lost connection, a kill, a time limit.
    """
    sqlite_code = getattr(error, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in SQLITE_REFUSED
    return error.args[:1] in MARIADB_UNDONE
