"""Names for files and folders: what three systems refuse never comes out, whatever goes in."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.export.names import FolderNames, Names, fold, message_file, safe_name, subject_of
from mailkeep.export.writer import Folder, Message

DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³"),
}
ANYTHING = st.text(st.characters(), max_size=300)  # lone surrogates as well
NASTY = st.text(
    st.sampled_from('aB.  /\\:*?"<>|~()\x00\x1f\x7f\x85\u200b\u200d\u202e\u2028\ufeff\ud800éé漢👨\U0001f3fd')
)


def message(uid: int = 7, internaldate: int = 1_768_471_200) -> Message:
    return Message(1, Folder("INBOX", ("INBOX",)), uid, frozenset(), internaldate, b"")


def check(name: str, bytes_max: int = 120) -> None:
    """What Linux, macOS and Windows take, and what no reader is fooled by."""
    assert name and len(name.encode("utf-8")) <= bytes_max, "UTF-8 without surrogates, and short"
    assert name == unicodedata.normalize("NFC", name)
    assert not set(name) & set('<>:"/\\|?*')
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Cn", "Zl", "Zp") for c in name)
    assert not any("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" for c in name), "no changes of direction"
    assert name[-1] not in " ." and name[0] not in " ."
    assert name.partition(".")[0].rstrip(" ").lower() not in DEVICES


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Minutes", "Minutes"),
        ("Re: a/b\\c", "Re_ a_b_c"),
        ("  two \t\r\n words ", "two words"),
        ("..", "_"),
        (".profile", "_profile"),
        ("", "_"),
        ("...   ", "_"),
        ("end. . .", "end"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("Com1 .tar.gz", "_Com1 .tar.gz"),
        ("LPT²", "_LPT²"),
        ("console", "console"),
        ("e\u0301te\u0301", "été"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("a\x00b\x1bc\x9fd", "a_b_c_d"),
        ("\ud83d", "_"),
        ("\ufeffbom", "_bom"),
        ("家族 👨\u200d👩\u200d👧", "家族 👨\u200d👩\u200d👧"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u0378 is not assigned", "_ is not assigned"),
    ],
)
def test_texts_become_names(text: str, name: str) -> None:
    assert safe_name(text) == name
    check(name)


@given(ANYTHING | NASTY, st.integers(12, 200))
def test_any_text_becomes_a_name_that_all_systems_take(text: str, bytes_max: int) -> None:
    name = safe_name(text, bytes_max)
    check(name, bytes_max)
    assert safe_name(name, bytes_max) == name, "and a name stays as it is"


def test_long_texts_are_cut_between_characters() -> None:
    assert safe_name("é" * 100) == "é" * 60
    assert safe_name("x" + "é" * 100) == "x" + "é" * 59
    family = "👨\u200d👩\u200d👧\u200d👦"
    cut = safe_name("a" * 100 + family)
    assert cut == "a" * 100, "a family is there whole or not at all"
    assert safe_name("b" * 119 + "q\u0323\u0323") == "b" * 119
    assert safe_name("a" * 114 + "👋🏽") == "a" * 114
    assert len(safe_name("x" * 10_000_000)) == 120


@given(
    ANYTHING | NASTY,
    st.integers(1, 2**32 - 1),
    st.integers(-(2**40), 2**40),
    st.sampled_from([".eml", ".html", " files"]),
)
def test_any_message_has_a_file(subject: str, uid: int, internaldate: int, suffix: str) -> None:
    name = message_file(message(uid, internaldate), subject, suffix)
    check(name)
    assert name.endswith(f" ({uid}){suffix}")


def test_message_files_say_when_what_and_which() -> None:
    assert message_file(message(), "Minutes: budget", ".eml") == "2026-01-15 Minutes_ budget (7).eml"
    assert message_file(message(), " ", ".eml") == "2026-01-15 (7).eml"
    assert message_file(message(internaldate=10**15), "x", ".eml") == "0000-00-00 x (7).eml"
    assert message_file(message(internaldate=-(10**10)), "x", ".eml").startswith("1653-")
    assert message_file(message(), "x" * 500, ".eml").endswith("xx (7).eml")


def test_attachments_of_one_message_never_meet() -> None:
    names = Names(["index.html"])
    taken = [
        names.take(text)
        for text in ("a.PDF", "A.pdf", "a.pdf", "INDEX.html", "", ".pdf", "\u202efdp.exe", "é.txt", "e\u0301.txt")
    ]
    assert taken == [
        "a.PDF",
        "A~2.pdf",
        "a~3.pdf",
        "INDEX~2.html",
        "attachment",
        "_pdf",
        "_fdp.exe",
        "é.txt",
        "é~2.txt",
    ]
    assert Names().take("x" * 300 + ".tar.gz").endswith("x.gz"), "a long name keeps its extension"
    many = Names()
    assert len({fold(many.take("same.txt")) for _ in range(300)}) == 300


@given(st.lists(ANYTHING | NASTY, max_size=8), st.sampled_from(["", ".mbox"]))
def test_attachment_names_are_safe_and_unique(texts: list[str], taken: str) -> None:
    names = Names([taken])
    found = [names.take(text) for text in texts]
    assert len({fold(name) for name in found}) == len(texts)
    for name in found:
        check(name)


def folders(*names: str) -> list[Folder]:
    return [Folder(name, tuple(name.split("/"))) for name in names]


def test_folders_differ_from_their_siblings_on_every_system() -> None:
    names = FolderNames(folders("Work", "work", "WORK/a", "Work/A", "Work/a", "stra\u00dfe", "STRASSE", "a?", "a*"))
    assert [names.path(name.split("/")) for name in ("Work", "work", "WORK/a", "Work/A", "Work/a")] == [
        "Work",
        "work~2",
        "WORK~3/a",
        "Work/A",
        "Work/a~2",
    ]
    assert [names.path((name,)) for name in ("straße", "STRASSE", "a?", "a*")] == ["straße", "STRASSE~2", "a_", "a_~2"]
    assert names.path(()) == ""


def test_folders_are_no_files_of_ours() -> None:
    names = FolderNames(suffix=".mbox", reserved=("index.html",))
    assert names.path(("manifest.jsonl",)) == "manifest.jsonl~2"
    assert names.path(("Index.html",)) == "Index.html~2"
    assert names.path(("Work", "index.html")) == "Work/index.html"
    assert names.path(("Old.MBOX",)) == "Old.MBOX_"
    assert names.path(("2026-01-15 Minutes (7).eml",)) == "2026-01-15 Minutes (7).eml_", "as a message's file is called"


def test_names_do_not_depend_on_where_a_run_begins() -> None:
    listed = folders("b", "B", "a/X", "a/x", "A")
    whole = FolderNames(listed)
    expected = [whole.path(folder.path) for folder in listed]
    for start in range(len(listed)):
        again = FolderNames(listed)
        assert [again.path(folder.path) for folder in listed[start:]] == expected[start:]


@given(st.lists(st.lists(NASTY.filter(bool), min_size=1, max_size=3), max_size=8))
def test_folder_paths_are_safe_and_unique(paths: list[list[str]]) -> None:
    names = FolderNames()
    found = {tuple(path): names.path(path) for path in paths}
    assert len({fold(path) for path in found.values()}) == len(found)
    for path in found.values():
        for level in path.split("/"):
            check(level)


def test_the_subject_is_read_from_the_header_only() -> None:
    assert subject_of(b"From: a\r\nSUBJECT : =?utf-8?B?w6k=?=\r\n two\r\n\r\nSubject: no\r\n") == "é two"
    assert subject_of(b"Subject:x\n\n") == "x"
    assert subject_of(b"From: a\r\n\r\nSubject: no\r\n") == "" == subject_of(b"")
    assert len(subject_of(b"Subject: " + b"=?utf-8?Q?=C3=A9?= " * 100_000 + b"\r\n\r\n")) < 3000


def test_ten_thousand_attachments_of_one_name_take_linear_time() -> None:
    names = Names()
    found = [names.take("A.pdf" if number % 2 else "a.pdf") for number in range(10_000)]
    assert found[:3] == ["a.pdf", "A~2.pdf", "a~3.pdf"] and found[-1] == "A~10000.pdf"
    assert len({name.lower() for name in found}) == 10_000
