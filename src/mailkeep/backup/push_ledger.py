"""The ledger of a push: what was chosen here, what the target has of it, and why the rest is not there. Facts only.

Its plan is the same ledger before the work: what would be copied, how long it takes, what the target cannot keep.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from mailkeep.backup.ledger import Missing
from mailkeep.errors import MailkeepError
from mailkeep.jobs.progress import FAULTS_KEPT_MAX

TOO_LARGE: Final = "too large for the server"
REFUSED: Final = "refused by the server"
LONG_LINE: Final = "has a line longer than the server takes"
UNREADABLE: Final = "cannot be read here"
CUT: Final = "the server cuts the connection"
NOT_FOUND: Final = "taken by the server, but not found there"
NOT_SENT: Final = "not sent yet"  # the run was stopped before, or the folder failed


@dataclass(slots=True)
class FolderPush:
    """One folder. `there` counts the chosen messages that the server has, whoever brought them."""

    mailbox: str  # ours
    name: str  # the server's
    exists: bool = True
    note: str | None = None  # why it cannot keep its name
    chosen: int = 0
    chosen_bytes: int = 0
    there: int = 0
    copied: int = 0  # in this run; in a plan: to be copied
    copied_bytes: int = 0
    flags: int = 0  # messages whose flags were completed after they were there
    gone: int = 0  # of the chosen ones: messages that their source no longer has
    lost: Counter[str] = field(default_factory=Counter)  # flags and keywords that it cannot keep → messages
    changed: int = 0  # line ends mended, since the server refused the bytes as they are
    missing: Counter[str] = field(default_factory=Counter)  # by reason
    listed: list[Missing] = field(default_factory=list)  # at most FAULTS_KEPT_MAX; by our UID
    error: str | None = None

    def book(self, uid: int, reason: str, detail: str | None = None) -> None:
        """A message that will not be there."""
        self.missing[reason] += 1
        if len(self.listed) < FAULTS_KEPT_MAX:
            self.listed.append(Missing(uid, reason, detail))

    def close(self) -> None:
        """The last step: what is neither there nor booked was not reached."""
        left = self.chosen - self.there - sum(self.missing.values())
        if left > 0:
            self.missing[NOT_SENT] += left

    @property
    def equal(self) -> bool:
        """All that was chosen is there."""
        return self.error is None and self.there == self.chosen

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mailbox": self.mailbox,
            "folder": self.name,
            "exists": self.exists,
            "note": self.note,
            "chosen": self.chosen,
            "bytes": self.chosen_bytes,
            "there": self.there,
            "copied": self.copied,
            "copied_bytes": self.copied_bytes,
            "flags_completed": self.flags,
            "gone": self.gone,
            "lost": dict(self.lost),
            "mended": self.changed,
            "missing": dict(self.missing),
            "equal": self.equal,
            "messages": [{"uid": each.uid, "reason": each.reason, "detail": each.detail} for each in self.listed],
            "error": self.error,
        }


@dataclass(slots=True)
class PushReport:
    """All folders of one push, or of the plan of one."""

    account: str
    remote: str
    host: str = ""
    planned: bool = False  # nothing was done
    filters: str = ""
    folders: list[FolderPush] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # mailboxes that the filters leave out
    append_max: int | None = None  # bytes
    estimate_s: float | None = None  # how long the rest will take, waiting and allowances included
    seconds: float = 0.0
    error: str | None = None
    failure: MailkeepError | None = None  # … as it was raised, for the exit code
    stopped: str | None = None
    resume_at: int | None = None  # Unix seconds

    @property
    def equal(self) -> bool:
        """Everything that was chosen is there."""
        return self.error is None and self.stopped is None and all(folder.equal for folder in self.folders)

    def total(self, attribute: str) -> int:
        return sum(getattr(folder, attribute) for folder in self.folders)

    def counted(self, attribute: str) -> Counter[str]:
        """`missing` or `lost`, over all folders."""
        counted: Counter[str] = Counter()
        for folder in self.folders:
            counted.update(getattr(folder, attribute))
        return counted

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        sums = ("chosen", "chosen_bytes", "there", "copied", "copied_bytes", "flags", "gone")
        return {
            "account": self.account,
            "remote": self.remote,
            "host": self.host,
            "plan": self.planned,
            "filters": self.filters,
            "equal": self.equal,
            **{name: self.total(name) for name in sums},
            "missing": dict(self.counted("missing")),
            "lost": dict(self.counted("lost")),
            "append_max": self.append_max,
            "estimate_s": None if self.estimate_s is None else round(self.estimate_s),
            "seconds": round(self.seconds, 3),
            "folders": [folder.facts() for folder in self.folders],
            "left_out": self.left_out,
            "error": self.error,
            "stopped": self.stopped,
            "resume_at": self.resume_at,
        }
