"""What an export hands to the writer of a format, and what it wants back.

A writer knows its format and one place on the disk; it knows no store, no filters and no manifest. It is given the
messages folder by folder and, at any time, is asked for a checkpoint: after that, all that it was given is on the disk,
and a writer made from the checkpoint's state in a later process goes on as if nothing had been between. What lies in
its place beyond the checkpoint is its own leftover, to be cut off or written again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Folder:
    """A mailbox. `name` as in the account; `path` its levels in the output (below the folder that was chosen)."""

    name: str
    path: tuple[str, ...]
    special_use: frozenset[str] = frozenset()
    uidvalidity: int = 0  # 0 where nobody knows; so `uidnext`
    uidnext: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A message to write. `internaldate` is in seconds since 1970, UTC; `data` the stored bytes, with CRLF."""

    number: int  # counts through the whole export, from 1
    folder: Folder
    uid: int
    flags: frozenset[str]
    internaldate: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """Where a message went: a path relative to the output, "/" between levels. `note` says what is not as wanted."""

    file: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. `per`: one file for each `message`, each `folder` or for `all`."""

    format: str = ""  # its name, for a module that writes several
    title: str = "Mail"  # of the whole; the account's name
    per: str = ""  # "" is the format's own default
    engine: str = ""  # of PDF: weasyprint or chromium
    folders: tuple[Folder, ...] = ()  # all that will come, in their order; empty where nobody knows


class Writer(Protocol):
    """What `make(place, options, state)` of a format gives. `place` is the file, or the empty folder to fill."""

    @property
    def size(self) -> int:
        """Bytes written so far, roughly: what `--split` goes by."""

    def folder(self, folder: Folder) -> None:
        """The messages that follow are of this folder; called for empty folders as well, and again after a resume."""

    def write(self, messages: Sequence[Message]) -> list[Written]:
        """Write messages of the present folder, one result for each. A bad message is written as what it is, with a
        note; it raises CannotWrite (the disk) and ToolMissing only."""

    def checkpoint(self) -> bytes:
        """Make durable what was written; the state (JSON) to go on from."""

    def finish(self) -> None:
        """Close the output: complete and durable. Nothing is called after this; but a process killed now goes on from
        the last checkpoint, so what that one needs must stay: files beside the place, which the caller removes."""

    def abandon(self) -> None:
        """Let go of files and child processes; the output stays as it is, to be taken up again."""
