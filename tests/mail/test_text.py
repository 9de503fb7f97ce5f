"""What a search looks through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.mail.header import header_end
from mailkeep.mail.text import TEXT_MAX, html_text, normalise, searchable
from tests import messages


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize(
    ("needle", "haystack"),
    [
        ("STRASSE", "Hauptstraße"),
        ("ÉCOLE", "l'e\u0301cole"),
        ("σοφος", "ΣΟΦΟΣ"),
        ("ﬁle", "FILE"),
        ("a\r\nb", "a\nb"),
        ("İ".lower(), "İ"),
    ],
)
def test_normalise_finds(needle: str, haystack: str) -> None:
    assert normalise(needle) in normalise(haystack)


@given(st.text(max_size=60))
def test_normalise_twice_is_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


BODIES = [
    (
        "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nFr=F6sche=\n!",
        "frösche!",
    ),
    ("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw4lDT0xF", "école"),
    ("Content-Type: text/html\n\n<style>no</style><p>Caf&eacute; <b>au</b> lait</p>", "café au lait"),
    ('Content-Type: application/pdf; name="=?utf-8?q?r=C3=A9sum=C3=A9?=.pdf"\n\nx', "résumé.pdf"),
    ("Content-Disposition: attachment; filename*=utf-8''%C3%A9.txt\nContent-Type: image/png\n\n", "é.txt"),
    ("Content-Type: message/rfc822\n\nSubject: =?utf-8?q?inn=C3=A9r?=\n\ntext", "innér"),
    ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b--\n", "two"),
    ("Content-Type: text/plain; charset=x-nonsense\n\ngrün", "grün"),
    ("Content-Type: text/plain; charset=gb2312\nContent-Transfer-Encoding: base64\n\n1tDOxA==", "中文"),
]


@pytest.mark.parametrize(("message", "text"), BODIES)
def test_body(message: str, text: str) -> None:
    assert text in searchable(crlf(message)).body


def test_headers_are_the_message_s_own() -> None:
    found = searchable(crlf("Subject: =?utf-8?q?H=C3=89?=\n LLO\nX-Any: Thing\n\nBody"))
    assert found.headers == "subject: hé llo\nx-any: thing"
    assert found.body == "body"
    assert "no" not in searchable(crlf("Content-Type: text/html\n\n<script>no</script><title>no</title>")).body


def test_pictures_are_not_text() -> None:
    assert searchable(crlf("Content-Type: image/png\n\nhello")).body == ""


@pytest.mark.parametrize(
    "tag", ["<div>", "<b>", "<table><tr><td>", "<b x=1><p>", "</b><div>", "<", "<a b='", "<!--", "<svg><p>"]
)
def test_hostile_html(tag: str) -> None:
    # Parsers take quadratic time on some of these: they are stripped of tags instead.
    html_text("word " + tag * 20_000)


def test_output_is_bounded() -> None:
    data = b"Content-Type: text/plain\r\n\r\n" + b"a" * (TEXT_MAX + 1000)
    assert len(searchable(data).body) <= TEXT_MAX
    parts = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + (b"--b\r\n\r\n" + b"a" * (TEXT_MAX // 3) + b"\r\n") * 5
    )
    assert len(searchable(parts).body) <= TEXT_MAX + 10


@pytest.mark.parametrize("name", [name for name, _ in messages.corpus()])
def test_corpus(name: str) -> None:
    data = dict(messages.corpus())[name]
    assert searchable(data).headers or not data[: header_end(data)].strip()


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    searchable(b"Content-Type: text/html; charset=utf-7\r\n" + data)
    searchable(data)
