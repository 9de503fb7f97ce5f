"""The directory: which accounts there are, by which names, with which credentials and quotas.

One database for the whole store. Names compare without case. Any thread may call; a lock keeps one at a time at the
connection. Nothing is cached: a look-up takes some microseconds, and a password changed from the command line works
at once in every process.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from mailkeep.errors import AccountExists, AccountMissing, NotAllowed
from mailkeep.mail.ids import AccountId
from mailkeep.store import tree
from mailkeep.store.account import Access, AccountInfo, Gone
from mailkeep.store.blobs import PackWriter
from mailkeep.store.failure import translated
from mailkeep.store.flagsets import FlagSets
from mailkeep.store.ledger import Ledger
from mailkeep.store.mailboxes import DEFAULT_MAILBOXES
from mailkeep.store.schema import connect, select, select_row, select_value

NAME_MAX = 255
REMOVED = "removed."  # how the directory of a removed account is named from then on
_INFO = "a.id, a.name, a.quota, a.created, a.access, a.gone"


def fold(name: str) -> str:
    """A name of an account as names are compared."""
    return name.strip().casefold()


class Directory:
    """See the module. Made by `Store.open`."""

    def __init__(self, path: Path, accounts: Path, *, create: bool) -> None:
        self._accounts = accounts
        self._lock = threading.RLock()
        self._db = connect(path, "directory", create=create)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def database(self) -> Iterator[apsw.Connection]:
        """The connection, for one caller at a time. Foreign errors come out as the store's own."""
        with self._lock, translated():
            yield self._db

    def version(self) -> tuple[int, int]:
        """Another one whenever something was changed, here or by another process."""
        with self.database() as db:
            return db.data_version(), db.total_changes()

    @contextmanager
    def _write(self) -> Iterator[apsw.Connection]:
        with self.database() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if not db.get_autocommit():
                    db.execute("ROLLBACK")
                raise

    def account_path(self, id: int) -> Path:
        return self._accounts / str(id)

    # ---- accounts

    def add(
        self,
        name: str,
        *,
        credentials: Mapping[str, bytes] | None = None,
        quota: int | None = None,
        access: Access = "full",
    ) -> AccountInfo:
        """Make an account with the default mailboxes. Raises AccountExists, NotAllowed for a bad name."""
        name = _checked(name)
        with self._write() as db:
            if self._find(db, name) is not None:
                raise AccountExists("An account of that name is there already")
            created = int(time.time())
            db.execute(
                "INSERT INTO account (name, folded, quota, created, access) VALUES (?, ?, ?, ?, ?)",
                (name, fold(name), quota, created, access),
            )
            id = self._free_id(db)
            info = AccountInfo(AccountId(id), name, quota, created, access)
            self._put_credentials(db, id, credentials or {})
            # The directory is there before the row that names it: a kill in between leaves a directory that no account
            # has, and the next account takes another number.
            _make_account(self.account_path(id))
        return info

    def _free_id(self, db: apsw.Connection) -> int:
        id = db.last_insert_rowid()
        while self.account_path(id).exists():
            db.execute("UPDATE account SET id = ? WHERE id = ?", (id + 1, id))
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'account'", (id + 1,))
            id += 1
        return id

    def find(self, name: str) -> AccountInfo | None:
        """By name, else by alias."""
        with self.database() as db:
            return self._find(db, name)

    def _find(self, db: apsw.Connection, name: str) -> AccountInfo | None:
        folded = fold(name)
        row = select_row(db, f"SELECT {_INFO} FROM account a WHERE folded = ?", (folded,))
        if row is None:
            row = select_row(
                db, f"SELECT {_INFO} FROM alias l JOIN account a ON a.id = l.account WHERE l.folded = ?", (folded,)
            )
        return None if row is None else _info(row)

    def find_id(self, id: int) -> AccountInfo | None:
        with self.database() as db:
            row = select_row(db, f"SELECT {_INFO} FROM account a WHERE id = ?", (id,))
        return None if row is None else _info(row)

    def list(self) -> list[AccountInfo]:
        """All accounts, by name."""
        with self.database() as db:
            return [_info(row) for row in select(db, f"SELECT {_INFO} FROM account a ORDER BY folded")]

    def remove(self, name: str) -> None:
        """Forget an account. Its mail is set aside in accounts/removed.<id>.<Unix time>, until `collect` deletes it."""
        with self._write() as db:
            info = self._existing(db, name)
            db.execute("DELETE FROM account WHERE id = ?", (info.id,))
            path = self.account_path(info.id)
            if path.exists():
                os.rename(path, path.with_name(f"{REMOVED}{info.id}.{int(time.time())}"))

    def _existing(self, db: apsw.Connection, name: str) -> AccountInfo:
        info = self._find(db, name)
        if info is None:
            raise AccountMissing("No such account")
        return info

    def set_quota(self, name: str, quota: int | None) -> None:
        with self._write() as db:
            db.execute("UPDATE account SET quota = ? WHERE id = ?", (quota, self._existing(db, name).id))

    def quota(self, id: int) -> int | None:
        """As of now, in bytes."""
        with self.database() as db:
            found: int | None = select_value(db, "SELECT quota FROM account WHERE id = ?", (id,))
        return found

    def set_access(self, name: str, access: Access) -> None:
        """Whether clients may change the account ("full") or only read it. Raises AccountMissing."""
        with self._write() as db:
            db.execute("UPDATE account SET access = ? WHERE id = ?", (access, self._existing(db, name).id))

    def set_gone(self, name: str, gone: Gone) -> None:
        """Whether what vanished at its source stays in its place ("show"). `Account.place_gone` moves what there is."""
        with self._write() as db:
            db.execute("UPDATE account SET gone = ? WHERE id = ?", (gone, self._existing(db, name).id))

    # ---- other names

    def add_alias(self, name: str, alias: str) -> None:
        """Another name for an account. Raises AccountExists when it is taken, NotAllowed for a bad one."""
        alias = _checked(alias)
        with self._write() as db:
            info = self._existing(db, name)
            if self._find(db, alias) is not None:
                raise AccountExists("An account of that name is there already")
            db.execute("INSERT INTO alias VALUES (?, ?, ?)", (fold(alias), alias, info.id))

    def remove_alias(self, alias: str, *, of: int) -> bool:
        """Whether the account had that other name."""
        with self._write() as db:
            db.execute("DELETE FROM alias WHERE folded = ? AND account = ?", (fold(alias), of))
            return bool(db.changes())

    def aliases(self, id: int) -> tuple[str, ...]:
        with self.database() as db:
            return tuple(
                name for (name,) in select(db, "SELECT name FROM alias WHERE account = ? ORDER BY folded", (id,))
            )

    # ---- credentials

    def credentials(self, id: int) -> dict[str, bytes]:
        """By mechanism, as the authenticator made them."""
        with self.database() as db:
            return dict(select(db, "SELECT mechanism, value FROM credential WHERE account = ?", (id,)))

    def set_credentials(self, name: str, credentials: Mapping[str, bytes]) -> None:
        """In place of all that there were. Raises AccountMissing."""
        with self._write() as db:
            info = self._existing(db, name)
            db.execute("DELETE FROM credential WHERE account = ?", (info.id,))
            self._put_credentials(db, info.id, credentials)

    def _put_credentials(self, db: apsw.Connection, id: int, credentials: Mapping[str, bytes]) -> None:
        db.executemany(
            "INSERT INTO credential VALUES (?, ?, ?)",
            [(id, mechanism, value) for mechanism, value in credentials.items()],
        )


def _checked(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_MAX or any(char <= " " or char in '/\\"\x7f' for char in name):
        raise NotAllowed("This cannot be the name of an account")
    return name


def _info(row: Any) -> AccountInfo:
    id, *rest = row
    return AccountInfo(AccountId(id), *rest)


def _make_account(path: Path) -> None:
    """An account's directory with its default mailboxes, whole and durable, or not at all."""
    fresh = path.with_name(f"new.{path.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)  # never held mail: it gets its name only when finished
    try:
        (fresh / "packs").mkdir(parents=True)
        db = connect(fresh / "mail.db", "mail", create=True)
        try:
            _make_mailboxes(db, fresh / "packs")
        finally:
            db.close()
        os.rename(fresh, path)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _make_mailboxes(db: apsw.Connection, packs: Path) -> None:
    pack = PackWriter.create(packs)
    try:
        ledger = Ledger(db, FlagSets(), writer=lambda: pack, quota=lambda: None)
        ledger.begin(-1)
        try:
            for name, special_use in DEFAULT_MAILBOXES:
                tree.create(ledger, name, special_use=special_use, subscribe=True)
        except BaseException:
            ledger.abort()
            raise
        ledger.commit()
    finally:
        pack.close()
