"""The text of a body part as its reader should see it: charset found out, flowed lines joined.

Knows what senders get wrong about charsets: none given, a superset or an unknown one meant, UTF-8 called something
else, UTF-16 without its mark; and format=flowed (RFC 3676). Knows nothing of the tree of parts.

The hard idea is when to disbelieve a label. Bytes that are valid UTF-8 with characters beyond ASCII are hardly ever
anything else, so a label of one byte a character gives way to them; and a text that is called UTF-8, and is but for a
few damaged bytes, is not guessed to be another charset as a whole.
"""

import codecs
import re
from typing import Final

from mailkeep.mail.header import codec_name, decode_charset, guess_text

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which it starts with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Names that Python does not know, as real mail has them.
_ALIASES: Final = {
    "unicode-1-1-utf-7": "utf-7", "unicode-1-1-utf-8": "utf-8", "utf8mb4": "utf-8", "utf": "utf-8",
    "x-sjis": "cp932", "x-gbk": "gb18030", "x-euc-jp": "euc_jp", "windows-31j": "cp932", "ms932": "cp932",
    "ks_c_5601": "cp949", "x-windows-949": "cp949", "x-mac-roman": "mac_roman", "x-macroman": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic", "windows-874": "cp874", "iso-8859-11": "cp874", "tis-620": "cp874",
    "ansi_x3.110-1983": "cp1252", "x-user-defined": "cp1252", "x-unknown": "",
    "unknown-8bit": "", "default": "", "unknown": "", "binary": "",
}  # fmt: skip
# Charsets of one byte a character, nearly any bytes of which are a text; the labels that mailers put on by default.
_ONE_BYTE: Final = re.compile(r"cp125\d|iso8859-\d+|latin[\w-]*|cp437|cp850|mac-\w+|koi8-[ru]")
_SUSPECT_NUL: Final = 4096  # bytes in which a text of UTF-16 surely has a NUL


def _bom(raw: bytes) -> tuple[str, int] | None:
    for mark, name in _BOMS:
        if raw.startswith(mark):
            return name, len(mark)
    return None


def known_charset(charset: str | None) -> str | None:
    """The codec for a label, None when there is none."""
    if not charset:
        return None
    name = charset.strip().strip("\"'").lower()
    return codec_name(_ALIASES.get(name, name)) if _ALIASES.get(name, name) else None


def decode_body(raw: bytes, charset: str | None) -> tuple[str, str | None]:
    """The text of a body, and what was wrong with its label (None: nothing). Linear time, never raises."""
    if (marked := _bom(raw)) is not None:
        return raw[marked[1] :].decode(marked[0], "replace"), None
    codec = known_charset(charset)
    if codec is None:
        problem = f"charset unknown: {charset[:40]}" if charset and charset.strip() and not raw.isascii() else None
        return _guess(raw), problem
    if codec == "utf-8":
        return _utf8(raw, charset or "")
    if codec.startswith(("utf-16", "utf-32")):
        return _wide(raw, codec)
    if _ONE_BYTE.fullmatch(codec) and not raw.isascii() and (text := _valid_utf8(raw)) is not None:
        return text, f"charset wrong: {(charset or '')[:40]}, it is utf-8"
    if codec.startswith("iso2022") and not raw.isascii():
        return _guess(raw), f"charset wrong: {(charset or '')[:40]}"
    return decode_charset(raw, codec), None


def _valid_utf8(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _guess(raw: bytes) -> str:
    # ESC $ and ESC ( shift between the sets of ISO-2022-JP, which is ASCII to those who do not know it.
    if raw.isascii() and (b"\x1b$" in raw or b"\x1b(" in raw):
        return raw.decode("iso2022_jp", "replace")
    return guess_text(raw)


def _utf8(raw: bytes, label: str) -> tuple[str, str | None]:
    if (text := _valid_utf8(raw)) is not None:
        return text, None
    text = raw.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    beyond = len(text) - len(text.encode("ascii", "ignore")) - bad
    if beyond > bad:
        return text, "text damaged"
    return guess_text(raw), f"charset wrong: {label[:40]}"


def _wide(raw: bytes, codec: str) -> tuple[str, str | None]:
    """UTF-16 and UTF-32 without a byte order mark: the order is seen by where the NULs are."""
    head = raw[:_SUSPECT_NUL]
    if b"\0" not in head and (head.isascii() or _valid_utf8(raw) is not None):
        return _guess(raw), f"charset wrong: {codec}"
    if codec in ("utf-16", "utf-32"):
        # ASCII's zero bytes come first in big-endian text, which is the default (RFC 2781 section 4.3).
        width = 2 if codec == "utf-16" else 4
        little = head[width - 1 :: width].count(0) > head[0::width].count(0)
        codec += "-le" if little else "-be"
    return raw.decode(codec, "replace"), None


# <meta charset=x>, <meta http-equiv=content-type content="text/html; charset=x">, <?xml encoding="x"?>
_META: Final = re.compile(
    rb"(?i)<(?:meta\b[^>]{0,200}?charset|\?xml\b[^>]{0,100}?encoding)\s*=\s*[\"']?([\w.:-]{1,40})"
)
_META_SEARCHED: Final = 4096  # bytes; HTML's own limit is 1024, and Word puts more before it


def html_charset(raw: bytes) -> str | None:
    """The charset that an HTML document says of itself."""
    match = _META.search(raw[:_META_SEARCHED])
    return match[1].decode("ascii") if match else None


def decode_html(raw: bytes, charset: str | None) -> tuple[str, str | None]:
    """As `decode_body`, for HTML: what the document says counts where the message says nothing or only ASCII."""
    said = known_charset(charset)
    if said is None or (charset or "").strip("\"' ").lower() in ("us-ascii", "ascii"):
        inner = html_charset(raw)
        # A document that can be read for its charset is no UTF-16, whatever it says.
        if inner is not None and (codec := known_charset(inner)) and not codec.startswith(("utf-16", "utf-32")):
            charset = inner
    return decode_body(raw, charset)


# ---- format=flowed


def unflow(text: str, *, delsp: bool) -> str:
    """Undo format=flowed (RFC 3676 section 4): each paragraph on one line, quote marks and one space before it."""
    out: list[str] = []
    paragraph: list[str] = []
    depth_open = 0
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")  # space-stuffing
        if paragraph and (depth != depth_open or content == "-- "):
            out.append(_quoted("".join(paragraph), depth_open))
            paragraph = []
        flowed = content.endswith(" ") and content != "-- "
        paragraph.append(content[:-1] if flowed and delsp else content)
        depth_open = depth
        if not flowed:
            out.append(_quoted("".join(paragraph), depth))
            paragraph = []
    if paragraph:
        out.append(_quoted("".join(paragraph), depth_open))
    return "\n".join(out)


def _quoted(paragraph: str, depth: int) -> str:
    if not depth:
        return paragraph
    return f"{'>' * depth} {paragraph}" if paragraph else ">" * depth
