"""Feeds a sans-IO server: the same bytes whole, octet by octet, in odd pieces, and with a tail behind them."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from mailkeep.wire.imap_command import Authenticate, Idle
from mailkeep.wire.imap_server import AppendData, AppendStart, CommandReceived, Event, Fatal, ImapServer, Limits

TAIL = b"tail NOOP\r\n"


def pieces(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Ways of cutting `data`, by name."""
    yield "whole", [data]
    if len(data) <= 20_000:
        yield "octets", [data[i : i + 1] for i in range(len(data))]
    yield "sevens", [data[i : i + 7] for i in range(0, len(data), 7)]
    ends = [0, *(i + 1 for i, octet in enumerate(data) if octet == 10), len(data)]
    yield "lines", [data[a:b] for a, b in pairwise(ends) if a < b]


def events(
    chunks: Iterable[bytes], *, limits: Limits | None = None, utf8: bool = False, accept: bool = True
) -> list[Event]:
    """All events of one connection; the pieces of an appended message are joined."""
    server = ImapServer(limits)
    server.utf8 = utf8
    seen: list[Event] = []
    for chunk in chunks:
        server.receive(chunk)
        while (event := server.next_event()) is not None:
            if isinstance(event, AppendData) and seen and isinstance(seen[-1], AppendData):
                seen[-1] = AppendData(seen[-1].data + event.data)
            else:
                seen.append(event)
            if isinstance(event, AppendStart):
                server.accept_append() if accept else server.refuse_append()
            if isinstance(event, CommandReceived) and isinstance(event.command, Idle | Authenticate):
                server.expect_line()
            if isinstance(event, Fatal):
                return seen
    return seen


def every_way(data: bytes, *, limits: Limits | None = None, utf8: bool = False, accept: bool = True) -> list[Event]:
    """The events of `data`, after proving that no way of cutting it changes them, and that a tail is not lost."""
    whole = events([data], limits=limits, utf8=utf8, accept=accept)
    for name, chunks in pieces(data):
        assert events(chunks, limits=limits, utf8=utf8, accept=accept) == whole, name
    if not whole or not isinstance(whole[-1], Fatal):
        followed = events([data + TAIL], limits=limits, utf8=utf8, accept=accept)
        assert followed[: len(whole)] == whole
        assert len(followed) == len(whole) + 1, "out of step"
        assert isinstance(followed[-1], CommandReceived)
        assert followed[-1].tag == b"tail"
    return whole
