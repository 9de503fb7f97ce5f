"""Sets of flags, interned: a message row holds a small number, and this says which flags it stands for.

A mailbox of any size uses a few dozen distinct sets, so a FETCH of flags is a dictionary look-up and the finished
bytes of the list are made once. Ids only rise and are never taken back, so what is cached here never goes stale; what
another process added is loaded when met. Keywords keep the first spelling that the account saw.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import apsw

from mailkeep.errors import LimitReached, StoreCorrupt
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, SYSTEM_FLAGS, Flags
from mailkeep.mail.ids import FlagSetId
from mailkeep.store.schema import select, select_value

KEYWORDS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class FlagSet:
    """One set of flags. `names` lists system flags first; `wire` is what stands between the parentheses."""

    id: FlagSetId
    flags: Flags
    names: tuple[str, ...]
    wire: bytes
    seen: bool
    answered: bool
    flagged: bool
    deleted: bool
    draft: bool


def sort_names(flags: Iterable[str]) -> tuple[str, ...]:
    """System flags in the RFC's order, then keywords by name."""
    given = frozenset(flags)
    return (*(name for name in SYSTEM_FLAGS if name in given), *sorted(given.difference(SYSTEM_FLAGS)))


def make_flagset(id: int, names: tuple[str, ...]) -> FlagSet:
    flags = frozenset(names)
    return FlagSet(
        FlagSetId(id),
        flags,
        names,
        " ".join(names).encode("ascii", "replace"),
        seen=SEEN in flags,
        answered=ANSWERED in flags,
        flagged=FLAGGED in flags,
        deleted=DELETED in flags,
        draft=DRAFT in flags,
    )


class FlagSets:
    """The flag sets of one account, as this process knows them.

    `get` is for any thread that holds the connection it passes; `refresh`, `intern` and `forget` are for the one that
    holds the account's write lock. Plain dictionary operations keep the two apart.
    """

    __slots__ = ("_by_flags", "_by_id", "_last", "_spellings")

    def __init__(self) -> None:
        self._by_id: dict[int, FlagSet] = {}
        self._by_flags: dict[Flags, FlagSet] = {}
        self._spellings: dict[str, str] = {}  # of keywords, by their lower case
        self._last = 0  # every id up to here is known

    def get(self, id: int) -> FlagSet | None:
        return self._by_id.get(id)

    def load(self, db: apsw.Connection, id: int) -> FlagSet:
        """A set that was not met before. Raises StoreCorrupt."""
        names = select_value(db, "SELECT names FROM flagset WHERE id = ?", (id,))
        if not isinstance(names, str):
            raise StoreCorrupt("A message has flags that are not known")
        return self._learn(id, names)

    def load_all(self, db: apsw.Connection) -> list[FlagSet]:
        for id, names in select(db, "SELECT id, names FROM flagset"):
            if id not in self._by_id:
                self._learn(id, names)
        return list(self._by_id.values())

    def _learn(self, id: int, names: str) -> FlagSet:
        found = make_flagset(id, tuple(names.split()))
        self._by_id[id] = found
        self._by_flags[found.flags] = found
        for name in found.flags.difference(SYSTEM_FLAGS):
            self._spellings.setdefault(name.lower(), name)
        return found

    def refresh(self, db: apsw.Connection) -> None:
        """Learn what other processes added. Inside a write transaction."""
        for id, names in select(db, "SELECT id, names FROM flagset WHERE id > ?", (self._last,)):
            self._learn(id, names)
            self._last = id

    def intern(self, db: apsw.Connection, flags: Flags) -> tuple[FlagSet, bool]:
        """The set of these flags, and whether it is new. Inside a write transaction. Raises LimitReached."""
        found = self._by_flags.get(flags)
        if found is not None:
            return found, False
        flags = self.spell(flags)
        found = self._by_flags.get(flags)
        if found is not None:
            return found, False
        names = " ".join(sort_names(flags))
        fresh = {name.lower() for name in flags.difference(SYSTEM_FLAGS)}.difference(self._spellings)
        if fresh and len(self._spellings) + len(fresh) > KEYWORDS_MAX:
            raise LimitReached("Too many keywords in the account")
        id = self._last + 1
        db.execute("INSERT INTO flagset VALUES (?, ?)", (id, names))
        self._last = id
        return self._learn(id, names), True

    def spell(self, flags: Flags) -> Flags:
        """The flags as this account spells them."""
        if flags in self._by_flags:
            return flags
        # Two spellings of one new keyword in the same set must not both stay.
        chosen: dict[str, str] = {}
        for name in sorted(flags):
            chosen.setdefault(name.lower(), self._spellings.get(name.lower(), name))
        return frozenset(chosen.values())

    def forget(self, ids: Iterable[FlagSetId]) -> None:
        """Take back sets whose transaction did not commit."""
        for id in ids:
            found = self._by_id.pop(id)
            del self._by_flags[found.flags]
            self._last = min(self._last, id - 1)
        # Copies: readers in other threads learn sets meanwhile.
        known = {name.lower() for found in list(self._by_id.values()) for name in found.names}
        for folded in [folded for folded in list(self._spellings) if folded not in known]:
            del self._spellings[folded]

    def known(self, flags: Flags) -> Flags:
        """Of the flags those that need no new keyword."""
        return frozenset(flag for flag in flags if flag in SYSTEM_FLAGS or flag.lower() in self._spellings)

    def keywords(self) -> list[str]:
        return sorted(self._spellings.values())
