"""Many accounts at once: a CSV file says from where to where, a result file beside it says what came of each row.

Knows the two files and the order in which rows run; what a row does is `bulk_work`'s. No passwords leave here but in
`Secret`; texts of errors name a column, never what is in it.

The one hard idea is fairness. Rows wait in a line for each provider, and the lines take turns, so that ten thousand
rows of one provider do not keep the three of another waiting; a provider never has more than its share of connections,
and all together never more than the run's. A row that failed for now goes to the end of its line and has one more try.

Resuming is only this: a row is known by a digest of where it leads, not by its place in the file, and what the result
file calls done is passed over.
"""

import asyncio
import contextlib
import csv
import hashlib
import io
import os
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Literal, get_args

from mailkeep.backup.settings import Protocol, Tls
from mailkeep.errors import UsageError
from mailkeep.secret import Secret

FILE_MAX: Final = 64 << 20
SAVE_EVERY_S: Final = 1.0  # the result file is written anew as a whole, so not for each of a thousand quick rows
LOOK_AHEAD: Final = 64  # rows of a line that are looked at for one whose other side is free
TRIES_MAX: Final = 2

SIDES: Final = ("source", "target")
SIDE_COLUMNS: Final = ("host", "port", "protocol", "tls", "user", "ca", "password", "password_command", "password_file")
COLUMNS: Final = (*(name for side in SIDES for name in (side, *(f"{side}_{each}" for each in SIDE_COLUMNS))), "into")
PORTS: Final[Mapping[tuple[str, str], int]] = {
    ("imap", "tls"): 993,
    ("imap", "starttls"): 143,
    ("imap", "none"): 143,
    ("pop3", "tls"): 995,
    ("pop3", "starttls"): 110,
    ("pop3", "none"): 110,
}
_FORMULA: Final = ("=", "+", "-", "@")
State = Literal["done", "incomplete", "failed", "stopped"]


# ---- the rows


@dataclass(frozen=True, slots=True)
class Place:
    """One side of a row. Without `host`: a remote or an account that is here, or an address whose server is found.

    Of `password`, `command` and `file` at most one is given.
    """

    name: str = ""
    host: str = ""
    port: int = 0
    protocol: Protocol = "imap"
    tls: Tls = "tls"
    user: str = ""
    ca: str | None = None
    password: Secret | None = field(default=None, repr=False)
    command: str | None = field(default=None, repr=False)
    file: str | None = None

    @property
    def has_secret(self) -> bool:
        return self.password is not None or bool(self.command or self.file)

    def identity(self) -> str:
        """What tells it from others; no secret is in it."""
        return "\0".join((self.name, self.protocol, self.host.lower(), str(self.port), self.user))

    def __str__(self) -> str:
        return self.name or self.user


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file. `problem`: why it cannot be run, for people."""

    line: int
    source: Place
    target: Place
    into: str | None = None
    problem: str | None = None

    @property
    def id(self) -> str:
        """A digest; a row that cannot be run is known by its line, and so is not taken for another."""
        if self.problem is not None:
            return f"line-{self.line}"
        text = "\n".join((self.source.identity(), self.target.identity(), self.into or ""))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file, bad ones with their problem. Raises UsageError for a file that is none."""
    try:
        if path.stat().st_size > FILE_MAX:
            raise UsageError(f"{path} is larger than {FILE_MAX >> 20} MiB; divide it")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8; save it as CSV in UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return parse_rows(text, str(path))


def parse_rows(text: str, name: str) -> list[Row]:
    """As `read_rows`; comma, semicolon or tab, whichever the first line has most of."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        head = [column.strip().lower() for column in next(reader, [])]
        _check_head(head, name)
        rows: list[Row] = []
        seen: dict[str, int] = {}
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            row = _row(reader.line_num, head, cells)
            if row.problem is None and row.id in seen:
                row = replace(row, problem=f"the same as line {seen[row.id]}")
            seen.setdefault(row.id, row.line)
            rows.append(row)
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num}: {error}") from None
    if not rows:
        raise UsageError(f"{name} has no rows below its first line")
    return rows


def _check_head(head: Sequence[str], name: str) -> None:
    unknown = [column for column in head if column not in COLUMNS]
    if unknown:
        raise UsageError(f"{name}: there is no column {unknown[0][:40]!r}; the first line names columns of {COLUMNS}")
    twice = [column for column, count in Counter(head).items() if count > 1]
    if twice:
        raise UsageError(f"{name}: the column {twice[0]} is there twice")
    if not {"source", "source_host"} & set(head):
        raise UsageError(f"{name}: the first line must name the columns, source or source_host among them")


def _row(line: int, head: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) > len(head):
        return Row(line, Place(), Place(), problem=f"has {len(cells)} cells for {len(head)} columns")
    given = {column: cell for column, cell in zip(head, cells, strict=False) if cell.strip()}
    problems: list[str] = []
    source, target = (_place(side, given, problems) for side in SIDES)
    if not problems and not source.name and not source.host:
        problems.append("names no source")
    if not problems and source.identity() == target.identity():
        problems.append("source and target are the same")
    into = given.get("into", "").strip() or None
    return Row(line, source, target, into, problems[0] if problems else None)


def _place(side: str, given: Mapping[str, str], problems: list[str]) -> Place:
    def cell(name: str) -> str:
        return given.get(f"{side}_{name}", "").strip()

    host, user = cell("host"), cell("user")
    protocol, tls = cell("protocol").lower() or "imap", cell("tls").lower() or "tls"
    if protocol not in get_args(Protocol):
        problems.append(f"{side}_protocol must be imap or pop3")
        protocol = "imap"
    if tls not in get_args(Tls):
        problems.append(f"{side}_tls must be tls, starttls or none")
        tls = "tls"
    port = cell("port")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        problems.append(f"{side}_port must be a number from 1 to 65535")
        port = ""
    name = given.get(side, "").strip() or (user if host else "")
    secrets = [each for each in ("password", "password_command", "password_file") if given.get(f"{side}_{each}")]
    if len(secrets) > 1:
        problems.append(f"{' and '.join(f'{side}_{each}' for each in secrets)} cannot both be")
    password = given.get(f"{side}_password")  # blanks in it are its own
    return Place(
        name=name,
        host=host,
        port=int(port) if port else PORTS[protocol, tls],
        protocol="pop3" if protocol == "pop3" else "imap",
        tls="starttls" if tls == "starttls" else "none" if tls == "none" else "tls",
        user=user or (name if host else ""),
        ca=cell("ca") or None,
        password=Secret(password) if password else None,
        command=cell("password_command") or None,
        file=cell("password_file") or None,
    )


# ---- the results


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a row. `server`, `kept`: messages that the source has, and those of them that the target has."""

    id: str
    line: int
    source: str
    target: str
    state: State
    server: int = 0
    kept: int = 0
    copied: int = 0  # in the last run
    bytes: int = 0
    seconds: float = 0.0
    finished: str = ""  # local time, ISO 8601
    error: str = ""
    temporary: bool = False  # trying again may help


HEAD: Final = tuple(each.name for each in fields(Result) if each.name != "temporary")


def results_path(path: Path) -> Path:
    """`accounts.csv` → `accounts.results.csv`."""
    return path.with_name(f"{path.stem}.results.csv")


@dataclass(slots=True)
class Results:
    """The result file, read before and written while rows end: always whole, for it is replaced as one."""

    path: Path
    found: dict[str, Result] = field(default_factory=dict)
    _saved: float = 0.0

    @classmethod
    def load(cls, path: Path) -> "Results":
        """An unreadable one is an error: what it says was done would be done again. Raises UsageError."""
        results = cls(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return results
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"{path} cannot be read; remove it to begin anew") from None
        for cells in csv.DictReader(io.StringIO(text, newline="")):
            if cells.get("state") in get_args(State) and not (cells.get("id") or "line-").startswith("line-"):
                result = _result(cells)
                results.found[result.id] = result
        return results

    def is_done(self, row: Row) -> bool:
        result = self.found.get(row.id)
        return result is not None and result.state == "done"

    def put(self, result: Result) -> None:
        """Note a result; it is on the disk soon, at the latest with `save`."""
        self.found[result.id] = result
        if time.monotonic() - self._saved >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Raises UsageError where the file cannot be written."""
        self._saved = time.monotonic()
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, HEAD, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(_cells(result) for result in sorted(self.found.values(), key=lambda each: each.line))
        fresh = self.path.with_name(self.path.name + ".part")
        try:
            with fresh.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(out.getvalue())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise UsageError(f"{self.path} cannot be written: {error.strerror}") from None


def _cells(result: Result) -> dict[str, object]:
    """As a table's program may open it: no text of a server's begins a formula, nor has it escape sequences."""
    cells = asdict(result)
    for name in ("source", "target", "error"):
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in cells[name])
        cells[name] = f"'{text}" if text.startswith(_FORMULA) else text
    return cells


def _result(cells: Mapping[str, str]) -> Result:
    def number(name: str) -> int:
        text = cells.get(name) or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0

    return Result(
        id=cells["id"],
        line=number("line"),
        source=cells.get("source") or "",
        target=cells.get("target") or "",
        state=next(each for each in get_args(State) if each == cells["state"]),
        server=number("server"),
        kept=number("kept"),
        copied=number("copied"),
        bytes=number("bytes"),
        seconds=_seconds(cells.get("seconds") or ""),
        finished=cells.get("finished") or "",
        error=cells.get("error") or "",
    )


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


# ---- the order


@dataclass(frozen=True, slots=True)
class Task:
    """A row with what it occupies. `alone`: names of which one row at a time may use each."""

    row: Row
    providers: tuple[str, ...]  # the first says in which line it waits
    alone: frozenset[str] = frozenset()


class Queue:
    """Who is next. Lines by provider take turns; see the module."""

    def __init__(self, tasks: Iterable[Task], *, at_once: int, per_provider: int) -> None:
        self._at_once = at_once
        self._per_provider = per_provider
        self._lines: dict[str, deque[Task]] = {}
        self._turns: deque[str] = deque()
        self._running: Counter[str] = Counter()
        self._alone: set[str] = set()
        self.open = 0  # tasks that run
        for task in tasks:
            self.put(task)

    def __len__(self) -> int:
        """Tasks that wait."""
        return sum(map(len, self._lines.values()))

    def put(self, task: Task) -> None:
        """To the end of its line."""
        name = task.providers[0]
        if name not in self._lines:
            self._lines[name] = deque()
            self._turns.append(name)
        self._lines[name].append(task)

    def take(self) -> Task | None:
        """The next that may run now; None when all that wait must wait on."""
        if self.open >= self._at_once:
            return None
        for _ in range(len(self._turns)):
            name = self._turns[0]
            self._turns.rotate(-1)
            line = self._lines[name]
            for position in range(min(len(line), LOOK_AHEAD)):
                if self._is_free(line[position]):
                    task = line[position]
                    del line[position]
                    self._occupy(task)
                    return task
        return None

    def done(self, task: Task) -> None:
        self.open -= 1
        self._running.subtract(task.providers)
        self._alone -= task.alone

    def _is_free(self, task: Task) -> bool:
        needed = Counter(task.providers)
        room = all(self._running[name] + count <= self._per_provider for name, count in needed.items())
        # A row within one provider needs two of its places at once; where there is only one, it has that.
        room = room or all(not self._running[name] for name in needed)
        return room and not task.alone & self._alone

    def _occupy(self, task: Task) -> None:
        self.open += 1
        self._running.update(task.providers)
        self._alone |= task.alone


Work = Callable[[Task], Awaitable[Result]]


async def run(queue: Queue, work: Work, *, stop: asyncio.Event, ended: Callable[[Result], None]) -> None:
    """Run all that waits; with `stop` set nothing more is begun. `work` never raises for what a server does."""
    tries: Counter[str] = Counter()
    tasks: dict[asyncio.Task[Result], Task] = {}
    try:
        while True:
            while not stop.is_set() and (task := queue.take()) is not None:
                tasks[asyncio.ensure_future(work(task))] = task
            if not tasks:
                return
            finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in finished:
                task = tasks.pop(each)
                queue.done(task)
                result = each.result()
                tries[result.id] += 1
                if result.temporary and tries[result.id] < TRIES_MAX and not stop.is_set():
                    queue.put(task)
                else:
                    ended(result)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
