"""The list of an export: in the order of folders or of years, and in bounded memory and few open files."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailkeep.export import listing
from mailkeep.export.listing import Cancelled, Section, make_list, read_list, year_of
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.store import Store
from tests.export.fill import fill
from tests.messages import numbered


def in_year(year: int) -> int:
    return int(datetime(year, 7, 1, tzinfo=UTC).timestamp())


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    store = Store.open(tmp_path / "data")
    store.directory.add("anna")
    years = [1990 + number * 7 % 100 for number in range(100)]
    fill(
        store.account("anna"),
        [(("INBOX", "Work")[n % 2], numbered(n), in_year(year), frozenset()) for n, year in enumerate(years)],
    )
    yield store.account("anna")
    store.close()


def records(path: Path, listed: listing.Listed) -> list[tuple[str, int]]:
    names = [source.name for source in listed.sources]
    found = [row for rows in read_list(path, 0, listed.sections[-1].stop) for row in rows]
    return [(names[number], uid) for number, uid in found]


def test_folders_come_one_after_the_other_and_empty_ones_in_their_place(account: Account, tmp_path: Path) -> None:
    listed = make_list(account, Selection(), tmp_path / "list", into=("Old",))
    found = records(tmp_path / "list", listed)
    assert found == [
        *[("INBOX", uid) for uid in range(1, 51)],
        *[(name, 0) for name in ("Archive", "Drafts", "Junk", "Sent", "Trash")],
        *[("Work", uid) for uid in range(1, 51)],
    ]
    assert (listed.messages, listed.sections) == (100, [Section("", 105)])
    assert listed.bytes == sum(len(numbered(n)) for n in range(100))
    assert [source.path for source in listed.sources][:2] == [("Old", "INBOX"), ("Old", "Archive")]
    assert {source.name: source.special_use for source in listed.sources}["Sent"] == ("\\Sent",)


def test_years_come_in_order_with_few_files_open(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "YEARS_OPEN_MAX", 3)
    listed = make_list(account, Selection(), tmp_path / "list", by_year=True)
    assert [section.label for section in listed.sections] == [str(year) for year in range(1990, 2090)]
    assert [section.stop for section in listed.sections] == list(range(6, 106)), "empty folders are in the first year"
    assert sorted(records(tmp_path / "list", listed)) == sorted(records_of_folders(account, tmp_path))
    assert sorted(path.name for path in tmp_path.glob("list*")) == ["list", "list2"], "no spool is left"


def records_of_folders(account: Account, tmp_path: Path) -> list[tuple[str, int]]:
    return records(tmp_path / "list2", make_list(account, Selection(), tmp_path / "list2"))


def test_part_of_a_list_is_read(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_list(account, Selection(), tmp_path / "list")
    monkeypatch.setattr(listing, "PIECE", 4)
    found = list(read_list(tmp_path / "list", 3, 13))
    assert [len(rows) for rows in found] == [4, 4, 2] and found[0][0] == (0, 4)


def test_a_search_that_was_stopped_is_no_list(account: Account, tmp_path: Path) -> None:
    for selection in (Selection(), Selection(query="message")):
        with pytest.raises(Cancelled):
            make_list(account, selection, tmp_path / "list", stopped=lambda: True)


def test_dates_beyond_all_years_have_a_year() -> None:
    assert [year_of(seconds) for seconds in (0, in_year(2026), -(10**11), 10**15)] == ["1970", "2026", "0000", "0000"]
