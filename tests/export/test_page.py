"""The page of a message."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from mailkeep.export.page import EMBEDDED_MAX, Show, page, picture_type, problem_page
from mailkeep.export.page_style import SHEETS
from mailkeep.export.writer import Folder, Message
from mailkeep.mail.letter import Attachment, letter_of
from tests import messages
from tests.messages import crlf

PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 50
INLINE = (
    "Content-Type: image/png; name=a.png\nContent-ID: <a@x>\nContent-Transfer-Encoding: base64\n\n"
    f"{base64.b64encode(PNG).decode()}\n"
)
HEAD = (
    "From: Ann <ann@x.org>\nTo: Bob <bob@x.org>\nSubject: hello\nDate: Tue, 20 Jan 2026 10:00:00 +0530\n"
    "MIME-Version: 1.0\n"
)


def nothing(_: Attachment) -> None:
    return None


def message(data: bytes, *flags: str) -> Message:
    return Message(1, Folder("INBOX", ("INBOX",)), 7, frozenset(flags), 1_768_903_200, data)


def made(text: str, *flags: str, show: Show | None = None) -> str:
    data = crlf(text.encode())
    return page(message(data, *flags), letter_of(data), show or Show(lambda one: f"f/{one.number}.png", nothing))


def seen(html: str) -> str:
    """The text of a page as a reader sees it."""
    body = LexborHTMLParser(html).body
    assert body is not None
    return body.text()


def plain(text: str, **show: str) -> str:
    given_ = Show(nothing, nothing, **show)  # type: ignore[arg-type]
    return made(f"{HEAD}Content-Type: text/plain; charset=utf-8\n\n{text}", show=given_)


def test_a_page_of_plain_text() -> None:
    html = made(HEAD + "\nbody\n", "\\Seen", "\\Flagged", "Work")
    assert html.startswith('<!DOCTYPE html>\n<html><head><meta charset="utf-8">')
    assert "default-src 'none'" in html
    assert "<title>hello</title>" in html
    text = seen(html)
    for part in (
        "Ann <ann@x.org>",
        "Bob <bob@x.org>",
        "Tuesday, 20 January 2026, 10:00 +0530",
        "Flagged",
        "Work",
        "body",
    ):
        assert part in text
    assert "Unread" not in text
    assert "Unread" in seen(made(HEAD + "\nbody\n"))


def test_a_date_that_cannot_be_read() -> None:
    assert "yesterday, came Tuesday, 20 January 2026, 10:00 UTC" in seen(made("Date: yesterday\n\nx"))
    assert "Datecame Tuesday, 20 January 2026" in seen(made("From: a@x.org\n\nx"))


def test_what_is_written_is_escaped() -> None:
    hostile = "<script>alert(1)</script>\"'&amp;"
    html = made(f'From: "{hostile[:25]}" <a@x.org>\nSubject: {hostile}\n\n{hostile}\x07\n')
    assert "<script" not in html
    assert seen(html).count(hostile) == 2


def test_names_cannot_be_turned_around() -> None:
    text = (
        "From: =?utf-8?q?=E2=80=AEnnA?= <a@x.org>\nContent-Type: application/x; name*=utf-8''in-%E2%80%AEgpj.exe\n\nx"
    )
    html = made(text, show=Show(nothing, lambda _: "f"))
    assert "\u202e" not in html
    assert "<bdi>in-gpj.exe</bdi>" in html
    assert "<bdi>nnA</bdi>" in html


LINKS = [
    ("see https://x.org/a?b=1&c=2.", ["https://x.org/a?b=1&c=2"]),
    ("(https://x.org/a)", ["https://x.org/a"]),
    ("https://x.org/a_(b) and", ["https://x.org/a_(b)"]),
    ("<https://x.org/>, www.x.org!", ["https://x.org/", "https://www.x.org"]),
    ("javascript:alert(1) ftp://x.org", []),
    ('https://x.org/"onclick="alert(1)', ["https://x.org/"]),
]


@pytest.mark.parametrize(("text", "links"), LINKS)
def test_links_in_plain_text(text: str, links: list[str]) -> None:
    tree = LexborHTMLParser(plain(text))
    assert [node.attributes["href"] for node in tree.css("a")] == links
    assert all("noreferrer" in (node.attributes["rel"] or "") for node in tree.css("a"))
    assert text in seen(plain(text))


def test_quotations_have_their_level() -> None:
    blocks = LexborHTMLParser(plain("one\n> two\n>> three\n> > three\nfour\n>\n")).css(".mk-text")
    assert [(node.attributes["class"], node.text().strip("\n")) for node in blocks] == [
        ("mk-text", "one"),
        ("mk-text mk-q1", "> two"),
        ("mk-text mk-q2", ">> three\n> > three"),
        ("mk-text", "four"),
        ("mk-text mk-q1", ">"),
    ]


def test_blank_lines_stay() -> None:
    html = plain("שלום\n\nEnglish\n\n> a\n\nb")
    blocks = [node.text() for node in LexborHTMLParser(html).css(".mk-text")]
    # The last break of an element makes no line.
    assert blocks == ["שלום\n\n", "English\n\n", "> a", "\n", "b"]
    assert '<div class="mk-text" dir="rtl">שלום' in html
    assert '<div class="mk-text">English' in html


def test_columns_have_letters_of_one_width() -> None:
    assert "mk-fixed" in plain("name      size\na         1\nb         2\nc         3\n").partition("<main")[2]
    assert "mk-fixed" not in plain("Dear Bob,\n\nall is well.  Really.\n").partition("<main")[2]


def test_office_programs_get_breaks() -> None:
    html = plain("a\n  b   c\n\n> d", style="office")
    assert "a<br>\u00a0\u00a0b\u00a0\u00a0\u00a0c<br>\u00a0</p>" in html
    assert '<table class="mk-head" width="100%">' in html


RELATED = (
    HEAD + "Content-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n"
    "<p class=x id=i><img src='cid:a@x'><img src='cid:svg'><img src='https://e.org/x' alt='logo'></p>"
    f"<style>.x{{color:red}}</style>\n--b\n{INLINE}--b\n"
    "Content-Type: image/png; name=b.png\nContent-ID: <svg>\n\n<svg onload=alert(1)>\n--b\n"
    "Content-Type: application/pdf; name=\"c <1>.pdf\"\n\n%PDF\n--b--\n"
)  # fmt: skip


def test_a_page_of_html() -> None:
    html = made(
        RELATED, show=Show(lambda one: f"f/{one.number}.png", lambda one: f"f/{one.number}?a&b", note=lambda _: "<n>")
    )
    tree = LexborHTMLParser(html)
    assert [node.attributes["src"] for node in tree.css(".mk-mail img")] == ["f/1.png"]
    files = tree.css(".mk-files li")
    assert [node.text() for node in files] == [
        "b.png 21 bytes, image/png, <n>",
        "c <1>.pdf 4 bytes, application/pdf, <n>",
    ]
    link = files[1].css_first("a")
    assert link is not None
    assert link.attributes == {"href": "f/3?a&b", "download": "c <1>.pdf"}
    assert ".mk-mail-1 .x{color:red}" in html
    assert "Not shown: 2 things that the message would load" in seen(html)
    assert '<section class="mk-part mk-html">' in html


def test_a_picture_that_stands_nowhere_is_shown_below() -> None:
    mixed = INLINE.replace("Content-ID: <a@x>", "Content-Disposition: inline")
    html = made(f"{HEAD}Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\n{mixed}--b--\n")
    tree = LexborHTMLParser(html)
    assert [node.attributes["src"] for node in tree.css(".mk-pictures img")] == ["f/1.png"]
    assert not tree.css(".mk-files")


def test_messages_inside_are_shown_in_their_places() -> None:
    inner = f"Content-Type: message/rfc822\n\n{RELATED.replace('hello', 'inner').replace('class=x', 'class=y')}"
    outer = "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: text/html\n\n<p id=i>outer\n--o\n"
    both = f"{HEAD}{outer}{inner}\n--o--\n"
    asked: list[int] = []

    def image(one: Attachment) -> str:
        asked.append(one.number)
        return "x"

    html = made(both, show=Show(image, nothing))
    tree = LexborHTMLParser(html)
    inside = tree.css_first(".mk-embedded")
    assert inside is not None
    assert "inner" in inside.text()
    assert "c <1>.pdf" in inside.text()
    assert [node.attributes["src"] for node in inside.css("img")] == [
        f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    ]
    assert asked == []  # a format knows nothing of their pictures
    assert {node.attributes["id"] for node in tree.css("[id]")} == {"mk-mail-1-i", "mk-mail-2-i"}
    assert ".mk-mail-2 .x{color:red}" in html
    assert [node.text() for node in tree.css(".mk-message > .mk-files li")] == [
        f"inner.eml {len(crlf(inner.encode())) - 32} bytes, message/rfc822"
    ]


def test_messages_inside_have_limits() -> None:
    deep = HEAD + "\nthe first\n"
    for _ in range(40):
        deep = HEAD + "Content-Type: message/rfc822\n\n" + deep
    assert made(deep).count('<section class="mk-embedded">') == 20
    digest = (
        HEAD + "Content-Type: multipart/digest; boundary=b\n\n" + "--b\n\nSubject: one\n\nx\n" * (EMBEDDED_MAX + 30)
    )
    text = seen(made(digest))
    assert "30 of the messages inside are not shown here; they are attached." in text


def test_a_page_does_not_grow_out_of_all_proportion() -> None:
    url = "data:image/png;base64," + "A" * 1_000_000
    many = RELATED.replace("<img src='cid:a@x'>", "<img src='cid:a@x'>" * 5000)
    assert made(many, show=Show(lambda _: url, nothing)).count(url) == 1 + 8
    assert len(plain("> a\nb\n" * 300_000)) < 10_000_000


def test_problems_are_told() -> None:
    text = seen(made(HEAD + "Content-Type: text/plain; charset=x-klingon\n\nü\n"))
    assert "Charset unknown: x-klingon." in text
    deep = seen(made(HEAD + "Content-Type: text/html\n\n" + "<div>" * 1000 + "deep"))
    assert "HTML nested too deeply: shown as text." in deep
    assert "(no text)" in seen(made(HEAD + "Content-Type: application/pdf\n\nx"))


def test_a_page_that_says_why_there_is_none() -> None:
    html = problem_page(message(b"x" * 1500), "<broken>", Show(nothing, nothing, source="a b.eml"))
    assert "<broken>" in seen(html)
    assert "Folder INBOX, number 7, came Tuesday, 20 January 2026, 10:00 UTC, 1.5 KB." in seen(html)
    assert 'href="a b.eml"' in html


def test_the_language_is_told_by_the_charset() -> None:
    text = "Content-Type: text/plain; charset={}\n\nx"
    for charset, language in (("iso-2022-jp", "ja"), ("gb2312", "zh-Hans"), ("big5", "zh-Hant"), ("euc-kr", "ko")):
        assert f'<html lang="{language}">' in made(HEAD + text.format(charset))
    assert "<html>" in made(HEAD + text.format("utf-8"))


def test_pictures_are_known_by_their_bytes() -> None:
    def kind(data: bytes, media_type: str = "application/octet-stream") -> str | None:
        body = base64.encodebytes(data).replace(b"\n", b"\r\n")
        letter = letter_of(f"Content-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode() + body)
        return picture_type(letter, letter.attachments[0])

    assert kind(PNG) == "image/png"
    assert kind(b"GIF89a\1\0\1\0.") == "image/gif"
    assert kind(b"\xff\xd8\xff\xe0....") == "image/jpeg"
    assert kind(b"RIFF....WEBPVP8 ") == "image/webp"
    assert kind(b"<svg xmlns='http://www.w3.org/2000/svg'>", "image/png") is None
    assert kind(b"<html>", "image/jpeg") is None
    assert kind(b"", "image/png") is None


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_picture_that_would_fill_the_memory_is_only_attached(side: int) -> None:
    """It may be some kilobytes in the mail: 60,000 pixels each way are 14 GB in an engine."""
    sides = {order: side.to_bytes(2, order) for order in ("big", "little")}
    wide = {order: side.to_bytes(4, order) for order in ("big", "little")}
    less = (side - 1).to_bytes(3, "little")
    frame = b"\xff\xc2\0\x0b\x08" + 2 * sides["big"] + b"\x01\x01\x11\0"
    for data in (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * wide["big"] + b"\x01\0\0\0\0",
        b"GIF89a" + 2 * sides["little"] + b"\0\0\0",
        b"BM" + bytes(12) + b"\x28\0\0\0" + 2 * wide["little"] + b"\x01\0\x01\0",
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + 2 * less,
        b"\xff\xd8\xff\xe0\0\x04ab" + frame,
        b"\xff\xd8" + 9 * (b"\xff\xe1\xff\xff" + bytes(65533)) + b"\xff" + frame,
    ):
        letter = letter_of(b"Content-Type: image/x\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(data))
        assert (picture_type(letter, letter.attachments[0]) is not None) is (side < 10_000), data[:10]


@pytest.mark.parametrize("style", SHEETS)
def test_the_corpus(style: str) -> None:
    for name, data in messages.corpus():
        html = page(message(data), letter_of(data), Show(lambda one: f"f/{one.number}", nothing, style=style))
        html.encode("utf-8")
        assert not re.search("[\x00-\x08\x0b\x0e-\x1f]", html), name


@given(st.sampled_from([data for _, data in messages.ugly() if len(data) < 3000]), st.binary(max_size=30), st.data())
def test_damaged_mail(data: bytes, more: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data)))
    damaged = data[:at] + more + data[at:]
    html = page(message(damaged), letter_of(damaged), Show(lambda _: "x", nothing))
    html.encode("utf-8")
    assert LexborHTMLParser(html).css("main.mk-message")
