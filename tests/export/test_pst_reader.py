"""PST and OST files read: ours, those of strangers where they are installed, and damaged ones."""

import io
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from mailkeep.export import demo, mapi, msg, pst, pst_child, pst_reader, tree
from mailkeep.export.importer import Importer
from mailkeep.export.item import Bad, Item, Skipped
from mailkeep.export.pst_reader import CannotRead, Contents, Fault, Mail
from mailkeep.export.writer import Folder, Message, Options
from mailkeep.mail.letter import letter_of
from mailkeep.store.store import Store
from tests import packages
from tests.messages import numbered, ugly
from tests.programs import ProgramMissing

SIZE_MAX = 64 << 20
FOLDERS = (
    Folder("INBOX", ("Inbox",)),
    Folder("Sent", ("Sent",), frozenset({"\\Sent"})),
    Folder("Projects/A\\B", ("Projects", "A\\B")),
    Folder("Projects/Empty", ("Projects", "Empty")),
    Folder("旅行 ✈", ("旅行 ✈",)),
)


def write(path: Path, mails: dict[int, list[Message]], folders: tuple[Folder, ...] = FOLDERS) -> Path:
    """A PST with these messages, by the number of their folder."""
    writer = pst.make(path, Options(title="Test", folders=folders), None)
    for number, folder in enumerate(folders):
        writer.folder(folder)
        if mails.get(number):
            writer.write(mails[number])
    writer.finish()
    return path


def message(number: int, data: bytes, *flags: str, folder: int = 0) -> Message:
    return Message(number, FOLDERS[folder], number, frozenset(flags), 1_700_000_000 + number, data)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inside = ugly()
    return write(
        tmp_path_factory.mktemp("pst") / "small.pst",
        {
            0: [message(n + 1, data, "\\Seen") for n, (_, data) in enumerate(inside)],
            1: [message(901, numbered(901), "\\Seen", "\\Answered", "Work", folder=1)],
            2: [message(902, numbered(902, size=100_000), "\\Flagged", "\\Draft", folder=2)],
            4: [message(903, numbered(903), folder=4)],
        },
    )


def read(path: Path | bytes, size_max: int = SIZE_MAX) -> list[Contents | Mail | Fault]:
    stream = io.BytesIO(path) if isinstance(path, bytes) else path.open("rb")
    with stream:
        return list(pst_reader.read(stream, size_max=size_max))


def test_folders_flags_and_dates(small: Path) -> None:
    contents, *found = read(small)
    assert isinstance(contents, Contents)
    mails = [mail for mail in found if isinstance(mail, Mail)]
    assert len(mails) == len(found) == contents.items
    assert Counter((mail.folder, mail.role) for mail in mails) == {
        (("Inbox",), "INBOX"): len(ugly()),
        (("Sent",), "Sent"): 1,
        (("Projects", "A\\B"), ""): 1,
        (("旅行 ✈",), ""): 1,
    }
    assert contents.empty == (("Projects", "Empty"),)
    by_date = {mail.internaldate: mail for mail in mails}
    assert by_date[1_700_000_901].flags == {"\\Seen", "\\Answered", "Work"}
    assert by_date[1_700_000_902].flags == {"\\Flagged", "\\Draft"}
    assert by_date[1_700_000_903].flags == frozenset()
    big = letter_of(by_date[1_700_000_902].data)
    assert big.text == letter_of(numbered(902, size=100_000)).text


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("Gesendet", "Entwürfe"), {"Gesendet": "Sent", "Entwürfe": "Drafts"}),
        (("Gesendet", "Sent", "Entwürfe"), {"Gesendet": "", "Sent": "Sent", "Entwürfe": "Drafts"}),
        (("Deleted Items", "TRASH"), {"Deleted Items": "", "TRASH": "Trash"}),
        (("Gesendet", "Gesendete Elemente"), {"Gesendet": "Sent", "Gesendete Elemente": ""}),
    ],
)
def test_two_folders_never_become_one(tmp_path: Path, names: tuple[str, ...], roles: dict[str, str]) -> None:
    folders = tuple(Folder(name, (name,)) for name in names)
    mails = {number: [message(number + 1, numbered(number))] for number in range(len(names))}
    _, *found = read(write(tmp_path / "x.pst", mails, folders))
    assert {mail.folder[-1]: mail.role for mail in found if isinstance(mail, Mail)} == roles


def test_the_same_file_gives_the_same_bytes(small: Path) -> None:
    assert read(small) == read(small.read_bytes())


def test_an_item_that_is_too_large_is_a_fault(small: Path) -> None:
    faults = [found for found in read(small, size_max=90_000) if isinstance(found, Fault)]
    assert (("Projects", "A\\B"), "more than 90,000 bytes: limits.message_size") in [
        (fault.folder, fault.reason) for fault in faults
    ]
    mails = [found for found in read(small, size_max=90_000) if isinstance(found, Mail)]
    assert len(mails) + len(faults) == len(ugly()) + 3
    assert all(len(mail.data) <= 90_000 for mail in mails)


def test_other_files_are_refused() -> None:
    for data, reason in ((b"", "cannot be opened"), (b"x" * 4096, "not a file of Outlook's")):
        with pytest.raises(CannotRead, match=reason):
            read(data)


def test_a_child_that_dies_costs_one_item(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader breaks at one item, and is silent at another."""
    child = (
        "import os, signal\n"
        "from mailkeep.export import pst_child\n"
        "tell = pst_child._tell_item\n"
        "def broken(store, place, index, number, size_max):\n"
        "    if number == 3: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if number == 5: signal.pause()\n"
        "    tell(store, place, index, number, size_max)\n"
        "pst_child._tell_item = broken\n"
        "pst_child.main()\n"
    )
    whole = [mail for mail in read(small) if isinstance(mail, Mail)]
    monkeypatch.setattr(pst_reader, "_CHILD", child)
    monkeypatch.setattr(pst_reader, "ITEM_S", 2.0)
    found = read(small)
    faults = [fault for fault in found if isinstance(fault, Fault)]
    assert [fault.number for fault in faults] == [3, 5]
    assert "broke on it" in faults[0].reason
    assert "seconds" in faults[1].reason
    assert [mail for mail in found if isinstance(mail, Mail)] == [mail for mail in whole if mail.number not in (3, 5)]


def test_who_asks_no_more_leaves_no_child(small: Path) -> None:
    with small.open("rb") as stream:
        reading = pst_reader.read(stream, size_max=SIZE_MAX)
        next(reading)
        reader = reading.gi_frame.f_locals["reader"]
        child = reader.child
        assert child.poll() is None
        reading.close()
        assert child.poll() is not None


def test_the_file_is_only_read(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pst"
    copy.write_bytes(small.read_bytes())
    copy.chmod(0o400)
    before = copy.stat()
    assert len(read(copy)) == len(read(small))
    assert copy.read_bytes() == small.read_bytes()
    assert copy.stat().st_mtime_ns == before.st_mtime_ns


def test_any_damage_is_told_and_nothing_hangs(small: Path, rng: random.Random, full: bool) -> None:
    whole = small.read_bytes()
    for _ in range(200 if full else 5):
        data = bytearray(whole)
        if rng.random() < 0.25:
            del data[rng.randrange(564, len(data)) :]
        else:
            for _ in range(rng.choice((1, 10, 100, 3000))):
                data[rng.randrange(564, len(data))] = rng.randrange(256)
        try:
            found = read(bytes(data))
        except CannotRead as error:
            assert "damaged" in str(error)
        else:
            assert isinstance(found[0], Contents)
            for mail in found:
                if isinstance(mail, Mail):
                    letter_of(mail.data)


# --- in an import ----------------------------------------------------------------------------------------------------


def places(path: Path) -> dict[str, int]:
    """How many items go to each mailbox; "!" are the bad ones."""
    walk = tree.Walk(Skipped(), SIZE_MAX, None)
    found = Counter[str]()
    for item in tree.read(path, walk):
        if isinstance(item, Bad):
            found["!"] += 1
        else:
            assert isinstance(item, Item)
            b"".join(item.chunks)
            found.update(item.mailboxes)
    return dict(found)


def test_a_named_file_goes_to_the_top_and_one_in_a_folder_below_its_name(small: Path, tmp_path: Path) -> None:
    count = len(ugly())
    assert places(small) == {"INBOX": count, "Sent": 1, "Projects/A\\B": 1, "旅行 ✈": 1}
    (tmp_path / "Old mail.pst").write_bytes(small.read_bytes())
    (tmp_path / "Broken.ost").write_bytes(b"!BDN" + bytes(2000))
    assert places(tmp_path) == {
        "Old mail/Inbox": count,
        "Old mail/Sent": 1,
        "Old mail/Projects/A\\B": 1,
        "Old mail/旅行 ✈": 1,
        "!": 1,
    }


def test_in_a_zip(small: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(small, "mail/Old.pst")
    assert places(tmp_path / "a.zip")["Old/Inbox"] == len(ugly())


@pytest.mark.parametrize(
    ("pages", "codec"),
    [
        ((1251, 0x0409, 65001), "cp1251"),
        ((0, 0x0419, 20866), "cp1251"),
        ((0, 0x0411, 50220), "cp932"),
        ((0, 0x0404, 0), "cp950"),
        ((0, 0x0804, 0), "gb18030"),
        ((0, 0x0407, 28592), "iso8859-2"),
        ((0, 0, 0), "cp1252"),
        ((99999, 0, 1200), "cp1252"),
    ],
)
def test_the_charset_of_old_strings(pages: tuple[int, int, int], codec: str) -> None:
    assert mapi.string_codec(*pages) == codec


# --- by strangers ----------------------------------------------------------------------------------------------------


def stranger(name: str) -> Path:
    """A file that Outlook or another program wrote, which npm's pst-extractor brings as an example."""
    try:
        path = packages.node_modules() / "pst-extractor" / "example" / "testdata" / name
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    if not path.is_file():
        pytest.skip(f"{name} is not in this version of pst-extractor")
    return path


def test_a_store_of_exchange() -> None:
    """An OST of 4K pages, with compressed blocks: folders, invitations, attachments, a calendar with holidays."""
    contents, *found = read(stranger("pstextractortest@outlook.com.ost"))
    mails = [mail for mail in found if isinstance(mail, Mail)]
    assert isinstance(contents, Contents) and contents.items == len(mails) == len(found) == 183
    assert Counter((mail.folder, mail.role) for mail in mails) == {
        (("Calendar", "United States holidays"), ""): 160,
        (("Inbox",), "INBOX"): 10,
        (("Calendar",), ""): 9,
        (("Sent Items",), "Sent"): 2,
        (("Deleted Items",), "Trash"): 1,
        (("Sync Issues",), ""): 1,
    }
    letters = {letter.subject: letter for letter in (letter_of(mail.data) for mail in mails)}
    picture = letters["jpg attachment"]
    assert [attachment.media_type for attachment in picture.attachments if attachment.name.endswith("jpg")]
    weekly = letters["repeats every monday for 10 weeks"]
    (calendar,) = [a for a in weekly.attachments if a.media_type == "text/calendar"]
    lines = weekly.content(calendar).decode().split("\r\n")
    assert "RRULE:FREQ=WEEKLY;INTERVAL=1;BYDAY=MO;WKST=SU;COUNT=10" in lines
    assert 'DTSTART;TZID="(UTC-08 00) Pacific Time (US & Canada)":20210809T100000' in lines
    assert weekly.header("X-Message-Class") == "IPM.Appointment"
    assert "Repeats: every Monday from 10:00 AM to 11:00 AM" in (weekly.text or "")
    day = letters["Independence Day (Observed)"]
    assert b"DTSTART;VALUE=DATE:" in day.content(day.attachments[0])


def test_a_store_of_another_program() -> None:
    """A PST of the Enron data set: mail that never had a header, and addresses of Exchange."""
    contents, *found = read(stranger("enron.pst"))
    mails = [mail for mail in found if isinstance(mail, Mail)]
    assert isinstance(contents, Contents) and contents.items == len(mails) == 71
    assert Counter(mail.folder[-1] for mail in mails)["Personal"] == 47
    for mail in mails:
        letter = letter_of(mail.data)
        assert letter.from_ and letter.date is not None


def test_the_demo_account_comes_back(tmp_path: Path) -> None:
    """All that the sample mail has, written as a PST and read again: flags, dates, folders, what a reader sees."""
    items = list(demo.items())
    names = list(dict.fromkeys(item.mailboxes[0] for item in items))
    folders = tuple(Folder(name, tuple(name.split("/"))) for name in names)
    batches: dict[int, list[Message]] = {}
    for number, item in enumerate(items, start=1):
        folder = names.index(item.mailboxes[0])
        data = b"".join(item.chunks)
        one = Message(number, folders[folder], number, item.flags, item.internaldate or number, data)
        batches.setdefault(folder, []).append(one)
    _, *found = read(write(tmp_path / "demo.pst", batches, folders))
    before = _in_order(one for box in batches.values() for one in box)
    after = _in_order(one for one in found if isinstance(one, Mail))
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        assert other.flags == one.flags
        seen, again = letter_of(one.data), letter_of(other.data)
        for name in ("subject", "date", "from_", "to", "cc", "message_id", "in_reply_to", "references", "html"):
            assert getattr(again, name) == getattr(seen, name), name
        assert (again.text or "").strip() == (seen.text or "").strip()
        assert [(a.name, a.media_type) for a in again.attachments] == [(a.name, a.media_type) for a in seen.attachments]


def test_what_was_read_is_written_the_same(tmp_path: Path) -> None:
    """PST → mail → PST: every property, recipient and attachment, of the demo account and of ugly mail."""
    mails = [b"".join(item.chunks) for item in demo.items()][::3] + [data for _, data in ugly()]
    flags = ("\\Seen", "\\Flagged", "Work", "$Forwarded")
    batch = [message(n + 1, data, *flags[: n % 5]) for n, data in enumerate(mails)]
    first = write(tmp_path / "first.pst", {0: batch})
    _, *found = read(first)
    again = [
        Message(batch[n].number, FOLDERS[0], batch[n].uid, mail.flags, mail.internaldate or 0, mail.data)
        for n, mail in enumerate(found)
        if isinstance(mail, Mail)
    ]
    second = write(tmp_path / "second.pst", {0: again})
    assert len(found) == len(batch)
    for one, other in zip(_items(first), _items(second), strict=True):
        assert _shape(one) == _shape(other)


def _items(path: Path) -> list[mapi.Item]:
    store = pst_child.Store(str(path))
    places, _, _ = store.folders()
    return [store.item(place, index, SIZE_MAX)[0] for place in places for index in range(place.items)]


# What the composed message has otherwise: the form of its body, and so its size.
OF_THE_FORM = {mapi.TRANSPORT_MESSAGE_HEADERS, mapi.MESSAGE_SIZE, mapi.NATIVE_BODY, mapi.HTML}


def _shape(item: mapi.Item) -> object:
    properties = {tag: value for tag, value in item.properties.items() if tag not in OF_THE_FORM and value != ""}
    if not item.properties.get(mapi.INTERNET_MESSAGE_ID):
        properties.pop(mapi.CONVERSATION_INDEX, None)  # of white space in the subject
        for tag in (mapi.SUBJECT, mapi.NORMALIZED_SUBJECT, mapi.CONVERSATION_TOPIC):
            properties[tag] = " ".join(str(properties.get(tag, "")).split())
    html = item.properties.get(mapi.HTML) or b""
    assert isinstance(html, bytes)
    attached = [
        (
            {tag: value for tag, value in one.properties.items() if tag != mapi.ATTACH_SIZE},
            one.data,
            _shape(one.item) if one.item is not None else None,
        )
        for one in item.attachments
    ]
    return properties, html.strip(), item.named, item.recipients, attached


def test_msg_files_come_back(tmp_path: Path) -> None:
    batch = [message(n + 1, data, "\\Seen", "Work") for n, (_, data) in enumerate(ugly())]
    writer = msg.make(tmp_path / "out", Options(title="x", per="message", folders=FOLDERS), None)
    writer.folder(FOLDERS[0])
    written = writer.write(batch)
    writer.finish()
    walk = tree.Walk(Skipped(), SIZE_MAX, None)
    for one, file in zip(batch, written, strict=True):
        (found,) = tree.read(tmp_path / "out" / file.file, walk)
        assert isinstance(found, Item), found
        assert (found.flags, found.internaldate, found.mailboxes) == (one.flags, one.internaldate, ("",))
        before, after = letter_of(one.data), letter_of(b"".join(found.chunks))
        assert (before.text or "").strip() == (after.text or "").strip()
        assert before.subject.split() == after.subject.split()
        assert len(before.attachments) == len(after.attachments)
    (tmp_path / "odd.msg").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    (bad,) = tree.read(tmp_path / "odd.msg", walk)
    assert isinstance(bad, Bad)
    (tmp_path / "tcl").mkdir()
    (tmp_path / "tcl" / "de.msg").write_bytes(b"# a message catalogue of Tcl\n")
    assert list(tree.read(tmp_path / "tcl", walk)) == []


def test_nothing_is_imported_twice(small: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    try:
        store.directory.add("anna")
        for count, added in ((1, len(ugly()) + 3), (2, 0)):
            summary = Importer(store, store.account("anna")).files([small])
            assert (summary.added, summary.failed) == (added, 0), count
        names = {box.name: box.messages for box in store.account("anna").mailboxes()}
        assert names["INBOX"] == len(ugly())
        assert (names["Sent"], names["Projects/A\\B"], names["Projects/Empty"]) == (1, 1, 0)
    finally:
        store.close()


def _in_order(found: Iterable[Message | Mail]) -> list[Message | Mail]:
    return sorted(found, key=lambda one: (one.internaldate or 0, letter_of(one.data).message_id or ""))


def test_memory_of_the_child_is_bounded() -> None:
    """A file cannot have more than its settings allow: what asks for more is refused."""
    code = (
        "import resource, sys, json\n"
        "from mailkeep.export import pst_child\n"
        f"sys.argv.append(json.dumps({{'file': 99, 'skip': 0, 'size_max': 1, 'memory_max': {1 << 30}}}))\n"
        "pst_child.main()\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=dict(os.environ))
    assert done.returncode == 7


def test_children_may_die_as_often_as_items_between_them_are_good(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = (
        "import os\n"
        "from mailkeep.export import pst_child\n"
        "tell = pst_child._tell_item\n"
        "def broken(store, place, index, number, size_max):\n"
        "    if number % 20 == 0: os._exit(9)\n"
        "    tell(store, place, index, number, size_max)\n"
        "pst_child._tell_item = broken\n"
        "pst_child.main()\n"
    )
    monkeypatch.setattr(pst_reader, "_CHILD", child)
    monkeypatch.setattr(pst_reader, "RESTARTS_MAX", 1)
    monkeypatch.setattr(pst_reader, "GOOD_ITEMS", 20)
    faults = [fault for fault in read(small) if isinstance(fault, Fault)]
    assert len(faults) > 2 and all("broke on it" in fault.reason for fault in faults)
    monkeypatch.setattr(pst_reader, "GOOD_ITEMS", 21)
    faults = [fault for fault in read(small) if isinstance(fault, Fault)]
    assert [fault.number for fault in faults] == [20, 40, 0] and "given up after item 40" in faults[-1].reason
