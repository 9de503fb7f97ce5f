"""Maildir++ out: Dovecot serves the same bytes, flags, dates, folders and numbers, and our import takes them back."""

import contextlib
import imaplib
import os
import pwd
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from mailkeep.errors import CannotWrite
from mailkeep.export import demo, maildir_writer, tree
from mailkeep.export.importer import Importer
from mailkeep.export.item import Item, Skipped
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.store.account import Account
from mailkeep.store.store import Store
from tests import messages
from tests.dovecot import Dovecot

WHEN = 1_700_000_000
INBOX = Folder("INBOX", ("INBOX",), uidvalidity=1_234_567, uidnext=1_000_000)
HEAD = b"Subject: x\r\nFrom: ann@example.org\r\n"
Found = tuple[str, bytes, frozenset[str], int | None]


def folder(name: str, number: int = 1) -> Folder:
    return Folder(name, tuple(name.split("/")), uidvalidity=1_000_000 + number, uidnext=1_000_000)


def message(data: bytes, number: int = 1, *, into: Folder = INBOX, flags: Iterable[str] = (), uid: int = 0) -> Message:
    return Message(number, into, uid or number, frozenset(flags), WHEN + number, data)


def write(place: Path, letters: Sequence[Message], folders: Sequence[Folder] = ()) -> list[Written]:
    place.mkdir(parents=True, exist_ok=True)
    every = list(dict.fromkeys([*folders, *(letter.folder for letter in letters)]))
    writer = maildir_writer.make(place, Options(folders=tuple(every)), None)
    written = []
    for one in every:
        writer.folder(one)
        written += writer.write([letter for letter in letters if letter.folder is one])
    writer.finish()
    return written


def read(place: Path) -> list[Found]:
    found: list[Found] = []
    for item in tree.read(place, tree.Walk(Skipped(), 1 << 30, None)):
        assert isinstance(item, Item), item
        found.append((item.mailboxes[0] or "INBOX", b"".join(item.chunks), item.flags, item.internaldate))
    return found


WILD = {
    "bare LF": HEAD + b"\r\none\ntwo\r\n",
    "first line ends in LF": b"Subject: x\nFrom: y\n\nbody\r\n",
    "CR CR LF": HEAD + b"\r\none\r\r\ntwo\r\n",
    "bare CR": HEAD + b"\r\none\rtwo\r\n",
    "CR at the end": HEAD + b"\r\nbody\r",
    "NUL": HEAD + b"\r\n\0\0\r\n",
}


def test_every_byte_comes_back(tmp_path: Path) -> None:
    letters = [message(data, n) for n, (_, data) in enumerate([*messages.corpus(), *WILD.items()], 1)]
    write(tmp_path / "out", letters)
    assert [one[1:] for one in read(tmp_path / "out")] == [(m.data, m.flags, m.internaldate) for m in letters]
    assert maildir_writer.count(tmp_path / "out") == len(letters)


def test_flags_keywords_and_what_is_too_much(tmp_path: Path) -> None:
    every = ("\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted", "$Forwarded", "later", "_odd_", "A-b")
    crowd = tuple(f"k{n:02}" for n in range(30))
    letters = [message(HEAD, 1, flags=every), message(HEAD, 2, flags=("LATER", "a-B")), message(HEAD, 3, flags=crowd)]
    written = write(tmp_path / "out", letters)
    assert [one.file.rpartition(":")[2] for one in written[:2]] == ["2,DFPRSTabcd", "2,bd"]
    assert written[2].note == "left out, for a Maildir folder holds 26 keywords: k22, k23, k24, k25, k26, k27, k28, k29"
    first, second, third = (flags for _, _, flags, _ in read(tmp_path / "out"))
    assert first == frozenset(every) and second == {"later", "A-b"} and third == frozenset(crowd[:22])


NAMES = [
    "Work", "Work/2024", "work", "INBOX/Sub", "v1.0", "v1_0", "A.B/C.D", "~home", "Entwürfe 你好", "Entw&rfe", "new",
    "cur", " pad", "a:b*c?%", "🦊" * 60, "x" * 255, "/".join(["level"] * 60),
]  # fmt: skip


def test_folders_come_back_even_where_a_maildir_cannot_say_them(tmp_path: Path) -> None:
    folders = [folder(name, n) for n, name in enumerate(NAMES)]
    write(tmp_path / "out", [message(messages.numbered(n), n + 1, into=one) for n, one in enumerate(folders)], folders)
    wanted = {(name.strip(), messages.numbered(n)) for n, name in enumerate(NAMES)}
    assert {(name, data) for name, data, _, _ in read(tmp_path / "out")} == wanted
    directories = [path.name for path in (tmp_path / "out").iterdir()]
    assert {".Work", ".Work.2024", ".INBOX.Sub", ".Entw&APw-rfe &T2BZfQ-", ".Entw&-rfe", ".v1_0", ".v1_0~2"} <= set(
        directories
    )
    assert all(len(name.encode()) <= 255 for name in directories)
    assert len({name.lower() for name in directories}) == len(directories)


def test_a_second_process_goes_on_and_nothing_is_there_twice(tmp_path: Path) -> None:
    folders = tuple(folder(name, n) for n, name in enumerate(("INBOX", "B", "C")))
    letters = [message(messages.numbered(n), n + 1, into=folders[n // 4], flags=(f"k{n}",)) for n in range(12)]
    write(tmp_path / "whole", letters, folders)
    for kept in range(12):
        out = tmp_path / f"out-{kept}"
        out.mkdir()
        first = maildir_writer.make(out, Options(folders=folders), None)
        state = None
        for number, letter in enumerate(letters):
            if number % 4 == 0:
                first.folder(letter.folder)
            first.write([message(letter.data, letter.number, into=letter.folder, flags=("\\Seen", f"k{number}"))])
            if number == kept:
                state = first.checkpoint()
        first.abandon()
        second = maildir_writer.make(out, Options(folders=folders), state)
        for number, letter in enumerate(letters[kept:], kept):
            if number == kept or number % 4 == 0:
                second.folder(letter.folder)
            if number > kept:
                second.write([message(letter.data, letter.number, into=letter.folder, flags=(f"k{number}",))])
        second.finish()
        assert maildir_writer.count(out) == 12
        for one in folders:
            path = Path(maildir_writer._Names(()).directory(one.path)) / "dovecot-uidlist"
            assert (out / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
        assert [(data, flags - {"\\Seen"}) for _, data, flags, _ in read(out)] == [
            (letter.data, letter.flags) for letter in letters
        ]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite):
        maildir_writer.make(tmp_path / "file", Options(), None)


# --- Dovecot ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with Dovecot(format="maildir") as running:
        yield running


@contextlib.contextmanager
def served(server: Dovecot, user: str, place: Path) -> Iterator[imaplib.IMAP4]:
    """A session of a user whose Maildir is a copy of `place`."""
    target = server.root / "mail" / user / "maildir"
    shutil.copytree(place, target)
    if os.geteuid() == 0:
        owner = pwd.getpwnam("nobody")
        for path in (target.parent, target, *target.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    session = imaplib.IMAP4("127.0.0.1", server.imap)
    try:
        session.login(user, server.password)
        yield session
    finally:
        session.logout()
    assert not re.search(r"(?i)error|warning|panic", server.errors()), server.errors()


def listed(session: imaplib.IMAP4, command: str = "list") -> set[str]:
    _, lines = getattr(session, command)()
    return {re.sub(rb'^.*?"/" "?(.*?)"?$', rb"\1", line).decode() for line in lines if isinstance(line, bytes)}


def fetched(session: imaplib.IMAP4, name: str) -> dict[int, tuple[bytes, frozenset[str], int, int]]:
    """UID → (bytes, flags, internal date, size)."""
    status, answer = session.select(f'"{name}"', readonly=True)
    assert status == "OK", (name, answer)
    _, found = session.uid("FETCH", "1:*", "(FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")
    messages = {}
    for head, data in (one for one in found if isinstance(one, tuple)):
        uid = int(re.search(rb"UID (\d+)", head)[1])  # type: ignore[index]
        flags = frozenset(re.search(rb"FLAGS \((.*?)\)", head)[1].decode().split()) - {"\\Recent"}  # type: ignore[index]
        date = datetime.strptime(re.search(rb'DATE "(.*?)"', head)[1].decode().strip(), "%d-%b-%Y %H:%M:%S %z")  # type: ignore[index]
        size = int(re.search(rb"SIZE (\d+)", head)[1])  # type: ignore[index]
        messages[uid] = (data, flags, int(date.timestamp()), size)
    return messages


def test_dovecot_serves_the_corpus(server: Dovecot, tmp_path: Path) -> None:
    flags = [(), ("\\Seen",), ("\\Flagged", "$Forwarded"), ("\\Answered", "later", "$Junk"), ("\\Draft", "\\Deleted")]
    letters = [
        message(data, n, flags=flags[n % 5], uid=n * 7)
        for n, (_, data) in enumerate([*messages.corpus(), *WILD.items()], 1)
    ]
    write(tmp_path / "out", letters)
    with served(server, "corpus", tmp_path / "out") as session:
        found = fetched(session, "INBOX")
        assert list(found) == [letter.uid for letter in letters]
        wrong = []
        for letter in letters:
            data, known, date, size = found[letter.uid]
            # IMAP has no bare LF and no NUL in a literal; nor has any other server them.
            expected = messages.crlf(letter.data).replace(b"\0", b"\x80")
            if data != expected or (known, date, size) != (letter.flags, letter.internaldate, len(expected)):
                wrong.append((letter.number, known, date, size, len(expected)))
        assert not wrong
        assert session.response("UIDVALIDITY")[1] == [b"1234567"]
        _, (answer,) = session.append("INBOX", "", "", messages.numbered(1))
        assert isinstance(answer, bytes) and b"APPENDUID 1234567 1000000" in answer


def everything(account: Account) -> dict[Folder, list[Message]]:
    """All of an account, as the exporter gives it to a writer."""
    found: dict[Folder, list[Message]] = {}
    number = 0
    for box in account.mailboxes():
        one = Folder(box.name, tuple(box.name.split("/")), frozenset(), box.uidvalidity, box.uidnext)
        found[one] = []
        for uid, email, known, when in account.fetch(
            box.id, range(1, box.uidnext), ("uid", "email", "flags", "internaldate")
        ):
            number += 1
            found[one].append(Message(number, one, uid, account.flagset(known).flags, when, account.read(email)))
    return found


def test_dovecot_serves_the_demo_account_and_another_account_takes_it(server: Dovecot, tmp_path: Path) -> None:
    with contextlib.closing(Store.open(tmp_path / "data")) as store:
        store.directory.add("demo")
        store.directory.add("bob")
        for _ in Importer(store, store.account("demo")).items(demo.items()):
            pass
        letters = everything(store.account("demo"))
        assert sum(map(len, letters.values())) > 250
        write(tmp_path / "out", [letter for several in letters.values() for letter in several], list(letters))
        with served(server, "demo", tmp_path / "out") as session:
            names = {
                "INBOX" if one.name == "INBOX" else maildir_writer.encode_utf7(one.name).decode() for one in letters
            }
            assert listed(session) == listed(session, "lsub") == names
            for one, several in letters.items():
                wanted = {m.uid: (m.data, m.flags, m.internaldate, len(m.data)) for m in several}
                assert fetched(session, maildir_writer.encode_utf7(one.name).decode()) == wanted, one.name
                assert session.response("UIDVALIDITY")[1] == [b"%d" % one.uidvalidity]
        assert Importer(store, store.account("bob")).files([tmp_path / "out"]).failed == 0
        again = {one.name: several for one, several in everything(store.account("bob")).items()}
        for one, several in letters.items():
            assert bag(again[one.name]) == bag(several), one.name


def bag(letters: Iterable[Message]) -> list[tuple[bytes, list[str], int]]:
    return sorted((m.data, sorted(m.flags), m.internaldate) for m in letters)


def test_dovecot_opens_every_folder_whatever_its_name(server: Dovecot, tmp_path: Path) -> None:
    folders = [folder(name, n) for n, name in enumerate(NAMES)]
    write(tmp_path / "out", [message(messages.numbered(n), n + 1, into=one) for n, one in enumerate(folders)], folders)
    with served(server, "names", tmp_path / "out") as session:
        shown = listed(session)
        for one in folders:
            directory = maildir_writer._Names(folders).directory(one.path)
            name = directory[1:].replace(".", "/")
            assert name in shown
            (found,) = fetched(session, name).values()
            assert found[0] == messages.numbered(folders.index(one))
