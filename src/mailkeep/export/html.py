"""Writes mail as a folder of web pages that need no server: one page a message, and a first page to find them with.

    index.html                  folders, list, search, conversations; plain links to lists/ where scripts are off
    index/                      what it loads: site.css, site.js, and data as scripts (html_index)
    lists/3-1.html              a folder's messages, 500 a page, without scripts
    mail/INBOX/2023-05/         a folder's messages of a month, so that no directory grows without end
        2023-05-17 Hello (42).html      the page
        2023-05-17 Hello (42).eml       the original, as it was kept
        2023-05-17 Hello (42) files/    its attachments

Knows where things lie and which links lead where; how a message looks is `page`'s, how it is found html_index's.

The hard idea is the link to the next message, which is not known when a page is made. The last page is kept until the
next message comes; at a checkpoint it is written with a mark in the link's place, and mended when there is a next one.
"""

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.errors import CannotWrite, ToolMissing
from mailkeep.export import html_attachments, html_index, html_lists
from mailkeep.export.files import Files, Growing, writing
from mailkeep.export.html_index import Row, Shown, hashed
from mailkeep.export.html_lists import Listed
from mailkeep.export.html_words import fold, words_of
from mailkeep.export.names import FolderNames, Names, message_file, safe_name
from mailkeep.export.page import Show, page, problem_page
from mailkeep.export.writer import Folder, Message, Options, Writer, Written
from mailkeep.mail.dates import plausible
from mailkeep.mail.flags import ANSWERED, DRAFT, FLAGGED, SEEN
from mailkeep.mail.letter import Attachment, Correspondent, Letter, letter_of
from mailkeep.mail.text import html_text
from mailkeep.mail.thread import base_subject, thread_ids

SUBJECT_BYTES_MAX: Final = 60  # in a file name
PREVIEW: Final = 140  # characters
EMBEDDED_MAX: Final = 50  # messages in a message whose words are indexed

_NEXT: Final = "<!--next-->"
_MONTH = re.compile(r"\d{4}-\d\d_*")
_SPACES = re.compile(r"\s+")
_QUOTED_LINE = re.compile(r"^>.*$|^(?:On|Am|Le|El|Il) .{5,200}:$", re.MULTILINE)
_NAVIGATION_STYLE: Final = (
    "<style>.mk-nav{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;font-size:14px;max-width:60rem;"
    "margin:1rem auto 0;padding:0 .9rem}.mk-nav .mk-apart{margin-inline-start:auto}</style>"
)
_FLAG_BITS: Final = {
    SEEN: html_index.SEEN, FLAGGED: html_index.FLAGGED, ANSWERED: html_index.ANSWERED, DRAFT: html_index.DRAFT,
    "$Forwarded": html_index.FORWARDED,
}  # fmt: skip


class State(msgspec.Struct):
    """What a checkpoint says."""

    log: int = 0  # bytes
    count: int = 0
    size: int = 0
    present: int = 0  # the folder
    last: str = ""  # the file of the last page of the present folder, without ".html"
    folders: list[Listed] = []


@dataclass(slots=True)
class _Last:
    """The last page of the present folder; `html` is None when it is on the disk already."""

    file: str
    html: str | None
    mtime: int


def make(place: Path, options: Options, state: bytes | None) -> Writer:
    """A writer into the folder `place`. Its log lies beside, as `place`.rows."""
    return _HtmlWriter(place, options, msgspec.json.decode(state, type=State) if state is not None else State())


def count(place: Path) -> int:
    """The pages of messages in a finished export."""
    found = 0
    with writing(place):
        stack = [os.fspath(place / "mail")]
        while stack:
            try:
                entries = os.scandir(stack.pop())
            except FileNotFoundError:
                return 0  # an export of nothing
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    else:
                        found += entry.name.endswith(".html")
    return found


class _HtmlWriter:
    def __init__(self, place: Path, options: Options, state: State) -> None:
        self._options = options
        self._files = Files(place)
        self._scratch = place.with_name(place.name + ".sort")
        self._rows = place.with_name(place.name + ".rows")
        self._log = Growing(self._rows, state.log)
        self._names = FolderNames(options.folders)
        self._state = state
        self._size_before = state.size
        self._numbers = {listed.path: number for number, listed in enumerate(state.folders)}
        self._present = state.present
        self._last = _Last(state.last, None, 0) if state.last else None

    @property
    def size(self) -> int:
        # The index, which comes at the end, is about as large as the log of which it is made.
        return self._size_before + self._files.size + self._log.size

    def folder(self, folder: Folder) -> None:
        path = tuple(_clean(level, len(level)) for level in folder.path)
        number = self._numbers.get(path)
        if number is None:
            number = self._numbers[path] = len(self._state.folders)
            directory = "/".join(["mail", *map(_no_month, self._names.path(folder.path).split("/"))]).rstrip("/")
            special = tuple(sorted(folder.special_use))
            self._state.folders.append(Listed(path, directory, special))
            self._files.folder(directory)
        if number != self._present:
            self._flush_last()
            self._last = None
        self._present = number

    def write(self, messages: Sequence[Message]) -> list[Written]:
        return [self._write(message) for message in messages]

    def checkpoint(self) -> bytes:
        self._flush_last()
        self._log.sync()
        self._files.sync()
        self._state.log = self._log.size
        self._state.size = self._size_before + self._files.size
        self._state.present = self._present
        self._state.last = self._last.file if self._last is not None else ""
        return msgspec.json.encode(self._state)

    def finish(self) -> None:
        self._flush_last()
        self._log.flush()
        with writing(self._scratch):
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch.mkdir()
        try:
            self._write_index()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._files.sync()
        self._log.close()

    def abandon(self) -> None:
        self._log.close()

    # ---- pages

    def _flush_last(self) -> None:
        if self._last is not None and self._last.html is not None:
            self._put_page(self._last.file, self._last.html, self._last.mtime)
            self._last.html = None

    def _put_page(self, file: str, html: str, mtime: int) -> None:
        self._files.put(f"{file}.html", html.encode("utf-8", "replace"), mtime=mtime)

    def _link_last_to(self, file: str) -> None:
        """The page before, at last with its link to this one."""
        last = self._last
        if last is None:
            return
        if last.html is None:
            path = self._files.place / f"{last.file}.html"
            with writing(path):
                last.html = path.read_text(encoding="utf-8")
                last.mtime = int(path.stat().st_mtime)
        link = f'<a rel="next" href="{_beside(last.file, file)}.html">Next</a>'
        self._put_page(last.file, last.html.replace(_NEXT, link, 1), last.mtime)

    def _write(self, message: Message) -> Written:
        listed = self._state.folders[self._present]
        number = self._state.count
        note = None
        try:
            letter = letter_of(message.data)
        except Exception as error:  # a bug that one message meets must not stop the export of the others
            letter, note = letter_of(b""), f"it could not be read ({type(error).__name__})"
        file = f"{listed.directory}/{_month(message)}{message_file(message, _short(letter.subject), '')}"
        self._files.put(f"{file}.eml", message.data, mtime=message.internaldate)
        self._link_last_to(file)
        top = self._navigation(number, file, listed)
        html = ""
        if note is None:
            try:
                links = self._put_attachments(message, letter, file)
                html = page(message, letter, _show(links, top, file))
            except (CannotWrite, ToolMissing):
                raise
            except Exception as error:  # as above
                note = f"its page could not be made ({type(error).__name__})"
        if note is not None:
            html = problem_page(message, note, _show({}, top, file))
        self._last = _Last(file, html, message.internaldate)
        row = _row(self._present, message, letter, file.removeprefix(listed.directory + "/"))
        self._log.write(_encode_row(row) + b"\n")
        self._state.count += 1
        if listed.ranges and sum(listed.ranges[-1]) == number:
            listed.ranges[-1][1] += 1
        else:
            listed.ranges.append([number, 1])
        return Written(f"{file}.html", note)

    def _put_attachments(self, message: Message, letter: Letter, file: str) -> dict[int, str]:
        """Write them beside the page; the name of each, by its number."""
        names = Names()
        taken: dict[int, str] = {}
        for attachment in letter.attachments:
            content = letter.content(attachment)
            name = html_attachments.file_name(names, attachment, content)
            self._files.put(f"{file} files/{name}", content, mtime=message.internaldate)
            taken[attachment.number] = name
        return taken

    def _navigation(self, number: int, file: str, listed: Listed) -> str:
        up = "../" * file.count("/")
        before = self._last
        links = [
            f'<a href="{up}index.html#f{self._present}"><bdi>{escape(listed.name)}</bdi></a>',
            f'<a rel="prev" href="{_beside(file, before.file)}.html">Previous</a>' if before is not None else "",
            _NEXT,
            f'<a href="{up}index.html#c{number}">Conversation</a>',
            f'<a class="mk-apart" href="{html_lists.href(file.rpartition("/")[2])}.eml" download>Original message</a>',
        ]
        return f'{_NAVIGATION_STYLE}<nav class="mk-top mk-nav" aria-label="Messages">{"".join(links)}</nav>'

    # ---- the index

    def _write_index(self) -> None:
        files, folders = self._files, self._state.folders
        title = self._options.title
        with writing(self._scratch), html_index.sorting():
            index = html_index.Index(self._rows, files, self._scratch)
            try:
                index.build()
                filled = set()
                for number, rows in index.newest_first():
                    filled.add(number)
                    self._put_pages(html_lists.list_pages(number, folders[number], rows))
                for number, listed in enumerate(folders):
                    if number not in filled:
                        self._put_pages(html_lists.list_pages(number, listed, ()))
            finally:
                index.close()
        told = html_lists.account(
            title,
            folders,
            chunk=html_index.CHUNK,
            per_folder=html_index.CHUNKS_IN_FOLDER,
            words=index.first_words,
        )
        files.put("index/account.js", html_index.script("account", msgspec.json.encode(told)))
        for name in ("site.js", "site.css"):
            files.put(f"index/{name}", html_lists.asset(name))
        made = f"{index.count:,} messages, exported by Mailkeep on {datetime.now(UTC):%Y-%m-%d}"
        files.put("index.html", html_lists.first_page(title, folders, made).encode("utf-8", "replace"))

    def _put_pages(self, pages: Iterable[tuple[str, str]]) -> None:
        for file, html in pages:
            self._files.put(file, html.encode("utf-8", "replace"))


_encode_row = msgspec.json.Encoder().encode


def _no_month(level: str) -> str:
    """A folder's name that no month's directory has: "2023-05" is one of ours, so theirs is "2023-05_"."""
    return level + "_" if _MONTH.fullmatch(level) is not None else level


def _month(message: Message) -> str:
    try:
        return datetime.fromtimestamp(message.internaldate, UTC).strftime("%Y-%m/")
    except (ValueError, OverflowError, OSError):
        return "0000-00/"


def _short(subject: str) -> str:
    return safe_name(subject, SUBJECT_BYTES_MAX) if subject.strip() else ""


def _beside(here: str, there: str) -> str:
    """The URL of a page's file as seen from another one's."""
    above = os.path.commonpath([os.path.dirname(here), os.path.dirname(there)])
    up = "../" * os.path.relpath(os.path.dirname(here), above).count("/")
    up += "../" if os.path.dirname(here) != above else ""
    return up + html_lists.href(there.removeprefix(above + "/"))


def _show(names: dict[int, str], top: str, file: str) -> Show:
    stem = file.rpartition("/")[2]

    def link(attachment: Attachment) -> str | None:
        name = names.get(attachment.number)
        return None if name is None else html_lists.href(f"{stem} files/{name}")

    def note(attachment: Attachment) -> str | None:
        name = names.get(attachment.number, "")
        if not html_attachments.is_renamed(name, attachment):
            return None
        return f"lies beside this page as {name}, so that nothing in it runs when it is opened"

    return Show(link, link, style="screen", top=top, source=f"{html_lists.href(stem)}.eml", note=note)


# ---- what the index is told


def _row(folder: int, message: Message, letter: Letter, file: str) -> Row:
    when = plausible(letter.date.timestamp()) if letter.date is not None else None
    sender = (letter.from_ or letter.sender or (Correspondent("", ""),))[0]
    base, reply = base_subject(letter.subject, anywhere=True)
    base = fold(base)
    body = letter.text if letter.text is not None and letter.text.strip() else html_text(letter.html or "")
    flags = 0
    for flag, bit in _FLAG_BITS.items():
        flags |= bit if flag in message.flags else 0
    shown = Shown(
        file=file,
        subject=_clean(letter.subject, 300),
        sender=_clean(sender.name or sender.address, 100),
        address=_clean(sender.address, 200),
        to=_clean(", ".join(name or address for name, address in letter.to[:5]), 100),
        date=when if when is not None else message.internaldate,
        size=len(message.data),
        flags=flags,
        attachments=sum(not each.inline for each in letter.attachments),
        preview=_preview(body),
    )
    ids = thread_ids(" ".join(letter.references), letter.in_reply_to or "")
    return Row(
        folder=folder,
        shown=shown,
        by_sender=fold(shown.sender)[:100],
        by_subject=_clean(base, 200),
        reply=reply,
        own=hashed(letter.message_id.strip("<>")) if letter.message_id else None,
        references=tuple(map(hashed, ids)),
        words=" ".join(_words(letter, body, flags)),
    )


def _clean(text: str, length_max: int) -> str:
    """Text for a line of a list, without halves of characters."""
    text = text[:length_max]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _preview(body: str) -> str:
    """The beginning of what was written, not of what was quoted."""
    start = body[: PREVIEW * 20]
    own = _SPACES.sub(" ", _QUOTED_LINE.sub("", start)).strip()
    return _clean(own or _SPACES.sub(" ", start).strip(), PREVIEW)


def _words(letter: Letter, body: str, flags: int) -> set[str]:
    """The words that find a message: of all its text, and of some fields again, with the field's letter before."""
    words = words_of(_clean(body, len(body)))
    if letter.html is not None and letter.text is not None and letter.text.strip():
        # Many a newsletter's plain form says only that there is another one.
        page_text = html_text(letter.html)
        words |= words_of(_clean(page_text, len(page_text)))
    fields = {
        "f": " ".join(f"{name} {address}" for name, address in (*letter.from_, *letter.sender)),
        "t": " ".join(f"{name} {address}" for name, address in (*letter.to, *letter.cc, *letter.bcc)),
        "s": letter.subject,
        "a": " ".join(each.name for each in letter.attachments),
    }
    for letter_of_field, text in fields.items():
        found = words_of(_clean(text, len(text)))
        words |= found
        words.update(f"{letter_of_field}:{word}" for word in found)
    if any(not each.inline for each in letter.attachments):
        words.add("h:attachment")
    states = {"i:starred": html_index.FLAGGED, "i:answered": html_index.ANSWERED, "i:draft": html_index.DRAFT}
    words.update(state for state, bit in states.items() if flags & bit)
    words.add("i:read" if flags & html_index.SEEN else "i:unread")
    return words | _embedded_words(letter)


def _embedded_words(letter: Letter) -> set[str]:
    """The words of the messages inside, and of those inside of these."""
    words: set[str] = set()
    stack = [letter]
    done = 0
    while stack and done < EMBEDDED_MAX:
        outer = stack.pop()
        for each in outer.attachments:
            if each.message and done < EMBEDDED_MAX:
                done += 1
                inner = letter_of(outer.content(each))
                body = inner.text if inner.text is not None else html_text(inner.html or "")
                people = " ".join(f"{name} {address}" for name, address in (*inner.from_, *inner.to))
                text = f"{inner.subject}\n{people}\n{body}"
                words |= words_of(_clean(text, len(text)))
                stack.append(inner)
    return words
