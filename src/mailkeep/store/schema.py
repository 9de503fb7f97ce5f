"""The databases: how one is opened, brought up to date, and what its numbers mean.

The tables are in sql/NAME_NNN.sql; `user_version` says how many of them a file has seen. Knows pragmas and versions,
not what the rows are for.

Two sync levels are used on the same connection: FULL for what adds, places, moves or removes mail;
NORMAL for flags, which in WAL mode writes without a sync: safe from a killed process at once.
"""

import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import apsw

from mailkeep.errors import StoreCorrupt
from mailkeep.store.failure import translated

Name = Literal["mail", "directory"]

UID_BITS: Final = 32
UID_MASK: Final = 0xFFFF_FFFF
HEADER_SET_BITS: Final = 40  # header_cache.key = set << 40 | email
EMPTY_FLAGSET: Final = 1

CACHE_KIB = 2048
MMAP_BYTES = 256 << 20
BUSY_S = 10.0


class Fate(IntEnum):
    """Why a message row has `removed` set."""

    EXPUNGED = 1
    MOVED = 2  # lives on under another key: never undeleted
    MAILBOX = 3  # its mailbox was deleted
    RESTORED = 4  # was undeleted since, under another key


_MIX_A = 0x9E37_79B9_7F4A_7C15
_MIX_B = 0xBF58_476D_1CE4_E5B9
_MASK_64 = (1 << 64) - 1
_MASK_63 = (1 << 63) - 1


def checksum_term(uid: int, sha256: bytes) -> int:
    """What one live message adds (by XOR) to its mailbox's checksum; 63 bits.

    Mixed by multiplication: a plain XOR of UID and digest would not see two messages that swapped UIDs.
    """
    mixed = ((int.from_bytes(sha256[:8], "big") ^ (uid * _MIX_A)) * _MIX_B) & _MASK_64
    return (mixed ^ (mixed >> 29)) & _MASK_63


@cache
def _scripts(name: Name) -> tuple[str, ...]:
    files = sorted((Path(__file__).parent / "sql").glob(f"{name}_*.sql"))
    return tuple(file.read_text("utf-8") for file in files)


def _wait(busy_s: float) -> Callable[[int], bool]:
    # SQLite's own busy handler backs off to 100 ms, an age beside a commit of half a millisecond.
    deadline = 0.0

    def handler(attempt: int) -> bool:
        nonlocal deadline
        now = time.monotonic()
        if attempt == 0:
            deadline = now + busy_s
        if now >= deadline:
            return False
        time.sleep(min(0.0002 * (attempt + 1), 0.002))
        return True

    return handler


def connect(path: Path, name: Name, *, create: bool = False, busy_s: float = BUSY_S) -> apsw.Connection:
    """Open a database, made and migrated as needed. The caller closes it. Raises StoreError subclasses.

    A connection may be used by any thread, by one at a time.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    with translated():
        db = apsw.Connection(str(path), flags=flags, statementcachesize=128)
        try:
            _configure(db, busy_s)
            _migrate(db, _scripts(name))
        except BaseException:
            db.close()
            raise
    return db


def set_patience(db: apsw.Connection, busy_s: float = BUSY_S) -> None:
    """How long a statement waits for another process's lock before StoreBusy."""
    db.set_busy_handler(_wait(busy_s))


def _configure(db: apsw.Connection, busy_s: float) -> None:
    set_patience(db, busy_s)
    db.execute("PRAGMA journal_mode=WAL")
    # Checkpoints run in the writer's thread after the answer is out, never inside a commit.
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    db.execute(f"PRAGMA mmap_size={MMAP_BYTES}")
    db.execute("PRAGMA temp_store=MEMORY")
    db.execute("PRAGMA foreign_keys=ON")


def _migrate(db: apsw.Connection, scripts: tuple[str, ...]) -> None:
    if _version(db) == len(scripts):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)  # again: another process may have been here first
        if version > len(scripts):
            raise StoreCorrupt("The store was written by a newer version of this program")
        for script in scripts[version:]:
            db.execute(script)
        db.execute(f"PRAGMA user_version={len(scripts)}")
        db.execute("COMMIT")
    except BaseException:
        if not db.get_autocommit():
            db.execute("ROLLBACK")
        raise


def select(db: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
    """All rows, each a tuple."""
    return db.execute(sql, bindings).fetchall()


def select_row(db: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> Any:
    """The first row as a tuple, or None."""
    cursor = db.execute(sql, bindings)
    row = cursor.fetchone()
    cursor.close(True)  # else the read transaction would stay open until the cursor is collected
    return row


def select_value(db: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> Any:
    """The first column of the first row, or None."""
    row = select_row(db, sql, bindings)
    return None if row is None else row[0]


def _version(db: apsw.Connection) -> int:
    return int(select_value(db, "PRAGMA user_version"))
