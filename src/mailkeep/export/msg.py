"""The export to MSG: one file a message in a tree of folders, as Outlook saves a message when it is dragged out.

Knows where files go and what to do with a message that an MSG file cannot hold; what is in a file is `to_mapi`'s and
`msg_storage`'s affair. An MSG file has at most 2,048 recipients and as many attachments. A message with more recipients
names the others in its header block, which the file has whole; one with more attachments gets itself as the last of
them, as a file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.export import cfb, mapi
from mailkeep.export.files import Files
from mailkeep.export.mapi import Attached, Item
from mailkeep.export.msg_storage import OBJECTS_MAX, storage_of
from mailkeep.export.names import FolderNames, message_file
from mailkeep.export.to_mapi import item_of
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.mail.letter import letter_of

SUFFIX: Final = ".msg"
JOINED_MAX: Final = 1 << 20  # bytes of a file that is put together in memory


def make(place: Path, options: Options, state: bytes | None) -> "MsgWriter":
    """A writer of MSG files below `place`. Of the state it needs the size only: a file is written again as it was."""
    return MsgWriter(place, options, 0 if state is None else msgspec.json.decode(state, type=int))


def count(place: Path) -> int:
    """The MSG files below `place`, counted by their first bytes."""
    found = 0
    for path in place.rglob(f"*{SUFFIX}"):
        with path.open("rb") as file:
            found += file.read(len(cfb.SIGNATURE)) == cfb.SIGNATURE
    return found


class MsgWriter:
    """See `writer.Writer`."""

    def __init__(self, place: Path, options: Options, before: int) -> None:
        self._files = Files(place)
        self._before = before
        self._names = FolderNames(options.folders)
        self._path = ""

    @property
    def size(self) -> int:
        return self._before + self._files.size

    def folder(self, folder: Folder) -> None:
        self._path = self._names.path(folder.path)
        if self._path:
            self._files.folder(self._path)

    def write(self, messages: Sequence[Message]) -> list[Written]:
        return [self._write(message) for message in messages]

    def _write(self, message: Message) -> Written:
        letter = letter_of(message.data)
        item = item_of(message, letter)
        note = _fit(item, message)
        name = message_file(message, letter.subject, SUFFIX)
        file = f"{self._path}/{name}" if self._path else name
        pieces = cfb.pieces(storage_of(item))
        if len(message.data) < JOINED_MAX:
            self._files.put(file, b"".join(pieces), mtime=message.internaldate)
        else:
            with self._files.open(file, mtime=message.internaldate) as output:
                output.writelines(pieces)
        return Written(file, note)

    def checkpoint(self) -> bytes:
        self._files.sync()
        return msgspec.json.encode(self.size)

    def finish(self) -> None:
        self._files.sync()

    def abandon(self) -> None:
        """Nothing is open."""


def _fit(item: Item, message: Message) -> str | None:
    """Cut what an MSG file has no room for; what to tell about it."""
    notes: list[str] = []
    if len(item.recipients) > OBJECTS_MAX:
        notes.append(f"{len(item.recipients)} recipients, of which an MSG file lists {OBJECTS_MAX}")
        del item.recipients[OBJECTS_MAX:]
    if len(item.attachments) > OBJECTS_MAX:
        notes.append(f"{len(item.attachments)} attachments, of which an MSG file has {OBJECTS_MAX}; the last is all")
        del item.attachments[OBJECTS_MAX - 1 :]
        item.attachments.append(whole_message(message.data))
    return "; ".join(notes) or None


def whole_message(data: bytes) -> Attached:
    """The message as it is, as a file attached."""
    return Attached(
        {
            mapi.ATTACH_METHOD: mapi.BY_VALUE,
            mapi.DISPLAY_NAME: "message.eml",
            mapi.ATTACH_LONG_NAME: "message.eml",
            mapi.ATTACH_NAME: "MESSAGE.EML",
            mapi.ATTACH_EXTENSION: ".eml",
            mapi.ATTACH_MIME_TYPE: "message/rfc822",
            mapi.RENDERING_POSITION: -1,
        },
        data=data,
    )
