"""Runs `mailkeep pull REMOTE`, or `sync`, when its schedule says so: each a child process, few at a time, one a remote.

Lives in the keeper, which calls `tick` now and then. A child has its own memory and its own faults, writes through the
same locks as any other process, and is asked to end with TERM, upon which it commits what it has fetched.

The one care is fairness: a server that never comes to an end must not keep the others from their turn. Where somebody
waits, a run of an hour is asked to end, which loses nothing, and goes on when the others had theirs.

It knows no protocol. What it remembers between ticks is only which child is whose and when it began; everything else
is in the store, so a keeper that dies loses nothing.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mailkeep import log
from mailkeep.backup.schedule import due_at, parse
from mailkeep.backup.states import read_state
from mailkeep.errors import UsageError
from mailkeep.store.remotes import RemoteRow
from mailkeep.store.store import Store

_log = log.get("schedule")

PULLS_MAX: Final = 2  # at a time, of all remotes
SHARE_S: Final = 3600  # of one run while others wait
PATIENCE_S: Final = 60  # then, until it has ended
LOOK_S: Final = 5.0  # between two looks at the remotes
STOP_S: Final = 8.0  # for the children to commit what they have
NOT_EQUAL: Final = 1  # exit code of a run that worked, and after which something is still missing


@dataclass(slots=True)
class Scheduler:
    """The children of one keeper. `command`: how `mailkeep` is called, for tests."""

    store: Store
    command: Sequence[str] = (sys.executable, "-P", "-m", "mailkeep.cli.main")
    now: Callable[[], float] = time.time
    running: "dict[int, subprocess.Popen[bytes]]" = field(default_factory=dict)  # remote id → child
    _names: dict[int, str] = field(default_factory=dict)
    _started: dict[int, int] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _cut_short: set[int] = field(default_factory=set)  # to go on as soon as there is room
    _looked: float = 0.0

    def tick(self) -> None:
        """Take note of children that have ended; start what is due."""
        self._reap()
        now = self.now()
        if now - self._looked < LOOK_S and now >= self._looked:
            return
        self._looked = now
        for _, row, command in self._due(now):
            if len(self.running) >= PULLS_MAX:
                self._make_room(int(now))
                break
            if row.id not in self.running:
                self._start(row, command, int(now))

    def _make_room(self, now: int) -> None:
        """Somebody waits: the run that has had the longest, if that was long enough, is to end."""
        id = min(self.running, key=lambda each: self._started[each])
        had = now - self._started[id]
        if had < SHARE_S:
            return
        self._cut_short.add(id)
        with contextlib.suppress(ProcessLookupError):
            if had < SHARE_S + PATIENCE_S:
                self.running[id].terminate()
            else:
                self.running[id].kill()

    def stop(self) -> None:
        """End all children: they commit, or, when they take too long, are killed, which loses nothing but time."""
        for child in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        end = time.monotonic() + STOP_S
        for child in self.running.values():
            try:
                child.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.running.clear()

    def _due(self, now: float) -> list[tuple[int, RemoteRow, str]]:
        """(since when, which, by what command); the longest overdue first."""
        found = []
        for row in self.store.remotes.list():
            if not row.schedule or row.id in self.running:
                continue
            try:
                schedule = parse(row.schedule)
            except UsageError:  # of a later version
                continue
            if schedule is None:
                continue
            if row.id in self._cut_short:
                schedule = replace(schedule, every_s=1, minute=None)
            started, failures = self._started.get(row.id), self._failures.get(row.id, 0)
            due = due_at(schedule, read_state(row.state), now=int(now), started=started, failures=failures)
            if due <= now:
                found.append((due, row, schedule.command))
        return sorted(found, key=lambda each: (each[0], each[1].id))

    def _start(self, row: RemoteRow, command: str, now: int) -> None:
        arguments = [*self.command, command, "--quiet", "--data", str(self.store.root), "--", row.name]
        self._started[row.id] = now
        self._cut_short.discard(row.id)
        try:
            child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except OSError as error:
            _log.warning("run could not be started", remote=row.name, command=command, reason=error.strerror)
            self._failures[row.id] = self._failures.get(row.id, 0) + 1
            return
        self.running[row.id], self._names[row.id] = child, row.name
        _log.info("run started", remote=row.name, command=command, pid=child.pid)

    def _reap(self) -> None:
        for id, child in list(self.running.items()):
            code = child.poll()
            if code is None:
                continue
            del self.running[id]
            if code in (0, NOT_EQUAL) or id in self._cut_short:
                self._failures.pop(id, None)
                _log.info("run ended", remote=self._names[id], code=code)
            else:
                self._failures[id] = self._failures.get(id, 0) + 1
                _log.warning("run failed", remote=self._names[id], code=code)
