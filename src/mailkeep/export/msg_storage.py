"""A MAPI item as the storages and streams of an MSG file ([MS-OXMSG]).

Knows where each property goes by its type; knows nothing of mail, and of compound files only that storages have
children. Numbers of up to eight bytes stand in the table "__properties_version1.0" of their object; anything else has a
stream named by its tag, and a row in the table with its size. Recipients, attachments and embedded messages are
storages of the same making, whose tables differ in the length of their head.

**The one hard idea** is that the names of named properties exist once for the whole file, embedded messages included
(section 2.2.3): numbers from 0x8000 up are given out while the objects are written, and the names come last.

Strings are Unicode throughout. An empty one must not be there at all (section 2.4.2.2), so it is left out.
"""

import struct
import zlib
from functools import lru_cache
from typing import Final
from uuid import UUID

from mailkeep.export import mapi
from mailkeep.export.cfb import Storage
from mailkeep.export.mapi import Attached, Item, Named, Value

OBJECTS_MAX: Final = 2048  # recipients, and attachments, that an MSG file may have (sections 2.2.1 and 2.2.2)

CLASS_ID: Final = UUID("00020d0b-0000-0000-c000-000000000046").bytes_le
TABLE: Final = "__properties_version1.0"
NAMES: Final = "__nameid_version1.0"
RECIPIENT: Final = "__recip_version1.0_#%08X"
ATTACHMENT: Final = "__attach_version1.0_#%08X"
FIRST_NAMED: Final = 0x8000

_WRITABLE: Final = 6  # flags of a row: readable and writable
_NUMBER: Final = struct.Struct("<IIQ")  # tag, flags, value
_SIZED: Final = struct.Struct("<IIII")  # tag, flags, size of the stream, reserved
_EMBEDDED: Final = _SIZED.pack(mapi.ATTACH_OBJECT, _WRITABLE, 0xFFFFFFFF, 1)
_MASKS: Final = {
    mapi.INTEGER16: 0xFFFF,
    mapi.INTEGER32: 0xFFFFFFFF,
    mapi.ERROR_CODE: 0xFFFFFFFF,
    mapi.BOOLEAN: 1,
    mapi.CURRENCY: 0xFFFFFFFFFFFFFFFF,
    mapi.INTEGER64: 0xFFFFFFFFFFFFFFFF,
    mapi.TIME: 0xFFFFFFFFFFFFFFFF,
}
_FLOATS: Final = {mapi.FLOATING32: "<f", mapi.FLOATING64: "<d", mapi.FLOATING_TIME: "<d"}
_ELEMENTS: Final = {mapi.INTEGER16: 2, mapi.INTEGER32: 4, mapi.ERROR_CODE: 4}  # bytes in a list; others have 8


def storage_of(item: Item) -> Storage:
    """The root of the MSG file of an item. Recipients and attachments over OBJECTS_MAX are left out."""
    file = _File()
    root = Storage(CLASS_ID)
    file.put_item(root, item, top=True)
    names = Storage()
    names.children.update(_name_streams(tuple(file.names)))
    root.children[NAMES] = names
    return root


class _File:
    """What the objects of one file share: the names of named properties, in the order of their numbers."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: dict[Named, int] = {}

    def put_item(self, storage: Storage, item: Item, *, top: bool = False) -> None:
        recipients, attachments = item.recipients[:OBJECTS_MAX], item.attachments[:OBJECTS_MAX]
        properties = {**item.properties, mapi.STORE_SUPPORT_MASK: mapi.STORE_UNICODE}
        for named, value in item.named.items():
            number = self.names.setdefault(named, FIRST_NAMED + len(self.names))
            properties[mapi.tag(number, named.type)] = value
        counts = len(recipients), len(attachments)
        # 8 reserved bytes, the next number of each, how many of each; at the top, 8 more (section 2.4.1).
        head = bytes(8) + struct.pack("<IIII", *counts, *counts) + (bytes(8) if top else b"")
        put_properties(storage, properties, head)
        for number, recipient in enumerate(recipients):
            inner = storage.children[RECIPIENT % number] = Storage()
            put_properties(inner, {**recipient, mapi.ROW_ID: number}, bytes(8))
        for number, attached in enumerate(attachments):
            inner = storage.children[ATTACHMENT % number] = Storage()
            self.put_attached(inner, attached, number)

    def put_attached(self, storage: Storage, attached: Attached, number: int) -> None:
        properties: dict[int, Value] = {
            **attached.properties,
            mapi.ATTACH_NUMBER: number,
            mapi.RECORD_KEY: number.to_bytes(4, "little"),
            mapi.OBJECT_TYPE: mapi.OBJECT_ATTACHMENT,
        }
        if attached.item is None:
            data = attached.data or b""
            properties[mapi.ATTACH_DATA] = data
            properties[mapi.ATTACH_SIZE] = min(len(data), 0x7FFFFFFF)
            put_properties(storage, properties, bytes(8))
        else:
            inner = storage.children[_stream_name(mapi.ATTACH_OBJECT)] = Storage()
            self.put_item(inner, attached.item)
            put_properties(storage, properties, bytes(8), more=_EMBEDDED)


def put_properties(storage: Storage, properties: dict[int, Value], head: bytes, *, more: bytes = b"") -> None:
    """The properties of one object: its table after `head`, and its streams. `more`: rows that the caller has made."""
    rows = [head]
    streams = storage.children
    for tag in sorted(properties):
        value = properties[tag]
        if isinstance(value, str):
            if value:
                raw = streams[_stream_name(tag)] = value.encode("utf-16-le", "replace")
                rows.append(_SIZED.pack(tag, _WRITABLE, len(raw) + 2, 0))
        elif isinstance(value, int):
            rows.append(_NUMBER.pack(tag, _WRITABLE, value & _MASKS[tag & 0xFFFF]))
        elif isinstance(value, bytes):
            streams[_stream_name(tag)] = value
            rows.append(_SIZED.pack(tag, _WRITABLE, len(value), 0))
        elif isinstance(value, float):
            rows.append(struct.pack("<II8s", tag, _WRITABLE, struct.pack(_FLOATS[tag & 0xFFFF], value)))
        elif isinstance(value, UUID):
            streams[_stream_name(tag)] = value.bytes_le
            rows.append(_SIZED.pack(tag, _WRITABLE, 16, 0))
        elif value:
            rows.append(_SIZED.pack(tag, _WRITABLE, _put_list(streams, tag, value), 0))
    rows.append(more)
    streams[TABLE] = b"".join(rows)


def _put_list(
    streams: dict[str, bytes | Storage],
    tag: int,
    values: list[int] | list[float] | list[str] | list[bytes] | list[UUID],
) -> int:
    """The streams of a multi-valued property; the size of its first (section 2.1.4).

    Those of one length are packed into one stream. Others have a stream each, and one of their lengths before.
    """
    kind = tag & 0xFFFF & ~mapi.MULTIPLE
    packed: list[bytes] = []
    for number, value in enumerate(values):
        if isinstance(value, str):
            raw = value.encode("utf-16-le", "replace") + b"\0\0"
            packed.append(struct.pack("<I", len(raw)))
            streams[f"{_stream_name(tag)}-{number:08X}"] = raw
        elif isinstance(value, bytes):
            packed.append(struct.pack("<II", len(value), 0))
            streams[f"{_stream_name(tag)}-{number:08X}"] = value
        elif isinstance(value, UUID):
            packed.append(value.bytes_le)
        elif isinstance(value, float):
            packed.append(struct.pack(_FLOATS[kind], value))
        elif isinstance(value, int):
            packed.append((value & _MASKS[kind]).to_bytes(_ELEMENTS.get(kind, 8), "little"))
    raw = streams[_stream_name(tag)] = b"".join(packed)
    return len(raw)


@lru_cache(maxsize=1024)
def _stream_name(tag: int) -> str:
    return f"__substg1.0_{tag:08X}"


# --- the names of named properties (section 2.2.3) -------------------------------------------------------------------

_KNOWN_SETS: Final = {mapi.PS_MAPI: 1, mapi.PS_PUBLIC_STRINGS: 2}
_BUCKETS: Final = 0x1F


@lru_cache(maxsize=64)
def _name_streams(names: tuple[Named, ...]) -> dict[str, bytes | Storage]:
    """The lists of sets, entries and strings, and the buckets in which a name is looked for by its hash."""
    sets: dict[UUID, int] = dict(_KNOWN_SETS)
    entries, strings = bytearray(), bytearray()
    buckets: dict[int, bytearray] = {}
    for number, (guid, name, _) in enumerate(names):
        place = sets.setdefault(guid, len(sets) + 1)
        if isinstance(name, str):
            raw = name.encode("utf-16-le")
            identity, hashed = len(strings), _crc(raw)
            strings += struct.pack("<I", len(raw)) + raw + bytes(-len(raw) % 4)
        else:
            identity = hashed = name
        kind = place << 1 | isinstance(name, str)
        entries += struct.pack("<IHH", identity, kind, number)
        bucket = mapi.tag(0x1000 + (hashed ^ kind) % _BUCKETS, mapi.BINARY)
        buckets.setdefault(bucket, bytearray()).extend(struct.pack("<IHH", hashed, kind, number))
    guids = b"".join(guid.bytes_le for guid, place in sets.items() if place > len(_KNOWN_SETS))
    made = {0x00020102: guids, 0x00030102: bytes(entries), 0x00040102: bytes(strings)}
    made.update((bucket, bytes(content)) for bucket, content in buckets.items())
    return {_stream_name(tag): content for tag, content in made.items()}


def _crc(raw: bytes) -> int:
    """The CRC-32 of [MS-OXRTFCP] section 3.1.3.2, which begins and ends without the usual inversion."""
    return zlib.crc32(raw, 0xFFFFFFFF) ^ 0xFFFFFFFF
