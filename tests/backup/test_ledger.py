"""The ledger: when sets are equal, what is missing and why, and that a server's words cannot break the page."""

import json

import pytest

from mailkeep.backup.ledger import NOT_REACHED, REASONS, FolderLedger, RemoteReport
from mailkeep.backup.ledger_page import page
from mailkeep.jobs.progress import FAULTS_KEPT_MAX
from mailkeep.store.remotes import State


def folder(server: int, kept: int) -> FolderLedger:
    return FolderLedger("INBOX", "INBOX", server=server, kept=kept)


def test_equal_is_everything_kept() -> None:
    ledger = folder(10, 10)
    ledger.close()
    assert ledger.equal
    assert ledger.lacking == 0


def test_what_the_filters_leave_out_is_explained() -> None:
    ledger = folder(10, 7)
    for uid in (1, 2, 3):
        ledger.book(uid, REASONS[State.FILTERED])
    ledger.close()
    assert ledger.equal
    assert ledger.listed == [], "nobody wants to read these one by one"


@pytest.mark.parametrize("state", [state for state in State if state not in (State.KEPT, State.FILTERED)])
def test_every_other_reason_is_told_and_makes_it_unequal(state: State) -> None:
    ledger = folder(10, 9)
    ledger.book(4, REASONS[state], "NO go away")
    ledger.close()
    assert not ledger.equal
    assert ledger.facts()["missing"] == {REASONS[state]: 1}
    assert ledger.facts()["messages"] == [{"uid": 4, "reason": REASONS[state], "detail": "NO go away"}]


def test_what_nobody_booked_was_not_reached() -> None:
    ledger = folder(10, 4)
    ledger.close()
    assert ledger.missing == {NOT_REACHED: 6}
    assert not ledger.equal


def test_a_failed_folder_is_never_equal() -> None:
    ledger = folder(0, 0)
    ledger.error = "NO such mailbox"
    ledger.close()
    assert not ledger.equal
    report = RemoteReport("r", "a", folders=[ledger])
    assert not report.equal


def test_only_so_many_are_listed_but_all_are_counted() -> None:
    ledger = folder(5000, 0)
    for uid in range(5000):
        ledger.book(uid, REASONS[State.EMPTY])
    assert len(ledger.listed) == FAULTS_KEPT_MAX
    assert ledger.lacking == 5000


def test_sums_and_json() -> None:
    report = RemoteReport("work", "anna", "imap.example.org", folders=[folder(3, 3), folder(5, 4)])
    for each in report.folders:
        each.close()
    facts = report.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["server"], facts["kept"], facts["equal"]) == (8, 7, False)
    assert facts["missing"] == {NOT_REACHED: 1}


def test_the_page_stands_alone_and_escapes_what_servers_say() -> None:
    ledger = folder(2, 1)
    ledger.name = '<script>alert("x")</script>'
    ledger.book(2, REASONS[State.REFUSED], "<img src=http://evil.example/>")
    report = RemoteReport("work", "anna", folders=[ledger], error="<b>")
    text = page([report], made=1_700_000_000)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text
    assert "http-equiv" in text or "<meta charset" in text
    assert "2023-11-14" in text
    assert "1 of 2" in text


def test_the_page_keeps_names_of_any_script_apart() -> None:
    ledger = folder(2, 2)
    ledger.name = "x\u202eevil"
    report = RemoteReport("work", "anna", "imap.example.org", folders=[ledger, folder(1, 1)])
    shown = page([report, RemoteReport("home", "home")], made=0)
    assert "\u202e" not in shown
    assert r"<bdi>x\u202eevil</bdi>" in shown
    assert "Mailbox here" in shown, "one folder is kept under another name"
    assert 'href="#r1"' in shown
    assert "Mailbox here" not in page([RemoteReport("r", "a", folders=[folder(1, 1)])], made=0)
