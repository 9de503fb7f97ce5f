"""Feeds a sans-IO client: the same bytes whole, octet by octet, in odd pieces, and with a tail behind them."""

from collections.abc import Iterable

from mailkeep.errors import ProtocolError
from mailkeep.wire.imap_answer import Answer, BodyChunk, Status
from mailkeep.wire.imap_client import ImapClient, ToSend
from tests.wire.feeding import pieces

TAIL = b"tail OK\r\n"


def answers(
    chunks: Iterable[bytes], *, utf8: bool = False, inline_max: int = 1 << 20, answer_max: int = 1 << 26
) -> list[Answer | ToSend | str]:
    """All answers of one connection; chunks of a streamed body are joined; the text of an error comes last."""
    client = ImapClient(inline_max=inline_max, answer_max=answer_max)
    client.utf8 = utf8
    seen: list[Answer | ToSend | str] = []
    try:
        for chunk in chunks:
            client.receive(chunk)
            while (event := client.next_event()) is not None:
                if isinstance(event, BodyChunk) and seen and isinstance(seen[-1], BodyChunk):
                    seen[-1] = BodyChunk(seen[-1].data + event.data)
                else:
                    seen.append(event)
    except ProtocolError as error:
        seen.append(error.text)
    return seen


def every_way(
    data: bytes, *, utf8: bool = False, inline_max: int = 1 << 20, tail: bool = True
) -> list[Answer | ToSend | str]:
    """The answers in `data`, after proving that no way of cutting it changes them, and that a tail is not lost."""
    whole = answers([data], utf8=utf8, inline_max=inline_max)
    for name, chunks in pieces(data):
        assert answers(chunks, utf8=utf8, inline_max=inline_max) == whole, name
    if tail and not (whole and isinstance(whole[-1], str)):
        followed = answers([data + TAIL], utf8=utf8, inline_max=inline_max)
        assert followed == [*whole, Status(b"tail", "OK", None, "")], "out of step"
    return whole
