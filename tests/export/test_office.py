"""Word's formats as strangers read them: python-docx, antiword, catdoc; and a LibreOffice that crashes or hangs."""

import io
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import docx
import pytest

from mailkeep.errors import ToolMissing
from mailkeep.export import office, soffice
from mailkeep.export.writer import Folder, Options, Written
from tests.export.test_pdf import CASES, messages
from tests.messages import corpus, numbered
from tests.programs import find_program

INBOX = Folder("INBOX", ("INBOX",))
CHOSEN = ("plain", "newsletter", "inline", "arabic", "hebrew", "japanese", "emoji", "many", "broken", "names", "empty")


def export(place: Path, sources: Sequence[bytes], form: str) -> list[Written]:
    make = office.make_docx if form == "docx" else office.make_doc
    writer = make(place, Options(format=form, folders=(INBOX,)), None)
    try:
        writer.folder(INBOX)
        written: list[Written] = []
        for first in range(0, len(sources), 64):
            written += writer.write(messages(sources[first : first + 64], first=first + 1))
        writer.checkpoint()
        writer.finish()
    finally:
        writer.abandon()
    return written


def made(tmp_path_factory: pytest.TempPathFactory, form: str) -> dict[str, Path]:
    find_program("soffice")
    place = tmp_path_factory.mktemp(form) / "out"
    place.mkdir()
    written = export(place, [CASES[name] for name in CHOSEN], form)
    assert [one.note for one in written if one.note] == []
    assert office.count(place) == len(CHOSEN)
    assert [path.name for path in place.parent.iterdir()] == ["out"]
    return {name: place / one.file for name, one in zip(CHOSEN, written, strict=True)}


@pytest.fixture(scope="session")
def as_docx(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made(tmp_path_factory, "docx")


@pytest.fixture(scope="session")
def as_doc(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made(tmp_path_factory, "doc")


def text_of(path: Path) -> str:
    document = docx.Document(str(path))
    cells = [cell.text for table in document.tables for row in table.rows for cell in row.cells]
    return "\n".join([*(paragraph.text for paragraph in document.paragraphs), *cells])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plain", ["Message 1", "This is message 1.", "ann@example.org", "20 January 2026"]),
        ("newsletter", ["Newsletter"]),
        ("inline", ["before", "after"]),
        ("arabic", ["موعد العشاء", "مرحباً، كيف الحال اليوم؟"]),
        ("hebrew", ["שלום עולם"]),
        ("japanese", ["写真をありがとう", "港の写真をありがとうございました。"]),
        ("emoji", ["🎉", "🏠", "🍰"]),
        ("many", ["forty files", "part 39.bin"]),
        ("broken", ["deep"]),
        ("empty", ["(no subject)"]),
    ],
)
def test_text_is_in_the_docx(name: str, words: list[str], as_docx: dict[str, Path]) -> None:
    text = text_of(as_docx[name])
    for word in words:
        assert word in text


def test_the_header_is_a_table(as_docx: dict[str, Path]) -> None:
    table = docx.Document(str(as_docx["plain"])).tables[0]
    assert [row.cells[0].text for row in table.rows][:3] == ["From", "To", "Date"]
    assert table.rows[0].cells[1].text == "Ann Other <ann@example.org>"


def test_pictures_are_in_the_document_and_nothing_is_loaded_from_elsewhere(as_docx: dict[str, Path]) -> None:
    assert len(docx.Document(str(as_docx["inline"])).inline_shapes) == 1
    for path in as_docx.values():
        with zipfile.ZipFile(path) as archive:
            links = archive.read("word/_rels/document.xml.rels").decode()
        outside = [link for link in links.split("<") if 'TargetMode="External"' in link]
        assert [link for link in outside if "/hyperlink" not in link] == []


def test_attachments_lie_beside(as_docx: dict[str, Path]) -> None:
    beside = as_docx["many"].with_name(as_docx["many"].stem + " files")
    assert {path.name: path.read_bytes() for path in beside.iterdir()} == {
        f"part {number}.bin": bytes([number]) * 1000 for number in range(40)
    }
    assert not as_docx["inline"].with_name(as_docx["inline"].stem + " files").exists()
    names = [path.name for path in as_docx["names"].with_name(as_docx["names"].stem + " files").iterdir()]
    assert len(names) == 4 and not [name for name in names if name.lower().startswith("con.")]


@pytest.mark.parametrize("program", ["antiword", "catdoc"])
def test_strangers_read_the_doc(program: str, as_doc: dict[str, Path]) -> None:
    command = [find_program(program), *(["-m", "UTF-8.txt"] if program == "antiword" else ["-d", "utf-8"])]
    for name, words in (("plain", "This is message 1."), ("arabic", "كيف الحال"), ("japanese", "写真をありがとう")):
        done = subprocess.run([*command, as_doc[name]], capture_output=True, check=True)
        assert words in done.stdout.decode()


def test_what_was_attached_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "INBOX" / "2026-01-20 a (1) files").mkdir(parents=True)
    for name in ("INBOX/2026-01-20 a (1).docx", "INBOX/2026-01-20 a (1) files/b.docx"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    (tmp_path / "INBOX" / "2026-01-20 b (2).docx").write_bytes(b"not one")
    assert office.count(tmp_path) == 1


# ---- a program that fails, played by a few lines of shell: it takes the pages in order

FAKE = """#!/bin/sh
out=; for argument; do
  case "$last" in --outdir) out=$argument;; esac; last=$argument
  case "$argument" in *.html)
    if grep -q CRASH "$argument"; then printf half > "$out/$(basename "$argument" .html).docx"; kill -SEGV $$; fi
    if grep -q HANG "$argument"; then sleep 1000; fi
    if ! grep -q REFUSE "$argument"; then cp "$argument" "$out/$(basename "$argument" .html).docx"; fi;;
  esac
done
"""


@pytest.fixture
def fake(tmp_path: Path) -> str:
    program = tmp_path / "soffice"
    program.write_text(FAKE)
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("word", ["CRASH", "REFUSE", "HANG"])
def test_a_bad_page_costs_no_other(word: str, fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if word == "HANG":
        monkeypatch.setattr(soffice, "START_S", 2)
        monkeypatch.setattr(soffice, "PAGE_S", 0)
    program = soffice.Office(fake, tmp_path / "home")
    pages = [f"page {number} {word if number == 3 else ''}" for number in range(6)]
    result = program.convert(pages, soffice.DOCX)
    program.close()
    assert [one for number, one in enumerate(result) if number != 3] == [
        page.encode() for number, page in enumerate(pages) if number != 3
    ]
    assert result[3] == ("it took too long" if word == "HANG" else "LibreOffice gave up on it")
    assert not (tmp_path / "home").exists()


def test_a_message_that_cannot_be_shown_lies_beside_a_page_that_says_so(
    fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soffice, "PROGRAMS", (fake,))
    place = tmp_path / "out"
    place.mkdir()
    bad = numbered(2).replace(b"This is", b"REFUSE")
    written = export(place, [numbered(1), bad, numbered(3)], "docx")
    assert [one.note is None for one in written] == [True, False, True]
    path = place / written[1].file
    assert b"LibreOffice gave up on it" in path.read_bytes()
    assert (path.with_name(path.stem + " files") / "message.eml").read_bytes() == bad


def test_a_program_that_makes_nothing_at_all_stops_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soffice, "PROGRAMS", ("/bin/false",))
    with pytest.raises(ToolMissing, match="LibreOffice is here but makes no documents"):
        export(tmp_path, [numbered(1)], "docx")


def test_without_libreoffice_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissing, match="apt-get install --no-install-recommends libreoffice-writer"):
        office.make_docx(tmp_path, Options(), None)


def test_the_corpus(tmp_path: Path, full: bool) -> None:
    """Every message, or every 29th, as both."""
    find_program("soffice")
    sources = [data for _, data in corpus()][:: 1 if full else 29]
    for form in ("docx", "doc"):
        place = tmp_path / form
        place.mkdir()
        written = export(place, sources, form)
        assert [one for one in written if one.note] == []
        assert office.count(place) == len(sources)
        if form == "docx":
            for one in written:
                docx.Document(io.BytesIO((place / one.file).read_bytes()))
