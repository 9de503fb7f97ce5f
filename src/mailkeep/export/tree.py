"""Finds mail in files, folders and zips, and says which mailbox each message belongs to.

A folder on disk and a folder in a zip look alike to the rest of this file: a `Node` has files and folders. Walking one,
the rules are, first match wins:

    folder with `cur` (or `new`) in it    a Maildir; `.A.B` beside it are its folders A/B
    folder `X.mbox`                       Apple Mail: mailbox X; .emlx files at any depth, or one file `mbox`
    folder `X.sbd`                        Thunderbird: what is in it lies below mailbox X
    any other folder X                    mailbox X, nested
    file `mbox`                           an mbox of its folder's messages, as readpst -r writes it
    file `*.mbox`, or begins with From_   an mbox; its name (without .mbox) is the mailbox
    file `*.eml`, or a number (MH)        one message, in the mailbox of its folder
    file `*.emlx`                         one message with flags
    file `*.pst`, `*.ost`                 Outlook's store: its folders, below a mailbox of its name (without .pst)
    file `*.msg`                          one message of Outlook's
    file `*.zip`                          its contents, in place
    file `manifest.jsonl`                 what our own export says of the .eml files beside and below it
    anything else                         passed over, and counted

A file or folder that is named on the command line does not give its own name to a mailbox: what is in it goes where the
user says (`--into`, else INBOX), and folders inside it go below.

Zips are bombs until proven otherwise: no archive may unpack to more than 100 times its own size (or 1 GiB, if that
is more), counted in bytes that really come out, whatever its directory claims; zips in zips go two deep. Files in
a zip are unpacked one at a time, into a file without a name in the store's tmp folder, so that an mbox of gigabytes is
mapped like any other.
"""

import errno
import io
import mmap
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final, Protocol

from mailkeep.errors import UsageError
from mailkeep.export import emlx, maildir, mbox, outlook
from mailkeep.export.item import Bad, Item, Skipped, header_block, slices
from mailkeep.export.recorded import Recorded, recorded
from mailkeep.mail.dates import header_date, plausible
from mailkeep.mail.mailbox_name import LEVEL_MAX

UNPACKED_RATIO_MAX: Final = 100
UNPACKED_MIN: Final = 1 << 30
ZIP_DEPTH_MAX: Final = 2
DEPTH_MAX: Final = 100
_COPY: Final = 1 << 20
_MEMORY_MAX: Final = 8 << 20  # an unpacked file that is larger goes to disk
_HEAD: Final = 4096
MANIFEST: Final = "manifest.jsonl"

_FIELD_LINE = re.compile(rb"(?:[!-9;-~]{1,200}[ \t]*:|From |>From )")
# Indexes and settings of mail programs; never mail, so not worth a word to the user either.
_FOREIGN: Final = (".msf", ".dat", ".html", ".json", ".plist", ".db", ".sqlite", ".js", ".log", ".index")


class Entry(Protocol):
    """A file, on disk or in a zip."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime(self) -> int: ...
    def open(self) -> IO[bytes]: ...


class Node(Protocol):
    """A folder, on disk or in a zip."""

    @property
    def name(self) -> str: ...
    def folders(self) -> "list[Node]": ...
    def files(self) -> list[Entry]: ...


# --- on disk ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class DiskFile:
    path: Path
    name: str
    size: int
    mtime: int
    named: bool = False  # by the user

    def open(self) -> IO[bytes]:
        # Whoever made this tree may have laid a link to a file that only its reader may read.
        try:
            return os.fdopen(os.open(self.path, os.O_RDONLY | (0 if self.named else os.O_NOFOLLOW)), "rb")
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise OSError(errno.ELOOP, "it is a link, and links are not followed; name the file itself") from None


@dataclass(slots=True)
class DiskFolder:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def folders(self) -> list[Node]:
        with os.scandir(self.path) as found:
            # Links to folders are not followed: they may lead back up, and what they lead to is somebody else's.
            names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
        return [DiskFolder(self.path / name) for name in sorted(names, key=natural)]

    def files(self) -> list[Entry]:
        with os.scandir(self.path) as found:
            names = [entry.name for entry in found if entry.is_file()]
        return [disk_file(self.path / name) for name in sorted(names, key=natural)]


def disk_file(path: Path) -> DiskFile:
    try:
        info = path.stat()
    except OSError:  # gone since the folder was read: opening it will say so
        return DiskFile(path, path.name, 0, 0)
    return DiskFile(path, path.name, info.st_size, int(info.st_mtime))


def natural(name: str) -> list[tuple[int, int | str]]:
    """`2.eml` before `10.eml`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"[0-9]{1,30}|[^0-9]+", name)]


# --- in a zip --------------------------------------------------------------------------------------------------------


class ZipBomb(Exception):
    """More comes out than this archive may hold."""


@dataclass(slots=True)
class Allowance:
    """What an archive, with the archives in it, may still unpack to."""

    left: int


@dataclass(slots=True)
class ZipFile:
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    allowance: Allowance
    temporary: Path | None

    @property
    def name(self) -> str:
        return self.info.filename.rpartition("/")[2]

    @property
    def size(self) -> int:
        return self.info.file_size

    @property
    def mtime(self) -> int:
        return 0  # local time of an unknown place: not a date

    def open(self) -> IO[bytes]:
        """Unpack it. The bytes are counted as they come, for the directory of an archive may say anything."""
        target: IO[bytes] = io.BytesIO()
        try:
            with self.archive.open(self.info) as packed:
                while piece := packed.read(_COPY):
                    self.allowance.left -= len(piece)
                    if self.allowance.left < 0:
                        raise ZipBomb
                    if isinstance(target, io.BytesIO) and target.tell() + len(piece) > _MEMORY_MAX:
                        begun = target.getbuffer()
                        target = tempfile.TemporaryFile(dir=self.temporary)  # noqa: SIM115 (handed to the caller)
                        target.write(begun)
                    target.write(piece)
        except BaseException:
            target.close()
            raise
        target.seek(0)
        return target


class ZipFolder:
    """One folder of an archive; the archive's flat list is made a tree once, at the root."""

    __slots__ = ("_files", "_folders", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._folders: dict[str, ZipFolder] = {}
        self._files: list[Entry] = []

    def folders(self) -> list[Node]:
        return [self._folders[name] for name in sorted(self._folders, key=natural)]

    def files(self) -> list[Entry]:
        return sorted(self._files, key=lambda entry: natural(entry.name))

    @classmethod
    def root(cls, archive: zipfile.ZipFile, allowance: Allowance, temporary: Path | None) -> "ZipFolder":
        top = cls("")
        for info in archive.infolist():
            levels = [level for level in info.filename.split("/") if level not in ("", ".", "..")]
            if info.is_dir() or not levels or "__MACOSX" in levels or len(levels) > DEPTH_MAX:
                continue
            node = top
            for level in levels[:-1]:
                node = node._folders.setdefault(level, cls(level))
            node._files.append(ZipFile(archive, info, allowance, temporary))
        return top


# --- walking ---------------------------------------------------------------------------------------------------------

Place = tuple[str, ...]
Advance = Callable[[int], None]  # told the size of each file that is done with


@dataclass(frozen=True, slots=True)
class Walk:
    """What the walk needs to know everywhere."""

    skipped: Skipped
    size_max: int
    temporary: Path | None
    empty: list[Place] = field(default_factory=list)  # mailboxes that have no message
    zips: int = 0  # how many archives we are in
    allowance: Allowance | None = None
    recorded: Recorded | None = None  # what an export of our own says of the files here
    top: Place = ()  # the mailbox that its folders are below


Found = Iterator[Item | Bad]


def read(path: Path, walk: Walk) -> Found:
    """Everything below one path of the command line. Raises UsageError when there is nothing of that name."""
    source = str(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror or error}; name files or folders with mail in them") from None
    if stat.S_ISDIR(mode):
        folder = DiskFolder(path)
        if path.name.endswith(".mbox") and not any(node.name in ("cur", "new") for node in folder.folders()):
            yield from _apple(folder, (), source, walk)
        else:
            yield from _folder(folder, (), source, walk)
    else:
        yield from _file(replace(disk_file(path), named=True), (), source, walk, named=True)


def _folder(node: Node, place: Place, source: str, walk: Walk) -> Found:
    try:
        folders, files = node.folders(), node.files()
    except OSError as error:
        yield Bad(source, f"cannot be read: {error.strerror}")
        return
    if len(place) > DEPTH_MAX:
        yield Bad(source, "folders are nested too deep")
        return
    walk = _with_manifest(files, place, source, walk)
    is_maildir = any(folder.name in ("cur", "new") for folder in folders)
    if is_maildir:
        yield from _maildir(folders, files, place, source, walk)
    else:
        for file in files:
            yield from _file(file, place, f"{source}/{file.name}", walk)
    for folder in folders:
        where = f"{source}/{folder.name}"
        if is_maildir and folder.name in ("cur", "new", "tmp"):
            continue
        if folder.name.startswith(".") and not _is_maildir(folder):
            walk.skipped.add("hidden folder")
        elif folder.name.startswith("."):
            yield from _folder(folder, place + (_real_name(folder) or maildir.folder_name(folder.name)), where, walk)
        elif folder.name.endswith(".mbox") and not _is_maildir(folder):
            yield from _apple(folder, (*place, folder.name.removesuffix(".mbox")), where, walk)
        elif folder.name.endswith(".sbd"):
            yield from _folder(folder, (*place, folder.name.removesuffix(".sbd")), where, walk)
        else:
            yield from _folder(folder, (*place, folder.name), where, walk)


def _with_manifest(files: list[Entry], place: Place, source: str, walk: Walk) -> Walk:
    for file in files:
        if file.name == MANIFEST:
            with suppress(OSError, *_ZIP_ERRORS), _opened(file) as stream:
                if (found := recorded(source, stream)) is not None:
                    return replace(walk, recorded=found, top=place)
    return walk


def _is_maildir(node: Node) -> bool:
    try:
        return any(folder.name in ("cur", "new") for folder in node.folders())
    except OSError:
        return False


def _real_name(node: Node) -> Place:
    """What our own export says that a Maildir's folder is called; () elsewhere."""
    for file in node.files():
        if file.name == maildir.FOLDER_FILE:
            with suppress(OSError, *_ZIP_ERRORS), _opened(file) as stream:
                return maildir.real_name(stream.read(_HEAD).decode("utf-8", "replace"))
    return ()


def _maildir(folders: list[Node], files: list[Entry], place: Place, source: str, walk: Walk) -> Found:
    keywords: dict[int, str] = {}
    for file in files:
        if file.name == "dovecot-keywords":
            with suppress(OSError, *_ZIP_ERRORS), _opened(file) as stream:
                keywords = maildir.read_keywords(stream.read(1 << 16).decode("utf-8", "replace"))
    entries: dict[str, tuple[str, Entry]] = {}
    for folder in folders:
        if folder.name in ("cur", "new"):
            for file in folder.files():
                if maildir.is_message(file.name):
                    entries[f"{file.name}\0{folder.name}"] = (folder.name, file)
    if not entries and place:
        walk.empty.append(place)
    for key in maildir.order(entries):
        inside, file = entries[key]
        flags = maildir.flags(file.name, keywords)
        when = maildir.date(file.name, file.mtime)
        as_is = maildir.is_as_is(file.name)
        where = f"{source}/{inside}/{file.name}"
        yield from _message(file, place, where, walk, flags=flags, internaldate=when, as_is=as_is)


def _apple(node: Node, place: Place, source: str, walk: Walk) -> Found:
    """A folder of Apple Mail: messages at any depth are of one mailbox, `.mbox` folders in it are its children."""
    try:
        folders, files = node.folders(), node.files()
    except OSError as error:
        yield Bad(source, f"cannot be read: {error.strerror}")
        return
    for file in files:
        where = f"{source}/{file.name}"
        if file.name == "mbox":
            yield from _mbox(file, place, where, walk)
        elif file.name.endswith(".emlx"):
            yield from _file(file, place, where, walk)
        else:
            walk.skipped.add("file of a mail program")
    for folder in folders:
        where = f"{source}/{folder.name}"
        if folder.name.endswith(".mbox"):
            yield from _apple(folder, (*place, folder.name.removesuffix(".mbox")), where, walk)
        elif folder.name not in ("Attachments", "CachedMessages"):
            yield from _apple(folder, place, where, walk)


def _file(file: Entry, place: Place, source: str, walk: Walk, *, named: bool = False) -> Found:
    """One file by its name, or by how it begins. `named`: the user pointed at it, so it is not passed over."""
    lower = file.name.lower()
    stem = file.name.rpartition(".")[0]
    if lower.endswith((".eml", ".rfc822", ".mime")):
        yield from _message(file, place, source, walk)
    elif lower.endswith(".emlx"):
        yield from _emlx(file, place, source, walk)
    elif lower.endswith(MANIFEST) and not named:
        walk.skipped.add("manifest of an export")
    elif lower.endswith(_FOREIGN) and not named:
        walk.skipped.add("file of a mail program")
    else:
        try:
            with _opened(file) as stream:
                head = stream.read(_HEAD)
        except (OSError, *_ZIP_ERRORS) as error:
            yield Bad(source, _reason(error), file.size)
            return
        if head.startswith(b"PK\x03\x04"):
            yield from _zip(file, place, source, walk)
        elif head.startswith(outlook.PST_MAGIC) or lower.endswith((".pst", ".ost")):
            inside = place if named else (*place, stem if lower.endswith((".pst", ".ost")) else file.name)
            yield from _pst(file, inside, source, walk)
        elif head.startswith(outlook.MSG_MAGIC) and (lower.endswith(".msg") or named):
            yield from _msg(file, place, source, walk)
        elif mbox.is_mbox(head) or lower.endswith((".mbox", ".mbx")):
            inside = (
                place
                if named or lower == "mbox"
                else (*place, stem if lower.endswith((".mbox", ".mbx")) else file.name)
            )
            if not head and inside:
                walk.empty.append(inside)
            yield from _mbox(file, inside, source, walk)
        elif head and _FIELD_LINE.match(head) and (named or file.name.isdigit() or "." not in file.name):
            yield from _message(file, place, source, walk)
        elif named:
            yield Bad(
                source,
                "not a mail file: give mbox, Maildir, .eml, .emlx, .pst, .ost, .msg, or folders or zips of these",
                file.size,
            )
        else:
            walk.skipped.add("not a mail file" if head else "empty file")


def _message(
    file: Entry,
    place: Place,
    source: str,
    walk: Walk,
    *,
    flags: frozenset[str] = frozenset(),
    internaldate: int | None = None,
    as_is: bool = False,
) -> Found:
    if file.size > walk.size_max:
        yield Bad(source, f"{file.size} bytes, more than limits.message_size", file.size)
        return
    try:
        with _opened(file) as stream:
            data = stream.read(walk.size_max + 1)
    except (OSError, *_ZIP_ERRORS) as error:
        yield Bad(source, _reason(error), file.size)
        return
    known = None if walk.recorded is None else walk.recorded.find(source, data)
    if not data and known is None:
        yield Bad(source, "empty file", file.size)
        return
    if known is not None:
        place, flags, internaldate, as_is = (*walk.top, *known.levels), known.flags, known.internaldate, True
    when = internaldate
    if when is None:
        when = header_date(header_block(data)) or plausible(file.mtime)
    chunks = slices(data, 0, len(data), convert=False if as_is else None)
    yield Item(source, len(data), chunks, (mailbox_of(place),), flags, when)


def _emlx(file: Entry, place: Place, source: str, walk: Walk) -> Found:
    if file.size > walk.size_max + (1 << 20):
        yield Bad(source, f"{file.size} bytes, more than limits.message_size", file.size)
        return
    try:
        with _opened(file) as stream:
            data = stream.read()
    except (OSError, *_ZIP_ERRORS) as error:
        yield Bad(source, _reason(error), file.size)
        return
    found = emlx.read(data, source, partial=file.name.lower().endswith(".partial.emlx"), mtime=file.mtime)
    yield replace(found, mailboxes=(mailbox_of(place),)) if isinstance(found, Item) else found


def _pst(file: Entry, place: Place, source: str, walk: Walk) -> Found:
    try:
        with _opened(file) as stream:
            for there, found in outlook.read_pst(
                stream, source, place=place, size=file.size, size_max=walk.size_max, temporary=walk.temporary
            ):
                if found is None:
                    walk.empty.append(there)
                else:
                    yield replace(found, mailboxes=(mailbox_of(there),)) if isinstance(found, Item) else found
    except (OSError, *_ZIP_ERRORS) as error:
        yield Bad(source, _reason(error), file.size)


def _msg(file: Entry, place: Place, source: str, walk: Walk) -> Found:
    if file.size > 2 * walk.size_max:  # every text in it takes two bytes a character
        yield Bad(source, f"{file.size} bytes, more than limits.message_size", file.size)
        return
    try:
        with _opened(file) as stream:
            data = stream.read()
    except (OSError, *_ZIP_ERRORS) as error:
        yield Bad(source, _reason(error), file.size)
        return
    found = outlook.read_msg(data, source, size_max=walk.size_max)
    yield replace(found, mailboxes=(mailbox_of(place),)) if isinstance(found, Item) else found


def _mbox(file: Entry, place: Place, source: str, walk: Walk) -> Found:
    name = mailbox_of(place)
    try:
        with _opened(file) as stream, mapped(stream) as data:
            for item in mbox.read(data, source, walk.skipped, size_max=walk.size_max):
                # Labels of Gmail, and folders named by our own export, are places; the name of the file is none then.
                if name and isinstance(item, Item) and item.mailboxes == ("",):
                    yield replace(item, mailboxes=(name,))
                else:
                    yield item
    except (OSError, *_ZIP_ERRORS) as error:
        yield Bad(source, _reason(error), file.size)


def _zip(file: Entry, place: Place, source: str, walk: Walk) -> Found:
    if walk.zips >= ZIP_DEPTH_MAX:
        yield Bad(source, "zips are nested too deep", file.size)
        return
    allowance = walk.allowance or Allowance(max(UNPACKED_MIN, file.size * UNPACKED_RATIO_MAX))
    try:
        with _opened(file) as stream, zipfile.ZipFile(stream) as archive:
            root = ZipFolder.root(archive, allowance, walk.temporary)
            inside = replace(walk, zips=walk.zips + 1, allowance=allowance)
            if (found := _beside(source, walk)) is not None:
                yield from _folder(root, place, source, replace(inside, recorded=found, top=place))
                return
            # A zip mostly holds one folder, named like itself or like what was packed; that name is no mailbox.
            # But of a Takeout archive: Takeout/Mail/….mbox, whose labels say all.
            yield from _folder(_unwrapped(root), place, source, inside)
    except (OSError, *_ZIP_ERRORS) as error:
        yield Bad(source, _reason(error), file.size)


def _beside(source: str, walk: Walk) -> Recorded | None:
    """What our own export says of the zip: in a file beside it, which is one for all parts of a zip."""
    if walk.zips:
        return None
    for name in dict.fromkeys((source, _PART.sub(".zip", source))):
        with suppress(OSError), open(f"{name}.{MANIFEST}", "rb") as stream:
            return recorded(source, stream)
    return None


_PART: Final = re.compile(r"-[0-9]{1,9}\.zip\Z")


def _unwrapped(root: ZipFolder) -> Node:
    node: Node = root
    while True:
        folders = node.folders()
        special = any(folder.name in ("cur", "new") or folder.name.endswith((".mbox", ".sbd")) for folder in folders)
        if len(folders) != 1 or node.files() or special or folders[0].name.startswith("."):
            return node
        node = folders[0]


# --- opening ---------------------------------------------------------------------------------------------------------

# What zipfile raises for damaged, encrypted (RuntimeError) and exotic (NotImplementedError) archives.
_ZIP_ERRORS: Final = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ZipBomb, ValueError)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if isinstance(error, ZipBomb):
        return "unpacks to far more than it is; not read (unpack it by hand if you trust it)"
    if isinstance(error, RuntimeError) and "password" in str(error):
        return "needs a password; unpack it first"
    return f"damaged archive: {error}"


@contextmanager
def _opened(file: Entry) -> Iterator[IO[bytes]]:
    stream = file.open()
    try:
        yield stream
    finally:
        stream.close()


@contextmanager
def mapped(stream: IO[bytes]) -> Iterator[mmap.mmap | bytes]:
    """The whole file as one buffer: mapped where it has a descriptor, as it is where it is in memory."""
    try:
        number = stream.fileno()
    except OSError:  # io.BytesIO
        number = -1
    size = os.fstat(number).st_size if number >= 0 else -1
    if size <= 0:
        yield stream.read()
        return
    with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as data:
        data.madvise(mmap.MADV_SEQUENTIAL)
        yield data


def mailbox_of(place: Place) -> str:
    """The name of a mailbox, as far as the sources tell it."""
    return "/".join(map(_level, place))


# Controls, ends of lines and what turns the text that follows around.
_UNNAMEABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def _level(name: str) -> str:
    """A folder's name as one level of a mailbox name. Joiners of letters and wide spaces stay: they are of the name."""
    text = _UNNAMEABLE.sub("_", os.fsencode(name).decode("utf-8", "replace"))
    short = text.replace("/", "_").strip().encode()[:LEVEL_MAX].decode("utf-8", "ignore")
    return short or "_"
