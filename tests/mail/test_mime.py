"""The scanner: parts, offsets that tile the bytes, limits, and time that grows no faster than the message."""

import mmap
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailkeep.mail.header import Buffer
from mailkeep.mail.mime import NESTING_MAX, PARTS_MAX, Part, scan
from mailkeep.mail.structure import render
from tests import messages


def check_tiling(part: Part, data: bytes) -> None:
    """Header and body tile the part; its children lie in order inside its body."""
    assert part.start <= part.body <= part.end <= len(data)
    assert part.lines == data.count(b"\n", part.body, part.end)
    place = part.body
    for child in part.children:
        assert place <= child.start and child.end <= part.end
        place = child.end
        check_tiling(child, data)
    assert not part.children or part.is_multipart or (part.is_message and len(part.children) == 1)
    assert not part.is_message or part.children[0].start == part.body


def check(data: bytes) -> Part:
    root = scan(data)
    assert (root.start, root.end) == (0, len(data))
    check_tiling(root, data)
    return root


def shape(part: Part) -> Any:
    """The tree as nested lists of types."""
    name = f"{part.type}/{part.subtype}"
    return [name, *[shape(child) for child in part.children]] if part.children else name


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


MIXED = "Content-Type: multipart/mixed; boundary=b\n\n"
INNER = "Content-Type: multipart/alternative; boundary=i\n\n"
HTML = "Content-Type: text/html\n\n"

SHAPES = [
    ("plain", "A: b\n\nbody\n", "text/plain"),
    ("nothing", "", "text/plain"),
    ("no blank line", "A: b\n", "text/plain"),
    ("type without subtype", "Content-Type: text\n\nx", "text/plain"),
    ("unreadable type", "Content-Type: ;\n\nx", "text/plain"),
    ("a name that is no type", "Content-Type: gzip\n\nx", "application/octet-stream"),
    ("not MIME", "Content-Transfer-Encoding: base64\n\nx", "text/plain"),
    ("two parts", MIXED + "--b\n\nx\n--b\n" + HTML + "y\n--b--\n", ["multipart/mixed", "text/plain", "text/html"]),
    ("preamble and epilogue", MIXED + "pre\n--b\n\nx\n--b--\nepi\n", ["multipart/mixed", "text/plain"]),
    ("no final boundary", MIXED + "--b\n\nx\n", ["multipart/mixed", "text/plain"]),
    ("no boundary parameter", "Content-Type: multipart/mixed\n\n--b\n\nx\n--b--\n", "multipart/mixed"),
    ("no parts", MIXED + "text\n", "multipart/mixed"),
    ("closed at once", MIXED + "--b--\n", "multipart/mixed"),
    ("a boundary right after a boundary", MIXED + "--b\n--b\n\nx\n", ["multipart/mixed", "text/plain", "text/plain"]),
    ("header cut by a boundary", MIXED + "--b\nA: b\n--b\n\nx", ["multipart/mixed", "text/plain", "text/plain"]),
    ("boundary at the very end", MIXED + "--b\n\nx\n--b", ["multipart/mixed", "text/plain"]),
    ("a boundary line with a tail", MIXED + "--b \n\nx\n--bx\n\ny\n", ["multipart/mixed", "text/plain", "text/plain"]),
    ("quoted boundary", MIXED.replace("=b", '="b"') + "--b\n\nx\n", ["multipart/mixed", "text/plain"]),
    (
        "an outer boundary ends an inner multipart",
        MIXED + "--b\n" + INNER + "--i\n\nx\n--b\n\ny\n--b--\n",
        ["multipart/mixed", ["multipart/alternative", "text/plain"], "text/plain"],
    ),
    (
        "the same boundary twice: the inner one wins",
        MIXED + "--b\n" + INNER.replace("=i", "=b") + "--b\n\nx\n--b--\n--b\n\ny\n",
        ["multipart/mixed", ["multipart/alternative", "text/plain"], "text/plain"],
    ),
    (
        "one boundary starts with the other: the longer one wins",
        MIXED + "--b\n" + INNER.replace("=i", "=bb") + "--bb\n\nx\n--bb--\n--b--\n",
        ["multipart/mixed", ["multipart/alternative", "text/plain"]],
    ),
    ("a message", "Content-Type: message/rfc822\n\nSubject: x\n\nbody", ["message/rfc822", "text/plain"]),
    (
        "an empty message",
        MIXED + "--b\nContent-Type: message/rfc822\n--b--\n",
        ["multipart/mixed", ["message/rfc822", "text/plain"]],
    ),
    (
        "a message with parts",
        MIXED + "--b\nContent-Type: message/rfc822\n\n" + INNER + "--i\n\nx\n--i--\n--b--\n",
        ["multipart/mixed", ["message/rfc822", ["multipart/alternative", "text/plain"]]],
    ),
    (
        "digest",
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\ny\n--b\n" + HTML + "z\n--b--\n",
        ["multipart/digest", ["message/rfc822", "text/plain"], "text/html"],
    ),
    ("a type that is followed by rubbish", "Content-Type: image/png name=x\n\nx", "image/png"),
    ("dashes in text", MIXED + "--b\n\n--\n-- \n--c\n--b--", ["multipart/mixed", "text/plain"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES])
@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_shapes(text: str, expected: Any, line_end: str) -> None:
    assert shape(check(text.replace("\n", line_end).encode())) == expected


def test_the_line_break_before_a_boundary_is_the_boundary_s() -> None:
    data = crlf(MIXED + "--b\n\nx\n\n--b\nContent-Type: image/png\n\n--b--\n")
    first, second = check(data).children
    assert data[first.body : first.end] == b"x\r\n"
    assert data[second.start : second.body] == b"Content-Type: image/png\r\n"
    assert second.body == second.end


def test_fields_of_a_part() -> None:
    part = check(
        crlf(
            'content-type: Image/PNG; NAME="a b.png"; (c) x*0=1; x*1=2\nContent-Transfer-Encoding: Base64\n'
            "Content-ID: <i@d>\nContent-Description: a\n b\nContent-MD5: m\nContent-Language: en, de\n"
            "Content-Location: http://x/\nContent-Disposition: attachment; filename*=utf-8''%C3%A9\n\n"
        )
    )
    assert (part.type, part.subtype, part.encoding) == ("image", "png", "Base64")
    assert part.params == ((b"NAME", b"a b.png"), (b"x", b"12"))
    assert (part.id, part.description, part.md5, part.location) == (b"<i@d>", b"a\n b", b"m", b"http://x/")
    assert part.language == (b"en", b"de")
    assert part.disposition is not None
    assert part.disposition == (b"attachment", ((b"filename*", b"utf-8''%C3%A9"),))


# RFC 2231 sections 3, 4 and 4.1.
PARAMETERS = [
    (
        b'access-type=URL; URL*0="ftp://"; URL*1="cs.utk.edu/x"',
        ((b"access-type", b"URL"), (b"URL", b"ftp://cs.utk.edu/x")),
    ),
    (b"title*=us-ascii'en-us'This%20is", ((b"title*", b"us-ascii'en-us'This%20is"),)),
    (
        b"title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2=\"isn't it!\"",
        ((b"title*", b"us-ascii'en'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn't it!"),),
    ),
    (b"a*1=y; a*0=x", ((b"a", b"xy"),)),
    (b"a*0=x; a*2=y", ((b"a*0", b"x"), (b"a*2", b"y"))),
    (b"a=1; b; c=2", ((b"a", b"1"),)),  # as Dovecot: what stops a parameter is skipped with it
    (b"a=1; =; c=2", ((b"a", b"1"), (b"", b""), (b"c", b"2"))),
    (b'a="unfinished', ()),
    (b"a==?utf-8?q?x?=", ((b"a", b"=?utf-8?q?x?="),)),
]


@pytest.mark.parametrize(("text", "params"), PARAMETERS)
def test_parameters(text: bytes, params: Any) -> None:
    assert check(b"Content-Type: application/x; " + text + b"\r\n\r\n").params == params


def test_repeated_fields() -> None:
    fields = check(
        b"To: a\r\nTo: b\r\nSubject: 1\r\nSubject: 2\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n"
    ).fields
    assert (fields[b"to"], fields[b"subject"], fields[b"content-type"]) == (b"a\0b", b"2", b"a/b")


def test_all_kinds_of_buffers() -> None:
    data = crlf(MIXED + "--b\n\nx\n--b\n" + HTML + "y\n--b--\n")
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        buffers: list[Buffer] = [data, mapped, memoryview(data)]
        assert len({repr(scan(buffer)) for buffer in buffers}) == 1
        assert len({repr(render(buffer)) for buffer in buffers}) == 1


def depth(part: Part) -> int:
    level, parts = 0, [part]
    while parts:
        parts = [child for part in parts for child in part.children]
        level += 1
    return level


def nested(levels: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(levels))


def count(part: Part) -> int:
    return 1 + sum(count(child) for child in part.children)


def test_nesting_is_limited() -> None:
    assert depth(check(nested(NESTING_MAX // 2))) == NESTING_MAX // 2 + 1
    assert depth(check(nested(NESTING_MAX * 5))) <= NESTING_MAX + 1
    assert depth(check(b"Content-Type: message/rfc822\r\n\r\n" * NESTING_MAX * 5)) <= NESTING_MAX + 1


def test_parts_are_limited() -> None:
    data = crlf(MIXED) + b"--b\r\n\r\nx\r\n" * (PARTS_MAX + 500)
    assert count(check(data)) == PARTS_MAX
    digest = b"Content-Type: multipart/digest; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * (PARTS_MAX + 500)
    assert count(check(digest)) <= PARTS_MAX + 1


@pytest.mark.parametrize("name", [name for name, _ in messages.corpus()])
def test_corpus(name: str) -> None:
    data = dict(messages.corpus())[name]
    check(data)
    assert render(data).size == len(data)


LINES = st.sampled_from([
    b"", b"text", b"--", b"--b", b"--b--", b"--i", b"--i--", b"--bb", b"-- ", b"A: b", b" fold", b"MIME-Version: 1.0",
    b"Content-Type: message/rfc822", b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: multipart/x",
    b"Content-Type: multipart/digest; boundary=i", b"Content-Type: multipart/mixed; boundary=bb", b"\xff\0",
    b"Content-Disposition: a; b=c",
])  # fmt: skip


@given(
    st.lists(st.tuples(LINES, st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r"])).map(b"".join), max_size=40).map(
        b"".join
    )
)
@settings(max_examples=300)
def test_ugly_lines(data: bytes) -> None:
    check(data)
    rendered = render(data)
    for wire in (rendered.envelope, rendered.body, rendered.bodystructure):
        assert wire.isascii()


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    check(data)
    render(data)


def operations(run: Callable[[], object]) -> int:
    """How many lines of Python a call runs."""
    steps = 0

    def step(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        run()
    finally:
        sys.settrace(before)
    return steps


GROWING: list[tuple[str, Callable[[int], bytes]]] = [
    ("parts", lambda n: crlf(MIXED) + b"--b\r\n\r\nx\r\n" * n),
    ("parts without blank lines", lambda n: crlf(MIXED) + b"--b\nA\n" * n),
    ("lines that look like boundaries", lambda n: nested(20) + b"\n--b" * n),
    ("digest", lambda n: b"Content-Type: multipart/digest; boundary=b\r\n\r\n" + b"--b\r\n\r\nA: b\r\n\r\n" * n),
    ("recipients", lambda n: b"To: " + b'"a" (c) <b@c>, ' * n + b"\r\n\r\n"),
    ("words", lambda n: b"Subject: " + b"=?utf-8?q?a?= \xc3\xa9 " * n + b"\r\n\r\n"),
    ("comments", lambda n: b"To: " + b"(" * n + b"\r\n\r\n"),
    ("parameters", lambda n: b"Content-Type: a/b" + b"; x*1=y" * n + b"\r\n\r\n"),
    ("fields", lambda n: b"To: a\r\nX: y\r\n" * n),
]


@pytest.mark.parametrize("make", [case[1] for case in GROWING], ids=[case[0] for case in GROWING])
def test_work_grows_with_size(make: Callable[[int], bytes]) -> None:
    small, large = make(1000), make(4000)
    render(small)
    assert operations(lambda: render(large)) < 5 * operations(lambda: render(small)) + 5000
