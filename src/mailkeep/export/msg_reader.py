"""Reads an MSG file ([MS-OXMSG]) into a MAPI item, whoever wrote it and whatever happened to it since.

Knows where MSG files keep properties, recipients, attachments and embedded messages; `cfb_reader` finds the streams.
Strings come out as Unicode, also from files in the codepage of some old Windows. Nothing is made of the properties
here: that is `from_mapi`'s part.

Values are taken from the streams that are there, not from the table that lists them, as some writers forget rows; what
is missing is only missing, and a damaged stream is passed over with a note. Numbers of up to eight bytes are in the
table alone.
"""

import re
import struct
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from mailkeep.export import cfb, mapi
from mailkeep.export.cfb import Storage
from mailkeep.export.cfb_reader import Bad, Buffer, Compound, Damaged, Entry
from mailkeep.export.mapi import Attached, Item, Named, Value
from mailkeep.export.msg_storage import FIRST_NAMED, NAMES, TABLE

__all__ = ["Bad", "Buffer", "read"]

EMBEDDED_MAX: Final = 50  # messages in each other that are read; from_mapi has a limit of its own
PROBLEMS_MAX: Final = 20  # that are told
OBJECTS_MAX: Final = 10_000  # recipients, and attachments, of one message
_OLE_DEPTH_MAX: Final = 10


def read(data: Buffer) -> Item:
    """The message in an MSG file. What cannot be read of it is among its `problems`. Raises Bad."""
    file = _File(data)
    item = file.item(file.compound.root, head=32, depth=0)
    item.problems = file.problems
    return item


class _File:
    """The storages of one file as objects of MAPI; and the names of properties, which they share."""

    def __init__(self, data: Buffer) -> None:
        self.compound = Compound(data)
        self.problems: list[str] = []
        self.names = self._names()

    def read(self, stream: Entry | None) -> bytes | None:
        """The bytes of a stream; None when it is not there or damaged, which is noted."""
        if stream is None:
            return None
        try:
            return self.compound.read(stream)
        except Damaged as error:
            if len(self.problems) < PROBLEMS_MAX:
                self.problems.append(f"{stream.name}: {error}")
            return None

    def _names(self) -> list[tuple[UUID, int | str] | None]:
        """The names of the properties from 0x8000 on (section 2.2.3); None for those that cannot be read."""
        storage = self.compound.root.storage(NAMES)
        if storage is None:
            return []
        streams = [storage.stream(f"__substg1.0_{tag:08x}") for tag in (0x00020102, 0x00030102, 0x00040102)]
        guids, entries, strings = (self.read(stream) or b"" for stream in streams)
        found: list[tuple[UUID, int | str] | None] = []
        for at in range(0, min(len(entries) - 7, 8 * (0x10000 - FIRST_NAMED)), 8):
            identity, kind, number = struct.unpack_from("<IHH", entries, at)
            while len(found) <= number < 0x10000 - FIRST_NAMED:
                found.append(None)
            guid = _guid(guids, kind >> 1)
            if guid is None or number >= len(found):
                continue
            found[number] = (guid, _string(strings, identity) if kind & 1 else identity)
        return found

    # -- objects

    def item(self, storage: Entry, *, head: int, depth: int) -> Item:
        """A message, at the root of the file or embedded."""
        values, named = self.properties(storage, head)
        if mapi.MESSAGE_CLASS not in values and storage.stream(TABLE) is None:
            raise Bad("a compound file, but no message")
        item = Item(values, named)
        for name, kid in (storage.children or {}).items():
            if kid.children is None:
                continue
            if name.startswith("__recip_version1.0_#") and len(item.recipients) < OBJECTS_MAX:
                item.recipients.append(self.properties(kid, 8, values)[0])
            elif name.startswith("__attach_version1.0_#") and len(item.attachments) < OBJECTS_MAX:
                item.attachments.append(self.attached(kid, depth, values))
        return item

    def attached(self, storage: Entry, depth: int, owner: dict[int, Value]) -> Attached:
        values, _ = self.properties(storage, 8, owner)
        data = values.pop(mapi.ATTACH_DATA, None)
        found = Attached(values, data=data if isinstance(data, bytes) else None)
        inner = storage.storage(f"__substg1.0_{mapi.ATTACH_OBJECT:08x}")
        if inner is None:
            return found
        if values.get(mapi.ATTACH_METHOD) != mapi.OLE and inner.stream(TABLE) is not None:
            if depth + 1 < EMBEDDED_MAX:
                found.item = self.item(inner, head=24, depth=depth + 1)
        elif found.data is None:
            found.data = b"".join(cfb.pieces(self.copy(inner, 0)))
        return found

    def copy(self, storage: Entry, depth: int) -> Storage:
        """An embedded OLE object: by itself it is a compound file, e.g. a sheet that its program opens."""
        made = Storage()
        for kid in (storage.children or {}).values():
            if not kid.name.isascii() or not 0 < len(kid.name) <= cfb.NAME_MAX:
                continue
            if kid.children is None:
                made.children[kid.name] = self.read(kid) or b""
            elif depth < _OLE_DEPTH_MAX:
                made.children[kid.name] = self.copy(kid, depth + 1)
        return made

    def properties(
        self, storage: Entry, head: int, owner: dict[int, Value] | None = None
    ) -> tuple[dict[int, Value], dict[Named, Value]]:
        """The properties of one object, and the named ones apart. `owner`: of the message, which has the codepage."""
        raw = _Properties()
        raw.add_table((self.read(storage.stream(TABLE)) or b"")[head:])
        for text, kid in (storage.children or {}).items():
            match = _STREAM_NAME.fullmatch(text)
            if match is not None and kid.children is None:
                content = self.read(kid)
                if content is not None:
                    raw.streams[int(match[1], 16), -1 if match[2] is None else int(match[2], 16)] = content
        raw.add_streams(_codec(raw.values if owner is None else owner))
        values: dict[int, Value] = {}
        named: dict[Named, Value] = {}
        for tag, value in raw.values.items():
            number = (tag >> 16) - FIRST_NAMED
            if number < 0:
                values[tag] = value
            elif number < len(self.names) and (name := self.names[number]) is not None:
                named[Named(*name, tag & 0xFFFF)] = value
        return values, named


_STREAM_NAME: Final = re.compile(r"__substg1\.0_([0-9a-f]{8})(?:-([0-9a-f]{8}))?")


def _guid(guids: bytes, index: int) -> UUID | None:
    if index == 1:
        return mapi.PS_MAPI
    if index == 2:
        return mapi.PS_PUBLIC_STRINGS
    raw = guids[16 * (index - 3) : 16 * (index - 2)] if index > 2 else b""
    return UUID(bytes_le=raw) if len(raw) == 16 else None


def _string(strings: bytes, at: int) -> str:
    size = int.from_bytes(strings[at : at + 4], "little")
    return mapi.clean(strings[at + 4 : at + 4 + min(size, 1024)].decode("utf-16-le", "replace"))


def _codec(values: dict[int, Value]) -> str:
    """Of the 8-bit strings of a message: the codepage that it names, else Western European."""
    for tag in (mapi.MESSAGE_CODEPAGE, mapi.INTERNET_CODEPAGE):
        if (codec := mapi.codec_of(values.get(tag))) is not None and not codec.startswith("utf-16"):
            return codec
    return "cp1252"


# --- values ----------------------------------------------------------------------------------------------------------

_FIXED: Final = {
    mapi.INTEGER16: "<h6x",
    mapi.INTEGER32: "<i4x",
    mapi.ERROR_CODE: "<I4x",
    mapi.BOOLEAN: "<?7x",
    mapi.FLOATING32: "<f4x",
    mapi.FLOATING64: "<d",
    mapi.FLOATING_TIME: "<d",
    mapi.CURRENCY: "<q",
    mapi.INTEGER64: "<q",
    mapi.TIME: "<Q",
}
_LISTS: Final = {
    mapi.INTEGER16: "h",
    mapi.INTEGER32: "i",
    mapi.FLOATING32: "f",
    mapi.FLOATING64: "d",
    mapi.FLOATING_TIME: "d",
    mapi.CURRENCY: "q",
    mapi.INTEGER64: "q",
    mapi.TIME: "Q",
}
_HTML_UNICODE: Final = 0x1013001F
_HTML_STRING8: Final = 0x1013001E


@dataclass(slots=True)
class _Properties:
    """The properties of one object, from its table and its streams."""

    values: dict[int, Value] = field(default_factory=dict)
    streams: dict[tuple[int, int], bytes] = field(default_factory=dict)  # by tag and number in a list, or -1

    def add_table(self, table: bytes) -> None:
        """The rows of 16 bytes with a value in them."""
        for at in range(0, len(table) - 15, 16):
            tag = int.from_bytes(table[at : at + 4], "little")
            layout = _FIXED.get(tag & 0xFFFF)
            if layout is not None:
                self.values[tag] = struct.unpack_from(layout, table, at + 8)[0]

    def add_streams(self, codec: str) -> None:
        for (tag, number), raw in self.streams.items():
            if number >= 0:
                continue
            kind = tag & 0xFFFF
            if tag == _HTML_UNICODE:
                self.values[mapi.HTML] = _unicode(raw).encode("utf-8")
                self.values[mapi.INTERNET_CODEPAGE] = mapi.CODEPAGE_UTF8
            elif tag == _HTML_STRING8:
                self.values.setdefault(mapi.HTML, raw)
            elif kind == mapi.STRING:
                self.values[tag] = _unicode(raw)
            elif kind == mapi.STRING8:
                self.values.setdefault(tag | 1, _string8(raw, codec))
            elif kind == mapi.BINARY:
                self.values[tag] = raw
            elif kind == mapi.GUID and len(raw) == 16:
                self.values[tag] = UUID(bytes_le=raw)
            elif kind & mapi.MULTIPLE and (values := self.list_of(tag, raw, codec)):
                self.values[tag | 1 if kind & 0xFFF == mapi.STRING8 else tag] = values

    def list_of(self, tag: int, raw: bytes, codec: str) -> Value | None:
        """The values of a multi-valued property (section 2.1.4)."""
        kind = tag & 0xFFF
        letter = _LISTS.get(kind)
        if letter is not None:
            return [value for (value,) in struct.iter_unpack("<" + letter, raw[: len(raw) - len(raw) % _size(letter)])]
        if kind == mapi.GUID:
            return [UUID(bytes_le=raw[at : at + 16]) for at in range(0, len(raw) - 15, 16)]
        count = len(raw) // (8 if kind == mapi.BINARY else 4)
        found = [self.streams[tag, number] for number in range(count) if (tag, number) in self.streams]
        if kind == mapi.BINARY:
            return found
        if kind == mapi.STRING:
            return [_unicode(value) for value in found]
        return [_string8(value, codec) for value in found] if kind == mapi.STRING8 else None


def _size(letter: str) -> int:
    return struct.calcsize("<" + letter)


def _unicode(raw: bytes) -> str:
    return mapi.clean(raw[: len(raw) & ~1].decode("utf-16-le", "replace"))


def _string8(raw: bytes, codec: str) -> str:
    return mapi.clean(raw.rstrip(b"\0").decode(codec, "replace"))
