"""Names of files and folders that Linux, macOS and Windows all take, from text that anybody may have written.

A name is at most 120 bytes of UTF-8 in NFC, without path separators, control and direction characters, Windows'
reserved names, and dots or spaces at its ends. The same input always gives the same name, whatever was named before:
an export that is taken up again writes the same files again. So the uniqueness of a message's file comes from its UID,
and that of folders from a list of all folders that is known before the first one is named.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from mailkeep.export.writer import Folder, Message
from mailkeep.mail.header import decode_words, header_end

BYTES_MAX: Final = 120
RESERVED: Final = ("manifest.jsonl",)  # what the export itself puts into the top of its output

_FORBIDDEN: Final = frozenset('<>:"/\\|?*')
_JOINERS: Final = frozenset("\u200c\u200d")  # words of Persian and families of emoji fall apart without them
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: with any extension, in any case
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\..*)?", re.IGNORECASE | re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_(][A-Za-z0-9 _()\[\]{},;.!#$%&'+=@^~-]*")
_UID_AT_END = re.compile(r"\([0-9]+\)(?:\.[^.]*)?")
# Whoever finds such a directory takes what is around it for a Maildir, or a folder of Thunderbird's or Apple's.
_TAKEN_FOR_MORE = re.compile(r"cur|new|tmp|.*\.(?:sbd|mbox)", re.IGNORECASE | re.DOTALL)
_SPACES = re.compile(r"\s+")
_SUBJECT = re.compile(rb"\nsubject[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE)
_SUBJECT_MAX: Final = 2048  # bytes: no name has room for more


def safe_name(text: str, bytes_max: int = BYTES_MAX) -> str:
    """One level of a path for a text of any kind; never empty, "." or "..". Not unique."""
    name = _SPACES.sub(" ", text[: bytes_max * 4]).strip()
    if _PLAIN.fullmatch(name) is None:
        name = _clean(name)
    name = _shorten(name, bytes_max).rstrip(" .")
    if _DEVICE.fullmatch(name) is not None:
        name = _shorten("_" + name, bytes_max).rstrip(" .")
    return name or "_"


def _clean(name: str) -> str:
    kept = (letter if _is_kept(letter) else "_" for letter in unicodedata.normalize("NFC", name))
    clean = unicodedata.normalize("NFC", "".join(kept)).strip()
    # A leading dot hides a file; so do macOS's "._" files.
    return "_" + clean[1:] if clean.startswith(".") else clean


def _is_kept(letter: str) -> bool:
    if letter in _FORBIDDEN:
        return False
    if letter < "\x7f":
        return letter >= " "
    # Control, direction marks and other invisible ones, surrogates, not assigned (APFS refuses these), line ends.
    return unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp") or letter in _JOINERS


def _shorten(name: str, bytes_max: int) -> str:
    """Cut between characters as a reader sees them, as far as combining marks tell."""
    raw = name.encode("utf-8")
    if len(raw) <= bytes_max:
        return name
    kept = raw[:bytes_max].decode("utf-8", "ignore")
    for _ in range(16):
        if not kept or not (_continues(name[len(kept)]) or kept[-1] in _JOINERS):
            break
        kept = kept[:-1]
    return kept


def _continues(letter: str) -> bool:
    skin_tone = "\U0001f3fb" <= letter <= "\U0001f3ff"
    return letter in _JOINERS or skin_tone or unicodedata.category(letter) in ("Mn", "Me", "Mc")


def fold(name: str) -> str:
    """What two names have in common that any of the three systems takes for the same."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded if folded.isascii() else "".join(c for c in folded if unicodedata.category(c) != "Cf")


def subject_of(data: bytes) -> str:
    """The subject of a message, decoded, as far as a name needs it."""
    header = data[: header_end(data)]
    match = _SUBJECT.search(b"\n" + header)
    return "" if match is None else decode_words(match[1][:_SUBJECT_MAX])


def message_file(message: Message, subject: str, suffix: str) -> str:
    """`2023-05-17 Subject (UID).eml`; the day is that of the internal date in UTC. Unique within the folder."""
    end = f" ({message.uid}){suffix}"
    try:
        day = datetime.fromtimestamp(message.internaldate, UTC).isoformat()[:10]
    except (ValueError, OverflowError, OSError):
        day = "0000-00-00"
    start = safe_name(f"{day} {subject}" if subject.strip() else day, BYTES_MAX - len(end.encode("utf-8")))
    return start + end


class Names:
    """Unique names within one directory, in the order of asking: for attachments, whose order a message fixes."""

    __slots__ = ("_next", "_taken")

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {fold(name) for name in taken}
        self._next: dict[str, int] = {}  # by a name that was taken: the number that may be free

    def take(self, text: str, *, default: str = "attachment", bytes_max: int = BYTES_MAX) -> str:
        """A safe name, its extension kept when it must be shortened; `name~2.txt` when `name.txt` is taken."""
        stem, dot, extension = text.strip().rpartition(".")
        if not stem or not extension or len(extension) > 12 or not extension.isalnum():
            stem, dot, extension = text, "", ""
        first, number = "", 1
        for _ in range(len(self._taken) + 2):
            end = (f"~{number}" if number > 1 else "") + dot + extension
            start = safe_name(stem if stem.strip(" .") else default, max(bytes_max - len(end.encode("utf-8")), 8))
            name = safe_name(start + end, bytes_max)
            key = fold(name)
            if key not in self._taken:
                self._taken.add(key)
                if first:
                    self._next[first] = number + 1
                return name
            # Ten thousand parts of one name would else try each other's numbers, all of them.
            if first:
                number += 1
            else:
                first, number = key, self._next.get(key, 2)
        raise AssertionError("n names cannot take n + 1 places")


class FolderNames:
    """Paths of folders, each level unique among its siblings, also where upper and lower case are the same.

    Give it all folders of the export (`Options.folders`): a later process then finds the same names. `suffix` is what a
    writer adds to a folder's path to make a file of it (".mbox"): no folder's own name then ends with it.
    """

    __slots__ = ("_names", "_suffix", "_taken")

    def __init__(self, folders: Sequence[Folder] = (), *, suffix: str = "", reserved: Iterable[str] = ()) -> None:
        self._suffix = suffix.casefold()
        self._names: dict[tuple[str, ...], str] = {}  # by the original path; its own level only
        self._taken: set[tuple[tuple[str, ...], str]] = {((), fold(name)) for name in (*RESERVED, *reserved)}
        for folder in folders:
            self.path(folder.path)

    def path(self, path: Sequence[str]) -> str:
        """`Work/Clients`; "" for an empty path."""
        whole = tuple(path)
        return "/".join(self._level(whole[: depth + 1]) for depth in range(len(whole)))

    def _level(self, path: tuple[str, ...]) -> str:
        name = self._names.get(path)
        if name is not None:
            return name
        plain = safe_name(path[-1], BYTES_MAX - 8)
        if _TAKEN_FOR_MORE.fullmatch(plain) is not None or _UID_AT_END.search(plain) is not None:
            plain += "_"
        elif self._suffix and plain.casefold().endswith(self._suffix):
            plain += "_"  # it could be the name of a folder's file
        number, name = 1, plain
        while (path[:-1], fold(name)) in self._taken:
            number += 1
            name = f"{plain}~{number}"
        self._taken.add((path[:-1], fold(name)))
        self._names[path] = name
        return name
