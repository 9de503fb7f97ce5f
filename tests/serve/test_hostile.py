"""Peers that mean ill, or are gone at the worst moment: what they can cost, and what must not become of the mail."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mailkeep.delivery import deliver
from mailkeep.serve.imap import imap_session
from mailkeep.serve.lmtp import lmtp_session
from mailkeep.store.check import verify
from mailkeep.store.ledger import Ledger
from mailkeep.store.staging import Staged
from mailkeep.store.transaction import Transaction
from tests.serve.imap_talk import Desk, desk, message
from tests.serve.memory import connect


def run(tmp_path: Path, scenario: Callable[[Desk], Awaitable[None]]) -> None:
    """Play it on a fresh desk."""

    async def inside() -> None:
        async with desk(tmp_path) as opened:
            await scenario(opened)

    asyncio.run(inside())


@pytest.mark.parametrize("size", [100, 3 << 20])  # in memory, and in a file
def test_a_client_that_hangs_up_while_its_message_is_written_damages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    reached, gate = threading.Event(), threading.Event()
    add_blob = Ledger.add_blob

    def slow(ledger: Ledger, staged: Staged) -> object:
        reached.set()
        assert gate.wait(20)
        return add_blob(ledger, staged)

    monkeypatch.setattr(Ledger, "add_blob", slow)

    async def scenario(desk: Desk) -> None:
        talk = await desk.user()
        data = message(1, body="x" * size)
        talk.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(data), data))
        assert await asyncio.to_thread(reached.wait, 20)
        await talk.hang_up()
        gate.set()
        again = await desk.user()  # as clients do: they try once more
        await again.append(data)
        lines = await (await desk.user("INBOX")).ok("FETCH 1:* BODY.PEEK[]")
        assert [line for line in lines if data in line] == [line for line in lines if b" FETCH " in line] != []
        assert verify(desk.store).problems == []

    run(tmp_path, scenario)


def test_a_delivery_that_breaks_off_for_one_recipient_damages_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    find_mailbox = deliver._find_mailbox

    def odd(transaction: Transaction, detail: str | None) -> object:
        if detail == "broken":
            raise ZeroDivisionError
        assert gate.wait(20)
        return find_mailbox(transaction, detail)

    monkeypatch.setattr(deliver, "_find_mailbox", odd)

    async def scenario(desk: Desk) -> None:
        bob = desk.store.directory.add("bob@example.org")
        conn, transport = connect(lambda conn: lmtp_session(conn, desk.services))
        conn.data_received(
            b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann+broken@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
        )
        conn.data_received(b"DATA\r\n" + message(1) + b".\r\n")
        while b"421 " not in transport.sent:
            await asyncio.sleep(0)
        gate.set()
        account = desk.store.account(bob.id)
        while not account.mailbox("INBOX").messages:
            await asyncio.sleep(0)
        assert verify(desk.store).problems == []

    run(tmp_path, scenario)


@pytest.mark.parametrize("command", [b"CAPABILITY", b"FETCH 1 BODY.PEEK[]", b"NOOP", b'LIST "" *'])
def test_who_does_not_read_gets_no_more_answers(tmp_path: Path, command: bytes) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.fill(1)
        if command == b"CAPABILITY":  # a stranger can do that
            conn, transport = connect(lambda conn: imap_session(conn, desk.services))
        else:
            talk = await desk.user("INBOX")
            conn, transport = talk.conn, talk.transport
        transport.take()
        conn.pause_writing()
        commands = (b"a %b\r\n" % command) * 100
        sent = 0
        while transport.reading:
            assert sent < 1 << 20
            conn.data_received(commands)
            sent += len(commands)
            for _ in range(3):
                await asyncio.sleep(0)
        assert len(transport.take()) < 4096
        conn.resume_writing()  # and goes on where it was, once somebody reads
        answered = 0
        while answered < sent // len(commands) * 100:
            await asyncio.sleep(0)
            answered += transport.take().count(b"a OK ")
        await asyncio.sleep(0)
        assert transport.reading
        transport.close()

    run(tmp_path, scenario)


def test_whoever_asks_for_very_much_gets_it_in_portions_or_not_at_all(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        uids = await desk.fill(60)
        talk = await desk.user("INBOX")
        (found,) = await talk.ok("SEARCH " + "1:* " * 4000 + "3:*")
        assert found == b"* SEARCH " + b" ".join(b"%d" % uid for uid in uids[2:])
        await talk.no("SEARCH " + "SEEN " * 6000)
        parts = " ".join(f"BODY.PEEK[{part}]" for part in range(2, 900))
        lines = await talk.ok(f"FETCH 1:2 ({parts})")
        assert [line.count(b'] ""') for line in lines] == [898, 898]
        await talk.no("FETCH 1 (" + " ".join(f"BODY.PEEK[{part}]" for part in range(1, 2000)) + ")")
        wanted = " ".join(f"X-{number}" for number in range(5000))
        line, *_ = await talk.ok(f"FETCH 1:60 BODY.PEEK[HEADER.FIELDS ({wanted} Subject)]")
        assert line.endswith(b"}\r\nSubject: Hello 1\r\n\r\n)")
        await talk.no("FETCH 1 (" + " ".join(f"BODY.PEEK[HEADER.FIELDS (X-{n})]" for n in range(40)) + ")")
        await talk.no('LIST "" ' + "*a" * 300)
        await talk.no('LIST "" (' + "x " * 2000 + ")")
        await talk.no('LSUB "" ' + "%a" * 300)

    run(tmp_path, scenario)


def test_a_salt_does_not_tell_who_exists(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        for name in ("ann@example.org", "nobody@example.org"):  # names compare without case
            salts = {desk.services.auth.scram_keys("SCRAM-SHA-256", n).salt for n in (name, name.upper())}
            assert len(salts) == 1

    run(tmp_path, scenario)
