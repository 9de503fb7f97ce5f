"""Job rows: the same job is taken up where it was, another begins anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.jobs.job import DONE, RUNNING, Job
from mailkeep.jobs.progress import FAULTS_KEPT_MAX, Progress, Summary
from mailkeep.mail.ids import AccountId
from mailkeep.store.job_rows import jobs
from mailkeep.store.store import Store

ANNA = AccountId(1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "data")
    yield store
    store.close()


def start(store: Store, key: bytes = b"k", fingerprint: str = "f") -> Job:
    return Job.start(store, "import", ANNA, key=key, fingerprint=fingerprint)


def test_a_new_job_resumes_nothing(store: Store) -> None:
    assert start(store).resumed is None
    assert [row.state for row in jobs(store, ANNA)] == [RUNNING]


def test_a_killed_and_a_stopped_job_are_taken_up(store: Store) -> None:
    start(store).advance(7)  # and then killed: its row still says running
    again = start(store)
    assert again.resumed == 7
    again.stop(9)
    assert start(store).resumed == 9


def test_a_job_whose_files_changed_begins_anew(store: Store) -> None:
    start(store).stop(7)
    assert start(store, fingerprint="g").resumed is None


def test_a_finished_job_is_not_resumed(store: Store) -> None:
    start(store).finish(7, {"summary": {"added": 7}})
    assert [row.state for row in jobs(store, ANNA)] == [DONE]
    assert start(store).resumed is None


def test_jobs_are_known_by_their_key_and_account(store: Store) -> None:
    start(store).stop(7)
    assert start(store, key=b"other").resumed is None
    assert Job.start(store, "import", AccountId(2), key=b"k", fingerprint="f").resumed is None
    assert len(jobs(store, ANNA)) == 2


def test_progress_adds_up_and_tells() -> None:
    told: list[tuple[int, int, str]] = []
    progress = Progress(lambda p: told.append((p.done, p.items, p.what)))
    progress.report(done=5, items=1, what="a")
    progress.report(done=5)
    assert told == [(5, 1, "a"), (10, 1, "a")]


def test_a_summary_lists_some_faults_and_counts_all() -> None:
    summary = Summary()
    for number in range(FAULTS_KEPT_MAX + 5):
        summary.fault(str(number), "no")
    assert summary.failed == FAULTS_KEPT_MAX + 5 and len(summary.facts()["faults"]) == FAULTS_KEPT_MAX
