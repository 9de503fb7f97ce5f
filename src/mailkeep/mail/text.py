"""The text of a message that a search looks through: decoded headers and bodies, HTML as text, all normalised.

Both the needle and the haystack go through `normalise`; a search is then a plain substring test (RFC 9051 section
6.4.4, with the comparator's spirit of RFC 5051). Output is bounded, since a search must not be the way to fill the
server's memory.
"""

import html
import re
import unicodedata
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser

from mailkeep.mail.header import HEADER_MAX, Buffer, decode_charset, decode_words, iter_lines
from mailkeep.mail.html_limits import is_hostile, tame
from mailkeep.mail.mime import Params, Part, scan
from mailkeep.mail.structure import decode_transfer, part_charset

TEXT_MAX = 8 << 20  # characters of text that are looked at, in all
HTML_MAX = 2 << 20  # characters of one HTML part that are parsed


@dataclass(frozen=True, slots=True)
class Searchable:
    """Normalised text: the message's own header, and all else (bodies, inner headers, names of attachments)."""

    headers: str
    body: str


def normalise(text: str) -> str:
    """Text in the form that is compared: case folded, compatibility characters unified, line breaks as LF."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


_TAG = re.compile(
    r"<(?:script|style)\b.*?(?:</(?:script|style)\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^<>]*>?", re.DOTALL | re.IGNORECASE
)


def html_text(markup: str) -> str:
    """The visible text of an HTML document."""
    markup = tame(markup[:HTML_MAX])
    if is_hostile(markup):  # then it is stripped of its tags by hand
        return html.unescape(_TAG.sub(" ", markup))
    tree = LexborHTMLParser(markup)
    tree.strip_tags(["script", "style", "template", "title"], recursive=True)
    root = tree.body or tree.root
    return "" if root is None else root.text(separator="", skip_empty=False)


def header_text(header: bytes) -> str:
    """A header block's fields, decoded, one a line; and the lines that are no fields."""
    return "\n".join([_line_text(name, rest) for name, rest, _ in iter_lines(header)])


def _line_text(name: bytes, rest: bytes) -> str:
    if rest.startswith(b":"):
        return f"{name.decode('latin-1')}: {decode_words(rest[1:])}"
    return decode_words(name + rest)


def param_text(params: Params, wanted: bytes) -> str | None:
    """A parameter's text: RFC 2231 values decoded, and the encoded words that senders use instead."""
    for name, value in params:
        key = name.lower()
        if key == wanted:
            return decode_words(value)
        if key == wanted + b"*":
            return _decode_extended(value)
    return None


def _decode_extended(value: bytes) -> str:
    """extended-value = [charset] "'" [language] "'" *( "%" 2HEXDIG / attribute-char ) (RFC 2231 section 7)"""
    charset, quote, rest = value.partition(b"'")
    if not quote:
        return decode_words(value)
    text = rest.partition(b"'")[2]
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), text)
    return decode_charset(raw, charset.decode("ascii", "replace") or None)


def attachment_name(part: Part) -> str | None:
    """The file name of a part, from its disposition or its type."""
    name = param_text(part.disposition.params, b"filename") if part.disposition is not None else None
    return name if name is not None else param_text(part.params, b"name")


def part_text(data: Buffer, part: Part, size_max: int = TEXT_MAX) -> str:
    """The text of a text part, transfer encoding and charset undone, HTML as text."""
    raw = decode_transfer(bytes(data[part.body : min(part.end, part.body + size_max)]), part.encoding or "7bit")
    if raw is None:
        return ""
    text = decode_charset(raw, part_charset(part))
    return html_text(text) if part.subtype == "html" else text


def searchable(data: Buffer) -> Searchable:
    """What a search of this message looks through, normalised and bounded. Never raises."""
    if isinstance(data, memoryview):
        data = bytes(data)
    root = scan(data)
    headers = header_text(bytes(data[: min(root.body, HEADER_MAX)]))
    pieces: list[str] = []
    room = TEXT_MAX
    stack = [(root, True)]
    while stack and room > 0:
        part, is_root = stack.pop()
        if not is_root and part.fields:
            pieces.append(header_text(bytes(data[part.start : min(part.body, part.start + HEADER_MAX)])))
        if (name := attachment_name(part)) is not None:
            pieces.append(name)
        if part.description is not None:
            pieces.append(decode_words(part.description))
        if not part.children and part.type in ("text", "message"):
            pieces.append(part_text(data, part, room))
        if pieces:
            room -= len(pieces[-1])
        stack += [(child, False) for child in reversed(part.children)]
    return Searchable(normalise(headers), normalise("\n".join(pieces)))
