"""MHT files: written, read by the standard library, opened in a browser."""

import base64
import email
import email.policy
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.errors import CannotWrite
from mailkeep.export import mht
from mailkeep.export.writer import Folder, Message, Options, Written
from tests import messages
from tests.browser import Browser
from tests.messages import crlf

INBOX = Folder("INBOX", ("INBOX",))
DEEP = Folder("Work/a:b", ("Work", "a:b"))
EMPTY = Folder("Empty", ("Empty",))


def png() -> bytes:
    """A picture of 20 by 10 points."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress((b"\0" + b"\x20\x60\xa0" * 20) * 10)
    head = struct.pack(">IIBBBBB", 20, 10, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


PICTURE = base64.encodebytes(png()).decode()
MAIL = crlf(
    (
        "From: =?utf-8?q?J=C3=B6rg?= <j@example.org>\nTo: b@example.org\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n"
        "Date: Tue, 20 Jan 2026 10:00:00 +0530\nMIME-Version: 1.0\nContent-Type: multipart/related; boundary=b\n\n--b\n"
        "Content-Type: text/html; charset=utf-8\n\n<p dir=rtl>שלום 你好 🦊</p><img src='cid:a@x'>\n--b\n"
        f"Content-Type: image/png\nContent-ID: <a@x>\nContent-Transfer-Encoding: base64\n\n{PICTURE}\n--b\n"
        'Content-Type: text/html; name="x:y.html"\nContent-Disposition: attachment\n\n'
        "<script>alert(1)</script>\n--b--\n"
    ).encode()
)


def write(place: Path, mail: list[tuple[Folder, bytes]], *, start: int = 1) -> list[Written]:
    writer = mht.make(place, Options(format="mht", folders=(INBOX, DEEP, EMPTY)), None)
    written = []
    for number, (folder, data) in enumerate(mail, start):
        writer.folder(folder)
        written += writer.write([Message(number, folder, number, frozenset(), 1_768_903_200, data)])
    writer.folder(EMPTY)
    writer.checkpoint()
    writer.finish()
    return written


def test_one_file_a_message(tmp_path: Path) -> None:
    (one,) = write(tmp_path, [(DEEP, MAIL)])
    assert one == Written("Work/a_b/2026-01-20 Grüße (1).mht")
    read = email.message_from_bytes((tmp_path / one.file).read_bytes(), policy=email.policy.default)
    assert read.get_content_type() == "multipart/related"
    assert read["Subject"] == "Grüße"
    assert read["From"] == "Jörg <j@example.org>"
    assert read["Date"].datetime.isoformat() == "2026-01-20T10:00:00+05:30"
    assert read["Snapshot-Content-Location"] == "cid:page@mailkeep.invalid"
    page, picture = read.iter_parts()
    assert page["Content-Location"] == "cid:page@mailkeep.invalid"
    assert "שלום 你好 🦊" in page.get_content()
    assert f'src="{picture["Content-Location"]}"' in page.get_content()
    assert picture["Content-ID"] == f"<{picture['Content-Location'].removeprefix('cid:')}>"
    assert picture.get_content() == png()
    assert not read.defects
    # What is attached lies beside, under a name that nothing runs, and the page says where.
    assert "“2026-01-20 Grüße (1) files” beside this page, called “x_y.html.txt”" in page.get_content()
    beside = tmp_path / "Work/a_b/2026-01-20 Grüße (1) files"
    assert [path.name for path in beside.iterdir()] == ["x_y.html.txt"]
    assert (beside / "x_y.html.txt").read_bytes() == b"<script>alert(1)</script>"
    assert (tmp_path / "Empty").is_dir()
    assert mht.count(tmp_path) == 1


def test_the_same_message_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (one,), (two,) = write(tmp_path / "a", [(INBOX, MAIL)]), write(tmp_path / "b", [(INBOX, MAIL)])
    assert (tmp_path / "a" / one.file).read_bytes() == (tmp_path / "b" / two.file).read_bytes()


def test_what_is_written_twice_is_there_once(tmp_path: Path) -> None:
    write(tmp_path, [(INBOX, MAIL), (INBOX, messages.numbered(2))])
    write(tmp_path, [(INBOX, messages.numbered(2)), (INBOX, messages.numbered(3))], start=2)
    assert mht.count(tmp_path) == 3


def test_attachments_are_not_counted(tmp_path: Path) -> None:
    (one,) = write(tmp_path, [(INBOX, MAIL)])
    inner = (tmp_path / one.file).read_bytes()
    body = base64.encodebytes(inner).replace(b"\n", b"\r\n")
    head = b'Content-Type: application/x; name="a.mht"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    write(tmp_path, [(INBOX, head + body)], start=2)
    (tmp_path / "INBOX" / "other.mht").write_bytes(b"From: somebody\r\n\r\nelse")
    assert mht.count(tmp_path) == 2


def test_a_message_that_breaks_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RecursionError

    monkeypatch.setattr(mht, "page", broken)
    (one,) = write(tmp_path, [(INBOX, MAIL)])
    assert one.note == "its page could not be made (RecursionError)"
    assert b"cannot be shown" in (tmp_path / one.file).read_bytes()
    assert (tmp_path / one.file.replace(".mht", " files") / "message.eml").read_bytes() == MAIL
    assert mht.count(tmp_path) == 1


def test_a_disk_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "INBOX").write_bytes(b"a file where a folder should be")
    with pytest.raises(CannotWrite):
        write(tmp_path, [(INBOX, MAIL)])


def test_the_corpus(tmp_path: Path) -> None:
    mail = [data for _, data in messages.corpus()]
    written = write(tmp_path, [(INBOX, data) for data in mail])
    assert [one.note for one in written if one.note] == []
    assert mht.count(tmp_path) == len(mail)
    for one in written[::25]:
        read = email.message_from_bytes((tmp_path / one.file).read_bytes(), policy=email.policy.compat32)
        assert [part.get_content_maintype() for part in read.walk()][:2] == ["multipart", "text"]
        assert b"<main" in (read.get_payload(0).get_payload(decode=True))  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def test_a_browser_opens_it(browser: Browser, tmp_path: Path) -> None:
    (one,) = write(tmp_path, [(INBOX, MAIL)])
    with browser.tab() as tab:
        tab.open((tmp_path / one.file).as_uri())
        assert tab.run("document.title") == "Grüße"
        assert tab.run("[document.querySelector('img').naturalWidth, document.querySelector('img').naturalHeight]") == [
            20,
            10,
        ]
        assert "שלום 你好 🦊" in tab.run("document.body.innerText")
        assert tab.run("getComputedStyle(document.querySelector('.mk-mail p')).direction") == "rtl"
        assert tab.faults() == []
        assert all(url.startswith(("file:", "cid:", "about:")) for url in tab.requests())
