"""The page of a message, as the formats HTML, MHT, PDF and DOCX share it.

Puts a letter into one HTML document: its header, its body made safe, the messages inside it in their places, the list
of what is attached, and what the reader should know (pictures that are not shown, damage). Knows no files: where a
picture or an attachment lies is told by the format, in `Show`.

The hard idea is that the page has to hold in three kinds of engine: browsers, which find out directions of text and
fold lines by CSS; the engine that makes PDF, which is told directions; and the import of office programs, which knows
the CSS of the first days only, so that even line breaks are elements there. Nothing in a page loads from elsewhere or
runs: the HTML is filtered, and the page's own Content-Security-Policy forbids it again.
"""

import base64
import html as markup
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from mailkeep.export.page_style import SHEETS
from mailkeep.export.writer import Message
from mailkeep.mail.body_text import known_charset
from mailkeep.mail.direction import first_strong, has_rtl
from mailkeep.mail.letter import Attachment, Correspondent, Letter, letter_of, transfer_decoded
from mailkeep.mail.safe_html import sanitise

EMBEDDED_DEPTH_MAX: Final = 20
EMBEDDED_MAX: Final = 100  # messages inside that are shown; a digest may have thousands
EMBEDDED_SIZE_MAX: Final = 8 << 20  # characters of their bodies
DATA_URLS_MAX: Final = 10 << 20  # bytes of the pictures of messages inside
REPEATS_MAX: Final = 8 << 20  # characters of the URLs of pictures that are shown once more: they may be data:
BLOCKS_MAX: Final = 20_000  # runs of quotation that have a colour; what follows is one
SUBJECT_MAX: Final = 2000  # characters that are shown
PIXELS_MAX: Final = 100_000_000  # of a picture that is shown: four bytes each when it is unpacked
JPEG_HEAD_MAX: Final = 1 << 20  # bytes in which its size is sought: there may be a small picture of it before
PEOPLE_MAX: Final = 1000  # of one field that are shown

Image = Callable[[Attachment], str | None]


@dataclass(frozen=True, slots=True)
class Show:
    """How the pages of a format are made.

    `image`, `link` and `note` are asked about attachments of the message itself only: messages inside are shown with
    their pictures as data URLs, and what is attached to them is named.
    """

    image: Callable[[Attachment], str | None]  # URL of an inline image: a relative file, "data:…", cid or location
    link: Callable[[Attachment], str | None]  # URL of an attachment in the list; None: its name only
    style: str = "screen"  # "screen", "print" or "office"
    top: str = ""  # safe HTML above the message
    source: str | None = None  # URL of the raw message, for a page that cannot show it
    note: Callable[[Attachment], str | None] = lambda _: None  # text beside an attachment in the list


def page(message: Message, letter: Letter, show: Show) -> str:
    """The message as a whole HTML5 document that loads nothing from elsewhere and runs nothing."""
    drawing = _Drawing(show)
    body = drawing.letter(letter, depth=0)
    head = _head(letter, message, show.style)
    files = _files(letter, show, drawing)
    notes = drawing.notes(letter)
    title = letter.subject[:SUBJECT_MAX] or "(no subject)"
    main = f'<main class="mk-message"><header>{head}</header>{body}{files}{notes}</main>'
    return _document(title, main, show, _language(letter))


def problem_page(message: Message, reason: str, show: Show) -> str:
    """The page in place of a message that cannot be shown: it says why, and links the raw source."""
    source = _linked(show.source, "message.eml") if show.source else "message.eml"
    came = _date_text(datetime.fromtimestamp(message.internaldate, UTC))
    main = (
        '<main class="mk-message"><header><h1>This message cannot be shown</h1></header>'
        f'<section class="mk-part"><p>{_text(reason)}</p>'
        f"<p>Folder {_text(message.folder.name)}, number {message.uid}, came {came}, {_size(len(message.data))}.</p>"
        f"<p>As it came: {source}</p></section></main>"
    )
    return _document("This message cannot be shown", main, show, None)


def picture_type(letter: Letter, attachment: Attachment) -> str | None:
    """The media type of a picture that every engine can show, told by its first bytes; None for all else.

    Whatever the sender called it: pictures come as application/octet-stream, and SVG, which is a document that can
    load and run things, may come as image/png. None as well for those that would be gigabytes when unpacked.
    """
    head = _head_of(letter, attachment, 200)
    kind = next((kind for magic, kind in _MAGIC if magic.match(head)), None)
    if kind is None:
        return None
    pixels = _pixels(kind, head)
    if kind == "image/jpeg" and not pixels:
        pixels = _pixels(kind, _head_of(letter, attachment, JPEG_HEAD_MAX))
    return None if pixels > PIXELS_MAX else kind


def _head_of(letter: Letter, attachment: Attachment, size: int) -> bytes:
    """The beginning of an attachment, of so many bytes as it is written."""
    part = attachment.part
    return transfer_decoded(letter.data[part.body : min(part.end, part.body + size)], part.encoding)


def _pixels(kind: str, head: bytes) -> int:
    """How many a picture says that it has; 0 where the beginning does not tell."""
    width = height = 0
    if kind == "image/png" and head[12:16] == b"IHDR":
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    elif kind == "image/gif":
        width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    elif kind == "image/bmp" and head[14:18] != b"\x0c\0\0\0":  # OS/2 has small ones; -9 is 9 from above
        width, height = (int.from_bytes(head[at : at + 4], "little", signed=True) for at in (18, 22))
    elif kind == "image/webp" and head[12:16] == b"VP8X":  # the other kinds have 16,384 pixels a side at most
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == "image/jpeg":
        width, height = _jpeg_sides(head)
    return abs(width * height)


def _jpeg_sides(head: bytes) -> tuple[int, int]:
    """Width and height: they stand in the frame's segment (ITU-T T.81 section B.2.2), behind others of any length."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        mark = head[at + 1]
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        if mark == 0xFF:  # it may be filled up
            at += 1
        else:
            alone = mark == 0x01 or 0xD0 <= mark <= 0xD8
            at += 2 if alone else 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return 0, 0


_MAGIC: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM.{4}\0{4}", re.DOTALL), "image/bmp"),
)

# ---- the document

_POLICY: Final = "default-src 'none'; img-src {}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _document(title: str, main: str, show: Show, language: str | None) -> str:
    lang = f' lang="{language}"' if language else ""
    # What is printed has its pictures in itself; other pages have them beside, or are a part beside them.
    policy = _POLICY.format("'self' file: data: cid:" if show.style == "screen" else "data:")
    document = (
        f'<!DOCTYPE html>\n<html{lang}><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width">\n'
        f"<title>{_text(title)}</title>\n<style>{SHEETS[show.style]}</style></head>\n"
        f'<body class="mk-page">{show.top}{main}</body></html>\n'
    )
    return _HALF_PAIR.sub("\ufffd", document) if not document.isascii() else document


# Han characters look different from country to country; the charset tells which is meant.
_LANGUAGES: Final = (
    (("iso2022_jp", "cp932", "shift", "euc_jp"), "ja"),
    (("gb", "hz"), "zh-Hans"),
    (("cp950", "big5"), "zh-Hant"),
    (("cp949", "euc_kr", "johab", "iso2022_kr"), "ko"),
)


def _language(letter: Letter) -> str | None:
    codec = known_charset(letter.charset)
    if codec is None:
        return None
    return next((language for names, language in _LANGUAGES if codec.startswith(names)), None)


# Controls are no characters of HTML.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def _text(text: str) -> str:
    return markup.escape(_CONTROLS.sub("", text))


# Marks that turn text around ("invoice\u202egpj.exe" would read "invoiceexe.jpg"): no name needs them.
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def _isolated(text: str) -> str:
    """A name by a stranger, which must not change the direction of what stands beside it, nor its own."""
    return _text(text) if text.isascii() else f"<bdi>{_text(_TURNS.sub('', text))}</bdi>"


def _direction(text: str) -> str:
    """The attribute that says which way a block runs, where it is not the usual way."""
    return ' dir="rtl"' if has_rtl(text) and first_strong(text) == "rtl" else ""


# ---- the header

_FLAGS: Final = {
    "\\flagged": "Flagged", "\\answered": "Answered", "\\draft": "Draft", "\\deleted": "Deleted",
    "$forwarded": "Forwarded", "$junk": "Junk", "$phishing": "Phishing",
}  # fmt: skip
_SILENT: Final = frozenset(("\\seen", "\\recent", "$notjunk", "notjunk", "nonjunk", "$mdnsent", "$gone"))


def _head(letter: Letter, message: Message | None, style: str) -> str:
    subject = letter.subject[:SUBJECT_MAX] or "(no subject)"
    rows = [
        ("From", _people(letter.from_)),
        ("Sender", _people(letter.sender) if letter.sender != letter.from_ else ""),
        ("Reply to", _people(letter.reply_to) if letter.reply_to != letter.from_ else ""),
        ("To", _people(letter.to)),
        ("Cc", _people(letter.cc)),
        ("Bcc", _people(letter.bcc)),
        ("Date", _date(letter, message)),
        ("Flags", "" if message is None else _flags(message.flags)),
    ]
    # Office programs know widths as attributes only.
    wide, narrow, end = (' width="100%"', ' width="14%"', "<hr>") if style == "office" else ("", "", "")
    table = "".join([f"<tr><th{narrow}>{name}</th><td>{value}</td></tr>" for name, value in rows if value])
    level = "h1" if message is not None else "h2"
    title = f"<{level}{_direction(subject)}>{_text(subject)}</{level}>"
    return f'{title}<table class="mk-head"{wide}>{table}</table>{end}'


def _people(people: tuple[Correspondent, ...]) -> str:
    shown = [_person(person) for person in people[:PEOPLE_MAX]]
    if len(people) > PEOPLE_MAX:
        shown.append(f"and {len(people) - PEOPLE_MAX} more")
    return ", ".join(shown)


def _person(person: Correspondent) -> str:
    if not person.address:
        return _isolated(person.name)
    if not person.name or person.name == person.address:
        return _isolated(person.address)
    return f'{_isolated(person.name)} <span class="mk-address">&lt;{_isolated(person.address)}&gt;</span>'


_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
                  "November", "December")  # fmt: skip


def _date_text(when: datetime) -> str:
    zone = "UTC" if not when.utcoffset() else f"{when:%z}"
    day = f"{_DAYS[when.weekday()]}, {when.day} {_MONTHS[when.month - 1]} {when.year}"
    return f"{day}, {when:%H:%M} {zone}"


def _date(letter: Letter, message: Message | None) -> str:
    if letter.date is not None:
        return _date_text(letter.date)
    written = letter.header("Date")
    said = [_text(written[:100])] if written else []
    if message is not None:
        said.append(f"came {_date_text(datetime.fromtimestamp(message.internaldate, UTC))}")
    return ", ".join(said)


def _flags(flags: frozenset[str]) -> str:
    named = {_FLAGS.get(flag.lower(), flag) for flag in flags if flag.lower() not in _SILENT}
    if not any(flag.lower() == "\\seen" for flag in flags):
        named.add("Unread")
    return " ".join([f'<span class="mk-flag">{_text(flag)}</span>' for flag in sorted(named)])


# ---- the body


@dataclass(slots=True)
class _Drawing:
    """One page while it is drawn: what of the limits is left, and what was left out."""

    show: Show
    blocked: int = 0
    embedded: int = 0
    unshown: int = 0  # messages inside that are only attached
    embedded_room: int = EMBEDDED_SIZE_MAX
    picture_room: int = DATA_URLS_MAX
    repeat_room: int = REPEATS_MAX
    scopes: int = 0
    problems: list[str] = field(default_factory=list)
    shown: set[int] = field(default_factory=set)  # numbers of the message's own attachments that stand in its body

    def letter(self, letter: Letter, *, depth: int) -> str:
        """The body of a letter, its pictures that stand nowhere in it, and the messages inside."""
        image = self.show.image if depth == 0 else lambda attachment: self.data_url(letter, attachment)
        seen: set[int] = self.shown if depth == 0 else set()
        self.scopes += 1
        scope = f"mk-mail-{self.scopes}"

        shown_image = self.images(letter, image, seen)
        body = self.body(letter, shown_image, scope)
        kind = " mk-html" if letter.html else ""
        sections = [f'<section class="mk-part{kind}">{body}</section>'] if body else []
        loose = [
            f'<img src="{markup.escape(url)}" alt="{_text(attachment.name)}">'
            for attachment in letter.attachments
            if attachment.inline and attachment.number not in seen and (url := shown_image(attachment)) is not None
        ]
        if loose:
            sections.append(f'<section class="mk-part mk-pictures">{"".join(loose)}</section>')
        if not sections and not any(attachment.message for attachment in letter.attachments):
            sections.append('<section class="mk-part"><p class="mk-size">(no text)</p></section>')
        sections += [
            self.inside(letter, attachment, depth + 1) for attachment in letter.attachments if attachment.message
        ]
        return "".join(sections)

    def images(self, letter: Letter, image: Image, seen: set[int]) -> Image:
        """`image` for pictures alone, asked once for each; `seen` gets the numbers of those that are shown."""
        urls: dict[int, str | None] = {}

        def shown(attachment: Attachment) -> str | None:
            number = attachment.number
            if number in urls:
                url = urls[number]
                self.repeat_room -= len(url or "")
                return url if self.repeat_room >= 0 else None
            url = urls[number] = image(attachment) if picture_type(letter, attachment) is not None else None
            if url is not None:
                seen.add(number)
            return url

        return shown

    def body(self, letter: Letter, image: Image, scope: str) -> str:
        if letter.html is not None and letter.html.strip():

            def resolve(url: str) -> str | None:
                attachment = letter.find(url)
                return None if attachment is None else image(attachment)

            safe = sanitise(letter.html, resolve=resolve, scope=scope)
            self.blocked += safe.blocked
            if safe.as_text:
                self.problems.append("HTML nested too deeply: shown as text")
            return (
                safe.html
                if scope == "mk-mail"
                else safe.html.replace(f'class="{scope}"', f'class="mk-mail {scope}"', 1)
            )
        if letter.text is not None and letter.text.strip():
            return _office_text(letter.text) if self.show.style == "office" else _plain_text(letter.text)
        return ""

    def data_url(self, letter: Letter, attachment: Attachment) -> str | None:
        kind = picture_type(letter, attachment)
        size = attachment.part.end - attachment.part.body
        if kind is None or size > self.picture_room:
            return None
        self.picture_room -= size
        return f"data:{kind};base64,{base64.b64encode(letter.content(attachment)).decode()}"

    def inside(self, letter: Letter, attachment: Attachment, depth: int) -> str:
        """A message inside the message, in its place."""
        size = attachment.part.end - attachment.part.body
        if depth > EMBEDDED_DEPTH_MAX or self.embedded >= EMBEDDED_MAX or size > self.embedded_room * 4:
            self.unshown += 1
            return ""
        self.embedded += 1
        inner = letter_of(letter.content(attachment))
        self.embedded_room -= len(inner.text or "") + len(inner.html or "")
        if self.embedded_room < 0:
            self.unshown += 1
            return ""
        names = [
            f"<li>{_isolated(found.name)}</li>" for found in inner.attachments if not found.inline and not found.message
        ]
        files = f'<section class="mk-part mk-files"><ul>{"".join(names)}</ul></section>' if names else ""
        self.problems += inner.problems
        head = _head(inner, None, self.show.style)
        return (
            '<section class="mk-embedded"><article class="mk-part">'
            f"<header>{head}</header>{self.letter(inner, depth=depth)}{files}</article></section>"
        )

    def notes(self, letter: Letter) -> str:
        said: list[str] = []
        if self.blocked:
            things = "1 thing" if self.blocked == 1 else f"{self.blocked} things"
            said.append(f"Not shown: {things} that the message would load from elsewhere (pictures, fonts, styles).")
        if self.unshown:
            said.append(f"{self.unshown} of the messages inside are not shown here; they are attached.")
        problems = list(dict.fromkeys([*letter.problems, *self.problems]))
        said += [f"{_text(problem[:1].upper() + problem[1:])}." for problem in problems[:20]]
        if not said:
            return ""
        return f'<section class="mk-part mk-notes">{"".join([f"<p>{line}</p>" for line in said])}</section>'


# ---- plain text

# A link up to white space or a bracket; the punctuation at its end belongs to the sentence.
_LINK = re.compile(r"\b(?:https?://|www\.)[^\s<>\"'`{}|\\^]{1,2000}|\bmailto:[^\s<>\"']{1,500}", re.IGNORECASE)
_QUOTE = re.compile(r"(?:> ?)+")


def _linked_text(text: str) -> str:
    out: list[str] = []
    last = 0
    for match in _LINK.finditer(text):
        url = match[0].rstrip(".,;:!?'*_\u3002\uff0c")
        if url.endswith(")") and "(" not in url:
            url = url.rstrip(").,;")
        out.append(_text(text[last : match.start()]))
        target = url if "://" in url or url.lower().startswith("mailto:") else f"https://{url}"
        out.append(f'<a href="{_text(target)}" rel="noreferrer noopener">{_text(url)}</a>')
        last = match.start() + len(url)
    out.append(_text(text[last:]))
    return "".join(out)


def _quote_level(line: str) -> int:
    match = _QUOTE.match(line)
    return min(match[0].count(">"), 9) if match is not None else 0


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """The text in runs of lines of one quotation level; where it runs from right to left, in paragraphs."""
    split = has_rtl(text)
    run: list[str] = []
    level = blocks = 0
    for line in text.split("\n"):
        if blocks >= BLOCKS_MAX:
            found = level
        elif line.startswith(">"):
            found = _quote_level(line)
        else:
            found = 0
        if run and blocks < BLOCKS_MAX and (found != level or (split and not run[-1].strip() and line.strip())):
            yield level, "\n".join(run)
            run = []
            blocks += 1
        level = found
        run.append(line)
    yield level, "\n".join(run)


# Columns and patches need letters of one width: tabs or several spaces inside lines, or lines of a patch.
_COLUMNS = re.compile(r"^.*\S(?: {3,}|\t+)\S|^(?:@@ |diff --git |\+\+\+ |[+-] {4})|^ {4,}\S.*[;{}]$", re.MULTILINE)
_COLUMNS_MIN: Final = 4  # such lines
_COLUMNS_SOUGHT: Final = 100_000  # characters


def _is_fixed(text: str) -> bool:
    return len(_COLUMNS.findall(text[:_COLUMNS_SOUGHT])) >= _COLUMNS_MIN


def _class(level: int, fixed: bool) -> str:
    return (f" mk-q{(level - 1) % 3 + 1}" if level else "") + (" mk-fixed" if fixed else "")


def _plain_text(text: str) -> str:
    fixed = _is_fixed(text)
    blocks = [
        # A break at the end of an element begins no line: the second one does.
        f'<div class="mk-text{_class(level, fixed)}"{_direction(block)}>{_linked_text(block)}'
        f"{chr(10) if block.endswith(chr(10)) or not block else ''}</div>"
        for level, block in _blocks(text.replace("\f", "\n").rstrip())
    ]
    return "".join(blocks)


def _office_text(text: str) -> str:
    """As `_plain_text` for readers that fold white space: breaks are elements, and spaces that count are hard."""
    fixed = _is_fixed(text)
    out: list[str] = []
    for level, block in _blocks(text.replace("\f", "\n").expandtabs(8).rstrip()):
        lines = [
            re.sub(r"^ +| {2,}", lambda spaces: "\u00a0" * len(spaces[0]), _linked_text(line))
            for line in block.split("\n")
        ]
        if not lines[-1]:
            lines[-1] = "\u00a0"
        out.append(f'<p class="mk-text{_class(level, fixed)}"{_direction(block)}>{"<br>".join(lines)}</p>')
    return "".join(out)


# ---- what is attached


def _linked(url: str | None, name: str) -> str:
    shown = _isolated(name)
    return (
        shown if url is None else f'<a href="{markup.escape(url)}" download="{_text(_TURNS.sub("", name))}">{shown}</a>'
    )


def _files(letter: Letter, show: Show, drawing: _Drawing) -> str:
    rows = [
        f"<li>{_linked(show.link(found), found.name)} {_about(letter, found, show)}</li>"
        for found in letter.attachments
        if found.number not in drawing.shown
    ]
    if not rows:
        return ""
    title = "1 attachment" if len(rows) == 1 else f"{len(rows)} attachments"
    return f'<section class="mk-part mk-files"><h2>{title}</h2><ul>{"".join(rows)}</ul></section>'


def _about(letter: Letter, attachment: Attachment, show: Show) -> str:
    said = [_size(len(letter.content(attachment))), _text(attachment.media_type)]
    if (note := show.note(attachment)) is not None:
        said.append(_text(note))
    return f'<span class="mk-size">{", ".join(said)}</span>'


def _size(size: int) -> str:
    if size == 1:
        return "1 byte"
    amount = float(size)
    for unit in ("bytes", "KB", "MB"):
        if amount < 1000:
            return f"{size} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
