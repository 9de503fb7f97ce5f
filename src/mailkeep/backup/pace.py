"""How fast to ask another server: window, depth, connections, when to wait, and when a run will be finished.

Pure: the time is handed in, nothing is awaited. It knows no protocol but the words by which servers ask for patience.

The one hard idea: nobody tells us how much is too much, so it is found out and remembered. A window (messages in one
FETCH) starts small and doubles while all goes well; trouble halves it and makes us wait, longer each time, or as long
as the server said; a refused connection is not tried again. What was learnt of a host is kept for the next run, and so
are the bytes that went over the line within a day, for providers lock an account out that takes more than they allow.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Settings
from mailkeep.errors import MailkeepError, RemoteBusy, RemoteError

WINDOW_FIRST: Final = 50
WINDOW_MAX: Final = 200  # messages of one FETCH; more does not help
DEPTH: Final = 3  # windows in flight
CONNECTIONS_MAX: Final = 4
NEAR_S: Final = 0.005  # a round trip below this needs no second connection
BACKOFF_FIRST_S: Final = 1.0
ATTEMPTS_MAX: Final = 5  # without any progress between them
WAIT_MAX_S: Final = 300.0  # a server that asks for more is left for the next run
BACKOFF_MAX_S: Final = 900.0
HINT_MAX_S: Final = 3600.0  # a server that asks for more is asked again after this
HOUR_S: Final = 3600
DAY_H: Final = 24
PIPELINE_MAX: Final = 100  # commands under way on one connection: servers' own buffers are small
CAREFUL_S: Final = 7 * 24 * 3600  # how long a server that bears no pipelining is spared it
BYTES_PER_S: Final = 2_000_000.0  # assumed before anything was measured

Direction = Literal["imap_down", "imap_up", "pop_down"]

# Response codes of RFC 5530 and of Gmail ([THROTTLED]) and Yahoo ([LIMIT], [SERVERBUG]) that pass by themselves.
_PASSING: Final = frozenset(("UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "THROTTLED", "TRYAGAIN"))
_BACKOFF = re.compile(
    r"(?:back-?off time|retry after|try again in)[:\s]*(\d{1,9})\s*(milliseconds|ms|seconds|s|minutes)?", re.I
)
_BUSY = re.compile(
    r"throttl|too many (?:simultaneous )?connections|maximum number of connections|too many sessions|"
    r"try again later|temporar(?:y|ily)|server (?:is )?busy|rate limit|bandwidth limit|over ?quota.*later|"
    r"overloaded|authenticated but not connected|internal error occurred\. refer to server log",
    re.I,
)
# Gmail, when a day's allowance is used up; it lets nobody in for up to 24 hours.
_USED_UP = re.compile(r"exceeded (?:command or )?bandwidth limit", re.IGNORECASE)
_UNITS: Final = {"milliseconds": 0.001, "ms": 0.001, "minutes": 60.0}


def hint_s(text: str, quirks: Quirks) -> float | None:
    """How long a server asks us to wait, in seconds, from the text of its NO or BYE; None where it does not say."""
    if quirks.backoff_regex is not None:
        match = re.search(quirks.backoff_regex, text)
        if match is not None and match[1].isdigit():
            return min(int(match[1][:12]) / 1000, HINT_MAX_S)
    match = _BACKOFF.search(text)
    if match is None:
        return HINT_MAX_S if _USED_UP.search(text) else None
    return min(int(match[1]) * _UNITS.get((match[2] or "s").lower(), 1.0), HINT_MAX_S)


def is_passing(code: str | None, text: str, quirks: Quirks) -> bool:
    """Whether a refusal is of the kind that goes away by itself."""
    if code in _PASSING or any(known in text for known in quirks.transient):
        return True
    # A server may put its code into the text of a tagged line that has another code, or none.
    return bool(_BUSY.search(text)) or any(f"[{name}]" in text for name in _PASSING) or hint_s(text, quirks) is not None


def refusal(what: str, *, code: str | None, text: str, quirks: Quirks) -> RemoteError:
    """The error for a NO, BAD or BYE: RemoteBusy where waiting helps. `what` says which server and what was asked."""
    words = re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", text).strip()[:300]
    shown = f"{what}: {words}" if words else what
    if code:
        shown += f" [{code[:40]}]"
    if is_passing(code, text, quirks):
        return RemoteBusy(shown, retry_after_s=hint_s(text, quirks), code=code)
    return RemoteError(shown, code=code)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider and a user allow."""

    connections: int = CONNECTIONS_MAX
    depth: int = DEPTH
    msgs_per_second: float | None = None
    bytes_per_day: int | None = None


def limits_of(quirks: Quirks, settings: Settings | None = None, *, direction: Direction = "imap_down") -> Limits:
    """The narrower of what the provider states and what the user set; one connection is left to the user's own mail."""
    connections = [CONNECTIONS_MAX]
    if quirks.max_connections is not None:
        connections.append(quirks.max_connections - 1)
    budgets = []
    if settings is not None:
        connections += [settings.connections_max] if settings.connections_max else []
        budgets += [settings.bytes_per_day] if settings.bytes_per_day else []
    if direction in quirks.bytes_per_day:
        budgets.append(quirks.bytes_per_day[direction])
    depth = min(DEPTH, quirks.pipeline_depth or DEPTH)
    return Limits(max(1, min(connections)), max(1, depth), quirks.msgs_per_second, min(budgets, default=None))


class Pace:
    """What is known of one host, and what follows from it. All times are Unix seconds, handed in."""

    __slots__ = (
        "_backoff_s",
        "_careful_until",
        "_free_at",
        "_rate",
        "_used",
        "_wait_until",
        "connections",
        "depth",
        "limits",
        "window",
    )

    def __init__(self, limits: Limits | None = None, state: bytes | None = None) -> None:
        """`state`: what `dump` gave at the end of an earlier run; anything unreadable in it counts as nothing."""
        self.limits = limits or Limits()
        known = _read(state)
        self.window = _whole(known.get("window"), 1, WINDOW_MAX, WINDOW_FIRST)
        self.depth = _whole(known.get("depth"), 1, self.limits.depth, self.limits.depth)
        self.connections = _whole(known.get("connections"), 1, self.limits.connections, self.limits.connections)
        self._rate = float(_whole(known.get("rate"), 0, 1 << 40, 0))  # bytes a second, smoothed
        self._wait_until = float(_whole(known.get("wait_until"), 0, 1 << 40, 0))
        self._careful_until = float(_whole(known.get("careful_until"), 0, 1 << 40, 0))
        self._backoff_s = 0.0
        self._free_at = 0.0  # when the next message may be asked for, by msgs_per_second
        used = known.get("used")
        self._used: dict[int, int] = {}  # hour → bytes
        if isinstance(used, dict):
            self._used = {int(h): _whole(n, 0, 1 << 50, 0) for h, n in used.items() if str(h).isdigit()}

    def dump(self) -> bytes:
        """What to remember of the host."""
        known = {
            "window": self.window,
            "depth": self.depth,
            "connections": self.connections,
            "rate": int(self._rate),
            "wait_until": int(self._wait_until),
            "careful_until": int(self._careful_until),
            "used": {str(hour): used for hour, used in self._used.items()},
        }
        return json.dumps(known, separators=(",", ":")).encode()

    # --- what to do ---

    def lanes(self, rtt_s: float) -> int:
        """How many connections are worth having at this round-trip time."""
        if rtt_s < NEAR_S:
            return 1
        return max(1, min(self.connections, 1 + int(rtt_s / NEAR_S)))

    def pipeline(self, now: float) -> int:
        """How many commands may be under way on one connection."""
        return 1 if now < self._careful_until else PIPELINE_MAX

    def wait_s(self, now: float) -> float:
        """How long to wait before the next window: a server's wish, a rate, or a day's allowance. 0: go."""
        until = max(self._wait_until, self._free_at)
        if self.limits.bytes_per_day is not None and self.left(now) == 0:
            until = max(until, self._room_at(now, 1))
        return max(0.0, until - now)

    def left(self, now: float) -> int | None:
        """Bytes that may still be moved at this hour; None: no limit."""
        if self.limits.bytes_per_day is None:
            return None
        return max(0, self.limits.bytes_per_day - self.used(now))

    def used(self, now: float) -> int:
        """Bytes moved within the last 24 hours."""
        first = int(now // HOUR_S) - DAY_H + 1
        return sum(used for hour, used in self._used.items() if hour >= first)

    def free_at(self, now: float, size: int) -> float:
        """When the day's allowance has room for so many bytes; at most for all of it."""
        budget = self.limits.bytes_per_day
        return now if budget is None else max(now, self._room_at(now, min(size, budget)))

    def finish_s(self, now: float, bytes_left: int, messages_left: int = 0) -> float:
        """In how many seconds a run that has this much left will be finished, waiting and allowances included."""
        seconds = bytes_left / (self._rate or BYTES_PER_S)
        if self.limits.msgs_per_second:
            seconds = max(seconds, messages_left / self.limits.msgs_per_second)
        start = max(now, self._wait_until)
        budget = self.limits.bytes_per_day
        if budget is not None and budget > 0:
            whole_days, rest = divmod(max(0, bytes_left - (self.left(now) or 0)), budget)
            if rest or whole_days:
                allowed_at = (
                    self._room_at(now, min(rest or budget, budget)) + (whole_days - (not rest)) * DAY_H * HOUR_S
                )
                seconds = max(seconds, allowed_at - start)
        return start - now + seconds

    # --- what happened ---

    def asked(self, now: float, messages: int) -> None:
        """A window of so many messages is going out."""
        if self.limits.msgs_per_second:
            self._free_at = max(self._free_at, now) + messages / self.limits.msgs_per_second

    def moved(self, now: float, size: int, seconds: float = 0.0) -> None:
        """So many bytes went over the line; `seconds`: the time that they took, where it was measured."""
        hour = int(now // HOUR_S)
        if hour not in self._used:
            self._used = {h: used for h, used in self._used.items() if h > hour - DAY_H}
        self._used[hour] = self._used.get(hour, 0) + size
        if seconds > 0.0:
            rate = size / seconds
            self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate

    def succeeded(self, messages: int) -> None:
        """A window came back whole."""
        self._backoff_s = 0.0
        if messages >= self.window:
            self.window = min(WINDOW_MAX, self.window * 2)
            if self.window == WINDOW_MAX:
                self.depth = min(self.limits.depth, self.depth + 1)

    def troubled(self, now: float, retry_after_s: float | None = None) -> float:
        """The server asked for patience, or cut the line: ask for less. The seconds to wait, as `wait_s` says too."""
        self.window = max(1, self.window // 2)
        self.depth = max(1, self.depth - 1)
        self._backoff_s = min(BACKOFF_MAX_S, self._backoff_s * 2 or BACKOFF_FIRST_S)
        wait = self._backoff_s if retry_after_s is None else min(max(retry_after_s, 0.0), HINT_MAX_S)
        self._wait_until = max(self._wait_until, now + wait)
        return wait

    def hung_up(self, now: float) -> None:
        """The server has cut a line on which many commands were under way: some bear one at a time, and do not say."""
        self._careful_until = now + CAREFUL_S

    def shrink(self) -> None:
        """The line was cut after some had come: less at a time, so that less is asked for twice; no reason to wait."""
        self.window = max(1, self.window // 2)
        self._backoff_s = 0.0

    def crowded(self) -> None:
        """One connection was one too many."""
        self.connections = max(1, self.connections - 1)

    # --- inside ---

    def _room_at(self, now: float, size: int) -> float:
        """When so many bytes will be free again, as the hours of yesterday fall out of the day."""
        budget = self.limits.bytes_per_day or 0
        over = self.used(now) + size - budget
        hour = int(now // HOUR_S)
        for old in sorted(h for h in self._used if h > hour - DAY_H):
            if over <= 0:
                break
            over -= self._used[old]
            if over <= 0:
                return float((old + DAY_H) * HOUR_S)
        return now


def _read(state: bytes | None) -> Mapping[str, object]:
    try:
        known = json.loads(state) if state else {}
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _whole(value: object, low: int, high: int, otherwise: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return otherwise
    return max(low, min(high, value))


@dataclass(slots=True)
class Patience:
    """How long to wait before something is tried again: twice as long each time, anew after any progress."""

    first_s: float
    progress: int  # of whatever is counted, when it was begun
    attempts: int = 0

    def after(self, error: MailkeepError, progress: int) -> float:
        """Seconds to wait. Raises the error after enough attempts, or where the server asks for more time than that."""
        self.attempts = 1 if progress > self.progress else self.attempts + 1
        self.progress = progress
        wait_s: float = self.first_s * 2 ** (self.attempts - 1)
        if isinstance(error, RemoteBusy) and error.retry_after_s is not None:
            wait_s = max(wait_s, error.retry_after_s)
        if self.attempts >= ATTEMPTS_MAX or wait_s > WAIT_MAX_S:
            raise error
        return wait_s
