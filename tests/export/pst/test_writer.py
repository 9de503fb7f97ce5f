"""Sizes at every limit of the format, folders, checkpoints; and a checker that can fail."""

import json
import random
import shutil
from pathlib import Path

import pytest

from mailkeep.errors import CannotWrite, UsageError
from mailkeep.export import mapi
from mailkeep.export.mapi import Attached, Item
from mailkeep.export.pst import count, make
from mailkeep.export.pst import folders as pst_folders
from mailkeep.export.pst import writer as pst_writer
from mailkeep.export.writer import Folder, Message, Options
from mailkeep.mail.letter import Letter
from tests.export.pst import strangers
from tests.export.pst.check import Checker, check
from tests.export.pst.written import INBOX, SENT, TRASH, begin, messages, write
from tests.messages import numbered

XBLOCK = 1021 * 8176
SIZES = [0, 1, 3579, 3580, 3581, 8175, 8176, 8177, 16352, 2 * 8176 + 1, XBLOCK, XBLOCK + 1]


def item(subject: str = "Subject", **changes: object) -> Item:
    made = Item()
    made.properties = {
        mapi.SUBJECT: subject,
        mapi.MESSAGE_FLAGS: mapi.FLAG_READ,
        mapi.DELIVERY_TIME: mapi.filetime(1_700_000_000),
        mapi.CLIENT_SUBMIT_TIME: mapi.filetime(1_700_000_000),
    }
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def written(place: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> Checker:
    """A PST of these very items, found to be right by the checker and counted by libpff."""

    def item_of(message: Message, letter: Letter) -> Item:
        return items[message.number - 1]

    monkeypatch.setattr(pst_writer, "item_of", item_of)
    write(place, {INBOX: messages(INBOX, [b"\r\n"] * len(items))})
    checker = check(place)
    assert checker.errors == []
    assert count(place) == len(items)
    return checker


def attached(data: bytes, name: str = "a.bin") -> Attached:
    return Attached({mapi.ATTACH_LONG_NAME: name, mapi.ATTACH_NAME: name}, data)


def test_attachments_of_every_size_at_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.pst"
    datas = [random.Random(size).randbytes(size) for size in SIZES]
    written(place, [item(attachments=[attached(data)]) for data in datas], monkeypatch)
    _, found = strangers.by_pypff(place)
    assert [message.attachments[0][1] for message in found] == [strangers.digest(data) for data in datas]
    lines = [line for line in strangers.by_pypstreader(place) if "subject" in line]
    assert [line["attachments"][0][1] for line in lines] == [strangers.digest(data) for data in datas]
    lines = [line for line in strangers.by_extractor(place) if "subject" in line]
    assert [line["attachments"][0][1] for line in lines] == [strangers.digest(data) for data in datas]


def test_bodies_of_every_size_at_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.pst"
    texts = ["x" * (size // 2) for size in SIZES]
    items = [item() for _ in texts]
    for one, text in zip(items, texts, strict=True):
        one.properties[mapi.BODY] = text
    written(place, items, monkeypatch)
    _, found = strangers.by_pypff(place)
    assert [message.text for message in found] == texts


def test_many_recipients_and_a_long_line_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.pst"
    people = [
        {
            mapi.RECIPIENT_TYPE: mapi.RECIPIENT_TO,
            mapi.DISPLAY_NAME: f"Person {number}",
            mapi.ADDRESS_TYPE: "SMTP",
            mapi.EMAIL_ADDRESS: f"person{number}@example.org",
            mapi.SMTP_ADDRESS: f"person{number}@example.org",
            mapi.ENTRY_ID: mapi.one_off(f"Person {number}", f"person{number}@example.org"),
        }
        for number in range(900)
    ]
    one = item(recipients=people)
    one.properties[mapi.DISPLAY_TO] = "; ".join(f"Person {number}" for number in range(900))
    written(place, [one], monkeypatch)
    _, (found,) = strangers.by_pypff(place)
    assert found.recipients == [(1, f"Person {n}", f"person{n}@example.org") for n in range(900)]


def test_many_attachments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.pst"
    datas = [b"%d" % number for number in range(400)]
    written(place, [item(attachments=[attached(data) for data in datas])], monkeypatch)
    _, (found,) = strangers.by_pypff(place)
    assert [digest for _, digest in found.attachments] == [strangers.digest(data) for data in datas]


def test_a_message_in_a_message_and_so_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.pst"
    inner = item("Level 16", attachments=[attached(b"x" * 9000)])
    for level in range(15, 0, -1):
        inner = item(f"Level {level}", attachments=[Attached({mapi.ATTACH_LONG_NAME: "m"}, None, inner)])
    written(place, [inner], monkeypatch)
    (found,) = [line for line in strangers.by_pypstreader(place) if "subject" in line]
    for level in range(1, 16):
        assert found["subject"] == f"Level {level}"
        found = found["attachments"][0][1]
    assert found["attachments"][0][1] == strangers.digest(b"x" * 9000)


def test_hundreds_of_properties_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {mapi.Named(mapi.PS_PUBLIC_STRINGS, f"name {number}", mapi.STRING): str(number) for number in range(700)}
    named |= {mapi.Named(mapi.PSETID_TASK, number, mapi.INTEGER32): number for number in range(0x8100, 0x8200)}
    named[mapi.CATEGORIES] = ["Wichtig", "日本", ""]
    written(tmp_path / "a.pst", [item(named=named), item(named=named)], monkeypatch)


def test_text_that_no_reader_takes_is_made_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.pst"
    texts = ["", "\ud800", "a\0b", "x" * 1000, "RE: re", "\U0001f600" * 200, "\x01\x05x"]
    written(place, [item(text) for text in texts], monkeypatch)
    _, found = strangers.by_pypff(place)
    assert [message.subject for message in found] == [mapi.cut(mapi.clean(text)) for text in texts]


def test_folders_thirty_deep_and_names_that_are_alike(tmp_path: Path) -> None:
    place = tmp_path / "a.pst"
    deep = Folder("deep", tuple(f"level {number}" for number in range(30)))
    alike = [Folder("Foo", ("Foo",)), Folder("foo", ("foo",)), Folder("", ("", "\x07"))]
    mail = {folder: messages(folder, [numbered(1)]) for folder in [deep, *alike]}
    write(place, mail)
    checker = check(place)
    assert checker.errors == []
    filled = {path.removeprefix("Top of Outlook data file/") for path, number in checker.counts.items() if number}
    assert filled == {"/".join(deep.path), "Foo", "foo (2)", "(no name)/(no name)"}
    folders, _ = strangers.by_pypff(place)
    assert sum(folders.values()) == 4


def test_special_folders_are_outlooks_own(tmp_path: Path) -> None:
    place = tmp_path / "a.pst"
    write(place, {INBOX: messages(INBOX, [numbered(1)]), SENT: [], TRASH: messages(TRASH, [numbered(2)])})
    checker = check(place)
    assert checker.errors == []
    assert checker.names_of_roles() == {"inbox": "Inbox", "sent": "Sent", "wastebasket": "Trash"}


def test_without_a_mailbox_for_it_there_is_deleted_items(tmp_path: Path) -> None:
    place = tmp_path / "a.pst"
    write(place, {})
    checker = check(place)
    assert checker.errors == []
    assert checker.names_of_roles() == {"wastebasket": "Deleted Items"}


def test_a_folder_may_come_back(tmp_path: Path) -> None:
    place = tmp_path / "a.pst"
    writer = begin(place, [INBOX, SENT])
    for round_ in range(3):
        for folder in (INBOX, SENT):
            writer.folder(folder)
            writer.write(messages(folder, [numbered(number) for number in range(round_ + 1)]))
    writer.finish()
    checker = check(place)
    assert checker.errors == []
    assert sorted(checker.counts.values())[-2:] == [6, 6]


def test_a_folder_that_is_full_goes_on_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.pst"
    monkeypatch.setattr(pst_folders, "FULL_BLOCKS", 25)
    write(place, {INBOX: messages(INBOX, [numbered(number) for number in range(1500)])})
    checker = check(place)
    assert checker.errors == []
    found = {path.rpartition("/")[2]: number for path, number in checker.counts.items() if number}
    assert list(found) == ["Inbox", "Inbox (2)"]
    assert sum(found.values()) == count(place) == 1500


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_run_that_was_killed_goes_on(tmp_path: Path, cut: int) -> None:
    mail = messages(INBOX, [numbered(number, size=9000 * (number % 3)) for number in range(200)])
    whole = tmp_path / "whole.pst"
    write(whole, {INBOX: mail})
    place = tmp_path / "a.pst"
    writer = begin(place, [INBOX])
    state = writer.checkpoint()
    for number in range(0, 200, 20):
        writer.folder(INBOX)
        writer.write(mail[number : number + 20])
        if number // 20 % 4 == cut:
            state = writer.checkpoint()
            writer.write(mail[number + 20 : number + 27])  # what no checkpoint knows
            writer.abandon()
            writer = begin(place, [INBOX], state)
    state = writer.checkpoint()
    writer.finish()
    # Killed before the end was noted: the end again, from the same state.
    again = begin(place, [INBOX], state)
    again.folder(INBOX)
    again.finish()
    assert check(place).errors == []
    assert strangers.by_pypff(place) == strangers.by_pypff(whole)
    assert len(json.loads(state)) < 10 and len(state) < 1000


def test_a_file_that_is_shorter_than_it_was_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a.pst"
    writer = begin(place, [INBOX])
    writer.folder(INBOX)
    writer.write(messages(INBOX, [numbered(1)]))
    state = writer.checkpoint()
    writer.abandon()
    place.write_bytes(place.read_bytes()[:-100])
    with pytest.raises(UsageError):
        make(place, Options(), state)


def test_two_stores_are_never_taken_for_one(tmp_path: Path) -> None:
    for name in ("a.pst", "b.pst"):
        write(tmp_path / name, {INBOX: messages(INBOX, [numbered(1)])})
    assert check(tmp_path / "a.pst").key != check(tmp_path / "b.pst").key


def test_the_checker_finds_damage(tmp_path: Path, rng: random.Random) -> None:
    """A bit of what is used, anywhere, is turned over; bits of free space mean nothing, and it may say nothing."""
    place, damaged = tmp_path / "a.pst", tmp_path / "b.pst"
    write(place, {INBOX: messages(INBOX, [numbered(number, size=3000 * (number % 4)) for number in range(30)])})
    checker = check(place)
    assert checker.errors == []
    used = [slot * 64 for slot, taken in enumerate(checker.file.taken) if taken]
    data = place.read_bytes()
    for _ in range(60):
        at = rng.choice(used) + rng.randrange(64)
        shutil.copy(place, damaged)
        with damaged.open("r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ 1 << rng.randrange(8)]))
        assert check(damaged).errors, f"a bit at {at:#x}"


@pytest.mark.parametrize("number", [0, 1, 28, 29, 64, 65, 200])
def test_count_wherever_the_rows_are(tmp_path: Path, number: int) -> None:
    """In the first block of the heap, in a later one (28 rows fit into an item, their texts do not), in a subnode."""
    place = tmp_path / "a.pst"
    write(place, {INBOX: messages(INBOX, [numbered(n, subject=f"{n} " + "x" * 100) for n in range(number)])})
    assert check(place).errors == []
    assert count(place) == number


def test_count_notices_what_is_not_there(tmp_path: Path) -> None:
    place = tmp_path / "a.pst"
    write(place, {INBOX: messages(INBOX, [numbered(number) for number in range(700)]), SENT: []})
    assert count(place) == 700 == sum(strangers.by_pypff(place)[0].values())
    file = check(place).file
    at = file.blocks[file.nodes[0x200024].data][0]
    data = bytearray(place.read_bytes())
    data[at] ^= 1
    place.write_bytes(data)
    with pytest.raises(CannotWrite, match="damaged"):
        count(place)
    place.write_bytes(data[:0x5000])
    with pytest.raises(CannotWrite, match="damaged"):
        count(place)
