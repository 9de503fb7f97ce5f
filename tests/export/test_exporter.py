"""The run of an export over a real store: its list, its proof, and every way in which it may be stopped."""

import hashlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mailkeep.errors import CannotWrite, StoreBusy, StoreCorrupt, ToolMissing, UsageError
from mailkeep.export import eml, exporter, files, formats, reading, work
from mailkeep.export.exporter import Export, Report, Wish
from mailkeep.export.writer import Message, Options, Written
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.mailboxes import GONE
from mailkeep.store.store import Store
from tests.export.fill import fill
from tests.messages import bulk

MAIL = bulk(60)
YEARS = (1_500_000_000, 1_600_000_000, 1_700_000_000)  # 2017, 2020, 2023
FOLDERS = ("INBOX", "Work", "Work/Clients", "work", "Räume")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Sixty messages in five folders of three years; other folders are empty. For tests that only read."""
    store = Store.open(tmp_path_factory.mktemp("store") / "data")
    store.directory.add("anna")
    fill(
        store.account("anna"),
        [
            (FOLDERS[n % 5], data, YEARS[n % 3] + n, frozenset({"\\Seen"} if n % 2 else ()))
            for n, data in enumerate(MAIL)
        ],
    )
    yield store
    store.close()


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[Store]:
    """One that a test may change: ten messages in INBOX."""
    store = Store.open(tmp_path / "data")
    store.directory.add("anna")
    fill(store.account("anna"), [("INBOX", data, YEARS[0] + n, frozenset()) for n, data in enumerate(MAIL[:10])])
    yield store
    store.close()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few messages make many batches, with a checkpoint after each."""
    monkeypatch.setattr(reading, "BATCH_MESSAGES", 4)
    monkeypatch.setattr(exporter, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(exporter, "CHECKPOINT_SHARE", 0.0)


def wish(out: Path, **more: Any) -> Wish:
    return Wish(formats.find_format(more.pop("to", "eml")), out, **more)


def run(store: Store, asked: Wish, *, batches: int | None = None) -> Report:
    """An export that is asked to stop after so many batches were written."""
    left = iter(range(batches)) if batches is not None else None
    plans = [asked.out.parent / f"{asked.out.name}{suffix}.partial" / "plan.json" for suffix in ("", ".zip")]

    def stop() -> bool:
        return left is not None and any(plan.exists() for plan in plans) and next(left, None) is None

    return Export(store, store.account("anna"), asked, stop=stop).run()


def manifest(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def content(path: Path) -> dict[str, bytes]:
    """All files below, but for the moment at which the list was made."""
    found = {}
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        data = file.read_bytes() if file.is_file() else b"(a folder)"
        if file.name.endswith("manifest.jsonl"):
            head, _, rest = data.partition(b"\n")
            data = json.dumps({**json.loads(head), "listed": ""}).encode() + rest
        found[str(file.relative_to(path.parent))] = data
    return found


# --- what comes out --------------------------------------------------------------------------------------------------


def test_every_message_is_there_byte_for_byte(store: Store, tmp_path: Path) -> None:
    report = run(store, wish(tmp_path / "out"))
    assert report.complete and (report.listed, report.exported, report.counted) == (60, 60, 60)
    head, *lines, tail = manifest(tmp_path / "out" / "manifest.jsonl")
    assert (head["account"], head["format"], head["per"], head["messages"]) == ("anna", "eml", "message", 60)
    assert tail == {"messages": 60, "exported": 60, "missing": 0, "bytes": sum(map(len, MAIL))}
    assert [line["number"] for line in lines] == list(range(1, 61))
    for line in lines:
        data = (tmp_path / "out" / line["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == line["sha256"] and len(data) == line["size"]
        assert int((tmp_path / "out" / line["file"]).stat().st_mtime) in range(YEARS[0], YEARS[2] + 60)
    assert sorted(path.read_bytes() for path in (tmp_path / "out").rglob("*.eml")) == sorted(MAIL)
    assert {line["folder"] for line in lines} == set(FOLDERS) and len({line["file"].lower() for line in lines}) == 60
    assert report.folders["Work/Clients"].messages == 12
    assert not (tmp_path / "out.partial").exists()


def test_folders_stay_a_tree_also_when_they_are_empty(store: Store, tmp_path: Path) -> None:
    run(store, wish(tmp_path / "out"))
    assert {"INBOX", "Work", "Work/Clients", "work~2", "Räume", "Trash", "Drafts"} <= {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_dir()
    }
    run(store, wish(tmp_path / "below", into="Old/Anna"))
    assert (tmp_path / "below" / "Old" / "Anna" / "INBOX").is_dir()
    run(store, wish(tmp_path / "few", selection=Selection(flags=("\\Seen",), folders=("INBOX", "Trash"))))
    assert [path.name for path in (tmp_path / "few").iterdir() if path.is_dir()] == ["INBOX"], "none without messages"


def test_filters_choose_and_none_left_is_an_error(store: Store, tmp_path: Path) -> None:
    chosen = Selection(folders=("Work*",), flags=("\\Seen",))
    report = run(store, wish(tmp_path / "out", selection=chosen))
    assert report.complete and report.listed == 18 and set(report.folders) == {"Work", "Work/Clients", "work"}
    for none in (Selection(folders=("Nothing",)), Selection(query="never-there")):
        with pytest.raises(UsageError, match="the filters take no"):
            run(store, wish(tmp_path / "none", selection=none))
    assert os.listdir(tmp_path) == ["out"]


def test_flags_and_notes_are_in_the_manifest(own_store: Store, tmp_path: Path) -> None:
    account = own_store.account("anna")
    with account.transaction() as tx:
        tx.store_flags(tx.find("INBOX"), [3], "+", frozenset({"\\Answered", "$Forwarded"}))
    run(own_store, wish(tmp_path / "out"))
    lines = manifest(tmp_path / "out" / "manifest.jsonl")
    assert lines[3]["flags"] == ["$Forwarded", "\\Answered"] and lines[1]["flags"] == []
    assert lines[3]["internaldate"] == "2017-07-14T02:40:02Z"


def test_what_is_hidden_since_it_is_gone_is_exported_too(own_store: Store, tmp_path: Path) -> None:
    account = own_store.account("anna")
    with account.transaction() as tx:
        tx.store_flags(tx.find("INBOX"), [2, 5], "+", frozenset({GONE}))
    account.place_gone("hide")
    report = run(own_store, wish(tmp_path / "out"))
    assert report.complete and {name: count.messages for name, count in report.folders.items()} == {
        "INBOX": 8,
        "Gone/INBOX": 2,
    }
    only = run(own_store, wish(tmp_path / "only", selection=Selection(folders=("INBOX",))))
    assert only.exported == 10
    without = run(own_store, wish(tmp_path / "without", selection=Selection(not_folders=("Gone/*",))))
    assert without.exported == 8


def test_an_empty_account_is_no_error(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    store.directory.add("anna")
    for to, per in (("eml", "message"), ("eml", "all")):
        report = run(store, wish(tmp_path / per, to=to, per=per))
        assert report.complete and report.listed == 0 and Path(report.out).exists()
    assert run(store, wish(tmp_path / "years", split="year")).complete
    store.close()


# --- several outputs -------------------------------------------------------------------------------------------------


def test_split_by_year(store: Store, tmp_path: Path) -> None:
    report = run(store, wish(tmp_path / "out", split="year"))
    assert report.complete
    assert [(Path(path).name, count) for path, count, *_ in report.parts] == [("2017", 20), ("2020", 20), ("2023", 20)]
    lines = manifest(tmp_path / "out" / "manifest.jsonl")[1:-1]
    assert all((tmp_path / "out" / line["file"]).is_file() for line in lines)
    assert all(line["file"].startswith(line["internaldate"][:4] + "/") for line in lines)
    assert (tmp_path / "out" / "2017" / "Trash").is_dir() and not (tmp_path / "out" / "2020" / "Trash").exists()


def test_split_by_size(store: Store, tmp_path: Path) -> None:
    limit = sum(map(len, MAIL)) // 4
    report = run(store, wish(tmp_path / "out", split=limit))
    assert report.complete and 4 <= len(report.parts) <= 6
    assert [Path(path).name for path, *_ in report.parts] == [str(n + 1) for n in range(len(report.parts))]
    for path, count, *_ in report.parts:
        mails = list(Path(path).rglob("*.eml"))
        assert len(mails) == count and sum(file.stat().st_size for file in mails) <= limit
    assert sum(count for _, count, *_ in report.parts) == 60
    alone = run(store, wish(tmp_path / "alone", split=1))
    assert alone.complete and len(alone.parts) == 60, "a message that is too large has one to itself"


def test_a_part_is_as_large_as_asked_whatever_the_format_makes_of_a_message(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH_MESSAGES", 64)
    limit = sum(map(len, MAIL))
    report = run(store, wish(tmp_path / "out", to="msg", split=limit))
    assert report.complete and len(report.parts) > 2
    for path, *_ in report.parts:
        sizes = [file.stat().st_size for file in Path(path).rglob("*.msg")]
        assert sum(sizes) - max(sizes) <= limit


def test_a_file_that_is_split_becomes_several_beside_each_other(store: Store, tmp_path: Path) -> None:
    report = run(store, wish(tmp_path / "mail", per="all", split="year"))
    names = ["mail-2017.zip", "mail-2020.zip", "mail-2023.zip"]
    assert report.complete and sorted(os.listdir(tmp_path)) == [*names, "mail.zip.manifest.jsonl"]
    assert {line["part"] for line in manifest(tmp_path / "mail.zip.manifest.jsonl")[1:-1]} == set(names)
    (tmp_path / "new-2020.zip").write_text("mine")
    with pytest.raises(UsageError, match=r"new-2020\.zip is there already"):
        run(store, wish(tmp_path / "new", per="all", split="year"))
    assert (tmp_path / "new-2020.zip").read_text() == "mine"


# --- stopped, and taken up again -------------------------------------------------------------------------------------

SHAPES: dict[str, dict[str, Any]] = {
    "tree": {},
    "tree by year": {"split": "year"},
    "tree by size": {"split": 30_000},
    "zip": {"per": "all"},
    "zip by year": {"per": "all", "split": "year"},
    "zip by size": {"per": "all", "split": 12_000},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_stopped_after_every_batch_it_makes_the_same(store: Store, tmp_path: Path, shape: dict[str, Any]) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    assert run(store, wish(tmp_path / "whole" / "out", **shape)).complete
    asked = wish(tmp_path / "pieces" / "out", **shape)
    stops = 0
    while (report := run(store, asked, batches=2 + stops % 3)).stopped is not None:
        assert (report.resumed_at is None) == (stops == 0)
        stops += 1
        assert stops < 60
    assert stops > 5 and report.complete and report.exported == 60
    assert {name.partition("/")[2]: data for name, data in content(tmp_path / "pieces").items()} == {
        name.partition("/")[2]: data for name, data in content(tmp_path / "whole").items()
    }


def test_the_list_stays_while_mail_comes_and_goes(own_store: Store, tmp_path: Path) -> None:
    account = own_store.account("anna")
    assert run(own_store, wish(tmp_path / "out"), batches=2).stopped
    fill(account, [("INBOX", b"Subject: new\r\n\r\nnew\r\n", YEARS[2], frozenset())])
    with account.transaction() as tx:
        tx.expunge(account.mailbox("INBOX").id, [9], only_deleted=False)
    report = run(own_store, wish(tmp_path / "out"))
    assert report.complete and report.exported == 10, "what was expunged is still in the store"
    assert run(own_store, wish(tmp_path / "later")).exported == 10


def test_stopped_while_it_chooses_nothing_is_left(store: Store, tmp_path: Path) -> None:
    report = Export(store, store.account("anna"), wish(tmp_path / "out"), stop=lambda: True).run()
    assert report.stopped and os.listdir(tmp_path) == []


def test_another_command_does_not_touch_unfinished_work(store: Store, tmp_path: Path) -> None:
    asked = wish(tmp_path / "out")
    run(store, asked, batches=3)
    before = content(tmp_path / "out.partial")
    for other in (replace(asked, into="X"), replace(asked, selection=Selection(folders=("Work",)))):
        with pytest.raises(UsageError, match="--restart"):
            run(store, other)
    assert content(tmp_path / "out.partial") == before
    report = run(store, replace(asked, into="X", restart=True))
    assert report.complete and report.resumed_at is None and (tmp_path / "out" / "X").is_dir()


def test_nobodys_work_is_taken_up_for_another(own_store: Store, tmp_path: Path) -> None:
    own_store.directory.add("bela")
    asked = wish(tmp_path / "out")
    run(own_store, asked, batches=1)
    with pytest.raises(UsageError, match="anna: --to eml"):
        Export(own_store, own_store.account("bela"), asked).run()
    own_store.directory.remove("anna")
    own_store.directory.add("anna")
    with pytest.raises(UsageError, match="asked for otherwise"):
        run(own_store, asked)


def test_where_a_program_is_missing_nothing_is_left(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(place: Path, options: Options, state: bytes | None) -> None:
        raise ToolMissing("install it")

    monkeypatch.setattr(eml, "make", make)
    with pytest.raises(ToolMissing):
        run(store, wish(tmp_path / "out"))
    assert os.listdir(tmp_path) == []


def test_the_words_of_a_filter_tell_not_the_day_they_stand_for(store: Store, tmp_path: Path) -> None:
    asked = wish(tmp_path / "out", selection=Selection(since=date(2001, 1, 1)), filters="--since 9000d")
    run(store, asked, batches=3)
    assert run(store, replace(asked, selection=Selection(since=date(2001, 1, 2)))).complete


def test_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "mail.zip").write_text("mine")
    for asked in (wish(tmp_path / "out"), wish(tmp_path / "mail", per="all"), wish(tmp_path / "out", restart=True)):
        with pytest.raises(UsageError, match="is there already"):
            run(store, asked)
    (tmp_path / "strange.partial").mkdir()
    (tmp_path / "strange.partial" / "thesis.doc").write_text("mine")
    for restart in (False, True):
        with pytest.raises(UsageError, match="no unfinished export"):
            run(store, wish(tmp_path / "strange", restart=restart))
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "lock").touch()
    (tmp_path / "link.partial").symlink_to(tmp_path / "away")
    with pytest.raises(UsageError, match="no unfinished export"):
        run(store, wish(tmp_path / "link", restart=True))
    with pytest.raises(UsageError, match="no such directory"):
        run(store, wish(tmp_path / "not" / "there"))
    assert sorted(os.listdir(tmp_path)) == ["away", "link.partial", "mail.zip", "out", "strange.partial"]
    assert os.listdir(tmp_path / "strange.partial") == ["thesis.doc"]


def test_work_of_another_user_is_not_taken_up(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is root, and exports into somebody's home, must not be led away by what lies there ready."""
    if os.geteuid() != 0:
        pytest.skip("only root can make what is another's")
    for place in (tmp_path / "home", tmp_path / "home" / "out.partial"):
        place.mkdir()
        os.chown(place, 12345, 12345)
    (tmp_path / "home" / "out.partial" / "lock").touch()
    with pytest.raises(UsageError, match="no unfinished export"):
        run(store, wish(tmp_path / "home" / "out", restart=True))
    assert os.listdir(tmp_path / "home" / "out.partial") == ["lock"]
    # Where all files have one owner that is no sign of another's work.
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert run(store, wish(tmp_path / "out")).complete


@pytest.mark.parametrize("per", ["message", "all"])
def test_a_name_that_is_taken_meanwhile_stays_anothers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per: str
) -> None:
    asked = wish(tmp_path / "out", per=per)
    target = tmp_path / ("out.zip" if per == "all" else "out")
    count = eml.count

    def counting(place: Path) -> int:
        if per == "all":
            target.write_text("mine")
        else:
            target.mkdir()
            (target / "mine").touch()
        return count(place)

    monkeypatch.setattr(eml, "count", counting)
    with pytest.raises(CannotWrite, match="came into being meanwhile"):
        run(store, asked)
    assert target.read_text() == "mine" if per == "all" else os.listdir(target) == ["mine"]
    os.rename(target, tmp_path / "elsewhere")
    report = run(store, asked)
    assert report.complete and report.resumed_at == 60


def test_killed_between_two_names_it_takes_the_others(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wish(tmp_path / "out", per="all", split="year")
    move = work._move_file
    moved: list[Path] = []

    def moving(source: Path, target: Path) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(target)
        move(source, target)

    monkeypatch.setattr(work, "_move_file", moving)
    with pytest.raises(KeyboardInterrupt):
        run(store, asked)
    assert sorted(os.listdir(tmp_path)) == ["out-2017.zip", "out-2020.zip", "out.zip.partial"]
    monkeypatch.setattr(work, "_move_file", move)
    report = run(store, asked)
    assert report.complete and report.counted == 60 and not (tmp_path / "out.zip.partial").exists()


def test_without_hard_links_a_file_still_replaces_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(work.os, "link", link)
    assert run(store, wish(tmp_path / "out", per="all")).complete
    (tmp_path / "source").write_text("ours")
    (tmp_path / "target").write_text("theirs")
    with pytest.raises(CannotWrite, match="came into being"):
        work._move_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "theirs"


def test_two_at_once_are_refused(store: Store, tmp_path: Path) -> None:
    inner: list[Exception] = []

    def stop() -> bool:
        try:
            run(store, wish(tmp_path / "out"))
        except StoreBusy as error:
            inner.append(error)
        return len(inner) > 3

    report = Export(store, store.account("anna"), wish(tmp_path / "out"), stop=stop).run()
    assert report.stopped and len(inner) > 3


def test_work_that_was_tampered_with_is_not_taken_up(store: Store, tmp_path: Path) -> None:
    asked = wish(tmp_path / "out")
    run(store, asked, batches=4)
    os.truncate(tmp_path / "out.partial" / "manifest.jsonl", 10)
    with pytest.raises(UsageError, match="--restart"):
        run(store, asked)
    (tmp_path / "out.partial" / "state.json").write_text("{")
    with pytest.raises(UsageError, match="--restart"):
        run(store, asked)
    assert run(store, replace(asked, restart=True)).complete


# --- what cannot be done ---------------------------------------------------------------------------------------------


def test_a_message_that_cannot_be_read_is_named_and_the_rest_goes_on(
    own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = own_store.account("anna")
    bad = account.fetch(account.mailbox("INBOX").id, [4], ("uid", "email"))[0][1]
    read = Account.read_many

    def damaged(self: Account, wanted: Sequence[tuple[int, int, int | None]]) -> list[Any]:
        found: list[Any] = read(self, wanted)
        error = StoreCorrupt("its checksum is wrong")
        return [error if email == bad else data for (email, *_), data in zip(wanted, found, strict=True)]

    monkeypatch.setattr(Account, "read_placed", lambda self, places: None)
    monkeypatch.setattr(Account, "read_many", damaged)
    report = run(own_store, wish(tmp_path / "out"))
    assert not report.complete and (report.exported, report.missing, report.counted) == (9, 1, 9)
    assert [(each.source, each.reason) for each in report.faults] == [("INBOX UID 4", "its checksum is wrong")]
    line = manifest(tmp_path / "out" / "manifest.jsonl")[4]
    assert line["missing"] == "its checksum is wrong" and "file" not in line


def test_bytes_that_are_not_those_that_came_in_are_not_passed_off(
    own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Account, "read_placed", lambda self, places: [b"Subject: other\r\n\r\n" for _ in places])
    report = run(own_store, wish(tmp_path / "out"))
    assert report.missing == 10 and "not those that came in" in report.faults[0].reason


class Fussy(eml.TreeOfMail):
    """A writer that breaks its promise on one message."""

    def write(self, messages: Sequence[Message]) -> list[Written]:
        if any(message.uid == 6 for message in messages):
            raise ZeroDivisionError("seven")
        return super().write(messages)


def test_a_writer_that_fails_on_a_message_goes_on_without_it(
    own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eml, "make", Fussy)
    monkeypatch.setattr(exporter, "CHECKPOINT_S", 1000.0)
    report = run(own_store, wish(tmp_path / "out"))
    assert (report.exported, report.missing, report.counted) == (9, 1, 9)
    assert report.faults[0].source == "INBOX UID 6" and "ZeroDivisionError: seven" in report.faults[0].reason
    assert [line["number"] for line in manifest(tmp_path / "out" / "manifest.jsonl")[1:-1]] == list(range(1, 11))


def test_a_writer_that_fails_on_every_message_ends_the_run(
    own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(eml.TreeOfMail):
        def write(self, messages: Sequence[Message]) -> list[Written]:
            raise ZeroDivisionError

    monkeypatch.setattr(eml, "make", Broken)
    monkeypatch.setattr(exporter, "BAD_MAX", 3)
    with pytest.raises(ZeroDivisionError):
        run(own_store, wish(tmp_path / "out"))


def test_the_output_is_counted_and_what_is_lost_is_named(
    own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(eml.TreeOfMail):
        def finish(self) -> None:
            super().finish()
            (lost,) = self._files.place.rglob("*(7).eml")
            lost.unlink()

    monkeypatch.setattr(eml, "make", Careless)
    report = run(own_store, wish(tmp_path / "out"))
    assert not report.complete and report.counted == 9
    assert report.faults[0].source == "INBOX UID 7" and "not in the finished output" in report.faults[0].reason


def test_a_full_disk_is_told_and_the_export_goes_on_later(
    own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files._write_all
    room = [6]

    def writing(descriptor: int, data: bytes) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        write(descriptor, data)

    monkeypatch.setattr(files, "_write_all", writing)
    with pytest.raises(CannotWrite, match="the disk is full"):
        run(own_store, wish(tmp_path / "out"))
    room[0] = 1000
    report = run(own_store, wish(tmp_path / "out"))
    assert report.complete and sorted(path.read_bytes() for path in (tmp_path / "out").rglob("*.eml")) == sorted(
        MAIL[:10]
    )


def test_options_that_a_format_does_not_have_are_refused(store: Store, tmp_path: Path) -> None:
    for more, said in (
        ({"per": "folder"}, "--to eml can be had per message or all"),
        ({"engine": "chromium"}, "only pdf"),
        ({"to": "pdf", "engine": "word"}, "pdf knows weasyprint and chromium"),
    ):
        with pytest.raises(UsageError, match=said):
            run(store, wish(tmp_path / "out", **more))
    with pytest.raises(UsageError, match=r"did you mean html\?.* eml, mbox"):
        formats.find_format("htm")
    assert formats.find_format(".PST").name == "pst"


def test_a_random_stop_and_a_random_shape(store: Store, tmp_path: Path, rng: random.Random) -> None:
    """What a writer did beyond its last checkpoint, when the process died, is done again and not twice."""
    shape = rng.choice(list(SHAPES.values()))
    asked = wish(tmp_path / "out", **shape)

    class Death(BaseException):
        pass

    def die(batches: int) -> None:
        calls = iter(range(batches))

        def stop() -> bool:
            if next(calls, None) is None:
                raise Death
            return False

        with pytest.raises(Death):
            Export(store, store.account("anna"), asked, stop=stop).run()

    for most in (15, 4, 4, 4):
        die(rng.randrange(1, most))
    report = run(store, asked)
    assert report.complete and report.exported == 60, shape
