"""The ledger of a pull: what the server has, what is kept, and for every message that is missing, why. Facts only.

A folder is *equal* when each message that the server has is kept, or left out because the user's filters say so. All
else, be it too large, refused, empty, capped by the provider or failed, is missing, has its reason, and makes the exit
code 1. Text, JSON and HTML are made of the same facts: see `facts` here, and `ledger_page` for the page.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from mailkeep.errors import MailkeepError
from mailkeep.jobs.progress import FAULTS_KEPT_MAX
from mailkeep.store.remotes import State

REASONS: Final = {
    State.FILTERED: "filtered",
    State.TOO_LARGE: "too large",
    State.REFUSED: "refused by the server",
    State.EMPTY: "answered with nothing",
    State.CAPPED: "not shown by the provider",
    State.REPLACED: "replaced by the server",
    State.FAILED: "failed",
}
NOT_REACHED: Final = "not fetched yet"  # the run was stopped before, or the folder failed
REMOVED_HERE: Final = "removed here by its owner"
EXPLAINED: Final = (REASONS[State.FILTERED], REMOVED_HERE)  # what the user wanted so is no lack
RETRIES_MAX: Final = 3  # after so many runs a failure is tried again only when asked for


@dataclass(frozen=True, slots=True)
class Missing:
    """One message that is not here."""

    uid: int
    reason: str
    detail: str | None = None


@dataclass(slots=True)
class FolderLedger:
    """One folder. `server` is what the server says it has; `kept` counts those of them that are here."""

    name: str  # as the server names it
    mailbox: str | None = None  # ours
    server: int = 0
    kept: int = 0
    fetched: int = 0  # in this run
    recognised: int = 0  # in this run: known by content or origin, not fetched
    flags: int = 0  # changed in this run
    dates: int = 0  # of arrival that differ, where a server was asked again
    labels: int = 0  # copies of messages that came or went by Gmail's labels, in this run
    gone: int = 0  # kept here though the server has them no more, in all
    vanished: int = 0  # … newly so in this run
    moved: int = 0  # to other folders, in this run
    bytes: int = 0  # fetched in this run
    way: str = ""  # plan.Way, in words
    missing: Counter[str] = field(default_factory=Counter)  # by reason
    listed: list[Missing] = field(default_factory=list)  # at most FAULTS_KEPT_MAX of them
    notes: list[str] = field(default_factory=list)
    error: str | None = None  # why the folder could not be finished

    def book(self, uid: int, reason: str, detail: str | None = None) -> None:
        """One message that is not kept."""
        self.missing[reason] += 1
        if reason not in EXPLAINED and len(self.listed) < FAULTS_KEPT_MAX:
            self.listed.append(Missing(uid, reason, detail))

    def close(self) -> None:
        """The last step: what is neither kept nor booked was not reached."""
        open_count = self.server - self.kept - sum(self.missing.values())
        if open_count > 0:
            self.missing[NOT_REACHED] += open_count

    @property
    def explained(self) -> int:
        """Messages that are not here because the user wants it so."""
        return sum(self.missing[reason] for reason in EXPLAINED)

    @property
    def lacking(self) -> int:
        """Messages that are missing for another reason than the user's filters."""
        return sum(self.missing.values()) - self.explained

    @property
    def equal(self) -> bool:
        """What should be here is here."""
        return self.error is None and not self.lacking and self.server == self.kept + self.explained

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "folder": self.name,
            "mailbox": self.mailbox,
            "server": self.server,
            "kept": self.kept,
            "missing": dict(self.missing),
            "equal": self.equal,
            "fetched": self.fetched,
            "recognised": self.recognised,
            "flags_changed": self.flags,
            "labels_changed": self.labels,
            "dates_differ": self.dates,
            "vanished": self.vanished,
            "moved": self.moved,
            "gone": self.gone,
            "bytes": self.bytes,
            "way": self.way,
            "messages": [{"uid": each.uid, "reason": each.reason, "detail": each.detail} for each in self.listed],
            "notes": self.notes,
            "error": self.error,
        }


@dataclass(slots=True)
class RemoteReport:
    """All folders of one remote, after one run."""

    remote: str
    account: str
    host: str = ""
    started: int = 0  # Unix seconds
    seconds: float = 0.0
    folders: list[FolderLedger] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # folders that the filters leave out
    removed: list[str] = field(default_factory=list)  # folders that the server has no more
    notes: list[str] = field(default_factory=list)
    error: str | None = None  # why the run could not go on (log-in, network)
    failure: MailkeepError | None = None  # … as it was raised, for the exit code
    stopped: str | None = None  # why it ended before its end
    resume_at: int | None = None  # Unix seconds: when a byte budget allows to go on

    def folder(self, name: str) -> FolderLedger:
        """The one of that name, made if need be."""
        for found in self.folders:
            if found.name == name:
                return found
        made = FolderLedger(name)
        self.folders.append(made)
        return made

    @property
    def equal(self) -> bool:
        """Everything that should be here is here."""
        return self.error is None and self.stopped is None and all(folder.equal for folder in self.folders)

    def total(self, attribute: str) -> int:
        """The sum of a number over all folders."""
        return sum(getattr(folder, attribute) for folder in self.folders)

    def reasons(self) -> Counter[str]:
        """Missing messages by reason, over all folders."""
        counted: Counter[str] = Counter()
        for folder in self.folders:
            counted.update(folder.missing)
        return counted

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        sums = ("server", "kept", "fetched", "recognised", "vanished", "gone", "bytes")
        return {
            "remote": self.remote,
            "account": self.account,
            "host": self.host,
            "equal": self.equal,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            **{name: self.total(name) for name in sums},
            "flags_changed": self.total("flags"),
            "missing": dict(self.reasons()),
            "folders": [folder.facts() for folder in self.folders],
            "left_out": self.left_out,
            "removed": self.removed,
            "notes": self.notes,
            "error": self.error,
            "stopped": self.stopped,
            "resume_at": self.resume_at,
        }
