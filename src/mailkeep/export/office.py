"""Writes mail as documents of Word, one a message: .docx, or .doc for what is older than 2007.

Knows names, attachments and pages; LibreOffice, behind `soffice`, makes documents of them. A document cannot well hold
files, so those of a message lie beside it, in `… files/`, and it lists them. A message that LibreOffice cannot show
becomes a document that says so, with the raw message among the files. Pictures that stand in the text are no files.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.errors import CannotWrite, ToolMissing
from mailkeep.export import soffice
from mailkeep.export.files import Files
from mailkeep.export.names import FolderNames, Names, message_file, subject_of
from mailkeep.export.page import Show, page, problem_page
from mailkeep.export.pictures import Pictures
from mailkeep.export.soffice import DOC, DOCX, Office, Target
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.mail.letter import Attachment, letter_of

FILES: Final = " files"
RAW: Final = "message.eml"
WORTH_IT: Final = 8  # pages for a start of LibreOffice; for fewer, another is not worth its while
_BESIDE = re.compile(r"\([0-9]+\)" + FILES)  # no folder of mail is named so: names.FolderNames
_MAGIC: Final = {"docx": b"PK\x03\x04", "doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"}


def make_docx(place: Path, options: Options, state: bytes | None) -> "OfficeWriter":
    """A writer of .docx into the folder `place`. Raises ToolMissing."""
    return OfficeWriter(place, options, target=DOCX, state=state)


def make_doc(place: Path, options: Options, state: bytes | None) -> "OfficeWriter":
    """A writer of .doc into the folder `place`. Raises ToolMissing."""
    return OfficeWriter(place, options, target=DOC, state=state)


def count(place: Path) -> int:
    """Documents in a finished output, by their names and first bytes; what was attached to messages does not count."""
    found = 0
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if _BESIDE.search(name) is None or not name.endswith(FILES)]
        for name in names:
            magic = _MAGIC.get(name.rpartition(".")[2])
            if magic is not None:
                with Path(folder, name).open("rb") as file:
                    found += file.read(len(magic)) == magic
    return found


def _none(attachment: Attachment) -> None:
    return None


class OfficeWriter:
    """See the module. As many programs as there are processors work on a batch."""

    def __init__(self, place: Path, options: Options, *, target: Target, state: bytes | None) -> None:
        self._files = Files(place)
        self._names = FolderNames(options.folders)
        self._before = 0 if state is None else msgspec.json.decode(state, type=int)
        self._target = target
        self._path = ""
        self._proved = False
        program = soffice.find()
        homes = [place.with_name(f"{place.name}.office{number}") for number in range(len(os.sched_getaffinity(0)))]
        self._offices = [Office(program, home) for home in homes]
        self._threads = ThreadPoolExecutor(len(homes), "office")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._before + self._files.size

    def folder(self, folder: Folder) -> None:
        """Raises CannotWrite."""
        self._path = self._names.path(folder.path)
        self._files.folder(self._path)

    def write(self, messages: Sequence[Message]) -> list[Written]:
        """Raises CannotWrite, ToolMissing."""
        letters = [letter_of(message.data) for message in messages]
        self._prove()
        pictures = [Pictures(letter) for letter in letters]
        pages = [
            page(message, letter, Show(shown.url, _none, "office"))
            for message, letter, shown in zip(messages, letters, pictures, strict=True)
        ]
        made = self._convert(pages)
        failed = [number for number, document in enumerate(made) if isinstance(document, str)]
        reasons = {number: str(made[number]) for number in failed}
        excuses = [problem_page(messages[number], reasons[number], Show(_none, _none, "office")) for number in failed]
        for number, excuse in zip(failed, self._convert(excuses), strict=True):
            made[number] = excuse
        written = []
        for number, message in enumerate(messages):
            shown = set() if number in reasons else pictures[number].shown
            beside = [found for found in letters[number].attachments if found.number not in shown]
            files = [(found.name, letters[number].content(found)) for found in beside]
            if number in reasons:
                files.append((RAW, message.data))
            written.append(self._put(message, made[number], files, reasons.get(number)))
        return written

    def _prove(self) -> None:
        """Once: a LibreOffice that is broken would fail on each message, after long."""
        if not self._proved:
            (document,) = self._offices[0].convert(["<p>Mail</p>"], self._target)
            if isinstance(document, str):
                raise ToolMissing(f"LibreOffice is here but makes no documents ({document}); {soffice.MISSING}")
            self._proved = True

    def _convert(self, pages: Sequence[str]) -> list[bytes | str]:
        count = max(min(len(self._offices), len(pages) // WORTH_IT), 1)
        shares = [pages[number::count] for number in range(count)]
        results = list(
            self._threads.map(
                lambda share: share[0].convert(share[1], self._target), zip(self._offices, shares, strict=False)
            )
        )
        return [results[number % count][number // count] for number in range(len(pages))]

    def _put(
        self, message: Message, document: bytes | str, files: Sequence[tuple[str, bytes]], reason: str | None
    ) -> Written:
        beside = f"{self._path}/{message_file(message, subject_of(message.data), FILES)}".lstrip("/")
        if isinstance(document, str):
            raise CannotWrite(f"LibreOffice makes no documents here: {document}")
        names = Names()
        for name, data in files:
            self._files.put(f"{beside}/{names.take(name)}", data, mtime=message.internaldate)
        file = f"{beside.removesuffix(FILES)}.{self._target.suffix}"
        self._files.put(file, document, mtime=message.internaldate)
        return Written(
            file, f"could not be shown ({reason}); the message lies beside a page that says so" if reason else None
        )

    def checkpoint(self) -> bytes:
        """Raises CannotWrite."""
        self._files.sync()
        return msgspec.json.encode(self.size)

    def finish(self) -> None:
        """Raises CannotWrite."""
        self._files.sync()
        self.abandon()

    def abandon(self) -> None:
        """Ends LibreOffice, and removes its profiles."""
        for office in self._offices:
            office.close()
        self._threads.shutdown(cancel_futures=True)
