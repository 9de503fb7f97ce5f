"""Long work that is stopped and goes on: one row a job, with a cursor.

A job is known by its kind, its account and a key that says what it is about (for an import: the paths and where they
go). The same job started again finds its row, and with it how far it came. The cursor is a hint and is written after
the work that it stands for: a kill between the two repeats a little work, and the work itself is idempotent.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from mailkeep.mail.ids import AccountId
from mailkeep.store import job_rows
from mailkeep.store.job_rows import JobRow
from mailkeep.store.store import Store

RUNNING: Final = "running"
STOPPED: Final = "stopped"
DONE: Final = "done"


@dataclass(slots=True)
class Job:
    """A job of this process. `resumed`: items that an earlier run, which did not come to its end, had done."""

    store: Store
    row: JobRow
    fingerprint: str
    resumed: int | None = None

    @classmethod
    def start(cls, store: Store, kind: str, account: AccountId, *, key: bytes, fingerprint: str) -> "Job":
        """Take up the job. When `fingerprint` (the state of what it reads) has changed, it begins anew."""
        row = job_rows.take(store, kind, account, key)
        before = _detail(row)
        same = before.get("fingerprint") == fingerprint
        cursor = int.from_bytes(row.cursor or b"", "big")
        resumed = cursor if same and row.state != DONE and cursor else None
        job = cls(store, row, fingerprint, resumed)
        job._save(RUNNING, 0, {})
        return job

    def advance(self, items: int) -> None:
        self._save(RUNNING, items, {})

    def stop(self, items: int) -> None:
        self._save(STOPPED, items, {})

    def finish(self, items: int, facts: dict[str, Any]) -> None:
        self._save(DONE, items, facts)

    def _save(self, state: str, items: int, facts: dict[str, Any]) -> None:
        detail = msgspec.json.encode({"fingerprint": self.fingerprint, **facts})
        job_rows.save(self.store, self.row.id, state=state, cursor=items.to_bytes(8, "big"), detail=detail)


def _detail(row: JobRow) -> dict[str, Any]:
    return msgspec.json.decode(row.detail, type=dict[str, Any]) if row.detail else {}
