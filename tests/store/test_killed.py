"""Writers killed at any moment: what was acknowledged is there, also when mail.db is then lost as well."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailkeep.store.account import Account
from mailkeep.store.collect import collect
from mailkeep.store.remotes import RemoteBox, State, origin_of
from mailkeep.store.repair import repair
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from tests.messages import numbered
from tests.store.mail import make_store, problems, see

ROUNDS = 6
WRITERS = 2


def write(root: Path, told: int, seed: int) -> None:
    """Append, flag and expunge for ever; tell each promise after it was made, each expunge before it is begun."""
    rng = random.Random(seed)
    account = Store.open(root).account("ann")
    mine: list[tuple[int, int]] = []
    number = seed * 100_000
    while True:
        number += 1
        staged = Staged.of(numbered(number, size=rng.choice((0, 3000))))
        with account.transaction() as tx:
            # As a pull or a migration brings it: with numbers and origins of its own.
            uid = tx.mailbox("INBOX").uidnext + rng.choice((0, 0, 5))
            tx.append(1, staged, uid=uid, origin=origin_of(1, "INBOX", 1, number))
            tx.put_remote_messages(1, [(number, frozenset({f"K{rng.randrange(4)}"}), State.KEPT, None)])
            tx.set_uidls(1, [(uid, f"u{number}")])
        if rng.random() < 0.2:
            with account.transaction() as tx:
                tx.set_origin(1, uid, origin_of(1, "INBOX", 2, number))
                tx.put_remote_messages(1, [(number, frozenset(), State.KEPT, "again")])
                tx.set_uidnext(1, uid + 3)
        os.write(told, b"appended %d %d\n" % (number, uid))
        mine.append((number, uid))
        if rng.random() < 0.3:
            old, old_uid = mine.pop(rng.randrange(len(mine)))
            os.write(told, b"expunging %d %d\n" % (old, old_uid))
            with account.transaction() as tx:
                tx.expunge(1, [old_uid], only_deleted=False)
            os.write(told, b"expunged %d %d\n" % (old, old_uid))
        if mine and rng.random() < 0.3:
            with account.transaction() as tx:
                tx.store_flags(1, [uid for _, uid in mine[-3:]], "+", frozenset({"\\Seen", f"K{rng.randrange(4)}"}))


@dataclass
class Promises:
    """The last word on each message, by number: (word, uid)."""

    last: dict[int, tuple[str, int]] = field(default_factory=dict)

    def hear(self, told: bytes) -> None:
        for line in told.split(b"\n")[:-1]:
            word, number, uid = line.split()
            self.last[int(number)] = word.decode(), int(uid)

    def check(self, store: Store) -> None:
        inbox = {uid: value[-1] for (name, uid), value in see(store).messages.items() if name == "INBOX"}
        for number, (word, uid) in self.last.items():
            if word == "appended":
                assert b"This is message %d." % number in inbox[uid]
            elif word == "expunged":
                assert uid not in inbox
        self._check_known(store.account("ann"))

    def _check_known(self, account: Account) -> None:
        """What messages are known by elsewhere came to the disk with them."""
        uidls = account.uidls(1)
        seen = set(account.remote_uids(1).uids)
        for number, (word, uid) in self.last.items():
            if word != "appended":
                continue
            assert uidls[uid] == f"u{number}"
            places = account.find_origins([origin_of(1, "INBOX", validity, number) for validity in (1, 2)])
            assert list(places.values()) == [(1, uid, True)]
            assert number in seen or not seen  # none after a repair without a database


def run_and_kill(root: Path, seed: int, lines: int) -> bytes:
    """Writers at work until so many lines were told, then killed. Returns all they told."""
    begun: list[tuple[int, int]] = []
    for writer in range(WRITERS):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write(root, write_end, seed * 10 + writer)
            finally:
                os._exit(1)
        os.close(write_end)
        begun.append((child, read_end))
    told = [b"" for _ in begun]
    while told[0].count(b"\n") < lines:
        chunk = os.read(begun[0][1], 65_536)
        assert chunk, "the writer ended by itself"
        told[0] += chunk
    for child, _ in begun:
        os.kill(child, signal.SIGKILL)
    for index, (child, read_end) in enumerate(begun):
        os.waitpid(child, 0)
        while chunk := os.read(read_end, 65_536):
            told[index] += chunk
        os.close(read_end)
    return b"".join(told)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    store, account = make_store(tmp_path / "store")
    assert store.remotes.add("there", account.info.id, settings=b"{}").id == 1
    with account.transaction() as tx:
        assert tx.put_remote_box(RemoteBox(0, 1, "INBOX", account.mailbox("INBOX").id)).id == 1
    store.close()
    yield tmp_path / "store"


def test_nothing_promised_is_lost(root: Path, tmp_path: Path) -> None:
    rng = random.Random(int(os.environ.get("MAILKEEP_SEED", "1")))
    promises = Promises()
    for number in range(1, ROUNDS + 1):
        promises.hear(run_and_kill(root, number, rng.randrange(1, 60)))
        store = Store.open(root)
        assert problems(store) == []
        promises.check(store)
        if number % 3 == 0:
            collect(store, grace_s=-10, retention_s=-10, cold_s=-10)
            assert problems(store) == []
            promises.check(store)
        store.close()

    copy = tmp_path / "copy"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("run", "mail.db*"))
    store = Store.open(copy)
    report = repair(store, store.directory.list()[0])
    assert report.lost == []
    promises.check(store)
    assert problems(store) == []
    store.close()
