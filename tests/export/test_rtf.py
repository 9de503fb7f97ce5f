"""Rich text: unpacked as Exchange packs it, and HTML and text taken out of it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.export import rtf
from mailkeep.export.rtf_text import read


def packed(plain: bytes) -> bytes:
    """Compressed without finding anything twice: literals only, then the end."""
    out = bytearray()
    at = len(rtf._START)
    pieces = [plain[i : i + 8] for i in range(0, len(plain), 8)]
    for piece in pieces:
        if len(piece) == 8:
            out += b"\0" + piece
    last = pieces[-1] if pieces and len(pieces[-1]) < 8 else b""
    end = (at + len(plain)) % 4096
    out += bytes([1 << len(last)]) + last + bytes([end >> 4, end << 4 & 0xF0])
    return struct.pack("<II4sI", len(out) + 12, len(plain), b"LZFu", 0) + bytes(out)


@given(st.binary(max_size=9000))
def test_literals_are_unpacked(plain: bytes) -> None:
    assert rtf.decompress(packed(plain)) == plain


def test_the_example_of_the_specification_is_unpacked() -> None:
    # [MS-OXRTFCP] section 4.1.1
    data = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
    )
    assert rtf.decompress(data) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"


def test_a_run_that_overlaps_itself_repeats() -> None:
    # [MS-OXRTFCP] section 4.1.2: a reference to what it is just writing.
    data = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")
    assert rtf.decompress(data) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"


def test_what_is_not_compressed_is_taken_as_it_is() -> None:
    plain = b"{\\rtf1 x}"
    assert rtf.decompress(struct.pack("<II4sI", len(plain) + 12, len(plain), b"MELA", 0) + plain) == plain


@pytest.mark.parametrize("data", [b"", b"x" * 15, b"x" * 40, packed(b"x")[:8] + b"ABCD" + bytes(9)])
def test_other_data_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="rich text"):
        rtf.decompress(data)


def test_it_does_not_grow_beyond_its_bound() -> None:
    # References to what was written last, seventeen bytes each: as good as it gets.
    out = bytearray(b"\0" + b"abcdefgh")
    at = len(rtf._START) + 8
    for _ in range(20_000):
        out.append(0xFF)
        for _ in range(8):
            offset = (at - 8) % 4096
            out += bytes([offset >> 4, (offset & 15) << 4 | 15])
            at += 17
    data = struct.pack("<II4sI", len(out) + 12, 1, b"LZFu", 0) + bytes(out)
    assert len(rtf.decompress(data)) == 8 + 20_000 * 8 * 17
    with pytest.raises(ValueError, match="more than 1 MiB"):
        rtf.decompress(data, size_max=1 << 20)


@given(st.binary(max_size=500))
def test_damage_gives_what_is_there_or_says_so(noise: bytes) -> None:
    data = packed(b"{\\rtf1 hello}")
    rtf.decompress(data[:16] + noise)
    rtf.decompress(data[: 16 + len(noise) % len(data)])


# --- what it says ----------------------------------------------------------------------------------------------------


def test_html_is_taken_out_of_its_wrapping() -> None:
    document = (
        rb"{\rtf1\ansi\ansicpg1251\fromhtml1 \deff0{\fonttbl{\f0\fswiss Arial;}{\f1\fmodern Courier;}}"
        rb"{\colortbl\red0\green0\blue0;}"
        b"\r\n"
        rb"{\*\generator Exchange;}"
        rb"{\*\htmltag19 <html>}{\*\htmltag34 <head>}{\*\htmltag1 \par }{\*\htmltag161 <meta name=\'22x\'22>}"
        rb"{\*\htmltag50 <body>}\htmlrtf {\htmlrtf0 "
        rb"{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 \'cf\'f0\'e8 a{\*\htmltag84 &lt;}\htmlrtf <\htmlrtf0 b\{c\}"
        rb"{\*\mhtmltag4 <img src=mangled>}{\*\htmltag84 <img src=\'22cid:x\'22>}"
        rb"{\*\htmltag84 &nbsp;}\htmlrtf \'a0\htmlrtf0 \tab \u8364?\htmlrtf\par}\htmlrtf0"
        rb"{\*\htmltag72 </p>}{\*\htmltag58 </body>}}}"
    )
    found = read(document)
    assert found.encapsulated
    assert found.html == ('<html><head>\r\n<meta name="x"><body><p>При a&lt;b{c}<img src="cid:x">&nbsp;\t€</p></body>')


def test_text_of_a_document() -> None:
    document = (
        rb"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Arial;}{\f1\fcharset128 MS Gothic;}}{\stylesheet{\s0 Normal;}}"
        rb"{\info{\author Secret}}\pard Hello \b bold\b0\par "
        rb"\f1\'82\'a0\'83A\f0  \u-10179?\u-8704?\uc2\u228 ab\uc1 c\par"
        rb"{\field{\*\fldinst HYPERLINK x}{\fldrslt link}}{\pict\bin4 }}}}}{\'41}\lquote q\rquote\~\emdash}"
    )
    found = read(document)
    assert not found.encapsulated
    assert found.html is None
    assert found.formatted
    assert found.text == "Hello bold\r\nあア 😀äc\r\nlinkA‘q’\u00a0—"


def test_text_in_a_wrapping_is_only_text() -> None:
    found = read(rb"{\rtf1\ansi\fromtext \fbidis \deff0{\fonttbl{\f0 A;}}\pard line one\par line two}")
    assert (found.encapsulated, found.html, found.text) == (True, None, "line one\r\nline two")


def test_other_things_are_no_rich_text() -> None:
    for data in (b"", b"hello", b"<html>"):
        with pytest.raises(ValueError, match="rich text"):
            read(data)
    with pytest.raises(ValueError, match="nested"):
        read(b"{\\rtf1" + b"{" * 20_000)


PIECES = [
    b"{", b"}", b"\\'", b"\\'e4", b"\\u", b"\\u-1", b"\\bin", b"\\bin99999999", b"\\*", b"\\", b"\\htmltag1 ", b"x",
    b"\\htmlrtf", b"\\htmlrtf0 ", b"\\fonttbl", b"\\f1", b"\\fcharset128", b"\\uc9", b"\xff", b"\\par",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_garbage_is_read_somehow(pieces: list[bytes]) -> None:
    found = read(b"{\\rtf1\\fromhtml1 " + b"".join(pieces))
    assert found.html is not None
    found.html.encode()
