"""Accounts that may only be read, mailboxes that no client sees, and mail that keeps its numbers from elsewhere.

Every command that changes something is refused in a read-only account, by every door, and what is in it stays as it is.
"""

import poplib
import smtplib
from pathlib import Path
from typing import Any

import pytest

from mailkeep.serve.imap_commands import COMMANDS
from mailkeep.serve.lmtp import lmtp_session
from mailkeep.serve.pop3 import pop3_session
from mailkeep.store import GONE, Staged, Store
from mailkeep.wire import imap_command as wire
from tests.messages import numbered
from tests.serve.door import PASSWORD, Door
from tests.serve.imap_talk import USER, Desk, message, on_desk
from tests.store.mail import see

CHANGES = [
    "STORE 1 +FLAGS (\\Seen)",
    "STORE 1 +FLAGS.SILENT (\\Seen)",
    "STORE 1:* FLAGS ()",
    "UID STORE 1 -FLAGS (\\Deleted)",
    "UID STORE 1 (UNCHANGEDSINCE 1) +FLAGS (x)",
    "EXPUNGE",
    "UID EXPUNGE 1:*",
    "COPY 1 Trash",
    "UID COPY 1:* INBOX",
    "COPY 1 Missing",
    "MOVE 1 Trash",
    "UID MOVE 1:* INBOX",
    "CREATE New",
    "CREATE Trash",
    "CREATE New (USE (\\Archive))",
    "DELETE Trash",
    "DELETE Missing",
    "RENAME Trash Bin",
    "RENAME INBOX Old",
]


def set_access(desk: Desk, access: Any) -> None:
    desk.store.directory.set_access(USER, access)
    desk.store.refresh_infos()


@on_desk
async def test_nothing_can_be_changed_in_an_account_that_may_only_be_read(desk: Desk) -> None:
    await desk.fill(2, flags=("\\Deleted",))
    set_access(desk, "read")
    before = see(desk.store, USER)
    talk = await desk.user()
    lines = await talk.ok("SELECT INBOX")
    assert b"[READ-ONLY]" in talk.tagged and talk.tagged.endswith(b"SELECT completed")
    assert any(line.startswith(b"* OK [PERMANENTFLAGS ()]") for line in lines)
    for command in CHANGES:
        await talk.no(command)
        assert b"[NOPERM]" in talk.tagged, command
    for command in ("APPEND INBOX {3+}\r\nabc", "APPEND Missing {3+}\r\nabc", "APPEND Trash (\\Seen) {3+}\r\nabc"):
        await talk.no(command)
        assert b"[NOPERM]" in talk.tagged
    talk.send("s1 APPEND INBOX {3}\r\n")
    assert (await talk.settle()).startswith(b"s1 NO [NOPERM]"), "and no message is asked for"
    [line] = await talk.ok("FETCH 1 (FLAGS BODY[HEADER.FIELDS (Subject)])")
    assert b"\\Seen" not in line
    await talk.ok("CLOSE")
    await talk.ok("SELECT INBOX")
    await talk.ok("SEARCH ALL")
    await talk.ok("LOGOUT")
    assert see(desk.store, USER) == before


@on_desk
async def test_reading_and_subscribing_stay_possible(desk: Desk) -> None:
    await desk.fill(1)
    set_access(desk, "read")
    talk = await desk.user("INBOX")
    await talk.ok("UNSUBSCRIBE Trash")
    await talk.ok("SUBSCRIBE Trash")
    for command in (
        'LIST "" *', "STATUS INBOX (MESSAGES)", "EXAMINE INBOX", "FETCH 1 BODY[]", "SEARCH TEXT Hello", "CHECK",
        "NAMESPACE", "UNSELECT", "ENABLE QRESYNC", "SELECT INBOX", "UID FETCH 1 (RFC822)", "NOOP",
    ):  # fmt: skip
        await talk.ok(command)


@on_desk
async def test_what_comes_in_by_a_pull_is_still_told(desk: Desk) -> None:
    set_access(desk, "read")
    talk = await desk.user("INBOX")
    await desk.fill(1)
    assert b"* 1 EXISTS" in await talk.ok("NOOP")


@on_desk
async def test_sessions_that_are_open_follow_the_setting(desk: Desk) -> None:
    await desk.fill(1, flags=("\\Deleted",))
    talk = await desk.user("INBOX")
    await talk.ok("STORE 1 +FLAGS (\\Answered)")
    set_access(desk, "read")
    await talk.no("STORE 1 +FLAGS (\\Flagged)")
    [line] = await talk.ok("FETCH 1 (BODY[])")
    assert b"\\Seen" not in line
    await talk.ok("CLOSE")
    assert desk.account.mailbox("INBOX").messages == 1
    set_access(desk, "full")
    await talk.ok("SELECT INBOX")
    assert b"READ-WRITE" in talk.tagged
    await talk.ok("STORE 1 +FLAGS (\\Flagged)")


def test_another_process_learns_of_the_setting(tmp_path: Path) -> None:
    store, other = Store.open(tmp_path), Store.open(tmp_path)
    store.directory.add("ann")
    account = other.account("ann")
    store.directory.set_access("ann", "read")
    other.refresh_infos()
    assert account.info.read_only
    store.close()
    other.close()


def test_every_command_says_whether_it_writes() -> None:
    assert {kind.__name__ for kind, entry in COMMANDS.items() if entry.writes} == {
        "Create", "Delete", "Rename", "Store", "Copy", "Move", "Expunge",
    }  # fmt: skip
    # These change nothing, or see to it by themselves; a new command has to be put into one of the two lists.
    assert {kind for kind, entry in COMMANDS.items() if not entry.writes} <= {
        wire.Capability, wire.Noop, wire.Logout, wire.Id, wire.StartTls, wire.Login, wire.Authenticate, wire.Enable,
        wire.Select, wire.Subscribe, wire.Unsubscribe, wire.List, wire.Namespace, wire.Status, wire.Idle, wire.Check,
        wire.Close, wire.Unselect, wire.Search, wire.Fetch,
    }  # fmt: skip


# --- the other doors


@pytest.fixture
def door(tmp_path: Path) -> Door:
    door = Door(tmp_path / "data")
    store = Store.open(door.root)
    with store.account("demo").transaction() as tx:
        for number in range(3):
            tx.append(tx.find("INBOX"), Staged.of(numbered(number)))
    store.directory.set_access("demo", "read")
    store.close()
    return door


def test_pop3_deletes_nothing(door: Door) -> None:
    def client(host: str, port: int) -> None:
        pop = poplib.POP3(host, port, timeout=20)
        pop.user("demo")
        pop.pass_(PASSWORD)
        assert pop.stat()[0] == 3
        pop.retr(1)
        with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/PERM\]"):
            pop.dele(1)
        pop.rset()
        pop.quit()

    door.run(pop3_session, client)
    assert len(door.mailbox()) == 3


def test_lmtp_takes_nothing_for_it(door: Door) -> None:
    def client(host: str, port: int) -> dict[str, Any]:
        with smtplib.LMTP(host, port, timeout=20) as lmtp:
            return lmtp.sendmail("a@example.net", ["demo@localhost", "anna@example.org"], b"Subject: x\r\n\r\ny\r\n")

    refused = door.run(lmtp_session, client)
    assert list(refused) == ["demo@localhost"]
    assert refused["demo@localhost"][0] == 550 and refused["demo@localhost"][1].startswith(b"5.2.1")
    assert len(door.mailbox()) == 3
    assert len(door.mailbox(user="anna@example.org")) == 1


def test_lmtp_delivers_into_no_hidden_mailbox(tmp_path: Path) -> None:
    door = Door(tmp_path / "data")
    store = Store.open(door.root)
    account = store.account("demo")
    with account.transaction() as tx:
        tx.append(tx.find("INBOX"), Staged.of(numbered(1)), flags=frozenset({GONE}))
    assert account.place_gone("hide") == 1
    store.close()

    def client(host: str, port: int) -> None:
        with smtplib.LMTP(host, port, timeout=20) as lmtp:
            for detail in ("Gone/INBOX", "gone/inbox", "Gone"):
                assert lmtp.sendmail("a@example.net", [f'"demo+{detail}"@localhost'], b"Subject: x\r\n\r\ny\r\n") == {}

    door.run(lmtp_session, client)
    assert len(door.mailbox()) == 3


# --- what no client sees


@on_desk
async def test_hidden_mailboxes_are_not_there_for_clients(desk: Desk) -> None:
    await desk.fill(3)
    idler = await desk.user("INBOX")
    talk = await desk.user()
    before = await talk.ok('LIST "" * RETURN (SUBSCRIBED STATUS (MESSAGES))')
    idler.send("i IDLE\r\n")
    await idler.settle()
    with desk.account.transaction() as tx:
        tx.store_flags(desk.account.mailbox("INBOX").id, [2], "+", frozenset({GONE}))
    assert desk.account.place_gone("hide") == 1
    assert b"* 2 EXPUNGE" in await idler.settle()
    after = await talk.ok('LIST "" * RETURN (SUBSCRIBED STATUS (MESSAGES))')
    assert [line for line in after if b"INBOX" not in line] == [line for line in before if b"INBOX" not in line]
    assert await talk.ok('LIST "" Gone/INBOX') == []
    assert await talk.ok('LIST "" Gone') == []
    assert await talk.ok('LIST (SPECIAL-USE) "" Gone*') == []
    for name in ("Gone", "Gone/INBOX"):
        for command in (f"SELECT {name}", f"EXAMINE {name}", f"STATUS {name} (MESSAGES)", f"DELETE {name}"):
            await talk.no(command)
            assert b"[NONEXISTENT]" in talk.tagged, command
        await talk.no(f"RENAME {name} Seen")
        await talk.no(f"APPEND {name} {{3+}}\r\nabc")
        assert b"[TRYCREATE]" in talk.tagged
    await talk.ok("SELECT INBOX")
    for command in ("COPY 1 Gone/INBOX", "MOVE 1 Gone/INBOX", "UID COPY 1 Gone"):
        await talk.no(command)
        assert b"[TRYCREATE]" in talk.tagged
    assert await talk.ok(f"SEARCH KEYWORD {GONE}") == [b"* SEARCH"]
    assert desk.account.place_gone("show") == 1
    await talk.ok("NOOP")
    assert await talk.ok(f"SEARCH KEYWORD {GONE}") == [b"* SEARCH 3"]


# --- numbers from elsewhere


@on_desk
async def test_imap_serves_the_numbers_that_a_mailbox_came_with(desk: Desk) -> None:
    with desk.account.transaction() as tx:
        inbox = tx.create_mailbox("INBOX", uidvalidity=1_234_567)
        for uid in (5, 9, 4_000_000_000):
            tx.append(inbox.id, Staged.of(message(uid % 60)), uid=uid, internaldate=1_700_000_000)
        tx.set_uidnext(inbox.id, 4_000_000_009)
    talk = await desk.user()
    lines = await talk.ok("SELECT INBOX")
    assert b"* OK [UIDVALIDITY 1234567] UIDs valid" in lines
    assert b"* OK [UIDNEXT 4000000009] Predicted next UID" in lines
    assert await talk.ok("UID SEARCH ALL") == [b"* SEARCH 5 9 4000000000"]
    assert await talk.ok("UID FETCH 9 FLAGS") == [b"* 2 FETCH (UID 9 FLAGS (\\Recent))"]
    assert b"[APPENDUID 1234567 4000000009]" in await talk.append(message(1))
    assert await talk.ok("STATUS INBOX (UIDNEXT UIDVALIDITY)") == [
        b"* STATUS INBOX (UIDNEXT 4000000010 UIDVALIDITY 1234567)"
    ]


@on_desk
async def test_a_session_in_a_mailbox_that_is_replaced_is_sent_away(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    with desk.account.transaction() as tx:
        tx.create_mailbox("INBOX", uidvalidity=77)
    talk.send("n NOOP\r\n")
    assert b"* BYE" in await talk.settle() or talk.transport.closed
    talk = await desk.user()
    assert b"* OK [UIDVALIDITY 77] UIDs valid" in await talk.ok("SELECT INBOX")


def test_pop3_serves_the_uidls_that_clients_know(tmp_path: Path) -> None:
    door = Door(tmp_path / "data")
    store = Store.open(door.root)
    with store.account("demo").transaction() as tx:
        inbox = tx.create_mailbox("INBOX", uidvalidity=0x10)
        for uid in (1, 2, 0xABC):
            tx.append(inbox.id, Staged.of(numbered(uid)), uid=uid)
        tx.set_uidls(inbox.id, [(1, "1700000000.M1P2"), (0xABC, "!~")])
    store.close()

    def client(host: str, port: int) -> None:
        pop = poplib.POP3(host, port, timeout=20)
        pop.user("demo")
        pop.pass_(PASSWORD)
        assert pop.uidl()[1] == [b"1 1700000000.M1P2", b"2 0000001000000002", b"3 !~"]
        assert pop.uidl(3) == b"+OK 3 !~"
        pop.dele(1)
        assert pop.uidl()[1] == [b"2 0000001000000002", b"3 !~"]
        pop.quit()

    door.run(pop3_session, client)
