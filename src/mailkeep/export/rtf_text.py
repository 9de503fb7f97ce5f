"""What an RTF body says: the HTML that is hidden in it ([MS-OXRTFEX]), and its text.

Outlook wraps a mail's HTML in RTF: tags stand in groups `{\\*\\htmltag …}`, which ordinary readers pass over; what only
they shall see stands between `\\htmlrtf` and `\\htmlrtf0`. Unwrapping gives the HTML that was sent, nearly to the byte.
Knows RTF as far as text goes: groups, destinations, fonts with their codepages, `\\u`, `\\'`, `\\bin`.

One pass over the bytes, and every step goes forward, so a hostile document costs what its length costs. The hard idea:
text is gathered as bytes until the codepage, the destination or the mode changes, for a character of two bytes may
be written as an escape and a letter.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from mailkeep.mail.header import codec_name

GROUPS_MAX: Final = 10_000  # one in another

_TOKEN: Final = re.compile(
    rb"\\(?P<word>[A-Za-z]{1,40})(?P<number>-?[0-9]{1,10})? ?"
    rb"|\\'(?P<hex>[0-9A-Fa-f]{2})"
    rb"|\\(?P<symbol>[^A-Za-z])"
    rb"|(?P<brace>[{}])"
    rb"|(?P<text>[^\\{}\r\n\0]+)"
    rb"|[\r\n\0]+|\\"
)

# Destinations whose content is no text of the document.
_HIDDEN: Final = frozenset(
    b"colortbl stylesheet info pict object filetbl listtable listoverridetable revtbl rsidtbl generator xmlnstbl "
    b"themedata colorschememapping latentstyles datastore datafield header headerl headerr headerf footer footerl "
    b"footerr footerf footnote ftnsep ftnsepc aftnsep author operator title subject keywords comment doccomm private "
    b"template".split()
)
_SPACES: Final = {
    b"par": "\r\n", b"line": "\r\n", b"sect": "\r\n", b"page": "\r\n", b"row": "\r\n", b"tab": "\t", b"cell": "\t",
}  # fmt: skip
_SIGNS: Final = {
    b"lquote": ("\u2018", "&lsquo;"), b"rquote": ("\u2019", "&rsquo;"), b"ldblquote": ("\u201c", "&ldquo;"),
    b"rdblquote": ("\u201d", "&rdquo;"), b"bullet": ("\u2022", "&bull;"), b"endash": ("\u2013", "&ndash;"),
    b"emdash": ("\u2014", "&mdash;"), b"emspace": ("\u2003", "&emsp;"), b"enspace": ("\u2002", "&ensp;"),
    b"zwj": ("\u200d", "&zwj;"), b"zwnj": ("\u200c", "&zwnj;"), b"ltrmark": ("\u200e", "&lrm;"),
    b"rtlmark": ("\u200f", "&rlm;"),
}  # fmt: skip
_SYMBOLS: Final = {b"~": ("\u00a0", "&nbsp;"), b"_": ("\u2011", "&shy;"), b"-": ("\u00ad", "&shy;")}
# What a document has that is more than text.
_FORMATTING: Final = frozenset(
    b"b i ul ulw uld strike trowd pict object field highlight qc qr qj super sub pntext ls shp".split()
)
_FONT_CHARSETS: Final = {
    0: 1252, 2: 1252, 77: 10000, 128: 932, 129: 949, 130: 1361, 134: 936, 136: 950, 161: 1253, 162: 1254, 163: 1258,
    177: 1255, 178: 1256, 186: 1257, 204: 1251, 222: 874, 238: 1250, 254: 437, 255: 850,
}  # fmt: skip
_SURROGATES: Final = re.compile("[\ud800-\udfff]+")

_NORMAL, _TAG, _FONTS, _SKIP = range(4)  # where what is read goes


@dataclass(frozen=True, slots=True)
class Read:
    """`html` when there is some inside. `encapsulated`: the document is only a wrapper, for HTML or for text.
    `formatted`: it has more than its text, as a document of its own."""

    html: str | None
    text: str
    encapsulated: bool
    formatted: bool


def read(document: bytes) -> Read:
    """Raises ValueError when it is no RTF, or nested beyond all sense."""
    if not document.lstrip(b"\0 \r\n\t")[:5].lower() == b"{\\rtf":
        raise ValueError("not rich text")
    reader = _Reader(document)
    reader.run()
    text = _whole("".join(reader.text))
    html = _whole("".join(reader.html)) if reader.from_html else None
    return Read(html, text.strip("\r\n") and text, reader.from_html or reader.from_text, reader.formatted)


def _whole(text: str) -> str:
    """Surrogate pairs, which RTF writes as two numbers, made characters; halves made U+FFFD."""
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@dataclass(slots=True)
class _State:
    """What a group inherits and, at its end, gives back."""

    where: int = _NORMAL
    hidden: bool = False  # between \htmlrtf and \htmlrtf0
    codec: str = "cp1252"
    unicode_skip: int = 1  # \uc

    def copy(self) -> "_State":
        return _State(self.where, self.hidden, self.codec, self.unicode_skip)


@dataclass(slots=True)
class _Reader:
    document: bytes
    text: list[str] = field(default_factory=list)
    html: list[str] = field(default_factory=list)
    from_html: bool = False
    from_text: bool = False
    formatted: bool = False
    state: _State = field(default_factory=_State)
    default: str = "cp1252"
    _pending: bytearray = field(default_factory=bytearray)
    _fonts: dict[int, str] = field(default_factory=dict)
    _font: int = 0  # the one that is being defined
    _skip: int = 0  # characters after a \u that stand for it
    _starred: bool = False

    def run(self) -> None:
        stack: list[_State] = []
        at, document = 0, self.document
        match = _TOKEN.match
        while (found := match(document, at)) is not None:
            at = found.end()
            kind = found.lastgroup
            if kind == "text":
                self._bytes(found["text"])
            elif kind == "brace":
                self._flush()
                self._skip = 0
                if found["brace"] == b"{":
                    stack.append(self.state)
                    self.state = self.state.copy()
                    if len(stack) > GROUPS_MAX:
                        raise ValueError("groups are nested too deep")
                elif stack:
                    self.state = stack.pop()
            elif kind == "hex":
                self._bytes(bytes([int(found["hex"], 16)]))
            elif kind == "symbol":
                self._symbol(found["symbol"])
            elif found["word"] is not None:
                number = int(found["number"]) if found["number"] is not None else None
                if found["word"] == b"bin":
                    at += max(0, number or 0)
                else:
                    self._word(found["word"], number)
        self._flush()

    def _bytes(self, raw: bytes) -> None:
        if self._skip:
            taken = min(self._skip, len(raw))
            self._skip -= taken
            raw = raw[taken:]
        self._starred = False
        self._pending += raw

    def _flush(self) -> None:
        """Give out the bytes that are gathered, now that what they mean is about to change."""
        if self._pending:
            if self.state.where in (_NORMAL, _TAG):
                self._give(self._pending.decode(self.state.codec, "replace"))
            self._pending.clear()

    def _give(self, text: str, entity: str | None = None) -> None:
        """Text of the document, of a tag, or of neither."""
        state = self.state
        if state.where == _TAG:
            self.html.append(text)
        elif state.where == _NORMAL:
            self.text.append(text)
            if not state.hidden:
                self.html.append(text if entity is None else entity)

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._starred = True
            return
        if symbol in b"{}\\":
            self._bytes(symbol)
            return
        self._flush()
        if symbol in _SYMBOLS:
            self._give(*_SYMBOLS[symbol])
        elif symbol in b"\r\n":
            self._give("\r\n")

    def _word(self, word: bytes, number: int | None) -> None:
        starred, self._starred = self._starred, False
        self._flush()
        if word == b"u":
            self._unicode(number or 0)
            return
        if self._skip:  # a control word counts as one character
            self._skip -= 1
            return
        if word == b"htmlrtf":
            self.state.hidden = number != 0
        elif word == b"htmltag" and starred:
            self.state.where = _TAG if self.state.where != _SKIP else _SKIP
            self.state.codec = self.default
        elif word == b"fonttbl":
            self.state.where = _FONTS
        elif word in _HIDDEN or (starred and word not in (b"shppict",)):
            self.formatted |= word in _FORMATTING
            self.state.where = _SKIP
        elif word in _SPACES:
            self._give(_SPACES[word])
        elif word in _SIGNS:
            self._give(*_SIGNS[word])
        elif not self._setting(word, number):
            self.formatted |= word in _FORMATTING and number != 0 and self.state.where == _NORMAL

    def _setting(self, word: bytes, number: int | None) -> bool:
        """Codepages, fonts, and what kind of document it is. Whether it was one of these."""
        if word == b"ansicpg":
            self.default = self.state.codec = _codec(number or 1252)
        elif word == b"f" and number is not None:
            if self.state.where == _FONTS:
                self._font = number
            elif self.state.where == _NORMAL:
                self.state.codec = self._fonts.get(number, self.default)
        elif word in (b"fcharset", b"cpg") and self.state.where == _FONTS and number is not None:
            page = number if word == b"cpg" else _FONT_CHARSETS.get(number, 0)
            if page and len(self._fonts) < GROUPS_MAX:
                # ANSI says of a font that it is no other; the text may still be of the document's own codepage.
                self._fonts[self._font] = self.default if page == 1252 else _codec(page)
        elif word == b"plain":
            self.state.codec = self.default
        elif word == b"uc":
            self.state.unicode_skip = max(0, min(number or 0, 1000))
        elif word == b"fromhtml":
            self.from_html = number != 0
        elif word == b"fromtext":
            self.from_text = True
        else:
            return False
        return True

    def _unicode(self, number: int) -> None:
        code = number + 65536 if number < 0 else number
        self._skip = self.state.unicode_skip
        if 0 < code < 65536:
            self._give(chr(code))


def _codec(page: int) -> str:
    names = {10000: "mac-roman", 65001: "utf-8", 1361: "johab", 28591: "cp1252", 20127: "cp1252"}
    return codec_name(names.get(page, f"cp{page}")) or "cp1252"
