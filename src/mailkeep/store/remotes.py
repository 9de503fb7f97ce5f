"""The remotes: which other servers the store takes mail from, or brings it to, and into which account.

Rows of directory.db. What a setting or a state means is `backup`'s to say: here they are bytes. Secrets are sealed
before they come here. What an account has of a remote is in `remote_rows`.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import apsw

from mailkeep.errors import AccountExists, AccountMissing, NotAllowed
from mailkeep.mail.ids import AccountId
from mailkeep.store.accounts import NAME_MAX, Directory, fold
from mailkeep.store.remote_rows import Origin, Recognisable, RemoteBox, RemoteUids, State, origin_of, pop_origin_of
from mailkeep.store.schema import select, select_row, select_value

__all__ = [
    "Origin",
    "Recognisable",
    "RemoteBox",
    "RemoteRow",
    "RemoteUids",
    "Remotes",
    "State",
    "origin_of",
    "pop_origin_of",
]

_COLUMNS: Final = "id, name, account, settings, secret, schedule, state, created"


class _Unchanged:
    """A value that `update` is not to touch: None is one of the values."""


_UNCHANGED: Final = _Unchanged()
_Blob = bytes | _Unchanged | None


@dataclass(frozen=True, slots=True)
class RemoteRow:
    """A remote as the directory knows it. `secret` is sealed; `created` in Unix seconds."""

    id: int
    name: str
    account: AccountId
    settings: bytes
    secret: bytes | None = field(repr=False)
    schedule: str | None
    state: bytes | None
    created: int


class Remotes:
    """See the module. Any thread may call. `Store.remotes`."""

    def __init__(self, directory: Directory) -> None:
        self._database: Callable[[], AbstractContextManager[apsw.Connection]] = directory.database

    def add(
        self, name: str, account: int, *, settings: bytes, secret: bytes | None = None, again: int | None = None
    ) -> RemoteRow:
        """Raises AccountExists when the name is taken, AccountMissing, NotAllowed for a bad name.

        `again`: the id of a removed one (`removed`) that this is, so that the origins of its messages hold.
        """
        name = name.strip()
        if not name or len(name) > NAME_MAX or any(char <= " " or char in '/\\"\x7f' for char in name):
            raise NotAllowed("This cannot be the name of a remote")
        with self._database() as db:
            if select_value(db, "SELECT 1 FROM account WHERE id = ?", (account,)) is None:
                raise AccountMissing("No such account")
            if select_value(db, "SELECT 1 FROM remote WHERE folded = ?", (fold(name),)) is not None:
                raise AccountExists("A remote of that name is there already")
            values = (name, fold(name), account, settings, secret, int(time.time()))
            row = None
            if again is not None:
                row = select_row(
                    db,
                    "UPDATE remote SET name = ?, folded = ?, account = ?, settings = ?, secret = ?, created = ? "
                    f"WHERE id = ? AND folded = ? RETURNING {_COLUMNS}",
                    (*values, again, _removed_name(again)),
                )
            if row is None:
                row = select_row(
                    db,
                    "INSERT INTO remote (name, folded, account, settings, secret, created) VALUES (?, ?, ?, ?, ?, ?) "
                    f"ON CONFLICT (folded) DO NOTHING RETURNING {_COLUMNS}",
                    values,
                )
        if row is None:
            raise AccountExists("A remote of that name is there already")
        return _row(row)

    def find(self, name: str) -> RemoteRow | None:
        with self._database() as db:
            row = select_row(db, f"SELECT {_COLUMNS} FROM remote WHERE folded = ?", (fold(name),))
        return None if row is None else _row(row)

    def list(self) -> list[RemoteRow]:
        """All remotes, by name."""
        with self._database() as db:
            rows = select(db, f"SELECT {_COLUMNS} FROM remote WHERE folded > '!' ORDER BY folded")
            return [_row(row) for row in rows]

    def removed(self) -> "Sequence[RemoteRow]":
        """Those that were removed, without their secrets, the latest first: for `add`."""
        with self._database() as db:
            rows = select(db, f"SELECT {_COLUMNS} FROM remote WHERE folded < '!' ORDER BY id DESC")
            return [_row(row) for row in rows]

    def remove(self, name: str) -> None:
        """Forget a remote's name, secret, schedule and state; its mail stays. Harmless when there is none.

        What stays of it is who it was: added again it gets its id, and so brings nothing twice.
        """
        with self._database() as db:
            row = select_row(db, "SELECT id FROM remote WHERE folded = ?", (fold(name),))
            if row is not None:
                db.execute(
                    "UPDATE remote SET name = ?, folded = ?, secret = NULL, schedule = NULL, state = NULL WHERE id = ?",
                    (_removed_name(row[0]), _removed_name(row[0]), row[0]),
                )

    def update(
        self,
        id: int,
        *,
        settings: bytes | _Unchanged = _UNCHANGED,
        secret: _Blob = _UNCHANGED,
        schedule: str | _Unchanged | None = _UNCHANGED,
        state: _Blob = _UNCHANGED,
    ) -> None:
        """Change what is given. Harmless when the remote was removed meanwhile."""
        given = {"settings": settings, "secret": secret, "schedule": schedule, "state": state}
        changed = {name: value for name, value in given.items() if not isinstance(value, _Unchanged)}
        if changed:
            terms = ", ".join(f"{name} = ?" for name in changed)
            with self._database() as db:
                db.execute(f"UPDATE remote SET {terms} WHERE id = ?", (*changed.values(), id))

    # ---- hosts

    def host_state(self, host: str) -> bytes | None:
        """What was learnt of a host, as `save_host_state` was given it."""
        with self._database() as db:
            found: bytes | None = select_value(db, "SELECT state FROM host WHERE name = ?", (fold(host),))
        return found

    def save_host_state(self, host: str, state: bytes) -> None:
        with self._database() as db:
            db.execute("INSERT OR REPLACE INTO host VALUES (?, ?)", (fold(host), state))


def _removed_name(id: int) -> str:
    """No remote can be called so: a blank is not allowed in a name, and sorts before all that are."""
    return f" {id}"


def _row(row: Any) -> RemoteRow:
    id, name, account, *rest = row
    return RemoteRow(id, name, AccountId(account), *rest)
