"""Several sessions on one mailbox: whatever they do, each client that believes what it is told is right about it."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mailkeep.serve.imap import ImapSession
from tests.serve.imap_talk import Belief, Desk, Talk, desk, message, on_desk

# By number: no removal may be told with these (RFC 9051 section 7.5.1).
_BY_NUMBER = ("FETCH", "STORE", "SEARCH")


class Client:
    """A session and its client's belief. `news` holds what an idling client was told."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.belief = Belief()
        self.idle = False

    async def do(self, text: str | bytes) -> list[bytes]:
        if self.idle:
            await self.end_idle()
        status, lines = await self.talk.command(text)
        assert status == b"OK", (text, self.talk.tagged)
        word = (text.encode() if isinstance(text, str) else text).split()[0].decode()
        if word in _BY_NUMBER:
            assert not any(line.endswith(b"EXPUNGE") or b"VANISHED" in line for line in lines), (text, lines)
        self.belief.hear(lines)
        await self._learn()
        return lines

    async def _learn(self) -> None:
        """As clients do: ask for the UIDs of what is new. Also keeps VANISHED meaningful."""
        unknown = [at for at, row in enumerate(self.belief.rows, 1) if row[0] is None]
        if unknown:
            lines = await self.talk.ok(f"FETCH {unknown[0]}:{unknown[-1]} (UID FLAGS)")
            assert not any(b"EXPUNGE" in line or b"VANISHED" in line for line in lines)
            self.belief.hear(lines)
            await self._learn()

    async def begin_idle(self) -> None:
        if not self.idle:
            self.talk.send(b"i IDLE\r\n")
            said = await self.talk.until(b"+ ")
            self.belief.hear(said.split(b"\r\n"))
            self.idle = True

    async def end_idle(self) -> None:
        self.idle = False
        self.talk.send(b"DONE\r\n")
        self.belief.hear((await self.talk.until(b"i ")).split(b"\r\n"))
        await self._learn()

    async def agrees(self) -> None:
        """After a NOOP the client's idea of the mailbox is the store's."""
        await self.do("NOOP")
        account = self.talk.desk.account
        index = account.index(account.mailbox("INBOX").id)
        try:
            rows = self.belief.rows
            assert [row[0] for row in rows] == list(index.uids)
            for row, number in zip(rows, index.flags, strict=True):
                assert row[1] is None or row[1] == frozenset(account.flagset(number).wire.split()), row
        finally:
            account.release(index)


class Sessions(RuleBasedStateMachine):
    """Two clients and a delivery agent on one INBOX."""

    @initialize(start=st.integers(0, 6), enable=st.sampled_from(["", "QRESYNC", "IMAP4rev2", "CONDSTORE"]))
    def open(self, start: int, enable: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = tempfile.TemporaryDirectory()
        self.context = desk(Path(self.root.name))
        self.desk: Desk = self.run(self.context.__aenter__())
        self.delivered = start
        if start:
            self.run(self.desk.fill(start))
        self.clients = [self.run(self.client("")), self.run(self.client(enable))]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def client(self, enable: str) -> Client:
        client = Client(await self.desk.user(enable=enable))
        await client.do("SELECT INBOX")
        return client

    @rule(count=st.integers(1, 3))
    def deliver(self, count: int) -> None:
        self.run(self.desk.fill(count, first=self.delivered + 1))
        self.delivered += count

    @rule(which=st.integers(0, 1), at=st.integers(1, 12), width=st.integers(0, 3), data=st.data())
    def store(self, which: int, at: int, width: int, data: st.DataObject) -> None:
        client = self.clients[which]
        if client.idle:
            self.run(client.end_idle())
        count = len(client.belief.rows)
        if at > count:
            return
        high = min(at + width, count)
        flag = data.draw(st.sampled_from(["\\Seen", "\\Deleted", "\\Flagged", "$Work"]))
        sign = data.draw(st.sampled_from(["+", "-", ""]))
        silent = data.draw(st.booleans())
        touched = client.belief.rows[at - 1 : high]
        if data.draw(st.booleans()):
            self.run(client.do(f"STORE {at}:{high} {sign}FLAGS{'.SILENT' * silent} ({flag})"))
        else:
            low_uid, high_uid = client.belief.rows[at - 1][0], client.belief.rows[high - 1][0]
            self.run(client.do(f"UID STORE {low_uid}:{high_uid} {sign}FLAGS{'.SILENT' * silent} ({flag})"))
        if silent:  # what was told beforehand, if anything, is true no more
            for row in touched:
                row[1] = None

    @rule(which=st.integers(0, 1))
    def expunge(self, which: int) -> None:
        self.run(self.clients[which].do("EXPUNGE"))

    @rule(which=st.integers(0, 1), at=st.integers(1, 12), verb=st.sampled_from(["COPY", "MOVE"]), home=st.booleans())
    def transfer(self, which: int, at: int, verb: str, home: bool) -> None:
        client = self.clients[which]
        if client.idle:
            self.run(client.end_idle())
        if at <= len(client.belief.rows):
            self.run(client.do(f"{verb} {at} {'INBOX' if home and verb == 'COPY' else 'Archive'}"))

    @rule(which=st.integers(0, 1), uid=st.integers(1, 20), verb=st.sampled_from(["COPY", "MOVE"]))
    def transfer_by_uid(self, which: int, uid: int, verb: str) -> None:
        self.run(self.clients[which].do(f"UID {verb} {uid}:{uid + 1} Archive"))

    @rule(which=st.integers(0, 1))
    def append(self, which: int) -> None:
        self.delivered += 1
        data = message(self.delivered)
        self.run(self.clients[which].do(b"APPEND INBOX (\\Flagged) {%d+}\r\n%b" % (len(data), data)))

    @rule(
        which=st.integers(0, 1), what=st.sampled_from(["(FLAGS)", "(UID FLAGS)", "(UID RFC822.SIZE)", "(BODY[TEXT])"])
    )
    def fetch(self, which: int, what: str) -> None:
        client = self.clients[which]
        if client.idle:
            self.run(client.end_idle())
        before = len(client.belief.rows)
        lines = self.run(client.do(f"FETCH 1:* {what}"))
        assert len({line.split()[1] for line in lines if b" FETCH (" in line}) >= before

    @rule(which=st.integers(0, 1), uid=st.booleans())
    def search(self, which: int, uid: bool) -> None:
        client = self.clients[which]
        self.run(client.do(f"{'UID ' * uid}SEARCH NOT DELETED"))

    @rule(which=st.integers(0, 1))
    def idle(self, which: int) -> None:
        self.run(self.clients[which].begin_idle())

    @rule(which=st.integers(0, 1))
    def noop(self, which: int) -> None:
        self.run(self.clients[which].agrees())

    @rule(which=st.integers(0, 1))
    def select_again(self, which: int) -> None:
        client = self.clients[which]
        if client.idle:
            self.run(client.end_idle())
        client.belief = Belief()
        self.run(client.do("SELECT INBOX"))

    @precondition(lambda self: hasattr(self, "clients"))
    @invariant()
    def an_idling_client_has_heard_all(self) -> None:
        for client in self.clients:
            if client.idle:
                view = client.talk.conn._session._peer.view  # type: ignore[union-attr]
                self.run(asyncio.sleep(0))
                assert not view.pending

    def teardown(self) -> None:
        if hasattr(self, "clients"):
            for client in self.clients:
                self.run(client.agrees())
            self.run(self.context.__aexit__(None, None, None))
            self.loop.close()
            self.root.cleanup()


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@on_desk
async def test_a_removal_waits_while_a_client_counts(desk: Desk) -> None:
    await desk.fill(5)
    slow = await desk.user("INBOX")
    quick = await desk.user("INBOX")
    await quick.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    await quick.ok("EXPUNGE")
    await desk.fill(1, first=6)
    # The client still counts five: its numbers hold, the removed message still answers (RFC 2180 section 4.1).
    lines = await slow.ok("FETCH 1:5 (UID RFC822.SIZE)")
    assert [line.split(b"UID ")[1].split()[0] for line in lines if b"SIZE" in line] == [b"1", b"2", b"3", b"4", b"5"]
    assert not any(b"EXPUNGE" in line or b"EXISTS" in line for line in lines)
    assert not any(b"EXPUNGE" in line for line in await slow.ok("STORE 3 +FLAGS (\\Seen)"))
    assert not any(b"EXPUNGE" in line for line in await slow.ok("SEARCH ALL"))
    assert not any(b"EXPUNGE" in line for line in await slow.ok("UID SEARCH 1:5"))
    lines = await slow.ok("UID FETCH 3 FLAGS")
    assert lines.index(b"* 2 EXPUNGE") < lines.index(b"* 5 EXISTS")
    assert any(line.startswith(b"* 2 FETCH (UID 3 ") for line in lines)


@on_desk
async def test_a_store_of_thousands_by_another_is_told_in_full(desk: Desk) -> None:
    await desk.fill(1500)
    one = await desk.user("INBOX")
    other = await desk.user("INBOX")
    await other.ok("STORE 1:* +FLAGS.SILENT (\\Flagged)")
    lines = await one.ok("NOOP")
    assert len([line for line in lines if b"FETCH" in line]) == 1500
    one.send(b"i IDLE\r\n")
    await other.ok("STORE 1:* -FLAGS.SILENT (\\Flagged)")
    said = await one.until(b"* 1500 FETCH")
    assert said.count(b"FETCH (FLAGS") == 1500
    await other.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    said = b""
    while said.count(b" EXPUNGE\r\n") < 1500:
        said += await one.settle()
    one.send(b"DONE\r\n")
    assert b"i OK" in await one.until(b"i ")


@pytest.mark.parametrize("enable", ["", "QRESYNC"])
def test_more_may_go_while_thousands_of_removals_are_told(enable: str, tmp_path: Path) -> None:
    @on_desk
    async def scenario(desk: Desk) -> None:
        await desk.fill(5000)
        slow, quick = Client(await desk.user(enable=enable)), await desk.user("INBOX")
        await slow.do("SELECT INBOX")
        await quick.ok(f"UID STORE {','.join(map(str, range(2, 5001, 2)))} +FLAGS.SILENT (\\Deleted)")
        await quick.ok("EXPUNGE")
        session = slow.talk.conn._session
        assert isinstance(session, ImapSession) and session._peer.view is not None
        told = []
        for number, piece in enumerate(session._peer.view.news(expunge=True)):
            told.append(piece)
            if number in (1, 4, 6):  # in the middle of it
                await quick.ok(f"STORE {number * 100}:{number * 100 + 20} +FLAGS.SILENT (\\Deleted)")
                await quick.ok("EXPUNGE")
                await desk.fill(2)
        slow.belief.hear(b"".join(told).split(b"\r\n"))
        await slow.agrees()

    scenario(tmp_path)


@on_desk
async def test_more_batches_than_are_remembered(desk: Desk) -> None:
    await desk.fill(10)
    slow = Client(await desk.user())
    await slow.do("SELECT INBOX")
    quick = await desk.user("INBOX")
    await quick.ok("STORE 4 +FLAGS.SILENT (\\Deleted)")
    await quick.ok("EXPUNGE")
    for number in range(300):
        await quick.ok(f"STORE {number % 9 + 1} {'+-'[number // 9 % 2]}FLAGS.SILENT (\\Flagged)")
    await desk.fill(2, first=11)
    await slow.agrees()


@on_desk
async def test_many_idle_clients_hear_of_a_delivery(desk: Desk) -> None:
    talks = [await desk.user("INBOX") for _ in range(40)]
    for talk in talks:
        talk.send(b"i IDLE\r\n")
        await talk.settle()
    await desk.fill(1)
    for talk in talks:
        assert b"* 1 EXISTS\r\n" in await talk.settle()
