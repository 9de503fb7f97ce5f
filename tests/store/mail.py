"""An account with a life behind it, for the tests of verify, repair and collect; and what can be seen of one."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailkeep.store.account import Account, AccountInfo
from mailkeep.store.check import Problem, verify
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from tests.messages import numbered


def make_store(root: Path, name: str = "ann") -> tuple[Store, Account]:
    store = Store.open(root)
    store.directory.add(name)
    return store, store.account(name)


def live(account: Account, *, rounds: int = 60, seed: int = 1) -> None:
    """Deliveries, flags, copies, moves, expunges, mailboxes made, renamed and deleted; a transaction each."""
    rng = random.Random(seed)
    for number in range(rounds):
        with account.transaction() as tx:
            boxes = [box.id for box in account.mailboxes()]
            here, there = rng.sample(boxes, 2)
            uids = [uid for uid, *_ in account.fetch(here, range(1, 400), ("uid",))]
            some = rng.sample(uids, min(len(uids), 3))
            match rng.choice(("append", "append", "append", "flags", "copy", "move", "expunge", "mailbox")):
                case "append":
                    for extra in range(3):
                        staged = Staged.of(numbered(seed * 10_000 + number * 10 + extra, size=rng.choice((0, 5000))))
                        flags = rng.choice((frozenset(), frozenset({"\\Seen", "Work"}), frozenset({"\\Deleted"})))
                        origin = b"o%d-%d" % (number, extra) if rng.random() < 0.3 else None
                        tx.append(here, staged, flags=flags, internaldate=1_700_000_000 + number, origin=origin)
                case "flags":
                    tx.store_flags(here, some, "+", frozenset({"\\Seen", rng.choice(("$Junk", "Blue", "\\Deleted"))}))
                case "copy":
                    tx.copy(here, some, there)
                case "move":
                    tx.move(here, some, there)
                case "expunge":
                    tx.expunge(here, some, only_deleted=False)
                case "mailbox":
                    tx.create_mailbox(f"Box {number}/Sub", subscribe=True)
                    if number % 2:
                        tx.rename_mailbox(f"Box {number}", f"Renamed {number}")
                    if number % 3 == 0:
                        tx.delete_mailbox(f"{'Renamed' if number % 2 else 'Box'} {number}/Sub")


@dataclass(frozen=True)
class Seen:
    """What a client can see of an account, for comparison."""

    mailboxes: dict[str, Any]
    messages: dict[tuple[str, int], Any]
    subscriptions: set[str]


def look(account: Account) -> Seen:
    boxes: dict[str, Any] = {}
    messages: dict[tuple[str, int], Any] = {}
    for box in account.mailboxes():
        boxes[box.name] = (
            box.uidvalidity,
            box.uidnext,
            box.messages,
            box.unseen,
            box.deleted,
            box.size,
            box.special_use,
        )
        index = account.index(box.id)
        uids = list(index.uids)
        account.release(index)
        columns = ("uid", "flags", "internaldate", "savedate", "size", "envelope", "email", "sha256")
        for uid, flags, *rest, email, sha256 in account.fetch(box.id, uids, columns):
            messages[box.name, uid] = (account.flagset(flags).flags, *rest, sha256, account.read(email))
    return Seen(boxes, messages, account.subscriptions())


def see(store: Store, name: str = "ann") -> Seen:
    """As a process sees it that comes anew."""
    fresh = Store.open(store.root)
    try:
        return look(fresh.account(name))
    finally:
        fresh.close()


def problems(store: Store, info: AccountInfo | None = None) -> list[Problem]:
    return verify(store, None if info is None else [info]).problems
