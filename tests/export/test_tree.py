"""Files, folders and zips: what is found, and which mailbox it belongs to."""

import io
import os
import plistlib
import zipfile
from pathlib import Path

import pytest

from mailkeep.errors import UsageError
from mailkeep.export import tree
from mailkeep.export.item import Bad, Item, Skipped, to_wire

MAIL = b"Subject: x\n\nbody\n"
WIRE = b"Subject: x\r\n\r\nbody\r\n"
BOX = b"From a@example.org Tue Jan 20 10:00:00 2026\n" + MAIL


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def walk(
    path: Path, skipped: Skipped | None = None, size_max: int = 1 << 20
) -> list[tuple[str, bytes, frozenset[str]]]:
    """(mailbox, bytes, flags) of all that is found; a bad item has its reason as bytes and "!" as mailbox."""
    found = []
    for item in tree.read(path, tree.Walk(skipped or Skipped(), size_max, None)):
        if isinstance(item, Bad):
            found.append(("!", item.reason.encode(), frozenset[str]()))
        else:
            found.append((",".join(item.mailboxes), b"".join(item.chunks), item.flags))
    return found


def places(path: Path) -> list[str]:
    return sorted(mailbox for mailbox, _, _ in walk(path))


def test_a_named_file_goes_to_the_top(tmp_path: Path) -> None:
    write(tmp_path, {"Old.mbox": BOX, "a.eml": MAIL, "no-suffix": MAIL})
    for name in ("Old.mbox", "a.eml", "no-suffix"):
        assert walk(tmp_path / name) == [("", WIRE, frozenset())]


def test_a_folder_is_a_hierarchy(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"1.eml": MAIL, "10.eml": MAIL, "2.eml": MAIL, "Work/a.eml": MAIL, "Work/Plans/b.eml": MAIL, "Old.mbox": BOX},
    )
    assert places(tmp_path) == ["", "", "", "Old", "Work", "Work/Plans"]


def test_files_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, {f"{n}.eml": b"Subject: %d\n\n" % n for n in (1, 2, 10)})
    assert [data.split(b"\r\n")[0] for _, data, _ in walk(tmp_path)] == [b"Subject: 1", b"Subject: 2", b"Subject: 10"]


def test_maildir_plus_plus_with_flags_and_keywords(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cur/1700000000.a.host:2,FRS": MAIL,
            "new/1700000001.b.host": MAIL,
            "cur/1700000002.c.host:2,Sab": MAIL,
            "tmp/1700000003.half": b"Subj",
            "dovecot-keywords": b"0 $Work\n1 later\n",
            "dovecot-uidlist": b"3 V1",
            ".Sent.2024/cur/1700000000.d:2,S": MAIL,
            ".Entw&APw-rfe/new/1700000000.e": MAIL,
            ".Sent.2024/new/.hidden": b"no",
        },
    )
    assert sorted((box, sorted(flags)) for box, _, flags in walk(tmp_path)) == [
        ("", []),
        ("", ["$Work", "\\Seen", "later"]),
        ("", ["\\Answered", "\\Flagged", "\\Seen"]),
        ("Entwürfe", []),
        ("Sent/2024", ["\\Seen"]),
    ]


def test_maildir_dates_are_those_of_the_files_unless_a_copy_lost_them(tmp_path: Path) -> None:
    write(tmp_path, {"cur/1700000000.a:2,": MAIL, "cur/1700000001.b:2,": MAIL})
    os.utime(tmp_path / "cur/1700000000.a:2,", (1_600_000_000, 1_600_000_000))  # set by APPEND: older than the name
    found = [item for item in tree.read(tmp_path, tree.Walk(Skipped(), 1 << 20, None)) if isinstance(item, Item)]
    assert [item.internaldate for item in found] == [1_600_000_000, 1_700_000_001]  # the other has the time of today


def emlx(flags: int, message: bytes = MAIL, extra: bytes = b"") -> bytes:
    plist = plistlib.dumps({"flags": flags, "date-received": 1_700_000_000})
    return b"%-10d\n" % len(message) + message + plist + extra


def test_apple_mail(tmp_path: Path) -> None:
    base = "V10/ABC"
    write(
        tmp_path,
        {
            f"{base}/INBOX.mbox/UUID/Data/1/Messages/12.emlx": emlx(0b1),
            f"{base}/INBOX.mbox/UUID/Data/Messages/13.partial.emlx": emlx(0b10101),
            f"{base}/INBOX.mbox/UUID/Data/Attachments/13/2/photo.png": b"\x89PNG",
            f"{base}/Work.mbox/Plans.mbox/UUID/Data/Messages/1.emlx": emlx(0),
            f"{base}/Work.mbox/Info.plist": b"<plist/>",
            "Export.mbox/mbox": BOX,
            "Export.mbox/table_of_contents": b"\0",
        },
    )
    assert sorted((box, sorted(flags)) for box, _, flags in walk(tmp_path)) == [
        ("Export", []),
        ("V10/ABC/INBOX", ["\\Answered", "\\Flagged", "\\Seen"]),
        ("V10/ABC/INBOX", ["\\Seen"]),
        ("V10/ABC/Work/Plans", []),
    ]
    (item, note) = (i for i in tree.read(tmp_path / base / "INBOX.mbox", tree.Walk(Skipped(), 1 << 20, None)))
    assert isinstance(item, Item) and isinstance(note, Item)
    assert {item.note, note.note} - {None} and item.internaldate == 1_700_000_000


@pytest.mark.parametrize("data", [b"", b"abc", b"99999\nSubject: x\n\n", b"5\n", b"17 \n" + MAIL + b"<plist>broken"])
def test_damaged_emlx(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, {"1.emlx": data})
    ((box, content, _),) = walk(tmp_path)
    assert (box == "!") == (b"broken" not in data), content


def test_thunderbird_profile(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "Inbox": BOX,
            "Inbox.msf": b"// index",
            "Inbox.sbd/Travel": BOX,
            "filterlog.html": b"<html>",
            "popstate.dat": b"x",
        },
    )
    assert places(tmp_path) == ["Inbox", "Inbox/Travel"]


def test_zips_are_read_like_folders(tmp_path: Path) -> None:
    inner = zipped({"deep/c.eml": MAIL})
    files = {"mail/a.eml": MAIL, "mail/Work/b.eml": MAIL, "mail/Work/more.zip": inner, "__MACOSX/mail/._a.eml": b"x"}
    write(tmp_path, {"all.zip": zipped(files)})
    assert places(tmp_path / "all.zip") == ["", "Work", "Work"]


def test_a_maildir_in_a_zip(tmp_path: Path) -> None:
    write(tmp_path, {"m.zip": zipped({"cur/1700000000.a:2,S": MAIL, ".A.B/cur/1700000000.b;2,F": MAIL})})
    assert [(box, sorted(flags)) for box, _, flags in walk(tmp_path / "m.zip")] == [
        ("", ["\\Seen"]),
        ("A/B", ["\\Flagged"]),
    ]


def test_takeout_zip(tmp_path: Path) -> None:
    labels = b"From 1@xxx Tue Jan 20 10:00:00 +0000 2026\r\nX-Gmail-Labels: Sent,Opened\r\nSubject: x\r\n\r\nbody\r\n"
    name = "Takeout/Mail/All mail Including Spam and Trash.mbox"
    write(tmp_path, {"takeout.zip": zipped({name: labels, "Takeout/archive_browser.html": b"<html>"})})
    assert places(tmp_path / "takeout.zip") == ["Sent"]


def test_zip_bombs_are_refused_with_little_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "UNPACKED_MIN", 1 << 20)
    write(tmp_path, {"bomb.zip": zipped({"a.mbox": BOX + b"x" * (8 << 20), "b.eml": MAIL})})
    assert next(box for box, _, _ in walk(tmp_path / "bomb.zip", size_max=64 << 20)) == "!"


def test_zips_in_zips_end_somewhere(tmp_path: Path) -> None:
    data = zipped({"a.eml": MAIL})
    for _ in range(5):
        data = zipped({"more.zip": data})
    write(tmp_path, {"all.zip": data})
    ((box, reason, _),) = walk(tmp_path / "all.zip")
    assert box == "!" and b"too deep" in reason


def test_damaged_zips_are_one_bad_item(tmp_path: Path) -> None:
    good = zipped({"a.eml": MAIL * 100, "b.eml": MAIL})
    write(tmp_path, {"half.zip": good[: len(good) // 2], "flip.zip": good[:60] + b"\xff\xff\xff" + good[63:]})
    assert [box for box, _, _ in walk(tmp_path / "half.zip")] == ["!"]
    assert "!" in [box for box, _, _ in walk(tmp_path / "flip.zip")]


def test_names_that_climb_out_of_a_zip_stay_inside(tmp_path: Path) -> None:
    write(tmp_path, {"evil.zip": zipped({"../../etc/a.eml": MAIL, "/abs/b.eml": MAIL})})
    assert places(tmp_path / "evil.zip") == ["abs", "etc"]


def test_other_files_are_counted_not_imported(tmp_path: Path) -> None:
    skipped = Skipped()
    write(tmp_path, {"photo.jpg": b"\xff\xd8", "notes.txt": b"Hello there", "empty": b"", "x.msf": b"", "a.eml": MAIL})
    assert [box for box, _, _ in walk(tmp_path, skipped)] == [""]
    assert sum(skipped.counts.values()) == 4


def test_a_file_mbox_holds_the_messages_of_its_folder(tmp_path: Path) -> None:
    """As `readpst -r` writes them; at the top, mutt's ~/mbox."""
    write(tmp_path, {"mbox": BOX, "Work/mbox": BOX, "Work/Clients/mbox": BOX})
    assert sorted(item[0] for item in walk(tmp_path)) == ["", "Work", "Work/Clients"]


@pytest.mark.parametrize("name", ["نامه\u200cها", "👩\u200d👧", "会議\u3000資料", "a\u00a0b", "\U0001fae8"])
def test_folders_keep_their_names_in_their_script(tmp_path: Path, name: str) -> None:
    assert [item[0] for item in walk(write(tmp_path / "tree", {f"{name}/1.eml": MAIL}))] == [name]


@pytest.mark.parametrize("name", ["a\nb", "a\u202eb", "a\x1bb", "a\u2028b"])
def test_what_no_mailbox_can_be_called_becomes_a_line(tmp_path: Path, name: str) -> None:
    assert [item[0] for item in walk(write(tmp_path / "tree", {f"{name}/1.eml": MAIL}))] == ["a_b"]


def test_a_file_that_was_named_and_is_no_mail_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"photo.jpg": b"\xff\xd8\xff"})
    ((box, reason, _),) = walk(tmp_path / "photo.jpg")
    assert box == "!" and b"not a mail file" in reason
    with pytest.raises(UsageError, match="No such file"):
        walk(tmp_path / "nowhere")


def test_links_in_a_circle_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"a/b.eml": MAIL})
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert places(tmp_path) == ["a"]


def test_links_to_files_are_not_followed_unless_named(tmp_path: Path) -> None:
    # A tree from somebody else, read by root: its owner must not get to read /etc/shadow as mail.
    write(tmp_path, {"secret": b"root:x\n", "tree/cur/1.a:2,S": MAIL})
    for name in ("tree/cur/2.b:2,S", "tree/other.eml", "tree/dovecot-keywords"):
        (tmp_path / name).symlink_to(tmp_path / "secret")
    found = walk(tmp_path / "tree")
    assert [item for item in found if item[0] != "!"] == [("", WIRE, frozenset({"\\Seen"}))]
    assert [b"link" in reason for place, reason, _ in found if place == "!"] == [True]
    (tmp_path / "link.eml").symlink_to(tmp_path / "tree/cur/1.a:2,S")
    assert walk(tmp_path / "link.eml")[0][1] == WIRE


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\nb\nc", b"a\r\nb\nc"),  # begins as the wire has it: kept exactly
        (b"a\nb\r\nc\n", b"a\r\nb\r\nc\r\n"),
        (b"a\rb\nc", b"a\rb\r\nc"),
        (b"no end", b"no end"),
        (b"\nbody", b"\r\nbody"),
    ],
)
def test_line_ends(tmp_path: Path, data: bytes, wire: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from mailkeep.export import item

    write(tmp_path, {"x.eml": data})
    assert [content for _, content, _ in walk(tmp_path / "x.eml")] == [wire]
    for size in (1, 2, 3):
        monkeypatch.setattr(item, "SLICE", size)
        if b"\n" in data[:size]:
            assert b"".join(item.slices(data, 0, len(data))) == wire
    assert to_wire(b"") == b""
