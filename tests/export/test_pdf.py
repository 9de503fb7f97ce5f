"""PDF as strangers read it: qpdf finds nothing wrong, pdftotext the text, pikepdf the files; and engines that fail."""

import base64
import io
import os
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pikepdf
import pytest

from mailkeep.errors import ToolMissing
from mailkeep.export import chromium, pdf, pdf_child, pdf_file, pdf_pool
from mailkeep.export.demo import picture
from mailkeep.export.killable import Child, Lost
from mailkeep.export.pdf import PdfWriter
from mailkeep.export.pdf_engine import Printed
from mailkeep.export.pdf_pool import WeasyPrint
from mailkeep.export.writer import Folder, Message, Options, Written
from tests.export import hostile
from tests.export.test_confined import living
from tests.messages import corpus, numbered
from tests.programs import find_program, need_files

INBOX = Folder("INBOX", ("INBOX",))
WORK = Folder("INBOX/Work", ("INBOX", "Work"))
PNG = picture((90, 120, 200))


def mail(subject: str, text: str = "", *, html: str = "", files: Sequence[tuple[str, bytes]] = ()) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = "Åsa Öberg <asa@example.org>"
    message["To"] = "bob@example.org"
    message["Subject"] = subject
    message["Date"] = "Tue, 20 Jan 2026 10:00:00 +0100"
    message.set_content(text or "see the HTML")
    if html:
        message.add_alternative(html, subtype="html")
    for name, data in files:
        message.add_attachment(data, "application", "octet-stream", filename=name)
    return message.as_bytes()


def with_picture(html: str) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["Subject"] = "inline"
    message.set_content(html, subtype="html")
    message.add_related(PNG, "image", "png", cid="<a@example.org>", filename="a.png")
    return message.as_bytes()


def wide_table() -> str:
    cells = "".join(f"<td style='border:1px solid;min-width:90px'>column{number}</td>" for number in range(24))
    return f"<table><tr>{cells}</tr></table>"


NEWSLETTER = (
    "<table width=600 bgcolor='#eeeeee'><tr><td align=center><h1>The Post</h1><table><tr><td width=200>left</td>"
    "<td bgcolor='#336699'><font color=white>right</font></td></tr></table></td></tr></table>"
)
BROKEN = (
    "<div><table><td>one<p>two</b></i><tr><td>three<div><blockquote>" + "<b><i>" * 50 + "deep &nbsp &#xZZ; <img src=x"
)
ATTACHED = [(f"part {number}.bin", bytes([number]) * 1000) for number in range(40)]
CASES = {
    "plain": numbered(1),
    "newsletter": mail("Newsletter", html=NEWSLETTER),
    "inline": with_picture('<p>before</p><img src="cid:a@example.org" width=120><p>after</p>'),
    "arabic": mail("موعد العشاء", "مرحباً، كيف الحال اليوم؟\n"),
    "hebrew": mail("שלום", "שלום עולם\n"),
    "japanese": mail("写真をありがとう", "港の写真をありがとうございました。\n"),
    "emoji": mail("🎉 done", "The roof is on 🏠 and there is cake 🍰 at 14:30.\n"),
    "wide": mail("Wide", html=wide_table()),
    "long": mail("Long", "".join(f"line {number} of a log that goes on\n" for number in range(3000))),
    "many": mail("Many", "forty files\n", files=ATTACHED),
    "broken": mail("Broken", html=BROKEN),
    "endless": mail("x" * 300, "y" * 60_000 + "\nend\n"),
    "names": mail("Names", files=[("../../etc/x", b"1"), ("con.txt", b"2"), ("日本.txt", b"3"), ("con.txt", b"4")]),
    "empty": b"",
}  # fmt: skip


def export(place: Path, sources: Sequence[bytes], *, per: str = "message", engine: str = "") -> list[Written]:
    writer = pdf.make(place, Options(per=per, engine=engine, folders=(INBOX, WORK)), None)
    try:
        writer.folder(INBOX)
        written = writer.write(messages(sources))
        writer.finish()
    finally:
        writer.abandon()
    return written


def messages(sources: Sequence[bytes], *, first: int = 1, folder: Folder = INBOX) -> list[Message]:
    return [
        Message(uid, folder, uid, frozenset({"\\Seen"}), 1_700_000_000 + uid, source)
        for uid, source in enumerate(sources, first)
    ]


def check(path: Path) -> None:
    done = subprocess.run([find_program("qpdf"), "--check", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING:" not in done.stdout + done.stderr


def text_of(path: Path) -> str:
    done = subprocess.run([find_program("pdftotext"), "-layout", path, "-"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="session")
def fonts() -> None:
    need_files("Pango", "plain fonts", "CJK fonts", "emoji")


@pytest.fixture(scope="session")
def printed(fonts: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Written]]:
    """Each case as PDF by WeasyPrint."""
    place = tmp_path_factory.mktemp("pdf")
    written = export(place, list(CASES.values()))
    assert pdf.count(place) == len(CASES)
    return {name: (place / one.file, one) for name, one in zip(CASES, written, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_valid_and_nothing_to_note(name: str, printed: dict[str, tuple[Path, Written]]) -> None:
    path, written = printed[name]
    assert written.note is None
    check(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plain", ["Message 1", "This is message 1.", "ann@example.org", "20 January 2026"]),
        ("newsletter", ["The Post", "left", "right"]),
        ("inline", ["before", "after"]),
        ("hebrew", ["שלום עולם"]),
        ("japanese", ["写真をありがとう", "港の写真をありがとうございました"]),
        ("emoji", ["14:30", "🍰"]),
        ("long", ["line 0 of", "line 2999 of"]),
        ("many", ["40 attachments", "part 39.bin", "1.0 KB"]),
        ("broken", ["one", "two", "three", "deep"]),
        ("endless", ["end"]),
        ("empty", ["(no subject)"]),
    ],
)
def test_text_can_be_found(name: str, words: list[str], printed: dict[str, tuple[Path, Written]]) -> None:
    text = re.sub("[\u200b\u202a-\u202e\u2066-\u2069]", "", text_of(printed[name][0]))
    for word in words:
        assert word in text


def test_arabic_is_joined_and_runs_from_right_to_left(printed: dict[str, tuple[Path, Written]]) -> None:
    text = re.sub("[\u202a-\u202e\u064b]", "", text_of(printed["arabic"][0]))
    assert "مرحبا" in text and "العشاء" in text


def test_a_picture_is_in_the_page_and_not_among_the_files(printed: dict[str, tuple[Path, Written]]) -> None:
    with pikepdf.open(printed["inline"][0]) as document:
        assert len(document.pages[0].get_images()) == 1
        assert not len(document.attachments)


def test_a_picture_that_cannot_be_shown_is_attached(fonts: None, tmp_path: Path) -> None:
    """A damaged one was in neither place."""
    whole = with_picture('<p>Here: <img src="cid:a@example.org"> and <img src="cid:a@example.org">')
    damaged = whole.replace(base64.b64encode(PNG[:30])[:24], b"iVBORw0KGgoAAAAAAAAAAAAAAAAA"[:24])
    assert damaged != whole
    for source, names in ((whole, []), (damaged, ["a.png"])):
        place = tmp_path / str(len(names))
        place.mkdir()
        (written,) = export(place, [source])
        with pikepdf.open(place / written.file) as document:
            assert list(document.attachments) == names
            assert [document.attachments[name].get_file().read_bytes()[:8] for name in names] == [PNG[:8]] * len(names)


def test_time_for_a_message_does_not_grow_without_end() -> None:
    assert pdf_child.cpu_allowed(100) < 31
    assert pdf_child.cpu_allowed(64 << 20) == pdf_child.cpu_allowed(8 << 20)


@pytest.mark.parametrize("engine", ["weasyprint", "chromium"])
def test_what_is_too_wide_is_shrunk_to_the_paper(engine: str, request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue("printed" if engine == "weasyprint" else "by_chromium")
    path = made["wide"][0]
    with pikepdf.open(path) as document:
        assert [float(side) for side in document.pages[0].mediabox] == pytest.approx([0, 0, 842, 595], abs=1)
    boxes = subprocess.run([find_program("pdftotext"), "-bbox", path, "-"], capture_output=True, text=True).stdout
    right = [float(edge) for edge in re.findall(r'xMax="([\d.]+)"[^>]*>column', boxes)]
    assert len(right) == 24 and max(right) < 842


def test_attachments_are_embedded_byte_for_byte(printed: dict[str, tuple[Path, Written]]) -> None:
    with pikepdf.open(printed["many"][0]) as document:
        found = {name: spec.get_file().read_bytes() for name, spec in document.attachments.items()}
    assert found == dict(ATTACHED)


def test_names_of_embedded_files_are_safe_and_unique(printed: dict[str, tuple[Path, Written]]) -> None:
    with pikepdf.open(printed["names"][0]) as document:
        found = {name: spec.get_file().read_bytes() for name, spec in document.attachments.items()}
    assert sorted(found.values()) == [b"1", b"2", b"3", b"4"]
    assert not [name for name in found if "/" in name or name.lower().startswith("con.")]
    assert "日本.txt" in found


def test_says_who_wrote_what_when(printed: dict[str, tuple[Path, Written]]) -> None:
    with pikepdf.open(printed["japanese"][0]) as document:
        assert str(document.docinfo["/Title"]) == "写真をありがとう"
        assert str(document.docinfo["/Author"]) == "Åsa Öberg"
        assert str(document.docinfo["/CreationDate"]).startswith("D:20260120")
        assert "/StructTreeRoot" in document.Root


def test_same_mail_makes_same_bytes(fonts: None, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        export(tmp_path / place, [CASES["names"], CASES["inline"]])
    one, two = (sorted((tmp_path / place).rglob("*.pdf")) for place in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


# ---- one file a folder


class Quick:
    """An engine whose pages say the UID, for what does not depend on what is on them."""

    def print(self, messages: Sequence[Message], *, names: bool) -> Iterator[Printed]:
        for message in messages:
            yield Printed(pdf_file.plain([f"message {message.uid}"], []))

    def close(self) -> None:
        pass


def quick(place: Path, options: Options, state: bytes | None = None) -> PdfWriter:
    return PdfWriter(place, options, engine=Quick(), state=state)


def bookmarks(path: Path) -> list[tuple[str, int]]:
    """What each says, and its page, from 0."""
    with pikepdf.open(path) as document, document.open_outline() as outline:
        pages = {page.obj.objgen: number for number, page in enumerate(document.pages)}
        return [(mark.title, pages[mark.destination[0].objgen]) for mark in outline.root]


def test_a_folder_is_one_file_with_bookmarks(fonts: None, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    written = export(place, [CASES["many"], numbered(2), CASES["long"], CASES["many"]], per="folder")
    assert {one.file for one in written} == {"INBOX.pdf"}
    assert sorted(path.name for path in place.iterdir()) == ["INBOX.pdf"]
    path = place / "INBOX.pdf"
    check(path)
    marks = bookmarks(path)
    assert [title for title, _ in marks] == [
        "2023-11-14 Many",
        "2023-11-14 Message 2",
        "2023-11-14 Long",
        "2023-11-14 Many",
    ]
    starts = [page for _, page in marks]
    assert starts[0] == 0 and starts[2] == starts[1] + 1 and starts[3] > starts[2] + 10
    with pikepdf.open(path) as document:
        found = {name: spec.get_file().read_bytes() for name, spec in document.attachments.items()}
    assert found == {f"({uid}) {name}": data for uid in (1, 4) for name, data in ATTACHED}
    assert pdf.count(place) == 4


def test_folders_of_folders_have_files_of_their_own(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    writer = quick(place, Options(per="folder", folders=(INBOX, WORK)))
    for folder in (INBOX, WORK):
        writer.folder(folder)
        writer.write(messages([numbered(1)], folder=folder))
    writer.finish()
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*.pdf")) == ["INBOX.pdf", "INBOX/Work.pdf"]
    assert pdf.count(place) == 2


def test_a_large_folder_goes_on_in_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MESSAGES_MAX", 2)
    place = tmp_path / "out"
    place.mkdir()
    writer = quick(place, Options(per="folder", folders=(INBOX,)))
    writer.folder(INBOX)
    written = [writer.write(messages([numbered(uid)], first=uid))[0].file for uid in range(1, 6)]
    writer.finish()
    assert written == ["INBOX.pdf", "INBOX.pdf", "INBOX (2).pdf", "INBOX (2).pdf", "INBOX (3).pdf"]
    assert [len(bookmarks(place / name)) for name in sorted(set(written), key=written.index)] == [2, 2, 1]


@pytest.mark.parametrize("after", range(4))
def test_goes_on_where_the_checkpoint_was(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Abandoned after one more batch than the checkpoint knows of; even a finished run may be taken up again."""
    monkeypatch.setattr(pdf, "MESSAGES_MAX", 2)
    place = tmp_path / "out"
    place.mkdir()
    options = Options(per="folder", folders=(INBOX,))
    writer, state = quick(place, options), b""
    writer.folder(INBOX)
    for uid in range(1, 5):
        writer.write(messages([numbered(uid)], first=uid))
        if uid <= after:
            state = writer.checkpoint()
    writer.finish()
    again = quick(place, options, state or None)
    again.folder(INBOX)
    for uid in range(after + 1, 5):
        again.write(messages([numbered(uid)], first=uid))
        again.checkpoint()
    again.finish()
    assert sorted(path.name for path in place.iterdir()) == ["INBOX (2).pdf", "INBOX.pdf"]
    titles = [title for name in ("INBOX.pdf", "INBOX (2).pdf") for title, _ in bookmarks(place / name)]
    assert titles == [f"2023-11-14 Message {uid}" for uid in range(1, 5)]


# ---- engines that fail


class Wrong:
    """A child that does, for a message with a word in it, what children do on a bad day."""

    CODE = (
        "import os, signal\n"
        "from mailkeep.export import pdf_child\n"
        "real = pdf_child.page\n"
        "def page(message, letter, show):\n"
        "    if b'HANG' in message.data: signal.pause()\n"
        "    if b'CRASH' in message.data: os.abort()\n"
        "    if b'GROW' in message.data: return 'x' * (4 << 30)\n"
        "    if b'SPIN' in message.data:\n"
        "        while True: pass\n"
        "    if b'FAIL' in message.data: raise RuntimeError\n"
        "    return real(message, letter, show)\n"
        "pdf_child.page = page\n"
        "pdf_child.CPU_S = 1\n"
        "pdf_child.main()\n"
    )


@pytest.fixture
def wrong(fonts: None) -> Iterator[Child]:
    child = Child(Wrong.CODE)
    yield child
    child.close()


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("HANG", "it took too long"),
        ("CRASH", "crashed or ran out of memory"),
        ("GROW", "it needed too much memory"),
        ("SPIN", "it took too long"),
        ("FAIL", "failed (RuntimeError)"),
    ],
)
def test_what_an_engine_cannot_show_becomes_a_page_that_says_so(
    word: str, why: str, wrong: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mail("bad", f"{word}\n")
    with monkeypatch.context() as hurried:
        if word == "HANG":  # takes no CPU time, so that only the clock ends it
            hurried.setattr(pdf_pool, "WALL", 0.1)  # of 30 s
        result = pdf_pool.print_by(wrong, messages([source])[0], names=False)
    assert result.note is not None and why in result.note
    path = tmp_path / "bad.pdf"
    path.write_bytes(result.pdf)
    check(path)
    assert why in " ".join(text_of(path).split())
    with pikepdf.open(path) as document:
        assert document.attachments["message.eml"].get_file().read_bytes() == source
    # The next one is not its business.
    assert pdf_pool.print_by(wrong, messages([numbered(2)])[0], names=False).note is None


def test_html_that_an_engine_cannot_do_is_shown_as_text(fonts: None, tmp_path: Path) -> None:
    source = mail("bad", html="<p>the words <b>stay</b></p>", files=[("a.bin", b"FAIL")])
    child = Child(Wrong.CODE.replace("b'FAIL' in message.data", "letter.html"))
    try:
        result = pdf_pool.print_by(child, messages([source])[0], names=False)
    finally:
        child.close()
    assert result.note is not None and result.note.startswith("only its text could be shown (the program")
    path = tmp_path / "bad.pdf"
    path.write_bytes(result.pdf)
    assert "see the HTML" in text_of(path) and "Its text only" in text_of(path)
    with pikepdf.open(path) as document:
        assert document.attachments["message.eml"].get_file().read_bytes() == source
        assert document.attachments["a.bin"].get_file().read_bytes() == b"FAIL"


def test_a_page_is_made_even_when_no_child_lives(tmp_path: Path) -> None:
    dead = Child("import sys; sys.stdout.buffer.write(bytes(8)); sys.stdout.flush()")
    result = pdf_pool.print_by(dead, messages([numbered(1)])[0], names=True)
    assert result.note is not None
    path = tmp_path / "dead.pdf"
    path.write_bytes(result.pdf)
    check(path)
    assert "could not be shown" in text_of(path)
    with pikepdf.open(path) as document:
        assert document.attachments["(1) message.eml"].get_file().read_bytes() == numbered(1)


def test_without_pango_it_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['weasyprint'] = None\n"  # what an import of a missing library comes to
        "from mailkeep.export.pdf_child import main\nmain()\n"
    )
    child = Child(code)
    with pytest.raises(ToolMissing, match="apt-get install libpango"):
        child.ask(b"", timeout_s=30)


def test_a_child_refuses_network_programs_and_files(fonts: None) -> None:
    code = (
        "from mailkeep.export import pdf_child\n"
        "def page(message, letter, show):\n"
        "    import socket, subprocess\n"
        "    try: socket.create_connection(('127.0.0.1', 9))\n"
        "    except PermissionError: pass\n"
        "    else: return ''\n"
        "    try: subprocess.run(['true'])\n"
        "    except PermissionError: return '<p>refused<img src=file:///etc/passwd><img src=http://127.0.0.1:9/x>'\n"
        "pdf_child.page = page\n"
        "pdf_child.main()\n"
    )
    child = Child(code)
    try:
        result = pdf_pool.print_by(child, messages([numbered(1)])[0], names=False)
    finally:
        child.close()
    assert result.note is None
    with pikepdf.open(io.BytesIO(result.pdf)) as document:
        assert not len(document.pages[0].get_images())


def test_weasyprint_alone_loads_nothing(fonts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile HTML that no filter has seen; who connected would stand in the queue of a server that accepts nobody."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for fonts that it would load
    with socket.create_server(("127.0.0.1", 0)) as canary:
        base = f"http://127.0.0.1:{canary.getsockname()[1]}"
        # attr() for a picture is more than WeasyPrint can bear.
        html = hostile.document(base, past_policy=True).replace("background: attr(title url)", "")
        child = Child(
            f"from mailkeep.export import pdf_child\npdf_child.page = lambda *_: {html!r}\npdf_child.main()\n"
        )
        try:
            result = pdf_pool.print_by(child, messages([numbered(1)])[0], names=False)
        finally:
            child.close()
        assert select.select([canary], [], [], 0)[0] == []
    assert result.note is None


def test_a_killed_child_is_lost_and_replaced(fonts: None) -> None:
    engine = WeasyPrint(processes=1)
    try:
        assert next(engine.print(messages([numbered(1)]), names=False)).note is None
        os.kill(engine._children[0]._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        assert next(engine.print(messages([numbered(2)]), names=False)).pdf
        assert next(engine.print(messages([numbered(3)]), names=False)).note is None
    finally:
        engine.close()
    assert engine._children[0]._process is None


def test_an_abandoned_export_waits_for_nobody(fonts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_child, "CHILD", Wrong.CODE)
    engine = WeasyPrint(processes=1)
    bad = messages([mail("bad", "HANG\n")] * 3)

    def ask() -> None:
        with suppress(CancelledError):  # those that had not begun
            list(engine.print(bad, names=False))

    printing = threading.Thread(target=ask)
    printing.start()
    while engine._children[0]._process is None:
        pass
    engine.close()
    printing.join(timeout=60)
    assert not printing.is_alive()
    assert engine._children[0]._process is None


def test_a_frame_without_end_is_no_answer() -> None:
    child = Child("import sys; sys.stdout.buffer.write(b'\\xff' * 100); sys.stdout.flush(); sys.stdin.read()")
    with pytest.raises(Lost):
        child.ask(b"x", timeout_s=30)


def test_fonts_that_are_missing_are_named() -> None:
    assert pdf_pool.fonts_for("漢あ") == ("fonts-noto-cjk",)
    assert pdf_pool.fonts_for("🍰\u0d85\ue000\x80") == ("fonts-noto-color-emoji", "fonts-noto-core")


# ---- Chromium


@pytest.fixture(scope="session")
def by_chromium(fonts: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Written]]:
    find_program("chromium")
    place = tmp_path_factory.mktemp("chromium")
    chosen = ["newsletter", "inline", "arabic", "japanese", "emoji", "wide", "many", "names", "broken"]
    written = export(place, [CASES[name] for name in chosen], engine="chromium")
    return {name: (place / one.file, one) for name, one in zip(chosen, written, strict=True)}


def test_chromium_makes_the_same_of_it(by_chromium: dict[str, tuple[Path, Written]]) -> None:
    for name, (path, written) in by_chromium.items():
        assert written.note is None, name
        check(path)
    assert "港の写真をありがとうございました" in text_of(by_chromium["japanese"][0])
    assert "🍰" in text_of(by_chromium["emoji"][0])
    with pikepdf.open(by_chromium["many"][0]) as document:
        assert {n: spec.get_file().read_bytes() for n, spec in document.attachments.items()} == dict(ATTACHED)
    with pikepdf.open(by_chromium["inline"][0]) as document:
        assert len(document.pages[0].get_images()) == 1
        assert str(document.docinfo["/CreationDate"]) == ""
    with pikepdf.open(by_chromium["japanese"][0]) as document:
        assert str(document.docinfo["/Author"]) == "Åsa Öberg"


def test_a_browser_that_hangs_is_killed_with_its_profile() -> None:
    find_program("chromium")
    browser = chromium.Browser(chromium.find())
    profile, process = Path(browser._profile), browser._process
    with pytest.raises(Lost, match="too long"):
        browser.print("<p>never</p>", timeout_s=0)
    browser.close()
    assert not profile.exists()
    assert process.poll() is not None
    assert not living(process.pid)


def test_without_chromium_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissing, match="apt-get install chromium"):
        chromium.Chromium()


# ---- real mail


def test_the_corpus(fonts: None, tmp_path: Path, full: bool) -> None:
    """Every message, or every 17th, becomes a valid PDF."""
    sources = [data for _, data in corpus()][:: 1 if full else 17]
    written = []
    writer = pdf.make(tmp_path, Options(folders=(INBOX,)), None)
    writer.folder(INBOX)
    for first in range(0, len(sources), 64):
        written += writer.write(messages(sources[first : first + 64], first=first + 1))
    writer.finish()
    assert pdf.count(tmp_path) == len(sources)
    assert [one.note for one in written if one.note and "could not be shown" in one.note] == []
    for one in written:
        check(tmp_path / one.file)
