"""What the manifest of an export says of its files: an import of it brings back what the bytes do not have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailkeep.export import formats, tree
from mailkeep.export.exporter import Export, Wish
from mailkeep.export.item import Bad, Item, Skipped
from mailkeep.store.store import Store
from tests.export.fill import Mail, fill

BARE = b"Subject: bare\n\nline ends\nas they came\n"
MAIL: list[Mail] = [
    (
        "INBOX",
        b"Date: Tue, 20 Jan 2026 10:00:00 +0100\r\n\r\none\r\n",
        1_500_000_000,
        frozenset({"\\Seen", "$Forwarded"}),
    ),
    ("INBOX", BARE, 0, frozenset({"\\Flagged", "later"})),
    ("a:b/NUL", b"Subject: x\r\n\r\n", 1_600_000_000, frozenset({"\\Answered", "\\Draft", "\\Deleted"})),
    ("Work", b"Subject: y\r\n\r\n", 1_700_000_000, frozenset()),
    ("work", b"Subject: z\r\n\r\n", 1_700_000_000, frozenset()),
    ("e\u0301", b"", 1_700_000_000, frozenset({"\\Seen"})),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store.open(tmp_path_factory.mktemp("store") / "data")
    store.directory.add("anna")
    fill(store.account("anna"), MAIL)
    yield store
    store.close()


def export(store: Store, out: Path, **more: Any) -> Path:
    report = Export(store, store.account("anna"), Wish(formats.find_format("eml"), out, **more)).run()
    assert report.complete
    return Path(report.out)


def read(path: Path) -> list[Mail]:
    found = []
    for item in tree.read(path, tree.Walk(Skipped(), 1 << 20, None)):
        assert isinstance(item, Item), item
        assert item.internaldate is not None
        found.append((item.mailboxes[0], b"".join(item.chunks), item.internaldate, item.flags))
    return sorted(found, key=lambda one: one[:3])


WANTED = sorted([(name.replace("e\u0301", "\u00e9"), *rest) for name, *rest in MAIL])


@pytest.mark.parametrize("split", [None, "year", 60])
@pytest.mark.parametrize("per", ["message", "all"])
def test_all_of_a_message_comes_back(store: Store, tmp_path: Path, per: str, split: Any) -> None:
    export(store, tmp_path / "out", per=per, split=split)
    given = sorted(tmp_path.glob("*.zip")) or [tmp_path / "out"]
    assert sorted((one for path in given for one in read(path)), key=lambda one: one[:3]) == WANTED


def test_below_other_folders_and_a_chosen_one(store: Store, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    export(store, tmp_path / "old" / "out", into="Back/up")
    assert read(tmp_path) == [(f"old/out/Back/up/{name}", *rest) for name, *rest in WANTED]


def test_a_file_with_other_bytes_is_a_mail_like_any_other(store: Store, tmp_path: Path) -> None:
    out = export(store, tmp_path / "out")
    first = next(out.glob("INBOX/2017*.eml"))
    first.write_bytes(b"Date: Tue, 20 Jan 2026 10:00:00 +0100\r\n\r\ntwo\r\n")
    (out / "INBOX" / "new.eml").write_bytes(b"Date: Tue, 20 Jan 2026 10:00:00 +0100\r\n\r\nnew\r\n")
    found = [one for one in read(out) if one[0] == "INBOX"]
    assert [one[2:] for one in found if b"bare" not in one[1]] == [(1_768_899_600, frozenset())] * 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\n",
        b"[]\n",
        b'{"mailkeep":"export","version":1,"account":"a","format":"pst","per":"all","listed":"","messages":1}\n',
        b'{"mailkeep":"export","version":1,"account":"a","format":"eml","per":"message","listed":"","messages":1}\n'
        b'\xff\n{}\n{"number":1,"folder":"x","uidvalidity":1,"uid":1,"file":"1.eml"}\n[',
    ],
)
def test_what_is_no_manifest_says_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(text)
    (tmp_path / "1.eml").write_bytes(b"Date: Tue, 20 Jan 2026 10:00:00 +0100\r\n\r\n")
    assert [one[2:] for one in read(tmp_path)] == [(1_768_899_600, frozenset())]


def test_a_hostile_manifest_gives_no_flag_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(
        '{"mailkeep":"export","version":1,"account":"a","format":"eml","per":"message","listed":"","messages":1}\n'
        '{"number":1,"folder":"../x","uidvalidity":1,"uid":1,"size":0,"internaldate":"@-5","file":"1.eml",'
        '"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",'
        '"flags":["\\\\Recent","\\\\Evil","a b","(","\\\\Seen"]}\n'
    )
    (tmp_path / "1.eml").write_bytes(b"")
    [item] = tree.read(tmp_path, tree.Walk(Skipped(), 1 << 20, None))
    assert not isinstance(item, Bad) and item.flags == {"\\Seen", "a_b"} and item.mailboxes == ("_/x",)
