"""The ledger of a two-way run: what was brought here, put there, merged, removed, and what could not be. Facts only."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from mailkeep.backup.ledger import Missing
from mailkeep.errors import MailkeepError
from mailkeep.jobs.progress import FAULTS_KEPT_MAX

# What is counted, of each folder; the names are those of `facts` too.
COUNTS: Final = (
    "fetched",  # messages brought here
    "uploaded",  # put there
    "recognised",  # known by content, so not copied
    "moved_here",
    "moved_there",
    "flags_here",  # messages whose flags changed
    "flags_there",
    "removed_here",
    "removed_there",
)


@dataclass(slots=True)
class FolderSync:
    """One folder. In a plan: what would be done."""

    name: str  # as the server names it
    mailbox: str | None = None  # ours
    counts: Counter[str] = field(default_factory=Counter)  # by the names of COUNTS
    missing: Counter[str] = field(default_factory=Counter)  # by reason
    listed: list[Missing] = field(default_factory=list)  # at most FAULTS_KEPT_MAX
    error: str | None = None  # why something of it could not be done
    settled: bool = False  # both sides were found the same

    def book(self, uid: int, reason: str, detail: str | None = None) -> None:
        """A message that one side alone has, for good or for this run. `uid`: that of the side that has it."""
        self.missing[reason] += 1
        if len(self.listed) < FAULTS_KEPT_MAX:
            self.listed.append(Missing(uid, reason, detail))

    @property
    def equal(self) -> bool:
        return self.settled and self.error is None and not self.missing

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "folder": self.name,
            "mailbox": self.mailbox,
            **{name: self.counts[name] for name in COUNTS},
            "missing": dict(self.missing),
            "messages": [{"uid": each.uid, "reason": each.reason, "detail": each.detail} for each in self.listed],
            "equal": self.equal,
            "error": self.error,
        }


@dataclass(slots=True)
class SyncReport:
    """All folders of one remote, after one run. `actions`: what was done to folders themselves, in words."""

    remote: str
    account: str
    host: str = ""
    started: int = 0  # Unix seconds
    seconds: float = 0.0
    planned: bool = False  # nothing was done
    folders: list[FolderSync] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    error: str | None = None
    failure: MailkeepError | None = None
    stopped: str | None = None
    finished: bool = False  # a last look found nothing left to do

    def folder(self, name: str) -> FolderSync:
        """The one of that name, made if need be."""
        for found in self.folders:
            if found.name == name:
                return found
        made = FolderSync(name)
        self.folders.append(made)
        return made

    def note(self, text: str) -> None:
        """Said once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def equal(self) -> bool:
        """Both sides are the same, as far as they are meant to be."""
        return (
            self.error is None and self.stopped is None and self.finished and all(each.equal for each in self.folders)
        )

    def total(self, name: str) -> int:
        return sum(folder.counts[name] for folder in self.folders)

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "remote": self.remote,
            "account": self.account,
            "host": self.host,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "plan": self.planned,
            "equal": self.equal,
            **{name: self.total(name) for name in COUNTS},
            "actions": self.actions,
            "folders": [folder.facts() for folder in self.folders],
            "left_out": self.left_out,
            "notes": self.notes,
            "error": self.error,
            "stopped": self.stopped,
        }
