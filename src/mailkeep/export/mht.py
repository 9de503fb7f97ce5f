"""The export to MHT: one web page in one file a message, with the pictures of its body inside (RFC 2557).

Knows how the parts of such a file refer to each other and what a browser does with it; the page itself comes from
`page`. The page is the first part, pictures follow by Content-Location; both are named by `cid:` URLs, as browsers name
the parts of pages that they save, so that nothing in the file stands for a place on a network. No time and no chance
goes into a file: the same message gives the same bytes.

A browser shows an MHT file in a sandbox and opens no link to a file from it, nor to another part. So what is attached
lies beside, in a directory that the page names.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from mailkeep.errors import CannotWrite
from mailkeep.export.files import Files
from mailkeep.export.html_attachments import file_name, is_renamed
from mailkeep.export.names import FolderNames, Names, message_file
from mailkeep.export.page import Show, page, picture_type, problem_page
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.mail import compose
from mailkeep.mail.letter import Attachment, Letter, letter_of

SUFFIX: Final = ".mht"
FILES: Final = " files"  # what the directory beside `name.mht` is called after `name`
_PAGE: Final = "cid:page@mailkeep.invalid"
_PEOPLE_MAX: Final = 100  # in the head of the file, where they are only for show
_NO_TIME: Final = timedelta()
_HEAD: Final = b"Snapshot-Content-Location: " + _PAGE.encode()


def make(place: Path, options: Options, state: bytes | None) -> "MhtWriter":
    """A writer of MHT files below `place`. It needs no state: a file is written again under the same name."""
    return MhtWriter(place, options)


def count(place: Path) -> int:
    """The MHT files of ours below `place`, by what stands in them."""
    found = 0
    for folder, _, names in os.walk(place):
        if folder.endswith(FILES) and os.path.isfile(folder[: -len(FILES)] + SUFFIX):
            continue  # attachments, which may be such files too
        for name in names:
            if name.endswith(SUFFIX):
                with open(os.path.join(folder, name), "rb") as file:
                    found += _HEAD in file.read(16 << 10)
    return found


class MhtWriter:
    """See `writer.Writer`."""

    def __init__(self, place: Path, options: Options) -> None:
        self._files = Files(place)
        self._names = FolderNames(options.folders)
        self._path = ""

    @property
    def size(self) -> int:
        return self._files.size

    def folder(self, folder: Folder) -> None:
        self._path = self._names.path(folder.path)
        if self._path:
            self._files.folder(self._path)

    def write(self, messages: Sequence[Message]) -> list[Written]:
        return [self._write(message) for message in messages]

    def _write(self, message: Message) -> Written:
        note = None
        letter = letter_of(message.data)
        file = message_file(message, letter.subject, SUFFIX)
        name = f"{self._path}/{file}" if self._path else file
        beside = name.removesuffix(SUFFIX) + FILES
        try:
            sheet = _Sheet(message, letter, os.path.basename(beside))
            data = sheet.archive()
            for attachment, stored in sheet.stored:
                self._files.put(f"{beside}/{stored}", letter.content(attachment), mtime=message.internaldate)
        except (CannotWrite, MemoryError):
            raise
        except Exception as error:  # whatever a message does to us, it is not to stop the others
            note = f"its page could not be made ({type(error).__name__})"
            data = archive(message, letter, problem_page(message, note, _BARE), [])
            self._files.put(f"{beside}/message.eml", message.data, mtime=message.internaldate)
        self._files.put(name, data, mtime=message.internaldate)
        return Written(name, note)

    def checkpoint(self) -> bytes:
        self._files.sync()
        return b"{}"

    def finish(self) -> None:
        self._files.sync()

    def abandon(self) -> None:
        """Nothing is open."""


def _none(_: Attachment) -> None:
    return None


_BARE: Final = Show(_none, _none)


class _Sheet:
    """One message on its way to a file: which pictures go into it, and which attachments beside it."""

    def __init__(self, message: Message, letter: Letter, beside: str) -> None:
        self.message = message
        self.letter = letter
        self.beside = beside
        self.pictures: dict[int, compose.Part] = {}
        names = Names()
        self.names = {
            attachment.number: file_name(names, attachment, letter.content(attachment))
            for attachment in letter.attachments
        }

    def archive(self) -> bytes:
        html = page(self.message, self.letter, Show(self.image, _none, note=self.note))
        return archive(self.message, self.letter, html, list(self.pictures.values()))

    @property
    def stored(self) -> list[tuple[Attachment, str]]:
        """The attachments that are not in the page, with their names in the directory beside."""
        return [
            (attachment, self.names[attachment.number])
            for attachment in self.letter.attachments
            if attachment.number not in self.pictures
        ]

    def image(self, attachment: Attachment) -> str | None:
        kind = picture_type(self.letter, attachment)
        if kind is None:
            return None
        name = f"part{attachment.number}@mailkeep.invalid"
        if attachment.number not in self.pictures:
            self.pictures[attachment.number] = compose.Leaf(
                kind, self.letter.content(attachment), content_id=name, location=f"cid:{name}"
            )
        return f"cid:{name}"

    def note(self, attachment: Attachment) -> str:
        name = self.names[attachment.number]
        called = f", called “{name}”" if is_renamed(name, attachment) or name != attachment.name else ""
        return f"in “{self.beside}” beside this page{called}"


def archive(message: Message, letter: Letter, html: str, pictures: Sequence[compose.Part]) -> bytes:
    """A page and its pictures as one MHT file."""
    when = letter.date
    if when is None:
        date = compose.date_time(message.internaldate)
    else:
        date = compose.date_time(when.timestamp(), round((when.utcoffset() or _NO_TIME).total_seconds() / 60))
    fields: list[compose.Field] = [("Snapshot-Content-Location", _PAGE)]
    for name, people in (("From", letter.from_), ("To", letter.to[:_PEOPLE_MAX])):
        if people:
            fields.append((name, compose.address_list(people, len(name) + 2)))
    fields += [("Subject", letter.subject), ("Date", date)]
    first = compose.Leaf("text/html", html, location=_PAGE)
    return compose.message(fields, compose.Multi("related", (first, *pictures), (("type", "text/html"),)))
