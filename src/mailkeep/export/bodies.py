"""The body of an item of Outlook, out of the up to three forms that a file keeps: text, HTML, RTF.

HTML is bytes in a codepage, and stays those bytes, so that nothing is lost by a wrong label. RTF is compressed, and
either HTML in disguise (what Outlook makes of a mail's HTML) or a document of its own; then text is taken out of it,
and the document goes along as one more form.

The hard idea: which form the sender wrote. Outlook keeps a text beside every HTML and often an HTML beside a text. The
Content-Type that the message came with tells, else NATIVE_BODY; where neither does, both forms go out as alternatives.
"""

import re
from dataclasses import dataclass, field
from html import escape
from typing import Final
from urllib.parse import unquote

from mailkeep.export import mapi, rtf
from mailkeep.export.mapi import Item, bytes_of, number_of, text_of
from mailkeep.export.outlook_items import Extra
from mailkeep.export.rtf_text import read as read_rtf
from mailkeep.mail.compose import Leaf, Part
from mailkeep.mail.header import codec_name

_RTF_MAX: Final = 64 << 20

# [MS-UCODEPAGEREF], as MIME calls them. What is not a superset of ASCII is written as UTF-8 instead.
_CHARSETS: Final = {
    437: "ibm437", 708: "iso-8859-6", 720: "ibm720", 737: "ibm737", 775: "ibm775", 850: "ibm850", 852: "ibm852",
    855: "ibm855", 857: "ibm857", 858: "ibm00858", 860: "ibm860", 861: "ibm861", 862: "ibm862", 863: "ibm863",
    864: "ibm864", 865: "ibm865", 866: "ibm866", 869: "ibm869", 874: "windows-874", 932: "shift_jis", 936: "gb2312",
    949: "ks_c_5601-1987", 950: "big5", 1250: "windows-1250", 1251: "windows-1251", 1252: "windows-1252",
    1253: "windows-1253", 1254: "windows-1254", 1255: "windows-1255", 1256: "windows-1256", 1257: "windows-1257",
    1258: "windows-1258", 10000: "macintosh", 20127: "us-ascii", 20866: "koi8-r", 20932: "euc-jp", 20936: "gb2312",
    20949: "ks_c_5601-1987", 21866: "koi8-u", 28591: "iso-8859-1", 28592: "iso-8859-2", 28593: "iso-8859-3",
    28594: "iso-8859-4", 28595: "iso-8859-5", 28596: "iso-8859-6", 28597: "iso-8859-7", 28598: "iso-8859-8",
    28599: "iso-8859-9", 28603: "iso-8859-13", 28605: "iso-8859-15", 38598: "iso-8859-8-i", 50220: "iso-2022-jp",
    50221: "iso-2022-jp", 50222: "iso-2022-jp", 50225: "iso-2022-kr", 51932: "euc-jp", 51936: "gb2312",
    51949: "euc-kr", 52936: "hz-gb-2312", 54936: "gb18030", 65001: "utf-8",
}  # fmt: skip
_WIDE: Final = {1200: "utf-16-le", 1201: "utf-16-be", 12000: "utf-32-le", 12001: "utf-32-be", 65000: "utf-7"}


@dataclass(slots=True)
class Bodies:
    """The forms of a body. `identifiers`: what the HTML refers to (cid: and src=), in lower case, without "cid:"."""

    text: Leaf | None = None
    html: Leaf | None = None
    more: list[Part] = field(default_factory=list)
    attached: list[Part] = field(default_factory=list)
    identifiers: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)


def bodies_of(item: Item, extra: Extra | None, content_type: str) -> Bodies:
    """What the message says. `content_type`: as it was sent, in lower case; "" when it is not known. Never raises."""
    found = Bodies()
    text = text_of(item.properties, mapi.BODY) or text_of(item.properties, mapi.REPORT_TEXT)
    html = _html(item, found.problems)
    document = b""
    if html is None and mapi.RTF_COMPRESSED in item.properties:
        text, html, document = _from_rtf(item, text, found.problems)
    only = _only_form(item, content_type, text=bool(text), html=html is not None)
    if only == "text":
        html = None
    elif only == "html":
        text = ""
    if extra is not None and extra.facts:
        text = _facts_text(extra) + text
        html = None if html is None else _with_facts(html, extra)
    found.html = html
    if text or (html is None and mapi.BODY in item.properties):
        found.text = Leaf("text/plain", text)
    if html is not None:
        found.identifiers = _identifiers(html)
    if document:
        found.more.append(Leaf("application/rtf", document, "body.rtf"))
    if extra is not None:
        found.more += extra.forms
        found.attached += extra.attached
    return found


def _only_form(item: Item, content_type: str, *, text: bool, html: bool) -> str:
    """ "text" or "html" when the message came in that form alone, "" else."""
    if not (text and html):
        return ""
    native = number_of(item.properties, mapi.NATIVE_BODY)
    if content_type.startswith("text/html"):
        return "html"
    if content_type.startswith("text/plain") and native != mapi.NATIVE_HTML:
        return "text"
    return "text" if native == mapi.NATIVE_TEXT and not content_type else ""


# --- HTML ------------------------------------------------------------------------------------------------------------


def _html(item: Item, problems: list[str]) -> Leaf | None:
    value = item.properties.get(mapi.HTML)
    if isinstance(value, str):
        return Leaf("text/html", mapi.clean(value)) if value.strip() else None
    if not isinstance(value, bytes) or not value.strip(b"\0\r\n\t "):
        return None
    value = value.rstrip(b"\0")
    number = number_of(item.properties, mapi.INTERNET_CODEPAGE) or number_of(item.properties, mapi.MESSAGE_CODEPAGE)
    if number in _WIDE:
        if b"<" in value[:4096] and b"<\0" not in value[:4096] and b"\0<" not in value[:4096]:
            return _labelled(value, None, problems)  # the label is of the text, and wrong for these bytes
        return Leaf("text/html", mapi.clean(value.decode(_WIDE[number], "replace")))
    return _labelled(value, _CHARSETS.get(number), problems)


_META: Final = re.compile(rb"(?i)<meta[^>]{0,300}?charset\s*=\s*[\"']?([a-z0-9_:.-]{1,40})")


def _labelled(value: bytes, charset: str | None, problems: list[str]) -> Leaf:
    """The bytes as they are, with a charset in which they can be read."""
    if value.isascii() and b"\x1b" not in value and charset != "hz-gb-2312":
        return Leaf("text/html", value, parameters=(("charset", "us-ascii"),))
    meta = _META.search(value[:8192])
    said = meta[1].decode("ascii").lower() if meta is not None else None
    for name in (charset, said, "utf-8"):
        if name is not None and name != "us-ascii" and _reads(value, name):
            return Leaf("text/html", value, parameters=(("charset", name),))
    problems.append("the HTML is not in the charset that it is labelled with")
    return Leaf("text/html", value, parameters=(("charset", charset or said or "windows-1252"),))


def _reads(value: bytes, charset: str) -> bool:
    codec = codec_name(charset)
    if codec is None or codec.startswith(("utf_16", "utf-16", "utf_32", "utf-32", "utf-7", "utf_7")):
        return False
    try:
        value.decode(codec)
    except (UnicodeDecodeError, ValueError):
        return False
    return True


# An identifier in HTML ends at a quote, white space, or what closes a tag, an url() or an attribute.
_REFERENCE: Final = re.compile(rb"(?i)(?:cid:|src\s{0,9}=\s{0,9}[\"']?)([^\"'\s>)]{1,500})")


def _identifiers(html: Leaf) -> frozenset[str]:
    data = html.data if isinstance(html.data, bytes) else html.data.encode("utf-8", "replace")
    found = (unquote(match[1].decode("utf-8", "replace")).lower() for match in _REFERENCE.finditer(data))
    return frozenset(name.removeprefix("cid:") for name in found)


# --- facts above the body --------------------------------------------------------------------------------------------

_BODY_TAG: Final = re.compile(rb"(?i)<body(?:\s[^>]{0,5000})?>")


def _facts_text(extra: Extra) -> str:
    lines = [f"{label}: {value}".rstrip() for label, value in extra.facts]
    return "\r\n".join([*lines, "", ""])


def _with_facts(html: Leaf, extra: Extra) -> Leaf:
    """The HTML with the facts at the top of its body, in ASCII, whatever its charset."""
    rows = "".join(
        f'<tr><th align="left" valign="top">{escape(label)}</th><td>{escape(value)}</td></tr>'.replace("\r\n", "<br>")
        for label, value in extra.facts
    )
    table = f"<table>{rows}</table><hr>".encode("ascii", "xmlcharrefreplace")
    data = html.data if isinstance(html.data, bytes) else html.data.encode("utf-8", "replace")
    match = _BODY_TAG.search(data)
    at = match.end() if match is not None else 0
    data = data[:at] + table + data[at:]
    if isinstance(html.data, bytes):
        return Leaf(html.media_type, data, parameters=html.parameters)
    return Leaf(html.media_type, data.decode("utf-8", "replace"))


# --- RTF -------------------------------------------------------------------------------------------------------------


def _from_rtf(item: Item, text: str, problems: list[str]) -> tuple[str, Leaf | None, bytes]:
    """Text, HTML, and the document itself where it is more than a way to keep these."""
    packed = bytes_of(item.properties, mapi.RTF_COMPRESSED)
    if not packed:
        return text, None, b""
    try:
        document = rtf.decompress(packed, size_max=_RTF_MAX)
        read = read_rtf(document)
    except ValueError as error:
        problems.append(f"the rich text of the body cannot be read: {error}")
        return text, None, b""
    if read.html is not None:
        return text, Leaf("text/html", mapi.clean(read.html)), b""
    if read.encapsulated or not read.formatted:
        return text or mapi.clean(read.text), None, b""
    return text or mapi.clean(read.text), None, document
