"""The process that reads a PST or OST with libpff and tells what it finds, a message at a time.

Knows libpff (module pypff), how Outlook's stores are laid out in folders, and how a value in the file becomes a value
of `mapi`. It makes mail of the items itself, so that this work, too, is done beside the one that stores them. What goes
over the pipe: a length, a JSON head, and behind the head of a message its bytes.

Nothing that is read is trusted: address space is limited before the file is opened, sizes are looked at before data is
asked for, and every error of one item is that item's only.
"""

import ctypes
import json
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Final
from uuid import UUID

from mailkeep.export import mapi
from mailkeep.export.from_mapi import DEPTH_MAX, message_of
from mailkeep.export.mapi import Attached, Item, Named, Value
from mailkeep.export.outlook_folders import special_name
from mailkeep.mail.header import decode_charset

_FOLDERS_DEEP: Final = 100
_FOLDERS_MAX: Final = 100_000
_PIECE: Final = 1 << 20
_PROPERTIES_MAX: Final = 20_000

_PST: Final = ord("p")  # libpff's content type; "o" is an OST
_SEARCH_FOLDER: Final = 3  # type of a node ([MS-PST] section 2.2.2.1)
_CONTAINER_CLASS: Final = 0x3613
_IPM_SUBTREE: Final = 0x35E0
_STORE_ROLES: Final = {0x35E3: "Trash", 0x35E1: "INBOX", 0x35E4: "Sent"}  # properties of the store: entry ids
_DRAFTS, _OTHERS = 0x36D7, 0x36D8  # of the root folder


def main() -> None:
    """Entry of the child; its settings are JSON, the last argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.argv[-1])
    memory = int(settings["memory_max"])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(BrokenPipeError):
        _tell_all(settings)


def _tell_all(settings: dict[str, Any]) -> None:
    try:
        store = Store(f"/dev/fd/{settings['file']}")
        folders, empty, faults = store.folders()
    except (OSError, MemoryError) as error:
        _tell({"is": "refused", "reason": _opening_failed(error)})
        return
    _tell({"is": "contents", "items": sum(place.items for place in folders), "empty": empty})
    skip = settings["skip"]
    if not skip:
        for path, reason in faults:
            _tell({"is": "fault", "number": 0, "folder": path, "reason": reason})
    number = 0
    for place in folders:
        if number + place.items <= skip:
            number += place.items
            continue
        for index in range(place.items):
            number += 1
            if number > skip:
                _tell({"is": "begin", "number": number, "folder": place.path, "role": place.role})
                _tell_item(store, place, index, number, settings["size_max"])
    _tell({"is": "end"})


def _tell_item(store: "Store", place: "Place", index: int, number: int, size_max: int) -> None:
    try:
        item, problems = store.item(place, index, size_max)
        composed = message_of(item)
        if len(composed.data) > size_max:
            raise TooLarge
    except TooLarge:
        reason = f"more than {size_max:,} bytes: limits.message_size"
    except MemoryError:
        reason = "it asks for more memory than a message can need"
    except (OSError, ValueError, TypeError, RuntimeError, RecursionError, SystemError, OverflowError) as error:
        reason = f"damaged: {_short(error)}"
    else:
        head = {
            "is": "mail",
            "number": number,
            "size": len(composed.data),
            "flags": sorted(composed.flags),
            "internaldate": composed.internaldate,
            "problems": [*problems, *composed.problems][:20],
        }
        _tell(head, composed.data)
        return
    _tell({"is": "fault", "number": number, "folder": place.path, "reason": reason})


def _tell(head: dict[str, Any], data: bytes = b"") -> None:
    raw = json.dumps(head).encode("ascii")
    _write(len(raw).to_bytes(4, "little") + raw)
    view = memoryview(data)
    for at in range(0, len(data), _PIECE):
        _write(view[at : at + _PIECE])


def _write(data: bytes | memoryview) -> None:
    while data:
        data = data[os.write(1, data) :]


_FUNCTION: Final = re.compile(r"\b(?:lib|py)[a-z0-9]+_\w+: ")


def _short(error: BaseException) -> str:
    """What libpff says, from the outermost of its calls: its texts name every function on the way."""
    return _FUNCTION.sub("", str(error).partition(". ")[0])[:200].rstrip(".") or type(error).__name__


def _opening_failed(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, MemoryError):
        return "opening it takes more memory than its size can explain; it is damaged"
    if "invalid file signature" in text:
        return "not a file of Outlook's: it does not begin like a PST or OST"
    return f"damaged, and cannot be opened: {_short(error)}; Outlook's SCANPST may repair it"


class TooLarge(Exception):
    """An item that is larger than a message may be."""


# --- the store and its folders ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Place:
    """A folder with mail: where it is, as levels of a name, and libpff's folder.

    `role`: what the folder at the top is for, in the words of the import; "" for others.
    """

    path: list[str]
    role: str
    items: int
    folder: Any


class Store:
    """An open file. Raises OSError when it cannot be opened."""

    def __init__(self, path: str) -> None:
        import pypff  # type: ignore[import-not-found]  # it comes without types

        self._file = pypff.file()
        self._file.open(path)
        self._names = _named_properties(self._file)

    def folders(self) -> tuple[list[Place], list[list[str]], list[tuple[list[str], str]]]:
        """All folders of mail, parents before children; the user's without any; and what could not be read of them."""
        walk = _Walk(*self._roles())
        walk.run(self._file.get_root_folder())
        # An OST shows all that its server has, most of it for Outlook's own use.
        empty = walk.empty if self._file.content_type == _PST else []
        return walk.places, empty, walk.faults

    def _roles(self) -> tuple[int, dict[int, str]]:
        """Node of the folder that holds the user's folders (0: not known), and nodes of those with a role."""
        top, roles = 0, {}
        with suppress(OSError, AttributeError, TypeError):
            store = _plain(self._file.get_message_store())
            top = _entry_node(store.get(_IPM_SUBTREE))
            roles = {_entry_node(store.get(number)): role for number, role in _STORE_ROLES.items()}
        with suppress(OSError, AttributeError, TypeError):
            root = _plain(self._file.get_root_folder())
            roles[_entry_node(root.get(_DRAFTS))] = "Drafts"
            others = root.get(_OTHERS)
            if isinstance(others, list) and len(others) > 4:
                roles[_entry_node(others[4])] = "Junk"
        roles.pop(0, None)
        return top, roles

    def item(self, place: Place, index: int, size_max: int) -> tuple[Item, list[str]]:
        """An item with all that is in it, and what could not be read of it. Raises OSError, TooLarge."""
        budget = _Budget(size_max)
        message = place.folder.get_sub_message(index)
        return _item(message, self._names, budget, 0), budget.problems


def _entry_node(entry: object) -> int:
    """The node that an entry id of a PST names ([MS-PST] section 2.4.3.2); 0 for what is none."""
    return int.from_bytes(entry[20:24], "little") if isinstance(entry, bytes) and len(entry) == 24 else 0


@dataclass(slots=True)
class _Walk:
    """The tree of folders, flattened."""

    top: int
    roles: dict[int, str]
    places: list[Place] = field(default_factory=list)
    empty: list[list[str]] = field(default_factory=list)
    faults: list[tuple[list[str], str]] = field(default_factory=list)
    _roles_of: dict[str, str] = field(default_factory=dict)  # by names at the top
    _seen: set[int] = field(default_factory=set)

    def run(self, root: Any) -> None:
        pending: list[tuple[Any, list[str] | None, int, bool]] = [(root, None, 0, False)]
        while pending:
            folder, above, depth, inside = pending.pop()
            node = int(folder.get_identifier())
            if node in self._seen or len(self._seen) > _FOLDERS_MAX or depth > _FOLDERS_DEEP:
                continue
            self._seen.add(node)
            here, count = self._look(folder, above, depth, node)
            inside = inside or here == []  # the user's part of the store
            if here and count:
                self.places.append(Place(here, self._roles_of.get(here[0], ""), count, folder))
            children = self._children(folder, here)
            if here == []:
                self._give_roles(children)
            # Outlook has many folders of its own that hold nothing; those of the user's are mostly of no class.
            by_user = inside and here and (len(here) > 1 or here[0] not in self._roles_of)
            if here and by_user and not count and not children and _is_mail_folder(folder):
                self.empty.append(here)
            pending += [(child, here, depth + 1, inside) for child in reversed(children)]

    def _children(self, folder: Any, here: list[str] | None) -> list[Any]:
        found: list[Any] = []
        try:
            for index in range(folder.get_number_of_sub_folders()):
                child = self._child(folder, index, here)
                if child is not None:
                    found.append(child)
        except (OSError, MemoryError) as error:
            self.faults.append((here or [], f"its folders cannot be read: {_short(error)}"))
        return found

    def _child(self, folder: Any, index: int, here: list[str] | None) -> Any:
        try:
            child = folder.get_sub_folder(index)
            # A search folder shows what is elsewhere.
            return None if int(child.get_identifier()) & 0x1F == _SEARCH_FOLDER else child
        except (OSError, MemoryError) as error:
            self.faults.append((here or [], f"a folder in it cannot be read: {_short(error)}"))
            return None

    def _look(self, folder: Any, above: list[str] | None, depth: int, node: int) -> tuple[list[str] | None, int]:
        """The folder's path (of the top: an empty one; above the top: None), and how many items are in it."""
        name = ""
        with suppress(OSError, UnicodeError, MemoryError):
            name = mapi.clean(folder.get_name() or "")
        if depth == 0:
            return None, 0
        if above is None and (node == self.top or (not self.top and _is_top(name, node))):
            path: list[str] = []
        elif not above:
            path = [name or "Folder"]
        else:
            path = [*above, name or "Folder"]
        # Beside the user's folders there are those of the store itself; as a rule they hold nothing that is mail.
        if above is None and path and name.startswith(("Root - ", "IPM_")):
            return None, 0
        try:
            return path, int(folder.get_number_of_sub_messages())
        except (OSError, MemoryError) as error:
            self.faults.append((path, f"its messages cannot be read: {_short(error)}"))
            return path, 0

    def _give_roles(self, folders: list[Any]) -> None:
        """Note what the folders at the top are for; each role is given once, and never makes two folders one:
        to the folder of that very name, else to the one that the store names, else by a name in any language."""
        named = [(_name_of(folder), int(folder.get_identifier())) for folder in folders]
        own = {role: name for name, _ in named if (role := special_name(name)).lower() == name.lower() and role}
        self._roles_of = {name: role for role, name in own.items()}
        for name, role in [(name, self.roles.get(node, "")) for name, node in named] + [
            (name, special_name(name)) for name, _ in named
        ]:
            if role and role not in self._roles_of.values():
                self._roles_of.setdefault(name, role)


def _name_of(folder: Any) -> str:
    with suppress(OSError, UnicodeError, MemoryError):
        return mapi.clean(folder.get_name() or "") or "Folder"
    return "Folder"


def _is_mail_folder(folder: Any) -> bool:
    """Whether it is for mail, by its class; Outlook has many for its own use."""
    try:
        kind = _plain(folder).get(_CONTAINER_CLASS, "")
    except (OSError, MemoryError):
        return False
    return isinstance(kind, str) and kind.upper() in ("", "IPF.NOTE")


def _is_top(name: str, node: int) -> bool:
    return name == "IPM_SUBTREE" or node == 0x8022 or name.startswith("Top of ")


# --- items -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Budget:
    """How many bytes an item may still take, with all that is in it."""

    left: int
    problems: list[str] = field(default_factory=list)

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise TooLarge


Names = dict[int, tuple[UUID, int | str]]


def _item(message: Any, names: Names, budget: _Budget, depth: int) -> Item:
    item = Item()
    codec = _codec(message)
    for tag, value in _values(message, names, codec):
        if isinstance(value, str | bytes):
            budget.take(len(value))
        if isinstance(tag, Named):
            item.named[tag] = value
        else:
            item.properties[tag] = value
    subject = item.properties.get(mapi.SUBJECT)
    if isinstance(subject, str) and subject.startswith("\x01"):  # length of the prefix ([MS-PST] section 2.5.3)
        item.properties[mapi.SUBJECT] = subject[2:]
    try:
        _read_recipients(message, item, codec)
    except (OSError, MemoryError) as error:
        budget.problems.append(f"its recipients cannot be read: {_short(error)}")
    try:
        count = min(int(message.get_number_of_attachments()), 10_000)
    except (OSError, MemoryError) as error:
        budget.problems.append(f"its attachments cannot be read: {_short(error)}")
        count = 0
    for index in range(count):
        item.attachments.append(_attached(message, index, (names, codec), budget, depth=depth))
    return item


def _codec(message: Any) -> str:
    """The codec of 8-bit text in this item."""
    pages: list[int] = []
    for tag in (mapi.MESSAGE_CODEPAGE, mapi.MESSAGE_LOCALE, mapi.INTERNET_CODEPAGE):
        number = 0
        with suppress(OSError, IndexError, TypeError, AttributeError, ValueError):
            entry = message.get_record_set(0).get_entry_by_type(tag >> 16, mapi.INTEGER32, 0)
            number = int.from_bytes(entry.get_data()[:4], "little") if entry is not None else 0
        pages.append(number)
    return mapi.string_codec(*pages)


def _read_recipients(message: Any, item: Item, codec: str) -> None:
    table = message.recipients
    if table is None:
        return
    for index in range(min(int(table.get_number_of_record_sets()), 20_000)):
        row = dict(_set_values(table.get_record_set(index), {}, codec))
        item.recipients.append({tag: value for tag, value in row.items() if isinstance(tag, int)})


def _attached(message: Any, index: int, known: tuple[Names, str], budget: _Budget, *, depth: int) -> Attached:
    names, codec = known
    made = Attached()
    try:
        attachment = message.get_attachment(index)
        for tag, value in _values(attachment, names, codec, without=(mapi.ATTACH_DATA >> 16,)):
            if not isinstance(tag, Named):
                made.properties[tag] = value
        if made.properties.get(mapi.ATTACH_METHOD) == mapi.EMBEDDED_MESSAGE:
            if depth < DEPTH_MAX:
                made.item = _item(_embedded(attachment), names, budget, depth + 1)
        else:
            size = int(attachment.get_size() or 0)
            budget.take(size)
            if size or made.properties.get(mapi.ATTACH_METHOD) in (None, 0, mapi.BY_VALUE):
                made.data = _data(attachment, size)
    except OSError as error:
        budget.problems.append(f"attachment {index + 1}: {_short(error)}")
    return made


class _PythonItem(ctypes.Structure):
    """How an item of pypff begins in memory."""

    _fields_: ClassVar = [("references", ctypes.c_ssize_t), ("type", ctypes.c_void_p), ("item", ctypes.c_void_p)]


def _embedded(attachment: Any) -> Any:
    """The message in an attachment. Raises OSError.

    libpff has it, and its Python module forgot it: so the library is asked itself, by the names that it exports, and
    what it gives is made an item of the module's. Where that goes wrong, it is this process that is lost, and the item.
    """
    import pypff

    try:
        library = ctypes.PyDLL(pypff.__file__)
        get, make = library.libpff_attachment_get_item, library.pypff_item_new
    except (OSError, AttributeError):
        raise OSError("this libpff cannot read messages in messages") from None
    get.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p]
    make.argtypes, make.restype = [ctypes.py_object, ctypes.c_void_p, ctypes.py_object], ctypes.py_object
    found = ctypes.c_void_p()
    if get(_PythonItem.from_address(id(attachment)).item, ctypes.byref(found), None) != 1 or not found:
        raise OSError("the message in it cannot be read")
    return make(pypff.message, found, attachment)


def _data(attachment: Any, size: int) -> bytes | None:
    if size == 0:
        return b""
    taken = bytearray()
    attachment.seek_offset(0, 0)
    while len(taken) < size:
        piece = attachment.read_buffer(min(_PIECE, size - len(taken)))
        if not piece:
            break
        taken += piece
    return bytes(taken) if len(taken) == size else None


# --- values ----------------------------------------------------------------------------------------------------------


def _values(
    item: Any, names: Names, codec: str, *, without: tuple[int, ...] = ()
) -> Iterator[tuple[int | Named, Value]]:
    if int(item.get_number_of_record_sets()):
        yield from _set_values(item.get_record_set(0), names, codec, without=without)


def _plain(item: Any) -> dict[int, Value]:
    """The properties of an item by their numbers alone, named ones left out."""
    return {tag >> 16: value for tag, value in _values(item, {}, "cp1252") if not isinstance(tag, Named)}


def _set_values(
    record: Any, names: Names, codec: str, *, without: tuple[int, ...] = ()
) -> Iterator[tuple[int | Named, Value]]:
    for index in range(min(int(record.get_number_of_entries()), _PROPERTIES_MAX)):
        entry = record.get_entry(index)
        number, kind = entry.get_entry_type(), entry.get_value_type()
        if number is None or kind is None or number in without:
            continue
        name = names.get(number) if number >= 0x8000 else None
        if number >= 0x8000 and name is None:
            continue
        data = entry.get_data()
        if data is None:
            data = b""
        value = value_of(kind, data, codec)
        if number == mapi.HTML >> 16 and kind == mapi.STRING8:
            yield mapi.HTML, data
        elif number == mapi.HTML >> 16 and value is not None:
            yield mapi.HTML, value
        elif value is not None:
            kind = {mapi.STRING8: mapi.STRING, mapi.MULTIPLE | mapi.STRING8: mapi.MULTIPLE | mapi.STRING}.get(
                kind, kind
            )
            yield (Named(*name, kind) if name is not None else mapi.tag(number, kind)), value


_FIXED: Final = {
    mapi.INTEGER16: ("<h", 2), mapi.INTEGER32: ("<i", 4), mapi.FLOATING32: ("<f", 4), mapi.FLOATING64: ("<d", 8),
    mapi.CURRENCY: ("<q", 8), mapi.FLOATING_TIME: ("<d", 8), mapi.ERROR_CODE: ("<I", 4), mapi.INTEGER64: ("<q", 8),
    mapi.TIME: ("<Q", 8),
}  # fmt: skip


def value_of(kind: int, data: bytes, codec: str) -> Value | None:
    """A value by its type ([MS-OXCDATA] section 2.11.1); None when the bytes are none."""
    if kind & mapi.MULTIPLE:
        return _several(kind & ~mapi.MULTIPLE, data, codec)
    if kind == mapi.STRING:
        return mapi.clean(data.decode("utf-16-le", "replace"))
    if kind == mapi.STRING8:
        return mapi.clean(decode_charset(data.rstrip(b"\0"), codec))
    if kind == mapi.BINARY:
        return data
    if kind == mapi.BOOLEAN:
        return bool(data and data[0])
    if kind == mapi.GUID:
        return UUID(bytes_le=data) if len(data) == 16 else None
    form, size = _FIXED.get(kind, ("", 0))
    return struct.unpack_from(form, data)[0] if form and len(data) >= size else None


def _several(kind: int, data: bytes, codec: str) -> Value | None:
    """Many values: packed when they are of one size, else behind a table of offsets ([MS-PST] section 2.3.3.4)."""
    pieces: list[bytes]
    if kind in (mapi.STRING, mapi.STRING8, mapi.BINARY):
        count = int.from_bytes(data[:4], "little")
        if 4 + 4 * count > len(data):
            return None
        starts = [*struct.unpack_from(f"<{count}I", data, 4), len(data)]
        pieces = [data[start:stop] for start, stop in pairwise(starts)]
    else:
        size = 16 if kind == mapi.GUID else _FIXED.get(kind, ("", 0))[1]
        if not size:
            return None
        pieces = [data[at : at + size] for at in range(0, len(data) - size + 1, size)]
    found = [value_of(kind, piece, codec) for piece in pieces]
    return [value for value in found if value is not None]  # type: ignore[return-value]  # all are of one type


def _named_properties(file: Any) -> Names:
    """Ids of this file → set and name ([MS-PST] section 2.4.7). What is damaged is left out."""
    try:
        streams = _plain(file.get_name_to_id_map())
    except (OSError, AttributeError, TypeError, MemoryError):
        return {}
    guids, entries, texts = (
        value if isinstance(value, bytes) else b"" for value in (streams.get(2), streams.get(3), streams.get(4))
    )
    names: Names = {}
    for at in range(0, len(entries) - 7, 8):
        number, where, index = struct.unpack_from("<IHH", entries, at)
        guid = _guid(where >> 1, guids)
        if guid is None:
            continue
        name: int | str = number
        if where & 1:
            size = int.from_bytes(texts[number : number + 4], "little")
            name = texts[number + 4 : number + 4 + min(size, 1024)].decode("utf-16-le", "replace")
        names[0x8000 + index] = (guid, name)
    return names


def _guid(index: int, guids: bytes) -> UUID | None:
    if index in (1, 2):
        return mapi.PS_MAPI if index == 1 else mapi.PS_PUBLIC_STRINGS
    raw = guids[16 * (index - 3) : 16 * (index - 2)] if index > 2 else b""
    return UUID(bytes_le=raw) if len(raw) == 16 else None
