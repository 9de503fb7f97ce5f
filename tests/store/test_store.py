"""The store as a door uses it: what goes in comes out, and what is kept of what went."""

import os
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from mailkeep.errors import (
    AccountExists,
    AccountMissing,
    LimitReached,
    MailboxExists,
    MailboxMissing,
    MessageMissing,
    NotAllowed,
    OverQuota,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
)
from mailkeep.mail.flags import DELETED, FLAGGED, SEEN
from mailkeep.store import Account, Staged, Store, messages
from mailkeep.store.blobs import JOURNAL, Record, decode_journal, read_record, walk
from mailkeep.store.flagsets import FlagSets
from mailkeep.store.placing import Mode
from mailkeep.store.schema import select_value
from tests.messages import numbered


def names(account: Account) -> list[str]:
    return [box.name for box in account.mailboxes()]


def put(account: Account, mailbox: str = "INBOX", number: int = 1, **options: object) -> int:
    with account.transaction() as tx:
        return tx.append(account.mailbox(mailbox).id, Staged.of(numbered(number)), **options).uid  # type: ignore[arg-type]


def journal(account: Account) -> list[object]:
    """Every op in the packs, in order."""
    ops: list[object] = []
    for path in sorted(account.packs.iterdir()):
        fd = os.open(path, os.O_RDONLY)
        try:
            for found in walk(fd):
                assert isinstance(found, Record)
                if found.kind == JOURNAL:
                    ops += decode_journal(read_record(fd, found)).ops
        finally:
            os.close(fd)
    return ops


# ---- accounts


def test_a_new_account_has_the_default_mailboxes_subscribed(account: Account) -> None:
    boxes = account.mailboxes()
    assert [box.name for box in boxes] == ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]
    assert all(box.subscribed and box.messages == 0 and box.uidnext == 1 for box in boxes)
    assert account.subscriptions() == {box.name for box in boxes}
    assert {box.name: box.special_use for box in boxes}["Junk"] == ("\\Junk",)
    assert len({box.uidvalidity for box in boxes}) == len(boxes)


def test_names_of_accounts_compare_without_case_and_aliases_find_them(store: Store) -> None:
    ann = store.directory.add("Ann@Example.org", quota=1000)
    assert store.directory.find("ann@example.ORG") == ann
    with pytest.raises(AccountExists):
        store.directory.add("ANN@example.org")
    store.directory.add_alias("ann@example.org", "postmaster@example.org")
    assert store.directory.find("Postmaster@example.org") == ann
    assert store.account("postmaster@example.org") is store.account(ann.id)
    with pytest.raises(AccountExists):
        store.directory.add("postmaster@example.org")
    store.directory.set_quota("ann@example.org", None)
    assert store.directory.find("ann@example.org").quota is None  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "../x", "a\nb", 'a"b', "x" * 300])
def test_bad_names_of_accounts_are_refused(store: Store, name: str) -> None:
    with pytest.raises(NotAllowed):
        store.directory.add(name)


def test_credentials_are_replaced_as_a_whole(store: Store) -> None:
    ann = store.directory.add("ann", credentials={"argon2id": b"one", "SCRAM-SHA-256": b"two"})
    assert store.directory.credentials(ann.id) == {"argon2id": b"one", "SCRAM-SHA-256": b"two"}
    store.directory.set_credentials("ann", {"argon2id": b"three"})
    assert store.directory.credentials(ann.id) == {"argon2id": b"three"}
    with pytest.raises(AccountMissing):
        store.directory.set_credentials("bob", {})


def test_a_removed_account_is_gone_but_its_mail_is_set_aside(store: Store, account: Account) -> None:
    put(account)
    store.directory.remove("ann@example.org")
    with pytest.raises(AccountMissing):
        store.account("ann@example.org")
    (aside,) = (store.root / "accounts").glob(f"removed.{account.info.id}.*")
    assert (aside / "mail.db").exists()
    again = store.directory.add("ann@example.org")
    assert again.id != account.info.id
    assert store.account("ann@example.org").usage().messages == 0


def test_a_directory_left_by_a_kill_is_not_taken_for_a_new_account(store: Store) -> None:
    (store.root / "accounts" / "1").mkdir()
    (store.root / "accounts" / "1" / "mail.db").write_bytes(b"somebody's")
    assert store.directory.add("ann").id == 2
    assert (store.root / "accounts" / "1" / "mail.db").read_bytes() == b"somebody's"


def test_there_is_nothing_to_open_where_nothing_was_made(tmp_path: Path) -> None:
    with pytest.raises(StoreReadOnly):
        Store.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


# ---- messages


def test_a_message_comes_out_as_it_went_in(account: Account) -> None:
    data = numbered(1)
    inbox = account.mailbox("inbox")
    uid = put(account, flags=frozenset({SEEN, "$Work"}), internaldate=1_700_000_000)
    columns = ("uid", "flags", "internaldate", "size", "email", "envelope", "headers:1", "subject")
    [(got, flags, date, size, email, envelope, headers, subject)] = account.fetch(inbox.id, [uid], columns)
    assert (got, date, size, headers) == (1, 1_700_000_000, len(data), None)
    assert account.flagset(flags).names == (SEEN, "$Work")
    assert account.flagset(flags).wire == b"\\Seen $Work"
    assert b"Ann Other" in envelope and subject
    assert account.read(email) == data
    assert account.read(email, 5, 10) == data[5:15]
    assert account.read(email, len(data) - 3, 100) == data[-3:]
    assert account.read(email, len(data) + 5) == b""
    with pytest.raises(MessageMissing):
        account.read(email + 1)


def test_staging_keeps_small_and_large_messages_and_what_is_put_before(store: Store, account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    for size in (10, 3 << 20):
        staging = store.stage()
        for _ in range(10):
            staging.write(b"x" * (size // 10))
        staging.prepend(b"Subject: late\r\n\r\n")
        staging.prepend(b"Received: here\r\n")
        assert staging.size == size // 10 * 10 + 33
        staged = staging.finish()
        with account.transaction() as tx:
            uid = tx.append(inbox, staged).uid
        staged.close()
        [(_, email)] = account.fetch(inbox, [uid], ("uid", "email"))
        assert account.read(email) == b"Received: here\r\nSubject: late\r\n\r\n" + b"x" * (size // 10 * 10)
    assert list((store.root / "tmp").iterdir()) == []


def test_staging_can_be_thrown_away(store: Store) -> None:
    for size in (10, 3 << 20):
        staging = store.stage()
        staging.write(b"x" * size)
        staging.discard()
    assert list((store.root / "tmp").iterdir()) == []


def test_the_same_content_is_stored_once(account: Account) -> None:
    for mailbox in ("INBOX", "Archive", "INBOX"):
        put(account, mailbox)
    inbox, archive = account.mailbox("INBOX"), account.mailbox("Archive")
    emails = {row[1] for box in (inbox, archive) for row in account.fetch(box.id, [1, 2], ("uid", "email"))}
    assert len(emails) == 1
    assert sum(path.stat().st_size for path in account.packs.iterdir()) < 2 * len(numbered(1)) + 2000
    assert account.usage().bytes == 3 * len(numbered(1))


def test_an_origin_brings_a_message_once(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        first = tx.append(inbox, Staged.of(numbered(1)), origin=b"there/1")
        second = tx.append(inbox, Staged.of(numbered(1)), origin=b"there/1")
    assert first.fresh and not second.fresh
    assert (second.uid, second.uidvalidity, second.mailbox) == (first.uid, first.uidvalidity, inbox)
    with account.transaction() as tx:
        [(_, moved)] = tx.move(inbox, [first.uid], account.mailbox("Archive").id)
        third = tx.append(inbox, Staged.of(numbered(1)), origin=b"there/1")
    assert (third.fresh, third.mailbox, third.uid) == (False, account.mailbox("Archive").id, moved)
    assert account.known_origins([b"there/1", b"there/2"]) == {b"there/1"}


def test_many_are_read_as_each_alone_would_be(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        for number in range(20):
            tx.append(inbox, Staged.of(numbered(number, size=70_000 if number % 5 == 0 else 0)))
    put(account, number=30)
    wanted: list[tuple[int, int, int | None]] = [(email, 0, None) for email in (21, 3, 3, 1, 6, 11, 5)]
    wanted += [(2, 5, 10), (4, 7, None), (4, 0, 3)]
    assert account.read_many(wanted) == [account.read(*each) for each in wanted]
    assert account.read_many([]) == []
    [path] = account.packs.iterdir()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"This is message 2.", b"This is message X."))
    sound, gone, damaged = account.read_many([(2, 0, None), (99, 0, None), (3, 0, None)])
    assert sound == numbered(1)
    assert isinstance(gone, MessageMissing) and isinstance(damaged, StoreCorrupt)


def test_places_from_a_fetch_are_read_as_the_messages_they_are(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    sizes = [0, 70_000, 10, 2_000_000, 0, 5]
    for number, size in enumerate(sizes):  # each its own transaction: journals lie between them
        with account.transaction() as tx:
            tx.append(inbox, Staged.of(numbered(number, size=size)))
    columns = ("uid", "email", "pack", "offset", "length", "codec")
    rows = account.fetch(inbox, range(1, 7), columns)
    alone = [account.read(row[1]) for row in rows]
    for order in (rows, rows[::-1], rows[::2], [rows[3], rows[3], rows[0]], []):
        assert account.read_placed([row[2:] for row in order]) == [account.read(row[1]) for row in order]
    assert account.read_placed([(99, 0, 10, 0)]) is None, "no such pack"
    assert account.read_placed([(*rows[0][2:5], 1)]) is None, "compressed: not by this way"
    [path] = account.packs.iterdir()
    path.write_bytes(path.read_bytes().replace(b"This is message 2.", b"This is message X."))
    assert account.read_placed([row[2:] for row in rows]) is None, "one is damaged"
    assert account.read_placed([row[2:] for row in rows[:2]]) == alone[:2]


def test_fetch_finds_scattered_and_neighbouring_uids_and_leaves_out_what_is_not_there(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        for number in range(200):
            tx.append(inbox, Staged.of(numbered(number)))
        tx.expunge(inbox, [7], only_deleted=False)
    for uids in ([], [1], [3, 4, 5], [1, 3, 5, 9], [1, 77, 200], [199, 200, 201, 500], [5000], list(range(1, 201))):
        assert [row[0] for row in account.fetch(inbox, uids, ("size",))] == [uid for uid in uids if uid <= 200]
    assert [row[0] for row in account.fetch(inbox, [6, 7, 8], ("uid", "envelope"))] == [6, 7, 8], "kept for a while"


def test_copies_skip_what_is_gone_and_keep_flags_and_dates(account: Account) -> None:
    inbox, archive = account.mailbox("INBOX").id, account.mailbox("Archive").id
    put(account, flags=frozenset({FLAGGED, "x"}), internaldate=1_600_000_000)
    put(account, number=2)
    with account.transaction() as tx:
        assert tx.copy(inbox, [9, 2, 1, 1], archive) == [(1, 1), (2, 2)]
        assert tx.copy(inbox, [9], archive) == []
        assert tx.copy(archive, [1], archive) == [(1, 3)]
        with pytest.raises(MailboxMissing):
            tx.copy(inbox, [1], 999)
    [(_, flags, date)] = account.fetch(archive, [1], ("uid", "flags", "internaldate"))
    assert account.flagset(flags).flags == {FLAGGED, "x"} and date == 1_600_000_000


def test_quota_counts_each_copy_and_is_read_afresh(store: Store, account: Account) -> None:
    size = len(numbered(1))
    store.directory.set_quota("ann@example.org", 2 * size)
    inbox = account.mailbox("INBOX").id
    put(account)
    put(account)
    with account.transaction() as tx, pytest.raises(OverQuota):
        tx.append(inbox, Staged.of(numbered(1)))
    with account.transaction() as tx:
        with pytest.raises(OverQuota):
            tx.copy(inbox, [1], inbox)
        tx.move(inbox, [1], account.mailbox("Trash").id)
        tx.expunge(inbox, only_deleted=False)
        tx.append(inbox, Staged.of(numbered(1)))
    assert (account.usage().bytes, account.usage().messages, account.usage().quota) == (2 * size, 2, 2 * size)
    with account.transaction() as tx:
        tx.append(inbox, Staged.of(numbered(2)), enforce_quota=False)


# ---- flags


def test_flags_are_set_added_and_removed(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    put(account)
    put(account, number=2, flags=frozenset({SEEN}))

    def flags() -> list[frozenset[str]]:
        return [account.flagset(row[1]).flags for row in account.fetch(inbox, [1, 2], ("uid", "flags"))]

    with account.transaction(durable=False) as tx:
        assert tx.store_flags(inbox, [1, 2, 9], "+", frozenset({SEEN, "Later"})).changed == [1, 2]
        assert tx.store_flags(inbox, [1, 2], "+", frozenset({SEEN})).changed == []
    assert flags() == [{SEEN, "Later"}] * 2
    with account.transaction(durable=False) as tx:
        assert tx.store_flags(inbox, [2, 1], "-", frozenset({"LATER"})).changed == [1, 2]
        tx.store_flags(inbox, [1], "=", frozenset({DELETED, "later", "LATER"}))
    assert flags() == [{DELETED, "Later"}, {SEEN}], "a keyword keeps its first spelling"
    box = account.mailbox("INBOX")
    assert (box.unseen, box.deleted) == (1, 1)
    assert account.keywords() == ["Later"]


@pytest.mark.parametrize("uids", [range(1, 41), range(1, 41, 3), [40], range(5, 60)])
@pytest.mark.parametrize("mode", ["+", "-", "="])
def test_flags_of_many_change_where_asked_and_nowhere_else(account: Account, mode: Mode, uids: Sequence[int]) -> None:
    inbox = account.mailbox("INBOX").id
    kinds = [frozenset[str](), frozenset({SEEN}), frozenset({DELETED, "a"}), frozenset({"a", "b"})]
    with account.transaction() as tx:
        for number in range(40):
            tx.append(inbox, Staged.of(numbered(number)), flags=kinds[number % 4])
        tx.expunge(inbox, [10, 11], only_deleted=False)
        result = tx.store_flags(inbox, uids, mode, frozenset({SEEN, "a"}))
    index = account.index(inbox)
    expected, changed = {}, []
    for uid in (uid for uid in range(1, 41) if uid not in (10, 11)):
        old, given = kinds[(uid - 1) % 4], frozenset({SEEN, "a"})
        new = {"+": old | given, "-": old - given, "=": given}[mode] if uid in uids else old
        expected[uid] = new
        if new != old:
            changed.append(uid)
    assert result.changed == changed
    assert {uid: account.flagset(id).flags for uid, id in zip(index.uids, index.flags, strict=True)} == expected
    rows = account.fetch(inbox, index.uids, ("uid", "flags", "modseq"))
    assert [row[1] for row in rows] == index.flags.tolist() and [row[2] for row in rows] == index.modseqs.tolist()
    assert account.mailbox("INBOX").unseen == sum(SEEN not in flags for flags in expected.values())


def test_unchanged_since_holds_back_what_changed_after(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    put(account)
    put(account, number=2)
    modseq = account.mailbox("INBOX").highestmodseq
    with account.transaction() as tx:
        tx.store_flags(inbox, [1], "+", frozenset({SEEN}))
        result = tx.store_flags(inbox, [1, 2], "+", frozenset({FLAGGED}), unchanged_since=modseq)
    assert (result.changed, result.modified) == ([2], [1])


def test_the_number_of_keywords_is_limited(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    put(account)
    with account.transaction() as tx:
        tx.store_flags(inbox, [1], "=", frozenset(f"k{number}" for number in range(1000)))
        with pytest.raises(LimitReached):
            tx.store_flags(inbox, [1], "=", frozenset({"onemore"}))
        tx.store_flags(inbox, [1], "=", frozenset({"K7"}))
    assert len(account.keywords()) == 1000


def test_recent_is_told_once(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    put(account)
    for expected in ((1, 2), (2, 2)):
        with account.transaction(durable=False) as tx:
            assert tx.claim_recent(inbox) == expected
    put(account, number=2)
    with account.transaction(durable=False) as tx:
        assert tx.claim_recent(inbox) == (2, 3)


# ---- mailboxes


def test_creating_makes_parents_and_a_name_made_again_is_another_mailbox(account: Account) -> None:
    with account.transaction() as tx:
        first = tx.create_mailbox("a/b/c", subscribe=True)
    assert {"a", "a/b", "a/b/c"} <= set(names(account))
    put(account, "a/b/c")
    with account.transaction() as tx:
        tx.delete_mailbox("a/b/c")
        again = tx.create_mailbox("a/b/c")
        with pytest.raises(MailboxExists):
            tx.create_mailbox("a/b/c")
        with pytest.raises(MailboxExists):
            tx.create_mailbox("Inbox")
        with pytest.raises(NotAllowed):
            tx.create_mailbox("a//b")
    assert again.uidvalidity > first.uidvalidity and again.id != first.id and again.messages == 0
    assert again.subscribed, "a subscription outlives its mailbox"


def test_deleting_leaves_the_children(account: Account) -> None:
    with account.transaction() as tx:
        tx.create_mailbox("a/b")
        tx.delete_mailbox("a")
        with pytest.raises(NotAllowed):
            tx.delete_mailbox("inbox")
        with pytest.raises(MailboxMissing):
            tx.delete_mailbox("a")
    assert "a/b" in names(account) and "a" not in names(account)


def test_renaming_takes_children_and_subscriptions_along(account: Account) -> None:
    with account.transaction() as tx:
        made = tx.create_mailbox("a/b/c", subscribe=True)
        tx.append(made.id, Staged.of(numbered(1)))
    with account.transaction() as tx:
        tx.create_mailbox("ab")
        with pytest.raises(NotAllowed):
            tx.rename_mailbox("a", "a/x")
        with pytest.raises(MailboxExists):
            tx.rename_mailbox("a", "Sent")
        with pytest.raises(MailboxMissing):
            tx.rename_mailbox("nowhere", "x")
        tx.rename_mailbox("a", "new/place")
    renamed = account.mailbox("new/place/b/c")
    assert (renamed.id, renamed.uidvalidity, renamed.messages) == (made.id, made.uidvalidity, 1)
    assert {"new", "new/place", "new/place/b", "ab"} <= set(names(account))
    assert not any(re.match("a(/|$)", name) for name in names(account))
    assert "new/place/b/c" in account.subscriptions() and "a/b/c" not in account.subscriptions()


def test_renaming_inbox_moves_its_messages_and_leaves_it(account: Account) -> None:
    put(account)
    before = account.mailbox("INBOX")
    with account.transaction() as tx:
        tx.rename_mailbox("inbox", "old/mail")
    assert account.mailbox("old/mail").messages == 1
    after = account.mailbox("INBOX")
    assert (after.id, after.messages, after.uidnext) == (before.id, 0, 2)


def test_subscriptions_may_name_what_is_not_there(account: Account) -> None:
    with account.transaction() as tx:
        tx.subscribe("not/there", True)
        tx.subscribe("Sent", False)
        tx.subscribe("never", False)
    assert "not/there" in account.subscriptions() and "Sent" not in account.subscriptions()
    assert not account.mailbox("Sent").subscribed


# ---- what is kept of what went


def test_changes_tell_flags_arrivals_and_removals_since_a_modseq(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    for number in range(5):
        put(account, number=number)
    modseq = account.mailbox("INBOX").highestmodseq
    nothing = account.changes(inbox, modseq)
    assert (nothing.complete, nothing.changed, nothing.vanished) == (True, [], [])
    with account.transaction() as tx:
        tx.store_flags(inbox, [2, 4], "+", frozenset({SEEN}))
        tx.expunge(inbox, [3, 4], only_deleted=False)
        tx.append(inbox, Staged.of(numbered(9)))
    changes = account.changes(inbox, modseq)
    assert [uid for uid, _, _ in changes.changed] == [2, 6]
    assert changes.vanished == [3, 4] and changes.complete
    assert changes.highestmodseq == account.mailbox("INBOX").highestmodseq > modseq
    assert account.changes(inbox, 0).vanished == [3, 4]


@pytest.mark.parametrize("many", [False, True])
def test_the_log_of_flag_changes_stays_short_and_what_it_lacks_is_still_told(
    account: Account, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    if many:
        monkeypatch.setattr(messages, "FLAG_CHANGE_UIDS_MAX", 1)
    else:
        monkeypatch.setattr(messages, "FLAG_CHANGES_MAX", 40)
        monkeypatch.setattr(messages, "TRIM_EVERY", 10)
    inbox = account.mailbox("INBOX").id
    put(account), put(account, number=2)
    first = account.mailbox("INBOX").highestmodseq
    for number in range(100):  # in turn: changes of flags have odd modseqs only, or even ones
        put(account, "Archive", number)
        with account.transaction() as tx:
            tx.store_flags(inbox, [1, 2], "-" if number % 2 else "+", frozenset({SEEN}))
    db = account.connect()
    rows = select_value(db, "SELECT count(*) FROM flag_change")
    db.close()
    assert rows <= (0 if many else 60)
    last = account.mailbox("INBOX").highestmodseq
    for since, expected in ((first, [1, 2]), (last - 1, [1, 2]), (last, [])):
        changes = account.changes(inbox, since)
        assert changes.complete and [uid for uid, *_ in changes.changed] == expected


def test_flag_sets_are_taken_back_while_others_are_learned() -> None:
    sets = FlagSets()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    done = threading.Event()

    def learn() -> None:
        db = apsw.Connection(":memory:")
        db.execute("CREATE TABLE flagset (id INTEGER PRIMARY KEY, names TEXT)")
        for id in range(1, 3000):
            db.execute("INSERT INTO flagset VALUES (?, ?)", (id, f"k{id}"))
            sets.load(db, id)
        done.set()

    reader = threading.Thread(target=learn)
    try:
        reader.start()
        while not done.is_set():
            sets.forget([])
    finally:
        reader.join()
        sys.setswitchinterval(interval)
    assert len(sets.keywords()) > 0


def test_undelete_brings_back_what_was_expunged_under_new_uids(account: Account) -> None:
    inbox, trash = account.mailbox("INBOX").id, account.mailbox("Trash").id
    for number in range(4):
        put(account, number=number, flags=frozenset({DELETED, FLAGGED}))
    with account.transaction() as tx:
        tx.move(inbox, [1], trash)
        tx.expunge(inbox, [2, 3])
        assert tx.undelete(inbox, since=None) == 2
        assert tx.undelete(inbox, since=None) == 0, "once"
    rows = account.fetch(inbox, [5, 6], ("uid", "flags", "email"))
    assert [account.flagset(row[1]).flags for row in rows] == [{FLAGGED}] * 2
    assert [account.read(row[2]) for row in rows] == [numbered(1), numbered(2)]
    assert account.mailbox("INBOX").messages == 3


def test_undelete_brings_back_a_deleted_mailbox(account: Account) -> None:
    with account.transaction() as tx:
        box = tx.create_mailbox("lists/python")
        tx.append(box.id, Staged.of(numbered(1)))
        tx.delete_mailbox("lists/python")
    [removed] = account.removed_mailboxes()
    assert removed.name == "lists/python"
    with account.transaction() as tx:
        assert tx.undelete(removed.id, since=None) == 1
    assert account.mailbox("lists/python").messages == 1
    with account.transaction() as tx:
        tx.delete_mailbox("lists/python")
        tx.create_mailbox("lists/python")
        assert tx.undelete(removed.id, since=None) == 1, "into the one that has its name now"
    assert account.mailbox("lists/python").messages == 1
    assert account.mailbox("lists/python").id != removed.id


# ---- transactions


def test_an_error_undoes_the_transaction_and_leaves_the_account_usable(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    before = account.mailboxes()
    with pytest.raises(MailboxMissing), account.transaction() as tx:
        tx.append(inbox, Staged.of(numbered(1)), flags=frozenset({"$New"}))
        tx.create_mailbox("x/y")
        tx.append(999, Staged.of(numbered(2)))
    assert account.mailboxes() == before
    assert account.keywords() == []
    assert put(account) == 1
    assert account.index(inbox).uids.tolist() == [1]


def test_a_call_that_fails_leaves_the_rest_of_the_transaction(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        tx.append(inbox, Staged.of(numbered(1)))
        with pytest.raises(MailboxExists):
            tx.rename_mailbox("Archive", "Sent")
        with pytest.raises(NotAllowed):
            tx.create_mailbox("deep/" * 3)
        tx.append(inbox, Staged.of(numbered(2)))
    assert account.mailbox("INBOX").messages == 2
    assert "deep" not in names(account)


def test_what_a_transaction_did_is_in_the_journal(account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    put(account, flags=frozenset({SEEN}))
    with account.transaction() as tx:
        tx.copy(inbox, [1], account.mailbox("Archive").id)
        tx.store_flags(inbox, [1], "=", frozenset({"x"}))
        tx.expunge(inbox, only_deleted=False)
        tx.rename_mailbox("Sent", "Gone")
        tx.delete_mailbox("Gone")
    kinds = [type(op).__name__ for op in journal(account)]
    assert kinds[:12] == ["Created", "Subscribed"] * 6
    assert kinds[12:] == [
        "Placed", "Placed", "Flagged", "Removed", "Renamed", "Subscribed", "Subscribed", "Deleted",
    ]  # fmt: skip
    modseqs = [op.modseq for op in journal(account)]  # type: ignore[attr-defined]
    assert modseqs == sorted(modseqs)


def test_everything_is_there_after_closing_and_opening(store: Store, account: Account) -> None:
    put(account, flags=frozenset({"$Kept"}))
    boxes, root = account.mailboxes(), store.root
    store.close()
    with pytest.raises(StoreError):
        store.directory.list()
    again = Store.open(root, create=False)
    try:
        there = again.account("ann@example.org")
        assert there.mailboxes() == boxes
        assert there.flagset(there.index(boxes[0].id).flags[0]).names == ("$Kept",)
        assert put(there, number=2) == 2
        assert len(list(there.packs.iterdir())) == 1, "the pack is taken up again"
    finally:
        again.close()


def test_idle_handles_are_closed_and_open_again(store: Store, account: Account) -> None:
    put(account)
    open_before = len(os.listdir("/proc/self/fd"))
    store.close_idle()  # in use since the last time
    assert len(os.listdir("/proc/self/fd")) == open_before
    store.close_idle()
    store.in_background(lambda: None)
    store._background.shutdown(wait=True)  # type: ignore[union-attr]
    store._background = None
    assert len(os.listdir("/proc/self/fd")) < open_before
    assert account.mailbox("INBOX").messages == 1
    put(account, number=2)
    assert account.mailbox("INBOX").messages == 2


def test_only_one_holds_the_pop_lock(account: Account) -> None:
    with account.pop_lock(), pytest.raises(StoreBusy), account.pop_lock():
        pass
    with account.pop_lock():
        pass


def test_header_sets_are_remembered_after_the_first_asking(store: Store, account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    put(account)
    wanted = (b"date", b"subject")
    assert account.header_set(wanted) is None
    settle(store)
    number = account.header_set(wanted)
    assert number is not None
    [(_, email)] = account.fetch(inbox, [1], ("uid", "email"))
    account.remember_headers(number, [(email, b"Subject: x\r\n\r\n")])
    settle(store)
    assert account.fetch(inbox, [1], ("uid", f"headers:{number}")) == [(1, b"Subject: x\r\n\r\n")]


def settle(store: Store) -> None:
    """Wait for the background thread to be done."""
    background = store._background
    assert background is not None
    background.submit(lambda: None).result()
