"""How far a long piece of work is, and what became of it. Facts only: text, bars and JSON are made by who asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

FAULTS_KEPT_MAX: Final = 1000  # more are counted, not listed


@dataclass(slots=True)
class Progress:
    """Told by the work, watched by a terminal or by nobody. `total` is 0 while it is not known."""

    listener: "Callable[[Progress], None] | None" = None
    total: int = 0
    done: int = 0
    items: int = 0
    items_total: int = 0  # as far as it is known; 0: not
    what: str = ""
    phase: str = ""  # what is done before or after the work that is counted, such as "Reading it again"; else empty

    def report(self, *, done: int = 0, items: int = 0, what: str | None = None, phase: str = "") -> None:
        self.done += done
        self.items += items
        self.phase = phase
        if what is not None:
            self.what = what
        if self.listener is not None:
            self.listener(self)


@dataclass(frozen=True, slots=True)
class Fault:
    """One item that could not be done; the work went on behind it."""

    source: str
    reason: str


@dataclass(slots=True)
class Count:
    """Of one mailbox."""

    added: int = 0
    already: int = 0


@dataclass(slots=True)
class Summary:
    """What a job did."""

    found: int = 0
    added: int = 0
    already: int = 0
    bytes: int = 0
    failed: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    mailboxes: dict[str, Count] = field(default_factory=dict)
    resumed_at: int | None = None  # items that an earlier, stopped run had done
    stopped: str | None = None  # why the work ended before its end

    def fault(self, source: str, reason: str) -> None:
        self.failed += 1
        if len(self.faults) < FAULTS_KEPT_MAX:
            self.faults.append(Fault(source, reason))

    def note(self, source: str, text: str) -> None:
        if len(self.notes) < FAULTS_KEPT_MAX:
            self.notes.append(Fault(source, text))

    def count(self, mailbox: str) -> Count:
        return self.mailboxes.setdefault(mailbox, Count())

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "found": self.found,
            "added": self.added,
            "already": self.already,
            "failed": self.failed,
            "bytes": self.bytes,
            "resumed_at": self.resumed_at,
            "stopped": self.stopped,
            "mailboxes": {name: {"added": c.added, "already": c.already} for name, c in self.mailboxes.items()},
            "skipped": self.skipped,
            "notes": [{"source": note.source, "text": note.reason} for note in self.notes],
            "faults": [{"source": fault.source, "reason": fault.reason} for fault in self.faults],
        }
