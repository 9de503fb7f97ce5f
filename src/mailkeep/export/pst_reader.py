"""Mail out of Outlook's files, PST and OST, as items of an import.

Knows how to run the child that reads such a file, and what to make of its death; the file itself only the child knows
(`pst_child`). Its library is written in C and reads what strangers made: in there it may crash, loop or ask for
all memory of the machine, and all that comes of it is one message that is reported as bad.

The hard idea: the child tells which item it begins before it touches it. So when it dies or is silent for too long, the
item is known, and a new child begins behind it. That is done so often as the file is worth; then the rest is given up.

The file is opened here, for reading, and the child gets it by number: it can open nothing that was not meant.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

OPEN_S: Final = 600.0  # a file of 50 GB reads its whole index first
ITEM_S: Final = 60.0
RESTARTS_MAX: Final = 50  # without GOOD_ITEMS between any two of them
GOOD_ITEMS: Final = 500
_MEMORY_MIN: Final = 1 << 30  # of address space, most of which is libraries
_HEAD_MAX: Final = 64 << 20  # with the names of all folders in it
_CHILD: Final = "from mailkeep.export.pst_child import main; main()"


@dataclass(frozen=True, slots=True)
class Mail:
    """A message: the levels of its folder, what it is, and what is not as it was in the file.

    `role`: what the topmost folder is for: INBOX, Sent, Drafts, Junk, Trash, Archive, or "".
    """

    number: int
    folder: tuple[str, ...]
    role: str
    data: bytes
    flags: frozenset[str]
    internaldate: int | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that could not be read: the item `number` of a folder, or (number 0) what the reason says."""

    number: int
    folder: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What the file holds, told once before its mail. `empty`: folders of the user's without any."""

    items: int
    empty: tuple[tuple[str, ...], ...] = ()


class CannotRead(Exception):
    """The file is none of Outlook's, or too damaged to be opened. The text is for the user."""


def read(stream: IO[bytes], *, size_max: int, temporary: Path | None = None) -> Iterator[Contents | Mail | Fault]:
    """All mail of a file, folder by folder. Items above `size_max` bytes are faults. Raises CannotRead."""
    with _with_number(stream, temporary) as file:
        reader = _Reader(file.fileno(), size_max)
        try:
            yield from reader.run()
        finally:
            reader.end()


def _with_number(stream: IO[bytes], temporary: Path | None) -> IO[bytes]:
    """The same bytes as a file that another process can be given."""
    try:
        return os.fdopen(os.dup(stream.fileno()), "rb")
    except OSError:  # in memory
        copy = tempfile.TemporaryFile(dir=temporary)  # noqa: SIM115 (handed to the caller)
        shutil.copyfileobj(stream, copy)
        copy.flush()
        return copy


class _Silence(Exception):
    """The child says nothing for too long."""


@dataclass(slots=True)
class _Reader:
    """One file; children come and go."""

    number: int  # of the open file
    size_max: int
    child: "subprocess.Popen[bytes] | None" = None
    begun: int = 0  # the item that the child has in hand; 0: it is opening the file
    folder: tuple[str, ...] = ()
    role: str = ""
    done: int = 0  # items behind us
    told: bool = False

    def run(self) -> Iterator[Contents | Mail | Fault]:
        restarts = good_from = 0
        while True:
            self.begun = 0
            why = ""
            try:
                self._start()
                yield from self._listen()
                return
            except EOFError:
                why = self._died()
            except _Silence:
                why = f"reading it took more than {ITEM_S:.0f} seconds"
            self.end()
            restarts = 1 if self.begun >= good_from + GOOD_ITEMS else restarts + 1
            good_from = self.begun
            if self.begun == 0:
                raise CannotRead(f"the file is too damaged to be opened ({why}); Outlook's SCANPST may repair it")
            yield Fault(self.begun, self.folder, why)
            self.done = self.begun
            if restarts > RESTARTS_MAX:
                yield Fault(0, (), f"given up after item {self.done:,}: too many of the last break the reader")
                return

    def _start(self) -> None:
        size = os.fstat(self.number).st_size
        settings = {
            "file": self.number,
            "skip": self.done,
            "size_max": self.size_max,
            # libpff keeps some 4 KB for each item, and there is an item in every 8 KB of a store of small mail.
            "memory_max": _MEMORY_MIN + 8 * self.size_max + size // 2,
        }
        self.child = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, json.dumps(settings)],  # -P: nothing of the directory one is in
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self.number,),
            start_new_session=True,  # Ctrl-C is for who asked, and ends this when it ends
        )

    def end(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            child.kill()
            with suppress(OSError):
                if child.stdout is not None:
                    child.stdout.close()
            child.wait()

    def _died(self) -> str:
        assert self.child is not None
        self.child.kill()
        code = self.child.wait()
        return "the reader of the file broke on it" if code else "the reader of the file ended early"

    def _listen(self) -> Iterator[Contents | Mail | Fault]:
        while True:
            head = self._head(ITEM_S if self.begun else OPEN_S)
            match head["is"]:
                case "contents":
                    if not self.told:
                        self.told = True
                        yield Contents(head["items"], tuple(map(tuple, head["empty"])))
                    self.begun = self.begun or self.done
                case "begin":
                    self.begun, self.folder, self.role = head["number"], tuple(head["folder"]), head["role"]
                case "mail":
                    data = self._bytes(head["size"], ITEM_S)
                    when = head["internaldate"]
                    self.done = head["number"]
                    flags, problems = frozenset(head["flags"]), tuple(head["problems"])
                    yield Mail(self.done, self.folder, self.role, data, flags, when, problems)
                case "fault":
                    self.done = max(self.done, head["number"])
                    yield Fault(head["number"], tuple(head["folder"]), head["reason"])
                case "refused":
                    raise CannotRead(head["reason"])
                case _:
                    return

    def _head(self, patience_s: float) -> dict[str, Any]:
        size = int.from_bytes(self._bytes(4, patience_s), "little")
        if size > _HEAD_MAX:
            raise EOFError
        try:
            head = json.loads(self._bytes(size, patience_s))
        except ValueError:
            raise EOFError from None
        return head if isinstance(head, dict) else {"is": "end"}

    def _bytes(self, size: int, patience_s: float) -> bytes:
        """Just so many. Raises EOFError when the child ends before, _Silence when nothing comes for so long."""
        assert self.child is not None and self.child.stdout is not None
        pipe = self.child.stdout.fileno()
        taken = bytearray()
        while len(taken) < size:
            if not select.select([pipe], [], [], patience_s)[0]:
                raise _Silence
            piece = os.read(pipe, min(size - len(taken), 1 << 20))
            if not piece:
                raise EOFError
            taken += piece
        return bytes(taken)
