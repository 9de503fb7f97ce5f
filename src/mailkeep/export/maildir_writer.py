"""Writes Maildir++, as Dovecot and Courier keep it: INBOX at the top, every other folder in `.Work.2024` beside it.

A message is a file in `cur`, `<date>.M<number>P0Q<UID>.mailkeep,S=<size>,W=<size with CRLF>:2,<flags>`; its time is the
internal date. Its lines end in LF, as Unix programs expect it, and Dovecot serves them with CRLF again. A message that
would not come back exactly from LF (it has a bare LF, or CR CR LF) keeps its line ends as they are.

Keywords are letters that `dovecot-keywords` explains, 26 of them in a folder; the file name has no place for more.
`dovecot-uidlist` keeps UIDVALIDITY and UIDs, so that a client that knew the account by IMAP need not load it again.

A folder's name is one directory's name: its levels in modified UTF-7, with dots between. A level with a dot in it, and
a name that is too long or differs from another one only in case, are changed; `mailkeep-folder` in the directory holds
the name as it was, for our own import.

The one hard thing is going on after a kill: file names carry flags, and flags may have changed since. So what was
written behind the checkpoint is not written over but removed first, told by the number in its name.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.export.files import Files, Growing, writing
from mailkeep.export.maildir import AS_IS, FOLDER_FILE, is_message, read_keywords
from mailkeep.export.names import fold
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from mailkeep.mail.mailbox_name import INBOX, encode_utf7

LETTERS: Final = {DRAFT: "D", FLAGGED: "F", ANSWERED: "R", SEEN: "S", DELETED: "T"}
KEYWORDS_MAX: Final = 26
_NAME_MAX: Final = 240  # bytes; file systems take 255
_NUMBER = re.compile(r"\d+\.M(\d+)P0Q\d+\.mailkeep,")
_NOTE_MAX: Final = 10


class State(msgspec.Struct):
    """How far it was: the last message's number, and the length and last UID of each directory's list of UIDs."""

    number: int = 0
    lists: dict[str, tuple[int, int]] = {}


def make(place: Path, options: Options, state: bytes | None) -> "MaildirWriter":
    """A writer into the directory `place`."""
    return MaildirWriter(place, options, msgspec.json.decode(state, type=State) if state else None)


def count(place: Path) -> int:
    """Messages in a Maildir and its folders."""
    return sum(is_message(entry.name) for directory in _directories(place) for entry in os.scandir(directory))


def _directories(place: Path) -> Iterator[Path]:
    """Each `cur` and `new`."""
    tops = [place, *(Path(entry) for entry in os.scandir(place) if entry.name.startswith(".") and entry.is_dir())]
    for top in tops:
        yield from (top / name for name in ("cur", "new") if (top / name).is_dir())


class MaildirWriter:
    """See `writer.Writer`."""

    __slots__ = ("_directory", "_files", "_keywords", "_letter", "_list", "_names", "_saved", "_state", "_uid")

    def __init__(self, place: Path, options: Options, state: State | None) -> None:
        self._files = Files(place)
        self._names = _Names(options.folders)
        self._state = state or State()
        self._directory = ""
        self._keywords: list[str] = []  # of the present folder; the first is `a`
        self._letter: dict[str, str] = {}  # by keyword in lower case
        self._saved = 0  # how many keywords are in the file
        self._list: Growing | None = None
        self._uid = 0  # the last one in the list
        if state is not None:
            with writing(place):
                self._remove_leftovers()
        self._make_directory("")

    @property
    def size(self) -> int:
        return self._files.size

    def folder(self, folder: Folder) -> None:
        self._leave()
        self._directory = self._names.directory(folder.path)
        name = "/".join(folder.path)
        self._make_directory(self._directory)
        if self._directory and self._names.is_changed(folder.path):
            self._files.put(f"{self._directory}/{FOLDER_FILE}", f"{name}\n".encode("utf-8", "replace"))
        self._read_keywords()
        if folder.uidvalidity and folder.uidnext:
            path = self._path("dovecot-uidlist")
            length, self._uid = self._state.lists.get(self._directory, (0, 0))
            self._list = Growing(self._files.place / path, length)
            if length == 0:
                # Version 3: V is UIDVALIDITY, N the next UID; then a line for each message: "UID :name without flags".
                self._list.write(b"3 V%d N%d\n" % (folder.uidvalidity, folder.uidnext))

    def write(self, messages: Sequence[Message]) -> list[Written]:
        return [self._write(message) for message in messages]

    def checkpoint(self) -> bytes:
        self._save_keywords()
        if self._list is not None:
            self._list.sync()
            self._state.lists[self._directory] = (self._list.size, self._uid)
        self._files.sync()
        return msgspec.json.encode(self._state)

    def finish(self) -> None:
        self._leave()
        with writing(self._files.place):
            names = sorted(entry.name[1:] for entry in os.scandir(self._files.place) if entry.name.startswith("."))
        self._files.put("subscriptions", "".join(f"{name}\n" for name in (INBOX, *names)).encode("ascii"))
        self._files.sync()

    def abandon(self) -> None:
        uids, self._list = self._list, None
        if uids is not None:
            uids.close()

    def _write(self, message: Message) -> Written:
        data = message.data
        lines, pairs = data.count(b"\n"), data.count(b"\r\n")
        clean = lines == pairs and b"\r\r\n" not in data
        body = data.replace(b"\r\n", b"\n") if clean else data
        name = f"{max(message.internaldate, 0)}.M{message.number}P0Q{message.uid}.mailkeep"
        # W is what Dovecot will count: each bare LF becomes CRLF.
        name += f",S={len(body)},W={len(data) + lines - pairs}" + ("" if clean else AS_IS)
        letters, left_out = self._letters(message.flags)
        relative = self._path(f"cur/{name}:2,{letters}")
        self._files.put(relative, body, mtime=message.internaldate)
        if self._list is not None and message.uid > self._uid:
            self._list.write(f"{message.uid} :{name}\n".encode("ascii"))
            self._uid = message.uid
        self._state.number = message.number
        if left_out:
            shown = ", ".join(left_out[:_NOTE_MAX]) + (" …" if len(left_out) > _NOTE_MAX else "")
            return Written(relative, f"left out, for a Maildir folder holds {KEYWORDS_MAX} keywords: {shown}")
        return Written(relative)

    def _letters(self, flags: frozenset[str]) -> tuple[str, list[str]]:
        """Flags as letters in their order, and the keywords that have none."""
        letters, left_out = [], []
        for flag in sorted(flags):
            lower = flag if flag.startswith("\\") else flag.lower()
            letter = LETTERS.get(lower) or self._letter.get(lower)
            if letter is None and len(self._keywords) < KEYWORDS_MAX:
                letter = self._take_letter(flag)
            if lower == "$forwarded":
                letters.append("P")  # of mutt and others; Dovecot knows it as a keyword only
            if letter is not None:
                letters.append(letter)
            elif lower != "$forwarded":
                left_out.append(flag)
        return "".join(sorted(letters)), left_out

    def _take_letter(self, keyword: str) -> str:
        letter = self._letter[keyword.lower()] = chr(ord("a") + len(self._keywords))
        self._keywords.append(keyword)
        return letter

    def _read_keywords(self) -> None:
        """Take up the letters that the present folder has."""
        self._keywords, self._letter = [], {}
        path = self._files.place / self._path("dovecot-keywords")
        with writing(path):
            known = read_keywords(path.read_text("ascii")) if path.exists() else {}
        for _, keyword in sorted(known.items()):
            self._take_letter(keyword)
        self._saved = len(self._keywords)

    def _save_keywords(self) -> None:
        if len(self._keywords) > self._saved:
            lines = "".join(f"{number} {keyword}\n" for number, keyword in enumerate(self._keywords))
            self._files.put(self._path("dovecot-keywords"), lines.encode("ascii", "replace"))
            self._saved = len(self._keywords)

    def _leave(self) -> None:
        """Done with the present folder."""
        self._save_keywords()
        uids, self._list = self._list, None
        if uids is not None:
            try:
                uids.sync()
            finally:
                uids.close()
            self._state.lists[self._directory] = (uids.size, self._uid)

    def _remove_leftovers(self) -> None:
        """Remove messages that were written behind the checkpoint."""
        for directory in _directories(self._files.place):
            for entry in os.scandir(directory):
                match = _NUMBER.match(entry.name)
                if match is not None and int(match[1]) > self._state.number:
                    os.unlink(entry.path)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}" if self._directory else name

    def _make_directory(self, directory: str) -> None:
        for name in ("cur", "new", "tmp"):
            self._files.folder(f"{directory}/{name}" if directory else name)
        if directory:
            self._files.put(f"{directory}/maildirfolder", b"")


class _Names:
    """The directory of each folder, unique also where upper and lower case are the same."""

    __slots__ = ("_directories", "_taken")

    def __init__(self, folders: Sequence[Folder]) -> None:
        self._directories: dict[tuple[str, ...], str] = {}
        self._taken: set[str] = set()
        for folder in folders:
            self.directory(folder.path)

    def directory(self, path: tuple[str, ...]) -> str:
        """`.Work.2024`; "" for INBOX."""
        if path in ((), (INBOX,)):
            return ""
        found = self._directories.get(path)
        if found is None:
            found = self._directories[path] = self._take(_plain(path))
        return found

    def is_changed(self, path: tuple[str, ...]) -> bool:
        return self.directory(path) != _encoded(path)

    def _take(self, plain: str) -> str:
        number, name = 1, plain
        while fold(name) in self._taken:
            number += 1
            name = f"{plain}~{number}"
        self._taken.add(fold(name))
        return name


def _encoded(path: Sequence[str]) -> str:
    return "".join("." + encode_utf7(level).decode("ascii") for level in path)


def _plain(path: Sequence[str]) -> str:
    """A directory's name for a folder: its own if that can be, else one like it."""
    name = _encoded([_level(level) for level in path])
    if len(name) <= _NAME_MAX:
        return name
    # Levels cut in the middle of modified UTF-7 would be none; the first ones stay, a number stands for the rest.
    digest = hashlib.sha256("/".join(path).encode("utf-8", "replace")).hexdigest()[:16]
    kept: list[str] = []
    for level in path[:-1]:
        if len(_encoded([*kept, _level(level), digest])) > _NAME_MAX:
            break
        kept.append(_level(level))
    return _encoded([*kept, digest])


def _level(text: str) -> str:
    """A level as Dovecot takes it: a dot would be the end of the level, and `~` a home directory."""
    text = text.replace(".", "_").replace("/", "_")
    return "_" + text[1:] if text.startswith("~") else text
