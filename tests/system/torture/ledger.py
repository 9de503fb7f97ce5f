"""What clients were promised, and what may therefore be found after a crash.

Each message carries a token of its own. For each token the ledger keeps the state that was acknowledged (where the
message is, whether it is flagged) and at most one operation under way. After a crash a token must be in the
acknowledged state, or in the one that the operation under way would have led to; nothing between, nothing else. UIDs
are kept for ever: one that was ever seen with one token must never be seen with another.
"""

import hashlib
import threading
from dataclasses import dataclass, field, replace

INBOX, WORK = "INBOX", "Work"


@dataclass(frozen=True, slots=True)
class State:
    """Where a message is, and its flag."""

    places: frozenset[str] = frozenset()
    flagged: bool = False

    def after(self, operation: str) -> "State":
        if operation == "add":
            return State(self.places | {INBOX}, self.flagged)
        if operation == "copy":
            return State(self.places | {WORK}, self.flagged)
        if operation == "move":
            return State(self.places - {INBOX} | {WORK}, self.flagged)
        if operation == "expunge":
            return State(self.places - {INBOX}, self.flagged)
        assert operation == "flag", operation
        return replace(self, flagged=True)


@dataclass(slots=True)
class Entry:
    """One message's promise."""

    state: State = State()
    under_way: str | None = None

    def allowed(self) -> set[State]:
        return {self.state} | ({self.state.after(self.under_way)} if self.under_way else set())


@dataclass(slots=True)
class Ledger:
    """All promises of one store, over all its crashes. Used by many threads."""

    entries: dict[str, Entry] = field(default_factory=dict)
    uids: dict[tuple[str, int], str] = field(default_factory=dict)
    uidvalidity: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def begin(self, token: str, operation: str) -> None:
        with self.lock:
            self.entries.setdefault(token, Entry()).under_way = operation

    def done(self, token: str) -> None:
        """The server has said OK."""
        with self.lock:
            entry = self.entries[token]
            assert entry.under_way
            entry.state, entry.under_way = entry.state.after(entry.under_way), None
        with self.changed:
            self.acknowledged += 1
            self.changed.notify_all()

    def place(self, mailbox: str, uid: int, token: str) -> None:
        """The server has named a UID."""
        with self.lock:
            before = self.uids.setdefault((mailbox, uid), token)
        assert before == token, f"UID {uid} of {mailbox} was given to {before}, and now to {token}"

    def settle(self, found: dict[str, State]) -> list[str]:
        """Compare with what is there; what was open is now known. Returns what is wrong."""
        wrong = []
        for token, state in found.items():
            if token not in self.entries:
                wrong.append(f"{token} was never sent")
            elif state not in self.entries[token].allowed():
                entry = self.entries[token]
                wrong.append(f"{token}: found {state}, allowed {entry.allowed()} (under way: {entry.under_way})")
        for token, entry in self.entries.items():
            here = found.get(token)
            if here is None and not any(not state.places for state in entry.allowed()):
                wrong.append(f"{token} is lost; it was {entry.state}, under way: {entry.under_way}")
            entry.state, entry.under_way = here or State(), None
        return wrong


def message(token: str) -> bytes:
    """The bytes that belong to a token; some of them large enough to span many blocks."""
    seed = hashlib.sha256(token.encode()).digest()
    line = seed.hex().encode() + b"\r\n"
    return (
        b"From: torture@example.org\r\nSubject: " + token.encode() + b"\r\nX-Token: " + token.encode() + b"\r\n\r\n"
        + line * (1 + seed[0] * (20 if seed[1] < 16 else 1))
    )  # fmt: skip
