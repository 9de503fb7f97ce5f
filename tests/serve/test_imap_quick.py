"""The quick way through a command says what the general way says, or leaves it alone."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from mailkeep.serve import imap
from mailkeep.serve.imap_peer import Peer
from mailkeep.serve.imap_quick import quick
from tests.serve.imap_talk import Desk, Talk, on_desk

LINES = [
    b"NOOP",
    b"noop",
    b"NOOP ",
    b"NOOP 1",
    *(
        b"UID FETCH %b %b" % (number, items)
        for number in (b"1", b"2", b"3", b"4", b"77", b"0", b"01", b"999999999", b"4294967295", b"99999999999", b"*")
        for items in (b"(FLAGS)", b"FLAGS", b"(UID FLAGS)", b"(FLAGS UID)")
    ),
    b"UID FETCH 1:2 (FLAGS)",
    b"UID FETCH 1 (flags)",
    b"UID FETCH 1 (FLAGS MODSEQ)",
    b"UID FETCH 1 (FLAGS) (CHANGEDSINCE 1)",
    b"UID FETCH 1  (FLAGS)",
    b"UID FETCH 1",
    b"UID FETCH  (FLAGS)",
    b"UID FETCH",
    b"uid fetch 1 (FLAGS)",
    b"FETCH 1 (FLAGS)",
]
TAGS = [b"a1", b"A", b"7", b"a.1", b"+", b"a+", b"\xe9", b"", b"a1 "]

State = Callable[[Desk], Awaitable[Talk]]


def peer_of(talk: Talk) -> Peer:
    session = talk.conn._session
    assert isinstance(session, imap.ImapSession)
    return session._peer


async def stranger(desk: Desk) -> Talk:
    return desk.talk()


async def logged_in(desk: Desk) -> Talk:
    return await desk.user()


async def fresh(desk: Desk) -> Talk:
    """Everything is \\Recent here."""
    return await desk.user("INBOX")


async def seen_before(desk: Desk) -> Talk:
    await (await desk.user("INBOX")).ok("UNSELECT")
    talk = await desk.user("INBOX")
    await talk.ok("UID FETCH 1:* (FLAGS)")
    return talk


async def some_new(desk: Desk) -> Talk:
    """One message is \\Recent, the others are not."""
    talk = await seen_before(desk)
    await desk.fill(1, first=50)
    await talk.ok("NOOP")
    return talk


async def examined(desk: Desk) -> Talk:
    talk = await desk.user()
    await talk.ok("EXAMINE INBOX")
    return talk


async def rev2(desk: Desk) -> Talk:
    return await desk.user("INBOX", enable="IMAP4rev2")


async def qresync(desk: Desk) -> Talk:
    return await desk.user("INBOX", enable="QRESYNC")


async def condstore(desk: Desk) -> Talk:
    return await desk.user("INBOX", enable="CONDSTORE")


async def flags_to_tell(desk: Desk) -> Talk:
    talk, other = await seen_before(desk), await desk.user("INBOX")
    await other.ok("STORE 2 +FLAGS (\\Seen $Label1)")
    return talk


async def removal_to_tell(desk: Desk) -> Talk:
    talk, other = await seen_before(desk), await desk.user("INBOX")
    await other.ok("STORE 2 +FLAGS (\\Deleted)")
    await other.ok("EXPUNGE")
    return talk


async def removal_kept_back(desk: Desk) -> Talk:
    """A FETCH by number has seen the removal and may not tell it yet."""
    talk = await removal_to_tell(desk)
    await talk.ok("FETCH 1 (FLAGS)")
    return talk


async def removal_told(desk: Desk) -> Talk:
    talk = await removal_to_tell(desk)
    await talk.ok("NOOP")
    return talk


STATES: list[State] = [
    stranger,
    logged_in,
    fresh,
    seen_before,
    some_new,
    examined,
    rev2,
    qresync,
    condstore,
    flags_to_tell,
    removal_to_tell,
    removal_kept_back,
    removal_told,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_quick_answers_are_the_general_ones(state: State, tmp_path: Path) -> None:
    @on_desk
    async def compare(desk: Desk) -> None:
        await desk.fill(4, flags=["\\Flagged"])
        talk = await state(desk)
        for tag in TAGS:
            for line in LINES if tag == b"a1" else LINES[:12]:
                if peer_of(talk).closed:  # too many bad commands in a row
                    await talk.hang_up()
                    talk = await state(desk)
                said = tag + b" " + line
                answer = quick(peer_of(talk), said)
                with patch.object(imap, "quick", return_value=None):
                    talk.send(said + b"\r\n")
                    general = await talk.settle()
                assert answer is None or answer == general, said

    compare(tmp_path)


@on_desk
async def test_what_clients_say_all_day_takes_the_quick_way(desk: Desk) -> None:
    await desk.fill(3)
    talk = await seen_before(desk)
    peer = peer_of(talk)
    assert quick(peer, b"a NOOP") == b"a OK NOOP completed\r\n"
    assert quick(peer, b"a UID FETCH 2 (FLAGS)") == b"* 2 FETCH (UID 2 FLAGS ())\r\na OK FETCH completed\r\n"
    assert quick(peer, b"a UID FETCH 9 (FLAGS)") == b"a OK FETCH completed\r\n"


@on_desk
async def test_a_quick_answer_ends_a_row_of_bad_commands(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    for _ in range(3 * desk.services.limits.protocol_errors_max):
        await talk.bad("NONSENSE")
        await talk.ok("NOOP")
