"""Remotes: their rows, what was seen of them, origins that change, and mailboxes that keep the numbers they had."""

from array import array
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from mailkeep.errors import AccountExists, AccountMissing, LimitReached, MailboxExists, MailboxMissing, NotAllowed
from mailkeep.mail.mailbox_name import NAME_MAX
from mailkeep.store import GONE, Account, RemoteBox, Staged, State, Store, origin_of, pop_origin_of
from mailkeep.store.collect import collect
from mailkeep.store.repair import repair
from tests.messages import numbered
from tests.store.mail import look, make_store, problems


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened, _ = make_store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def account(store: Store) -> Account:
    return store.account("ann")


def staged(number: int) -> Staged:
    return Staged.of(numbered(number))


def pulled(account: Account, count: int, *, remote: int = 1, name: str = "INBOX") -> RemoteBox:
    """So many messages as a pull would bring them, into the mailbox of that name."""
    with account.transaction() as tx:
        box = tx.put_remote_box(RemoteBox(0, remote, name, tx.mailbox(name).id, 7, count + 1, 99, b"{}"))
        for uid in range(1, count + 1):
            tx.append(tx.find(name), staged(uid), origin=origin_of(remote, name, 7, uid))
        tx.put_remote_messages(box.id, [(uid, frozenset(), State.KEPT, None) for uid in range(1, count + 1)])
    return box


def lose_database(account: Account) -> None:
    account.rest()
    for name in ("mail.db", "mail.db-wal", "mail.db-shm"):
        (account.path / name).unlink(missing_ok=True)


# --- the rows of the directory


def test_a_remote_is_added_found_changed_and_removed(store: Store, account: Account) -> None:
    remotes = store.remotes
    added = remotes.add("Work", account.info.id, settings=b"{}", secret=b"sealed")
    assert remotes.find("WORK") == added == remotes.list()[0]
    assert "sealed" not in repr(added)
    remotes.update(added.id, schedule="hourly", state=b"s")
    remotes.update(added.id)
    remotes.update(added.id, secret=None, settings=b"{1}")
    found = remotes.find("work")
    assert found is not None
    assert (found.schedule, found.state, found.secret, found.settings) == ("hourly", b"s", None, b"{1}")
    with pytest.raises(AccountExists):
        remotes.add("wORK", account.info.id, settings=b"")
    with pytest.raises(AccountMissing):
        remotes.add("other", 999, settings=b"")
    with pytest.raises(NotAllowed):
        remotes.add("a b", account.info.id, settings=b"")
    remotes.remove("work")
    assert remotes.find("work") is None
    # An id is in origins: the next remote must not take it for its own.
    assert remotes.add("Work", account.info.id, settings=b"{}").id > added.id


def test_a_removed_account_takes_its_remotes_along(store: Store, account: Account) -> None:
    store.remotes.add("Work", account.info.id, settings=b"{}")
    store.directory.remove("ann")
    assert store.remotes.list() == []


def test_what_was_learnt_of_a_host_is_kept(store: Store) -> None:
    assert store.remotes.host_state("imap.example.org") is None
    store.remotes.save_host_state("imap.example.org", b"1")
    store.remotes.save_host_state("IMAP.example.org", b"2")
    assert store.remotes.host_state("imap.example.org") == b"2"


def test_a_store_of_before_is_brought_up_to_date(tmp_path: Path) -> None:
    """As the first release left it: one migration less, and mail in it."""
    store, account = make_store(tmp_path)
    with account.transaction() as tx:
        tx.append(tx.find("INBOX"), staged(1), origin=b"o")
    before = look(account)
    store.close()
    for path, drop in (
        (tmp_path / "directory.db", ("remote", "host")),
        (account.path / "mail.db", ("remote_mailbox", "remote_message", "uidl")),
    ):
        db = apsw.Connection(str(path))
        for table in drop:
            db.execute(f"DROP TABLE {table}")
        if path.name == "directory.db":
            db.execute("ALTER TABLE account DROP COLUMN access")
            db.execute("ALTER TABLE account DROP COLUMN gone")
        db.execute("PRAGMA user_version=1")
        db.close()
    store = Store.open(tmp_path)
    info = store.directory.list()[0]
    assert (info.access, info.gone) == ("full", "show")
    assert look(store.account("ann")) == before
    assert problems(store) == []
    store.close()


# --- what was seen


def test_what_was_seen_is_told_again(account: Account) -> None:
    box = RemoteBox(0, 3, "Entwürfe/x", None, 1, 2, 3, b"cursor")
    with account.transaction() as tx:
        stored = tx.put_remote_box(box)
        again = tx.put_remote_box(RemoteBox(0, 3, "Entwürfe/x", None, 5, 6, 7))
        tx.put_remote_box(RemoteBox(0, 4, "Entwürfe/x"))
        tx.put_remote_messages(
            stored.id,
            [
                (4_294_967_295, frozenset({"\\Seen", "$x"}), State.KEPT, None),
                (1, frozenset(), State.REFUSED, "no such message"),
                (2, frozenset(), State.TOO_LARGE, None),
            ],
        )
    assert (stored.id, again.id) == (again.id, stored.id) and stored.id > 0
    assert account.remote_boxes(3) == [RemoteBox(stored.id, 3, "Entwürfe/x", None, 5, 6, 7)]
    seen = account.remote_uids(stored.id)
    assert (seen.uids, seen.states, seen.gone) == (
        array("I", [1, 2, 4_294_967_295]),
        array("B", [3, 2, 0]),
        array("q", [0, 0, 0]),
    )
    assert account.flagset(seen.flags[2]).flags == {"\\Seen", "$x"}
    assert list(account.remote_missing(stored.id)) == [
        (1, State.REFUSED, "no such message"),
        (2, State.TOO_LARGE, None),
    ]
    with account.transaction() as tx:
        tx.set_gone(stored.id, [2, 1], 100)
        tx.set_gone(stored.id, [1], 200)  # it was gone already
        tx.put_remote_messages(stored.id, [(2, frozenset(), State.KEPT, None)])
    assert account.remote_uids(stored.id).gone.tolist() == [100, 0, 0]
    with account.transaction() as tx:
        tx.set_gone(stored.id, [1], None)
        tx.drop_remote_messages(stored.id, [2, 99])
    assert account.remote_uids(stored.id).uids.tolist() == [1, 4_294_967_295]
    assert account.remote_uids(stored.id).gone.tolist() == [0, 0]
    with account.transaction() as tx:
        tx.drop_remote_box(stored.id)
    assert account.remote_boxes(3) == []
    assert account.remote_uids(stored.id).uids.tolist() == []


def test_a_mailbox_renamed_at_the_server_keeps_what_was_seen(account: Account) -> None:
    box = pulled(account, 2)
    with account.transaction() as tx:
        tx.put_remote_box(RemoteBox(box.id, 1, "Other", box.mailbox, 7))
    assert [(found.id, found.name) for found in account.remote_boxes(1)] == [(box.id, "Other")]
    assert account.remote_uids(box.id).uids.tolist() == [1, 2]


def test_what_fails_leaves_nothing_seen(account: Account) -> None:
    with account.transaction() as tx:
        box = tx.put_remote_box(RemoteBox(0, 1, "x"))
    with pytest.raises(ZeroDivisionError), account.transaction() as tx:
        tx.put_remote_messages(box.id, [(1, frozenset({"$fresh"}), State.KEPT, None)])
        raise ZeroDivisionError
    assert account.remote_uids(box.id).uids.tolist() == []
    assert "$fresh" not in account.keywords()


# --- origins


def test_origins_are_of_their_place_alone() -> None:
    assert (
        len({origin_of(1, "a", 2, 3), origin_of(1, "a", 3, 2), origin_of(11, "a", 2, 3), origin_of(1, "b", 2, 3)}) == 4
    )
    assert len(origin_of(1, "a", 2**32 - 1, 2**32 - 1)) == 16
    assert pop_origin_of(1, b"x") != pop_origin_of(2, b"x") != pop_origin_of(2, b"y")
    origin_of(1, "raw \udcff name", 1, 1)


def test_an_origin_leads_to_where_the_message_is_now(account: Account) -> None:
    pulled(account, 3)
    inbox, archive = account.mailbox("INBOX").id, account.mailbox("Archive").id
    first, second, third = (origin_of(1, "INBOX", 7, uid) for uid in (1, 2, 3))
    with account.transaction() as tx:
        tx.move(inbox, [1], archive)
        tx.expunge(inbox, [2], only_deleted=False)
    assert account.find_origins([first, second, third, b"unknown"]) == {
        first: (archive, 1, True),
        second: (inbox, 2, False),
        third: (inbox, 3, True),
    }


def test_a_server_that_numbers_anew_brings_nothing_twice(store: Store, account: Account) -> None:
    pulled(account, 4)
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        tx.expunge(inbox, [4], only_deleted=False)
    known = list(account.recognise(inbox))
    assert [(row.uid, bool(row.live), row.origin == origin_of(1, "INBOX", 7, row.uid)) for row in known] == [
        (uid, uid != 4, True) for uid in (1, 2, 3, 4)
    ]
    assert known[0].sha256 == staged(1).sha256 and known[0].envelope.startswith(b"(")
    with account.transaction() as tx:
        tx.set_origins(inbox, [(row.uid, origin_of(1, "INBOX", 8, 5 - row.uid)) for row in known] + [(77, b"none")])
    fresh = [origin_of(1, "INBOX", 8, uid) for uid in (1, 2, 3, 4)]
    assert account.find_origins(fresh) == dict(
        zip(fresh, [(inbox, uid, uid != 4) for uid in (4, 3, 2, 1)], strict=True)
    )
    assert account.known_origins([origin_of(1, "INBOX", 7, uid) for uid in (1, 2, 3, 4)]) == set()
    with account.transaction() as tx:
        assert not tx.append(inbox, staged(9), origin=fresh[0]).fresh
    # It can be told from the packs alone.
    assert problems(store) == []
    lose_database(account)
    repair(store, account.info)
    account = store.account("ann")
    assert account.find_origins(fresh) == dict(
        zip(fresh, [(inbox, uid, uid != 4) for uid in (4, 3, 2, 1)], strict=True)
    )


def test_an_origin_has_one_message(store: Store, account: Account) -> None:
    """Two swap; a third takes from the first; and all of it can be told from the packs."""
    pulled(account, 3)
    inbox = account.mailbox("INBOX").id
    one, two, three = (origin_of(1, "INBOX", 7, uid) for uid in (1, 2, 3))
    with account.transaction() as tx:
        tx.set_origins(inbox, [(1, two), (2, one)])
        tx.set_origin(inbox, 3, one)
    for _ in range(2):
        assert {origin: place.uid for origin, place in account.find_origins([one, two, three]).items()} == {
            two: 1,
            one: 3,
        }
        assert problems(store) == []
        lose_database(account)
        repair(store, account.info)
        account = store.account("ann")


def test_an_undeleted_mailbox_is_known_by_its_origins_again(store: Store, account: Account) -> None:
    with account.transaction() as tx:
        tx.create_mailbox("Work")
    pulled(account, 2, name="Work")
    origins = [origin_of(1, "Work", 7, uid) for uid in (1, 2)]
    with account.transaction() as tx:
        tx.delete_mailbox("Work")
    assert account.known_origins(origins) == set() and account.find_origins(origins) == {}
    with account.transaction() as tx:
        assert tx.append(tx.find("INBOX"), staged(1), origin=origins[0]).fresh, "it may come again"
        [removed] = account.removed_mailboxes()
        assert tx.undelete(removed.id) == 2
    assert account.known_origins(origins) == set(origins)
    for _ in range(2):
        inbox, work = account.mailbox("INBOX").id, account.mailbox("Work").id
        assert account.find_origins(origins) == {origins[0]: (inbox, 1, True), origins[1]: (work, 4, True)}
        assert problems(store) == []
        lose_database(account)
        repair(store, account.info)
        account = store.account("ann")


def test_what_was_expunged_here_stays_known_when_its_tombstone_is_gone(store: Store, account: Account) -> None:
    remote = store.remotes.add("Work", account.info.id, settings=b"{}").id
    box = pulled(account, 2, remote=remote)
    with account.transaction() as tx:
        tx.set_uidls(account.mailbox("INBOX").id, [(1, "abc")])
        tx.expunge(account.mailbox("INBOX").id, [1], only_deleted=False)
    collect(store, grace_s=0, retention_s=-1)
    assert account.find_origins([origin_of(remote, "INBOX", 7, 1)]) == {}
    assert account.remote_uids(box.id).states.tolist() == [State.KEPT, State.KEPT]
    assert account.uidls(account.mailbox("INBOX").id) == {}
    assert problems(store) == []
    store.remotes.remove("Work")
    collect(store, grace_s=0, retention_s=-1)
    assert account.remote_boxes(remote) == []
    assert account.remote_uids(box.id).uids.tolist() == []
    with pytest.raises(MailboxMissing), account.transaction() as tx:
        tx.put_remote_messages(box.id, [(1, frozenset(), State.KEPT, None)])
    assert problems(store) == []


# --- mailboxes that keep their numbers


def test_a_migrated_mailbox_keeps_its_numbers(store: Store, account: Account) -> None:
    with account.transaction() as tx:
        inbox = tx.create_mailbox("INBOX", uidvalidity=1234)
        work = tx.create_mailbox("Work/Deep", uidvalidity=4_000_000_000, special_use=("\\Archive",))
        other = tx.create_mailbox("Other", uidvalidity=1234)  # as servers have it that number by time
        assert (inbox.uidvalidity, work.uidvalidity, other.uidvalidity) == (1234, 4_000_000_000, 1234)
        assert tx.append(inbox.id, staged(1), uid=7).uid == 7
        assert tx.append(inbox.id, staged(2)).uid == 8
        assert tx.append(inbox.id, staged(3), uid=4_000_000_000).uid == 4_000_000_000
        with pytest.raises(NotAllowed):
            tx.append(inbox.id, staged(4), uid=9)
        with pytest.raises(LimitReached):
            tx.append(inbox.id, staged(4), uid=2**32 - 1)
        tx.set_uidnext(inbox.id, 4_000_000_100)
        tx.set_uidnext(inbox.id, 5)
        tx.set_uidnext(work.id, 50)
        tx.set_uidls(inbox.id, [(7, "a"), (8, "x.y!~"), (99, "absent")])
        with pytest.raises(NotAllowed):
            tx.set_uidls(inbox.id, [(7, "with space")])
        with pytest.raises(NotAllowed):
            tx.set_uidls(inbox.id, [(7, "x" * 71)])
    for _ in range(2):
        boxes = {box.name: box for box in account.mailboxes()}
        assert (boxes["INBOX"].uidvalidity, boxes["INBOX"].uidnext, boxes["INBOX"].subscribed) == (
            1234,
            4_000_000_100,
            True,
        )
        assert (boxes["Work/Deep"].uidvalidity, boxes["Work/Deep"].uidnext) == (4_000_000_000, 50)
        assert boxes["Other"].uidvalidity == 1234
        assert boxes["Work/Deep"].special_use == ("\\Archive",)
        index = account.index(boxes["INBOX"].id)
        assert (index.uids.tolist(), index.uidnext) == ([7, 8, 4_000_000_000], 4_000_000_100)
        account.release(index)
        assert account.uidls(boxes["INBOX"].id) == {7: "a", 8: "x.y!~"}
        assert problems(store) == []
        lose_database(account)
        repair(store, account.info)
        account = store.account("ann")
    with account.transaction() as tx:
        assert tx.create_mailbox("After").uidvalidity > 4_000_000_000
        assert tx.append(boxes["INBOX"].id, staged(5)).uid == 4_000_000_100


def test_the_highest_uidvalidity_leaves_some_for_others(store: Store, account: Account) -> None:
    with account.transaction() as tx:
        tx.create_mailbox("Top", uidvalidity=2**32 - 1)
        assert tx.create_mailbox("After").uidvalidity < 2**32 - 1
    lose_database(account)
    repair(store, account.info)
    with store.account("ann").transaction() as tx:
        assert tx.mailbox("Top").uidvalidity == 2**32 - 1
        assert tx.create_mailbox("Later").uidvalidity < 2**32 - 1


def test_only_a_mailbox_that_never_had_mail_is_replaced(account: Account) -> None:
    with account.transaction() as tx:
        before = tx.mailbox("Sent")
        made = tx.create_mailbox("Sent", uidvalidity=99)
        assert (made.uidvalidity, made.special_use) == (99, ("\\Sent",)) and made.id != before.id
        with pytest.raises(MailboxExists):
            tx.create_mailbox("Sent", uidvalidity=99)  # a migration that runs again
        tx.append(made.id, staged(1))
        tx.expunge(made.id, only_deleted=False)
        with pytest.raises(MailboxExists):
            tx.create_mailbox("Sent", uidvalidity=100)
        with pytest.raises(MailboxExists):
            tx.create_mailbox("Trash")
        for bad in (0, -1, 2**32):
            with pytest.raises(NotAllowed):
                tx.create_mailbox("New", uidvalidity=bad)


def test_who_has_a_mailbox_open_hears_of_a_raised_uidnext(store: Store, account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    index = account.index(inbox)
    other = Store.open(store.root)
    elsewhere = other.account("ann").index(inbox)
    with account.transaction() as tx:
        tx.set_uidnext(inbox, 1000)
    other.account("ann").refresh()
    assert (index.uidnext, elsewhere.uidnext) == (1000, 1000)
    with account.transaction() as tx:
        tx.append(inbox, staged(1), uid=2000)
    other.account("ann").refresh()
    assert (index.uidnext, index.uids.tolist()) == (elsewhere.uidnext, elsewhere.uids.tolist()) == (2001, [2000])
    other.close()


def test_a_uidl_goes_along_with_its_message(store: Store, account: Account) -> None:
    inbox, trash = account.mailbox("INBOX").id, account.mailbox("Trash").id
    with account.transaction() as tx:
        for number in range(3):
            tx.append(inbox, staged(number))
        tx.set_uidls(inbox, [(1, "one"), (2, "two"), (3, "three")])
        tx.set_uidls(inbox, [(3, None)])
        tx.copy(inbox, [1], trash)
        tx.move(inbox, [1], trash)
        tx.expunge(inbox, [2], only_deleted=False)
        tx.undelete(inbox)
    for _ in range(2):
        assert (account.uidls(inbox), account.uidls(trash)) == ({4: "two"}, {2: "one"})
        assert problems(store) == []
        lose_database(account)
        repair(store, account.info)
        account = store.account("ann")


# --- what is gone at its source


def names(account: Account, *, hidden: bool = False) -> set[str]:
    return {box.name for box in account.mailboxes(hidden=hidden)}


def test_what_is_gone_is_put_out_of_sight_and_back(store: Store, account: Account) -> None:
    with account.transaction() as tx:
        tx.create_mailbox("Work/Deep")
    pulled(account, 5, name="Work/Deep")
    before = names(account)
    deep = account.mailbox("Work/Deep").id
    with account.transaction() as tx:
        tx.store_flags(deep, [2, 4], "+", frozenset({GONE}))
    assert account.place_gone("show") == 0
    assert account.place_gone("hide") == 2
    assert account.place_gone("hide") == 0
    assert names(account) == before
    assert names(account, hidden=True) - before == {"Gone/Work/Deep"}
    with account.transaction() as tx, pytest.raises(MailboxExists):
        tx.create_mailbox("Gone/Work/Deep")
    for name in ("Gone", "Gone/Work/Deep"):
        with pytest.raises(MailboxMissing):
            account.mailbox(name)
        with account.transaction() as tx, pytest.raises(MailboxMissing):
            tx.find(name)
        with account.transaction() as tx, pytest.raises(MailboxMissing):
            tx.mailbox(name)
    assert account.mailbox("Work/Deep").messages == 3
    twin = account.mailbox("Gone/Work/Deep", hidden=True)
    assert account.find_origins([origin_of(1, "Work/Deep", 7, 2)]) == {
        origin_of(1, "Work/Deep", 7, 2): (twin.id, 1, True)
    }
    # It follows its mailbox.
    with account.transaction() as tx:
        tx.rename_mailbox("Work", "Job")
    assert names(account, hidden=True) - names(account) == {"Gone/Job/Deep"}
    # One message that came back.
    with account.transaction() as tx:
        assert tx.show_gone(twin.id, [1]) == [(1, 6)]
        tx.delete_mailbox("Job/Deep")
    assert account.place_gone("show") == 1
    assert account.mailbox("Job/Deep").messages == 1
    assert problems(store) == []
    lose_database(account)
    repair(store, account.info)
    account = store.account("ann")
    assert names(account, hidden=True) - names(account) == {"Gone/Job/Deep"}


def test_a_mailbox_with_the_longest_name_stays_in_sight(account: Account) -> None:
    name = "/".join("n" * 99 for _ in range(NAME_MAX // 100))
    with account.transaction() as tx:
        box = tx.create_mailbox(name)
        tx.append(box.id, staged(1), flags=frozenset({GONE}))
        tx.append(tx.find("INBOX"), staged(2), flags=frozenset({GONE}))
    assert account.place_gone("hide") == 1
    assert account.mailbox(name).messages == 1


# --- what moved at the source


@pytest.mark.parametrize("expunged", [False, True])
def test_what_moved_goes_for_good_if_the_other_one_is_there(store: Store, account: Account, expunged: bool) -> None:
    with account.transaction() as tx:
        work = tx.create_mailbox("Work").id
    pulled(account, 4)
    inbox = account.mailbox("INBOX").id
    origins = [origin_of(1, "INBOX", 7, uid) for uid in range(1, 5)]
    with account.transaction() as tx:
        twins = {uid: (work, tx.append(work, staged(number)).uid) for uid, number in ((1, 1), (2, 2), (3, 77), (4, 4))}
        tx.expunge(work, [twins[4][1]], only_deleted=False)
        if expunged:
            tx.expunge(inbox, [1, 2, 3, 4], only_deleted=False)
    assert [uid for _, _, mailbox, uid in account.contents_of(origins) if mailbox == inbox] == [1, 2, 3, 4]
    with account.transaction() as tx:
        assert tx.drop_moved(inbox, twins) == [1, 2], (
            "another content, and one that is not there any more, are no twins"
        )
        assert tx.drop_moved(inbox, twins) == []
    for _ in range(2):
        assert problems(store) == []
        assert account.known_origins(origins) == set(origins[2:]), "what went may come again"
        lose_database(account)
        repair(store, account.info)
    with account.transaction() as tx:
        assert tx.undelete(inbox) == (2 if expunged else 0)
    assert sorted(account.snapshot(inbox).uids) == ([5, 6] if expunged else [3, 4])


def test_what_was_noted_of_a_kept_message_stays_until_it_is_not_kept(account: Account) -> None:
    box = pulled(account, 1)

    def put(state: State, detail: str | None) -> str | None:
        with account.transaction() as tx:
            tx.put_remote_messages(box.id, [(1, frozenset(("\\Seen",)), state, detail)])
        return account.remote_rows(box.id)[0][3]

    assert put(State.KEPT, "E:M1") == "E:M1"
    assert put(State.KEPT, None) == "E:M1"
    assert put(State.KEPT, "E:M2") == "E:M2"
    with account.transaction() as tx:
        tx.set_gone(box.id, [1], 5, detail="removed")
    assert put(State.KEPT, None) is None, "it was gone, and is another one for all we know"
    assert put(State.KEPT, "E:M2") == "E:M2"
    assert put(State.FAILED, None) is None
    assert put(State.KEPT, None) is None


# --- repair of what was seen


def test_repair_keeps_what_was_seen_but_not_of_what_is_lost(store: Store, account: Account) -> None:
    box = pulled(account, 3)
    with account.transaction() as tx:
        tx.put_remote_messages(box.id, [(9, frozenset({"$x"}), State.FAILED, "why")])
    # The bytes of one message are damaged on the disk.
    [(_, pack, offset)] = account.fetch(account.mailbox("INBOX").id, [2], ("uid", "pack", "offset"))
    account.rest()
    path = account.packs / f"{pack}.pack"
    data = bytearray(path.read_bytes())
    data[offset + 70] ^= 0xFF
    path.write_bytes(data)
    report = repair(store, account.info, rebuild=True)
    assert report.lost_count
    account = store.account("ann")
    assert account.remote_boxes(1) == [RemoteBox(box.id, 1, "INBOX", box.mailbox, 7, 0, 0, None)]
    seen = account.remote_uids(box.id)
    assert (seen.uids.tolist(), seen.states.tolist()) == ([1, 3, 9], [0, 0, 7])
    assert account.flagset(seen.flags[2]).flags == {"$x"}
    assert account.find_origins([origin_of(1, "INBOX", 7, 2)]) == {}


def test_rows_that_lead_nowhere_are_found_and_dropped(store: Store, account: Account) -> None:
    box = pulled(account, 2)
    account.rest()
    db = apsw.Connection(str(account.path / "mail.db"))
    db.execute("INSERT INTO remote_message VALUES (?, 1, 0, NULL, NULL)", (99 << 32 | 1,))
    db.execute("INSERT INTO remote_message VALUES (?, 999, 0, NULL, NULL)", (box.id << 32 | 8,))
    db.execute("INSERT INTO remote_message VALUES (?, 1, 55, NULL, NULL)", (box.id << 32 | 9,))
    db.execute("INSERT INTO uidl VALUES (5, 'x')")
    db.execute("INSERT INTO remote_mailbox VALUES (50, 1, 'y', 999, 0, 0, 0, NULL)")
    db.close()
    found = problems(store)
    assert [problem.kind for problem in found if problem.kind != "journal"] == ["remote"] * 5
    assert repair(store, account.info).action == "counters"
    assert problems(store) == []
    assert store.account("ann").remote_uids(box.id).uids.tolist() == [1, 2]


def test_a_uidl_that_the_journal_does_not_know_is_found(store: Store, account: Account) -> None:
    pulled(account, 1)
    with account.transaction() as tx:
        tx.set_uidls(account.mailbox("INBOX").id, [(1, "right")])
    account.rest()
    db = apsw.Connection(str(account.path / "mail.db"))
    db.execute("UPDATE uidl SET uidl = 'wrong'")
    db.execute("UPDATE message SET origin = X'00'")
    db.close()
    assert sorted(problem.text for problem in problems(store)) == [
        "the journal says another UIDL than the database",
        "the journal says another origin than the database",
    ]
    repair(store, account.info)
    assert problems(store) == []
    assert store.account("ann").uidls(account.mailbox("INBOX").id) == {1: "right"}
