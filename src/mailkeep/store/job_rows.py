"""Rows of the job table: what long work is known, how far it came. Means nothing by itself; jobs/ does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apsw

from mailkeep.store.schema import select
from mailkeep.store.store import Store

_COLUMNS = "id, kind, account, state, cursor, detail, created, updated"


@dataclass(frozen=True, slots=True)
class JobRow:
    id: int
    kind: str
    account: int | None
    state: str
    cursor: bytes | None
    detail: bytes | None
    created: int  # Unix seconds, as the next
    updated: int


@contextmanager
def _writing(store: Store) -> Iterator[apsw.Connection]:
    with store.directory.database() as db, db:
        yield db


def take(store: Store, kind: str, account: int, key: bytes) -> JobRow:
    """The job's row as it was left, made when it is not there."""
    now = int(time.time())
    with _writing(store) as db:
        db.execute(
            "INSERT INTO job (kind, account, key, state, created, updated) VALUES (?, ?, ?, 'new', ?, ?)"
            " ON CONFLICT (kind, account, key) DO NOTHING",
            (kind, account, key, now, now),
        )
        sql = f"SELECT {_COLUMNS} FROM job WHERE kind = ? AND account = ? AND key = ?"
        (row,) = select(db, sql, (kind, account, key))
    return JobRow(*row)


def save(store: Store, id: int, *, state: str, cursor: bytes, detail: bytes) -> None:
    with _writing(store) as db:
        sql = "UPDATE job SET state = ?, cursor = ?, detail = ?, updated = ? WHERE id = ?"
        db.execute(sql, (state, cursor, detail, int(time.time()), id))


def jobs(store: Store, account: int) -> list[JobRow]:
    """All of an account, the latest first."""
    with store.directory.database() as db:
        sql = f"SELECT {_COLUMNS} FROM job WHERE account = ? ORDER BY updated DESC, id DESC"
        return [JobRow(*row) for row in select(db, sql, (account,))]
