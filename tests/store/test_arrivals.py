"""A batch of messages comes in as the same messages would one after the other."""

import random
from pathlib import Path
from typing import Any

import pytest

from mailkeep.errors import LimitReached, MailboxMissing, NotAllowed, OverQuota
from mailkeep.store import Account, Appended, Arrival, Staged, Store
from mailkeep.store.repair import repair
from tests.messages import corpus, numbered
from tests.store.mail import look, make_store, problems


def reply(number: int, *to: int) -> bytes:
    references = " ".join(f"<m{other}@example.org>" for other in to)
    return (
        f"Message-ID: <m{number}@example.org>\r\nReferences: {references}\r\nSubject: {number}\r\n\r\nbody\r\n"
    ).encode()


def arrivals(seed: int) -> list[list[Arrival]]:
    """Batches with answers before and after what they answer, equal contents, equal origins, UIDs left out."""
    rng = random.Random(seed)
    contents = [reply(number, *rng.sample(range(12), rng.randrange(4))) for number in range(12)]
    contents += [data for _, data in corpus()[:40]] + [numbered(number) for number in range(5)]
    staged = [Staged.of(data) for data in contents]
    flags = [frozenset[str](), frozenset({"\\Seen"}), frozenset({"\\Deleted", "Work"})]
    batches = []
    uid = 1
    for _ in range(6):
        batch = []
        for _ in range(rng.randrange(1, 30)):
            uid += rng.randrange(1, 4)
            origin = b"o%d" % rng.randrange(60) if rng.random() < 0.7 else None
            chosen = uid if rng.random() < 0.3 else None
            batch.append(Arrival(rng.choice(staged), rng.choice(flags), rng.randrange(2**31), origin, chosen))
            uid += chosen is None
        batches.append(batch)
    return batches


def one_by_one(account: Account, box: int, batch: list[Arrival]) -> list[Appended]:
    with account.transaction() as tx:
        return [
            tx.append(box, one.staged, flags=one.flags, internaldate=one.internaldate, origin=one.origin, uid=one.uid)
            for one in batch
        ]


def at_once(account: Account, box: int, batch: list[Arrival]) -> list[Appended]:
    with account.transaction() as tx:
        return tx.append_all(box, batch)


def known(account: Account) -> Any:
    origins = [b"o%d" % number for number in range(60)]
    inbox = account.mailbox("INBOX")
    columns = ("uid", "thread", "flags", "message_id", "size")
    rows = account.fetch(inbox.id, range(1, inbox.uidnext), columns)
    return account.find_origins(origins), [(uid, thread, size) for uid, thread, _, _, size in rows]


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_is_as_its_messages_one_by_one(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    seen = []
    for name, way in (("one", one_by_one), ("all", at_once)):
        store, account = make_store(tmp_path / name)
        inbox = account.mailbox("INBOX").id
        index = account.index(inbox)
        answers = []
        for number, batch in enumerate(arrivals(seed)):
            answers += [(done.uid, done.fresh, done.mailbox) for done in way(account, inbox, batch)]
            if number == 2:
                with account.transaction() as tx:
                    tx.expunge(inbox, answers[0][:1], only_deleted=False)
                    box = tx.create_mailbox("Away")
                    tx.move(inbox, [done[0] for done in answers[3:9]], box.id)
                    tx.delete_mailbox("Away")  # what was in it may come again
        assert index.uids.tolist() == [uid for _, uid in look(account).messages]
        assert index.uidnext == account.mailbox("INBOX").uidnext
        assert problems(store) == []
        before = look(account)
        seen.append((answers, before, known(account)))
        account.rest()
        repair(store, account.info, rebuild=True)
        assert look(store.account("ann")) == before
        store.close()
    assert seen[0] == seen[1]


@pytest.fixture
def staged() -> Staged:
    return Staged.of(numbered(1))


def test_all_come_or_none(store: Store, account: Account, staged: Staged) -> None:
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        assert tx.append_all(inbox, []) == []
        tx.append_all(inbox, [Arrival(staged, uid=5)])
        for uids in ((4,), (9, 9), (7, 6)):
            with pytest.raises(NotAllowed):
                tx.append_all(inbox, [Arrival(staged, frozenset({"new"}), uid=uid) for uid in uids])
        for uids in ((2**32 - 1,), (2**32 - 2, None), (2**40,)):
            with pytest.raises(LimitReached):
                tx.append_all(inbox, [Arrival(staged, uid=uid) for uid in uids])
        with pytest.raises(MailboxMissing):
            tx.append_all(999, [Arrival(staged)])
    assert account.mailbox("INBOX").messages == 1
    assert account.keywords() == []
    store.directory.set_quota(account.info.name, staged.size * 3)
    with pytest.raises(OverQuota), account.transaction() as tx:
        tx.append_all(inbox, [Arrival(staged)] * 3)
    with account.transaction() as tx:
        assert [done.uid for done in tx.append_all(inbox, [Arrival(staged)] * 3, enforce_quota=False)] == [6, 7, 8]
    assert problems(store) == []
