"""Messages to PDF by WeasyPrint, in as many child processes as there are processors.

Knows how requests are shared out, what is asked again after a failure, and which fonts a text would have needed. What
happens in a child, and that it may be killed, is for `pdf_child` and `killable`. A message is tried as it is; then, if
the child failed or was lost over it, as its text alone; then as a page that says so, and last as one that needs no
engine at all.
"""

import os
import queue
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from mailkeep.export import pdf_child, pdf_file
from mailkeep.export.killable import Child, Lost
from mailkeep.export.pdf_child import Answer, Request
from mailkeep.export.pdf_engine import Printed
from mailkeep.export.writer import Message

WALL: Final = 6  # times the CPU time that a message may take: others may need the processors too

# By what the name of a character in the Unicode database begins with.
_FONTS: Final = (
    (("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"), "fonts-noto-cjk"),
    ((), "fonts-noto-core"),
)
_EMOJI: Final = "fonts-noto-color-emoji"
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Answer).decode


class WeasyPrint:
    """The engine. Its children start when they are needed; `close` ends them."""

    def __init__(self, processes: int = 0) -> None:
        self._count = processes or len(os.sched_getaffinity(0))
        self._children = [Child(pdf_child.CHILD) for _ in range(self._count)]
        self._free: queue.SimpleQueue[Child] = queue.SimpleQueue()
        for child in reversed(self._children):
            self._free.put(child)
        self._threads: ThreadPoolExecutor | None = None

    def print(self, messages: Sequence[Message], *, names: bool) -> Iterator[Printed]:
        """See `pdf_engine.Engine`."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._count, "pdf")
        yield from self._threads.map(lambda message: self._print(message, names=names), messages)

    def _print(self, message: Message, *, names: bool) -> Printed:
        child = self._free.get()
        try:
            return print_by(child, message, names=names)
        finally:
            self._free.put(child)

    def close(self) -> None:
        """Harmless when nothing was started."""
        for child in self._children:
            child.stop()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.close()


def print_by(child: Child, message: Message, *, names: bool) -> Printed:
    """One message by one child, whatever it is. Raises ToolMissing."""
    reason = ""
    for excuse in (False, False, True):
        try:
            answer = _ask(child, Request(message, reason, excuse=excuse, names=names))
        except Lost as lost:
            answer = Answer(b"", str(lost))
        if not answer.failure:
            packages = fonts_for(answer.boxes)
            return Printed(answer.pdf, _note(reason, packages, excuse=excuse), packages)
        reason = reason or answer.failure
    raw = pdf_file.Enclosed("message.eml", "message/rfc822", message.data)
    prefix = f"({message.uid}) " if names else ""
    return Printed(pdf_file.plain(pdf_file.excuse(reason), [raw], prefix=prefix), _note(reason, (), excuse=True))


def _ask(child: Child, request: Request) -> Answer:
    seconds = pdf_child.cpu_allowed(len(request.message.data)) * WALL
    try:
        return _decode(child.ask(_encode(request), timeout_s=seconds))
    except msgspec.MsgspecError:
        raise Lost("the program that lays it out answered with rubbish") from None


def _note(reason: str, packages: Sequence[str], *, excuse: bool) -> str | None:
    if reason and excuse:
        return f"could not be shown ({reason}); the message is attached to a page that says so"
    if reason:
        return f"only its text could be shown ({reason}); the message is attached to it"
    if packages:
        return f"some characters show as boxes: no font for them here ({', '.join(packages)})"
    return None


def fonts_for(characters: str) -> tuple[str, ...]:
    """The packages of Debian with fonts for these; none for characters that nobody has a font for."""
    packages = {_package(character) for character in characters if unicodedata.category(character)[0] != "C"}
    return tuple(sorted(packages))


def _package(character: str) -> str:
    if unicodedata.category(character) == "So" and ord(character) > 0x2000:
        return _EMOJI
    name = unicodedata.name(character, "")
    return next(package for starts, package in _FONTS if not starts or name.startswith(starts))
