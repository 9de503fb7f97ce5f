"""mbox out: every byte, flag and date comes back, here and in other programs; a kill leaves nothing twice."""

import contextlib
import mailbox
import mmap
import os
import pty
import random
import re
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from mailkeep.errors import CannotWrite
from mailkeep.export import mbox, mbox_writer, tree
from mailkeep.export.importer import Importer
from mailkeep.export.item import Bad, Item, Skipped
from mailkeep.export.writer import Folder, Message, Options
from mailkeep.store.store import Store
from tests import messages
from tests.programs import find_program

INBOX = Folder("INBOX", ("INBOX",))
ALL = Options(per="all")
HEAD = b"Subject: x\r\nFrom: ann@example.org\r\n"
WHEN = 1_700_000_000
Found = tuple[str, bytes, frozenset[str], int | None]


def message(
    data: bytes, number: int = 1, *, folder: Folder = INBOX, flags: Iterable[str] = (), date: int = WHEN
) -> Message:
    return Message(number, folder, number, frozenset(flags), date, data)


def write(place: Path, letters: Sequence[Message], options: Options = ALL, state: bytes | None = None) -> None:
    writer = mbox_writer.make(place, options, state)
    for folder in options.folders or dict.fromkeys(letter.folder for letter in letters):
        writer.folder(folder)
        for letter in letters:
            if letter.folder is folder:
                writer.write([letter])
    writer.finish()


def read(place: Path) -> list[Found]:
    """(mailbox, bytes, flags, date) of all that the importer finds."""
    found: list[Found] = []
    for item in tree.read(place, tree.Walk(Skipped(), 1 << 30, None)):
        assert isinstance(item, Item), item
        found.append((item.mailboxes[0], b"".join(item.chunks), item.flags, item.internaldate))
    return found


def back(place: Path, data: bytes, flags: Iterable[str] = (), date: int = WHEN) -> Found:
    """What comes back of one message."""
    write(place, [message(data, flags=flags, date=date)])
    (found,) = read(place)
    place.unlink()
    return found


WILD = {
    "bare LF": HEAD + b"\r\none\ntwo\r\n",
    "first line ends in LF": b"Subject: x\nFrom: y\n\nbody\n",
    "CR CR LF": HEAD + b"\r\none\r\r\ntwo\r\n",
    "bare CR": HEAD + b"\r\none\rtwo\r\n",
    "ends in CR": HEAD + b"\r\nbody\r",
    "ends in LF CR": HEAD + b"\r\nbody\n\r",
    "ends in empty lines": HEAD + b"\r\nbody\r\n\r\n\r\n",
    "nothing at all": b"",
    "one LF": b"\n",
    "NUL": HEAD + b"\r\n\0\0\r\n",
    "From_ everywhere": b"From a Tue Jan 20 10:00:00 2026\r\n"
    + HEAD
    + b"From b Tue Jan 20 10:00:00 2026\r\n\r\n\r\nFrom c Tue Jan 20 10:00:00 2026\r\nTo: x\r\n>From\r\n>>From d\r\n",
    "From_ and bare LF": HEAD + b"\r\n\nFrom c Tue Jan 20 10:00:00 2026\nTo: x\n>From d\r\n",
    "lengths": HEAD + b"Content-Length: 3\r\n\r\nfour\r\n",
    "flags of its own": HEAD + b"Status: RO\r\nX-Status: D\r\nX-Keywords: a b\r\nX-Mozilla-Status: 0008\r\n\r\nx\r\n",
    "labels of its own": HEAD + b"X-Gmail-Labels: Inbox,Work\r\n\r\nx\r\n",
    "an export of an export": b"Status: RO\r\nX-Status: F\r\nX-Mailkeep-Above: date=1; lines=crlf\r\n"
    + HEAD
    + b"\r\nx\r\n",
}


@pytest.mark.parametrize("name", WILD)
def test_wild_bytes_come_back(tmp_path: Path, name: str) -> None:
    assert back(tmp_path / "out.mbox", WILD[name]) == ("INBOX", WILD[name], frozenset(), WHEN)


def test_the_corpus_comes_back(tmp_path: Path) -> None:
    """All in one file, so that each stands between two others."""
    letters = [message(data, number) for number, (_, data) in enumerate(messages.corpus(), 1)]
    letters += [message(data, number) for number, data in enumerate(WILD.values(), len(letters) + 1)]
    write(tmp_path / "out.mbox", letters)
    found = read(tmp_path / "out.mbox")
    assert len(found) == len(letters)
    wrong = [n for n, (one, letter) in enumerate(zip(found, letters, strict=True)) if one[1] != letter.data]
    assert not wrong
    assert mbox_writer.count(tmp_path / "out.mbox") == len(letters)


LINE = b"From a@b Tue Jan 20 10:00:00 2026"
MARK = b"X-Mailkeep-Above: lines=crlf; end=open"
TOKENS = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"From ", b">", LINE, b">" + LINE, b"x", b" ", b"\0", b"\xff",
    b"Status: RO", MARK, b"Content-Length: 2",
)  # fmt: skip


def test_any_bytes_come_back_from_between_any_others(tmp_path: Path, rng: random.Random) -> None:
    letters = [message(b"".join(rng.choices(TOKENS, k=rng.randrange(12))), n) for n in range(1, 3000)]
    write(tmp_path / "out.mbox", letters)
    assert [data for _, data, _, _ in read(tmp_path / "out.mbox")] == [letter.data for letter in letters]


FLAGS = [
    (),
    ("\\Seen",),
    ("\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted"),
    ("$Forwarded", "$Junk", "later", "_odd_", "a,b", "=?utf-8?Q?x?=", "x" * 255, "~!@#$^&'+-./:;<=>?[`|}"),
    tuple(f"keyword-{n}-{'k' * 200}" for n in range(500)),
]


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_and_keywords_come_back(tmp_path: Path, flags: tuple[str, ...]) -> None:
    assert back(tmp_path / "out.mbox", HEAD + b"\r\nx\r\n", flags)[2] == frozenset(flags)


@pytest.mark.parametrize("date", [0, 1, 1_000_684_800, WHEN, 4_200_000_000, 253_402_300_799])
def test_dates_come_back(tmp_path: Path, date: int) -> None:
    """1,000,684,800 is the date that git writes into From_ lines, and which is believed of nobody else."""
    assert back(tmp_path / "out.mbox", HEAD + b"\r\nx\r\n", date=date)[3] == date


@pytest.mark.parametrize("date", [-86_400, 1 << 50])
def test_dates_without_a_name_do_no_harm(tmp_path: Path, date: int) -> None:
    assert back(tmp_path / "out.mbox", HEAD + b"\r\nx\r\n", date=date)[1] == HEAD + b"\r\nx\r\n"


def test_unread_mail_is_unread_in_thunderbird_too(tmp_path: Path) -> None:
    """It takes `O` for read (nsParseMailbox.cpp); mutt and Dovecot take a field without letters for unread."""
    write(tmp_path / "out.mbox", [message(HEAD + b"\r\nx\r\n")])
    assert b"\nStatus:\nX-Status:\n" in (tmp_path / "out.mbox").read_bytes()


def test_a_line_longer_than_a_slice_is_not_unquoted_where_it_is_cut(tmp_path: Path) -> None:
    data = HEAD + b"\r\n" + b">From " * 400_000 + b"\r\nFrom x\r\n" + b"y" * 3_000_000
    assert back(tmp_path / "out.mbox", data)[1] == data


NAMES = [
    "Work",
    "Work/2024",
    "Work.mbox",
    "Work/2024/a:b",
    "work",
    "new",
    "Entwürfe 你好",
    "=?x?=",
    " pad",
    "x" * 250,
    "x" * 251,
]


@pytest.mark.parametrize("per", ["all", "folder"])
def test_folders_come_back(tmp_path: Path, per: str) -> None:
    folders = tuple(Folder(name, tuple(name.split("/"))) for name in ["INBOX", "INBOX/Sub", *NAMES])
    options = Options(per=per, folders=folders)
    out = tmp_path / ("out.mbox" if per == "all" else "out")
    letters = [message(messages.numbered(n), n, folder=folder) for n, folder in enumerate(folders, 1)]
    write(out, letters, options)
    assert sorted((name, data) for name, data, _, _ in read(out)) == sorted((m.folder.name, m.data) for m in letters)
    assert mbox_writer.count(out) == len(folders)
    for path in tmp_path.rglob("*"):
        assert len(path.name.encode()) <= 120 and not re.search(r'[<>:"\\|?*]|[. ]$', path.name)


def test_files_say_where_each_message_is(tmp_path: Path) -> None:
    writer = mbox_writer.make(tmp_path / "out", Options(), None)
    writer.folder(Folder("Work/2024", ("Work", "2024")))
    (written,) = writer.write([message(messages.numbered(1))])
    writer.finish()
    assert written.file == "Work/2024.mbox"
    assert (tmp_path / "out" / written.file).read_bytes().startswith(b"From ann@example.org Tue Nov 14 22:13:20 2023\n")


@pytest.mark.parametrize("per", ["all", "folder"])
def test_what_is_behind_the_checkpoint_is_cut_off(tmp_path: Path, per: str) -> None:
    folders = tuple(Folder(name, (name,)) for name in ("A", "B", "C"))
    letters = [message(messages.numbered(n), n, folder=folders[n // 4]) for n in range(12)]
    options = Options(per=per, folders=folders)
    whole = tmp_path / "whole"
    write(whole, letters, options)
    for kept in range(12):
        out = tmp_path / f"out-{kept}"
        first = mbox_writer.make(out, options, None)
        state = None
        for number, letter in enumerate(letters):
            first.folder(letter.folder)
            first.write([letter])
            if number == kept:
                state = first.checkpoint()
        first.abandon()
        second = mbox_writer.make(out, options, state)
        for letter in letters[kept:]:
            second.folder(letter.folder)
            if letter is not letters[kept]:
                second.write([letter])
        second.finish()
        assert contents(out) == contents(whole), kept


def contents(place: Path) -> dict[str, bytes]:
    if place.is_file():
        return {"": place.read_bytes()}
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite):
        mbox_writer.make(tmp_path / "file" / "x", ALL, None)
    writer = mbox_writer.make(tmp_path / "file", ALL, None)
    writer.folder(INBOX)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(CannotWrite, match="larger"):
            writer.write([message(b"x" * (4 << 20))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    writer.abandon()


def test_an_import_into_another_account_gives_the_same(tmp_path: Path) -> None:
    folders = (INBOX, Folder("Work/2024", ("Work", "2024")), Folder("Nothing here", ("Nothing here",)))
    flags = [(), ("\\Seen", "$Forwarded"), ("\\Flagged", "later")]
    letters = [
        message(data, n, folder=folders[n % 2], flags=flags[n % 3], date=WHEN + n)
        for n, data in enumerate([*messages.bulk(30), *(data for _, data in messages.ugly())], 1)
    ]
    letters.sort(key=lambda letter: (letter.folder.name, letter.number))
    write(tmp_path / "out", letters, Options(per="folder", folders=folders))
    with contextlib.closing(Store.open(tmp_path / "data")) as store:
        store.directory.add("bob")
        account = store.account("bob")
        assert Importer(store, account).files([tmp_path / "out"]).failed == 0
        for folder in folders:
            box = account.mailbox(folder.name)
            rows = account.fetch(box.id, range(1, box.uidnext), ("email", "flags", "internaldate"))
            found = [(account.read(email), account.flagset(known).flags, when) for _, email, known, when in rows]
            assert found == [(m.data, m.flags, m.internaldate) for m in letters if m.folder is folder]


# --- strangers -------------------------------------------------------------------------------------------------------


def plain(data: bytes) -> bytes:
    """A message as another program gives it, without our lines and quoting, with CRLF."""
    below = re.sub(rb"(?s)\A.*?X-Mailkeep-Above:[^\n]*\n", b"", data)
    return messages.crlf(re.sub(rb"(?m)^>(>*From )", rb"\1", below))


def test_pythons_mailbox_reads_the_same(tmp_path: Path) -> None:
    letters = [message(data, n, flags=("\\Seen", "\\Flagged")) for n, (_, data) in enumerate(messages.corpus(), 1)]
    write(tmp_path / "out.mbox", letters)
    box = mailbox.mbox(tmp_path / "out.mbox", create=False)
    try:
        assert len(box) == len(letters)
        wrong = []
        for key, letter in zip(sorted(box.keys()), letters, strict=True):
            found = plain(box.get_bytes(key))
            if found != letter.data and found.removesuffix(b"\r\n") != letter.data:
                wrong.append(key)
        assert not wrong
        assert {box[key].get_flags() for key in sorted(box.keys())[:5]} == {"ROF"}
    finally:
        box.close()


MUTT = [
    "confirmappend=no",
    "confirmcreate=no",
    "quit=yes",
    "wait_key=no",
    "sort=mailbox-order",
    "mark_old=no",
    "copy=no",
]


def mutt(root: Path, file: Path, keys: str) -> None:
    """Open a file, type the keys, leave."""
    (root / "muttrc").write_text("".join(f"set {line}\n" for line in [*MUTT, "mbox_type=mbox", "header_cache=''"]))
    main, side = pty.openpty()
    command = [
        find_program("mutt"),
        "-n",
        "-R",
        "-F",
        str(root / "muttrc"),
        "-f",
        str(file),
        "-e",
        f'push "{keys}<exit>"',
    ]
    environment = {**os.environ, "HOME": str(root), "TERM": "vt100", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, cwd=root, env=environment)
    os.close(side)
    screen, deadline = b"", time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if not select.select([main], [], [], 1)[0]:
                continue
            try:
                screen += os.read(main, 65536)
            except OSError:  # EIO: mutt has closed the terminal
                break
        assert process.wait(timeout=max(1, deadline - time.monotonic())) == 0, screen[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(main)


def test_mutt_sees_messages_and_flags(tmp_path: Path) -> None:
    find_program("mutt")
    flags = [(), ("\\Seen",), ("\\Seen", "\\Answered"), ("\\Flagged",), ("\\Deleted",)]
    data = [*messages.bulk(20), *(data for _, data in messages.ugly() if data.startswith(b"From: "))]
    letters = [message(one, n, flags=flags[n % 5]) for n, one in enumerate(data)]
    write(tmp_path / "out.mbox", letters)
    patterns = {"all": "~A", "read": "~R", "answered": "~Q", "flagged": "~F", "deleted": "~D"}
    keys = "".join(
        f"<untag-pattern>~A<enter><tag-pattern>{pattern}<enter><tag-prefix><copy-message><kill-line>{tmp_path}/{name}<enter>"
        for name, pattern in patterns.items()
    )
    mutt(tmp_path, tmp_path / "out.mbox", keys)
    wanted = {"all": None, "read": "\\Seen", "answered": "\\Answered", "flagged": "\\Flagged", "deleted": "\\Deleted"}
    for name, flag in wanted.items():
        copied = mailbox.mbox(tmp_path / name, create=False)
        found = [plain(copied.get_bytes(key)) for key in sorted(copied.keys())]
        copied.close()
        expected = [letter.data for letter in letters if flag is None or flag in letter.flags]
        assert len(found) == len(expected), name
        if name == "all":
            same = [clean(one) == clean(other) for one, other in zip(found, expected, strict=True)]
            assert all(same), same.index(False)


def clean(data: bytes) -> bytes:
    """Without the fields that mutt puts into a copy."""
    return re.sub(rb"(?m)^(?:Status|X-Status|Content-Length|Lines):[^\n]*\n", b"", data).rstrip(b"\r\n")


def test_what_mutt_rewrote_is_still_ours(tmp_path: Path) -> None:
    """mutt takes Status away and puts it at the end of the header: the flags come from there."""
    text = (
        b"From a@b Tue Jan 20 10:00:00 2026\nX-Keywords: later\nX-Mailkeep-Above: date=1700000000; lines=lf\n"
        b"Subject: x\nStatus: RO\nX-Status: A\n\nbody\n\n"
    )
    (item,) = [one for one in mbox.read(text, "box", Skipped(), size_max=1 << 20) if not isinstance(one, Bad)]
    assert item.flags == {"\\Seen", "\\Answered", "later"}
    assert b"".join(item.chunks) == b"Subject: x\r\nStatus: RO\r\nX-Status: A\r\n\r\nbody\r\n"


def test_what_thunderbird_put_on_top_is_taken_off_and_believed(tmp_path: Path) -> None:
    text = (
        b"From - Tue Jan 20 10:00:00 2026\nX-Mozilla-Status: 0005\nX-Mozilla-Status2: 00000000\nStatus: O\nX-Status:\n"
        b"X-Mailkeep-Above: date=1700000000; lines=lf\nSubject: x\n\nbody\n\n"
    )
    (item,) = [one for one in mbox.read(text, "box", Skipped(), size_max=1 << 20) if not isinstance(one, Bad)]
    assert item.flags == {"\\Seen", "\\Flagged"} and b"".join(item.chunks) == b"Subject: x\r\n\r\nbody\r\n"


def test_a_mapped_file_is_read_like_bytes(tmp_path: Path) -> None:
    write(tmp_path / "out.mbox", [message(data, n) for n, data in enumerate(messages.bulk(20))])
    with (tmp_path / "out.mbox").open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = [
            b"".join(item.chunks)
            for item in mbox.read(data, "x", Skipped(), size_max=1 << 20)
            if isinstance(item, Item)
        ]
    assert found == messages.bulk(20)
