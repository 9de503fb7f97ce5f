"""Two ways against real servers: what is done on either side is on both after a run."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.archive import Source
from tests.backup.two_sides import Here
from tests.dovecot import Dovecot
from tests.messages import numbered, ugly

_users = itertools.count(1)


@pytest.fixture
def user() -> str:
    """One of the test's own."""
    return f"sync{os.getpid()}-{next(_users)}@example.org"


@pytest.fixture
def there(dovecot: Dovecot, user: str) -> Iterator[Source]:
    made = Source(dovecot.imap, user, dovecot.password)
    yield made
    made.close()


@pytest.fixture
def here(dovecot: Dovecot, user: str, tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    yield made
    made.close()


def test_new_mail_goes_both_ways(there: Source, here: Here) -> None:
    there.add("INBOX", [data for _, data in ugly()], flags=r"(\Seen $Label)")
    there.create("Work/2026")
    there.add("Work/2026", [numbered(n) for n in range(3)], flags=r"(\Flagged)")
    here.create("Private")
    here.add("Private", numbered(7), numbered(8), flags=frozenset({"\\Answered", "Later"}))
    here.add("Sent", numbered(9))
    report = here.settle()
    assert here.contents() == there.contents()
    assert (report.total("fetched"), report.total("uploaded")) == (len(ugly()) + 3, 3)
    again = here.settle()
    assert (again.total("fetched"), again.total("uploaded"), again.actions) == (0, 0, [])


def test_flags_are_merged_one_by_one(there: Source, here: Here) -> None:
    there.add("INBOX", [numbered(1), numbered(2)], flags=r"(\Flagged Work)")
    here.settle()
    there.store("INBOX", "1", "+FLAGS", r"(\Seen)")
    there.store("INBOX", "1", "-FLAGS", "(Work)")
    here.flag("INBOX", 1, "+", "Later")
    here.flag("INBOX", 1, "-", "\\Flagged")
    here.settle()
    assert here.contents() == there.contents()
    assert {flags for data, _, flags in here.mailbox("INBOX") if data == numbered(1)} == {
        frozenset({"\\Seen", "Later"})
    }


def test_what_is_removed_on_one_side_goes_on_the_other(there: Source, here: Here) -> None:
    there.add("INBOX", [numbered(n) for n in range(6)])
    here.settle()
    there.expunge("INBOX", "1:2")
    here.expunge("INBOX", 5)
    report = here.settle()
    assert here.contents() == there.contents()
    assert {data for data, _, _ in here.mailbox("INBOX")} == {numbered(n) for n in (2, 3, 5)}
    assert (report.total("removed_here"), report.total("removed_there")) == (2, 1)
    with here.account.transaction() as tx:
        assert tx.undelete(here.id("INBOX")) >= 2
