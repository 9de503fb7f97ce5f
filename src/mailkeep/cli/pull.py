"""`mailkeep pull` and `mailkeep status`: runs over remotes, with bars, and what came of them.

Knows terminals and files for the report; the run itself is `backup.pull`'s, Ctrl-C is `running`'s.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mailkeep.cli.output import (
    INTERRUPTED,
    OK,
    SOME_FAILED,
    Call,
    Out,
    common,
    exit_code,
    human_size,
    opened,
    plural,
    shown,
)
from mailkeep.cli.running import run_until_done
from mailkeep.cli.selection import selection_options
from mailkeep.errors import BadCredentials, UsageError

if TYPE_CHECKING:
    from mailkeep.backup.ledger import RemoteReport
    from mailkeep.backup.settings import Remote
    from mailkeep.jobs.progress import Progress
    from mailkeep.mail.selection import Selection
    from mailkeep.store.store import Store

AT_ONCE: Final = 4  # hosts; remotes of one host come one after the other
SHOWN: Final = 20
EVERY_S: Final = 1.0  # between two lines of progress with --json
POLL_S: Final = 300.0
SLOW_S: Final = 1.0  # after which a bar says that nothing is known yet


@dataclass(slots=True)
class Wish:
    """What the command line asks of all remotes."""

    selection: "Selection | None"
    into: str | None
    retry: bool
    watch: bool
    report: Path | None
    allow_mass: bool = False
    proves: bool = False  # compare only


@click.command(short_help="Bring what is new from other servers.")
@click.argument("remotes", nargs=-1, metavar="[REMOTE…]")
@click.option("--all", "everything", is_flag=True, help="All remotes.")
@click.option("--into", metavar="PREFIX", help="Put the whole tree below this mailbox. Default: the remote's setting.")
@click.option("--retry", is_flag=True, help="Ask again for all that failed before, however often it did.")
@click.option("--allow-mass-delete", "allow_mass", is_flag=True, help="A mirror may remove most of a folder, too.")
@click.option("--watch", is_flag=True, help="Stay, and bring new mail as soon as the server tells of it.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write the ledger as HTML and JSON.")
@selection_options
@common
def pull(
    call: Call,
    remotes: tuple[str, ...],
    *,
    everything: bool,
    into: str | None,
    retry: bool,
    allow_mass: bool,
    watch: bool,
    report: Path | None,
    selection: "Selection",
) -> int:
    """Bring new mail, flags and folders of remotes into their archive accounts.

    Nothing is fetched twice and nothing deleted at the source. A run that was stopped goes on when the same command is
    given again. The exit code is 0 when everything that the server has is here.
    """
    with opened(call.settings()) as store:
        chosen = chosen_remotes(store, remotes, everything=everything)
        wish = Wish(None if selection.takes_all else selection, into, retry, watch, report, allow_mass)
        runner = Runner(call.out, store, wish)
        reports = runner.run(chosen)
        return runner.tell(reports)


def chosen_remotes(store: "Store", names: Sequence[str], *, everything: bool) -> "list[Remote]":
    """Those named, or all. Raises UsageError."""
    from mailkeep.backup.settings import find_remote, load_remotes

    if names and everything:
        raise UsageError("give names of remotes or --all, not both")
    if names:
        found = {remote.id: remote for remote in (find_remote(store, name) for name in names)}
        return list(found.values())
    known = load_remotes(store)
    if not known:
        raise UsageError("there is no remote yet; add one with `mailkeep remote add ADDRESS`")
    if not everything and len(known) > 1:
        some = ", ".join(remote.name for remote in known[:5]) + (" …" if len(known) > 5 else "")
        raise UsageError(f"name the remotes ({some}) or give --all")
    return known


@dataclass(slots=True)
class Runner:
    """The runs of one command."""

    out: Out
    store: "Store"
    wish: Wish
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: bool = False
    _bars: "Bars | None" = None

    def run(self, remotes: "Sequence[Remote]") -> "list[RemoteReport]":
        """All of them; returns after the last, or soon after Ctrl-C."""
        with bars(self.out) as shows:
            self._bars = shows
            reports, self.interrupted = run_until_done(self.out, lambda: self._all(remotes), stop=self.stop)
        return reports

    async def _all(self, remotes: "Sequence[Remote]") -> "list[RemoteReport]":
        hosts: dict[str, list[Remote]] = {}
        for remote in remotes:
            hosts.setdefault(f"{remote.settings.host} {remote.name if self.wish.watch else ''}", []).append(remote)
        gate = asyncio.Semaphore(len(hosts) if self.wish.watch else AT_ONCE)
        done = await asyncio.gather(*(self._host(each, gate) for each in hosts.values()))
        by_name = {report.remote: report for reports in done for report in reports}
        return [by_name[remote.name] for remote in remotes if remote.name in by_name]

    async def _host(self, remotes: "Sequence[Remote]", gate: asyncio.Semaphore) -> "list[RemoteReport]":
        reports = []
        async with gate:
            for remote in remotes:
                if not self.stop.is_set():
                    reports.append(await self._one(remote))
        return reports

    async def _one(self, remote: "Remote") -> "RemoteReport":
        from mailkeep.backup import pull as pulling
        from mailkeep.backup.context import Context

        assert self._bars is not None
        context = Context(
            self.store,
            selection=self.wish.selection,
            into=self.wish.into,
            retry=self.wish.retry,
            allow_mass=self.wish.allow_mass,
            progress=self._bars.progress(remote.name),
            stop=self.stop,
        )
        if self.wish.proves:
            from mailkeep.backup.proof import prove

            return await prove(context, remote)
        if not self.wish.watch:
            return await pulling.pull(context, remote)
        report = None
        async for latest in pulling.follow(context, remote, poll_s=POLL_S):
            self._bars.rest(remote.name)
            self._tell_news(latest, first=report is None)
            report = latest
        assert report is not None, "there is one run at least"
        return report

    def _tell_news(self, report: "RemoteReport", *, first: bool) -> None:
        """While watching: a line of the first run, and where something came of it; with --json of each run."""
        self.out.facts({"event": "run", **report.facts()})
        if report.error is not None:
            refused = isinstance(report.failure, BadCredentials)
            self.out.warn(f"{report.remote}: {report.error}" + ("" if refused else "; trying again"))
        elif first or report.total("fetched") or report.total("vanished") or report.total("flags"):
            self.out.say(f"{datetime.now():%H:%M:%S} {summary_line(report)}{' Watching.' if first else ''}")

    # ---- what came of it

    def tell(self, reports: "Sequence[RemoteReport]") -> int:
        """Print, write the report file; the exit code."""
        code = self._code(reports)
        if self.wish.report is not None:
            write_report(self.wish.report, reports)
        # Cron sends what is printed: all is well is no news there.
        speaks = code != OK or sys.stdout.isatty() or sys.stderr.isatty() or self.out.json
        if speaks:
            for report in reports:
                if not self.wish.proves and got_in(report):
                    self.out.say(summary_line(report))
                tell_report(self.out, report)
        self.out.facts({"event": "done", "code": code, "remotes": [report.facts() for report in reports]})
        return code

    def _code(self, reports: "Sequence[RemoteReport]") -> int:
        if self.interrupted:
            return INTERRUPTED if not self.wish.watch else OK
        failures = [report.failure for report in reports]
        if len(reports) == 1 and failures[0] is not None:
            return exit_code(failures[0])
        return OK if all(report.equal and not takes_none(report) for report in reports) else SOME_FAILED


def got_in(report: "RemoteReport") -> bool:
    """Whether there is anything to say of the server's folders."""
    return report.error is None or bool(report.folders)


def takes_none(report: "RemoteReport") -> bool:
    """The server has folders, and the filters take none of them: a misspelled name, most likely."""
    return report.error is None and not report.folders and bool(report.left_out)


def summary_line(report: "RemoteReport") -> str:
    """One line of what a run did."""
    fetched = report.total("fetched")
    parts = [f"{plural(fetched, 'message')} ({human_size(report.total('bytes'))})"] if fetched else []
    if report.total("recognised"):
        parts.append(f"{report.total('recognised'):,} recognised")
    if report.total("flags"):
        parts.append(f"flags of {plural(report.total('flags'), 'message')}")
    if report.total("vanished"):
        parts.append(f"{report.total('vanished'):,} gone from the server")
    kept = f"{report.total('kept'):,} of {report.total('server'):,} kept"
    return f"{report.remote}: {', '.join(parts) or 'nothing new'}; {kept}, in {report.seconds:.1f} s."


def tell_report(out: Out, report: "RemoteReport") -> None:
    """For people: what a run did, and all that is missing, with the reasons."""
    from mailkeep.backup.ledger import EXPLAINED

    for note in report.notes[:SHOWN]:
        out.say(f"  {note}")
    if takes_none(report):
        there = ", ".join(report.left_out[:5]) + (" …" if len(report.left_out) > 5 else "")
        out.warn(f"{report.remote}: the filters take none of its folders; there are {there}")
    for reason, count in report.reasons().items():
        if reason in EXPLAINED:
            out.say(f"  {count:,} not here: {reason}")
        else:
            out.warn(f"{report.remote}: {plural(count, 'message')} not here: {reason}")
    listed = [(folder, each) for folder in report.folders for each in folder.listed]
    for folder, each in listed[:SHOWN]:
        out.warn(
            shown(f"{report.remote}: {folder.name} UID {each.uid}: {each.reason}: {each.detail or ''}".rstrip(": "))
        )
    if len(listed) > SHOWN:
        out.warn(f"… and {len(listed) - SHOWN:,} more; --report FILE lists them")
    for folder in report.folders:
        if folder.error is not None:
            out.error(f"{report.remote}: {folder.name}: {folder.error}")
    if report.error:
        out.error(f"{report.remote}: {report.error}")
    if report.stopped:
        out.warn(f"{report.remote}: {report.stopped}")


def write_report(path: Path, reports: "Sequence[RemoteReport]") -> None:
    """FILE.html and FILE.json, whichever of the two was named. Raises UsageError where they cannot be written."""
    from mailkeep.backup.ledger_page import page

    stem = path.with_suffix("") if path.suffix.lower() in (".html", ".json", ".htm") else path
    texts = {
        ".html": page(reports, made=int(time.time())),
        ".json": json.dumps([report.facts() for report in reports], indent=1) + "\n",
    }
    for suffix, text in texts.items():
        target = stem.with_name(stem.name + suffix)
        try:
            fresh = target.with_name(target.name + ".part")
            fresh.write_text(text, encoding="utf-8", errors="backslashreplace")
            fresh.replace(target)
        except OSError as error:
            raise UsageError(f"the report cannot be written: {target}: {error.strerror}") from None


# ---- progress


@dataclass(slots=True)
class Bars:
    """Where runs tell how far they are: a bar for each, lines of JSON, or nothing."""

    make: "Callable[[str], Callable[[Progress], None] | None]"
    rest: Callable[[str], None] = lambda name: None  # a run that stays has nothing to do for now

    def progress(self, name: str) -> "Progress":
        """For the run over the remote of that name."""
        from mailkeep.jobs.progress import Progress

        return Progress(self.make(name))


@contextmanager
def bars(out: Out) -> Iterator[Bars]:
    """As the terminal allows."""
    if out.json:
        yield Bars(_json_lines)
        return
    if not out.shows_progress:
        yield Bars(lambda name: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        TextColumn("{task.fields[what]}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8) as bar:
        drawing = _Drawing(bar)
        try:
            yield Bars(drawing.one, drawing.rest)
        finally:
            drawing.close()


class _Drawing:
    """A bar for each remote, and from the second on one for all.

    A bar is shown once there is something to count, or, moving to and fro, when the server is slow to say whether there
    is: a run that finds nothing to do flashes nothing.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._begun = time.monotonic()
        self._seen: dict[str, tuple[int, int, int]] = {}  # messages, of how many, bytes
        self._rested: dict[str, tuple[int, int, int]] = {}  # what was done when it last rested
        self._tasks: dict[str, Any] = {}
        self._all: Any = None
        self._lock = threading.Lock()
        self._slow = threading.Timer(SLOW_S, self._show_all)
        self._slow.daemon = True
        self._slow.start()

    def close(self) -> None:
        self._slow.cancel()

    def one(self, name: str) -> "Callable[[Progress], None]":
        with self._lock:
            if len(self._seen) == 1:
                self._all = self._add("All")
            self._seen[name] = (0, 0, 0)
        task = self._tasks[name] = self._add(shown(name))

        def show(progress: "Progress") -> None:
            with self._lock:
                counted = (progress.items, max(progress.items_total, progress.items), progress.done)
                before = self._rested.get(name, (0, 0, 0))
                self._seen[name] = (counted[0] - before[0], counted[1] - before[1], counted[2] - before[2])
                self._update(task, self._seen[name], "" if progress.what == name else shown(progress.what)[:40])
                if self._all is not None:
                    items, total, size = (sum(column) for column in zip(*self._seen.values(), strict=True))
                    self._update(self._all, (items, total, size), "")

        return show

    def rest(self, name: str) -> None:
        """Out of sight until there is something to count again, from nothing on."""
        with self._lock:
            self._slow.cancel()
            done, seen = self._rested.get(name, (0, 0, 0)), self._seen[name]
            self._rested[name] = (done[0] + seen[0], done[1] + seen[1], done[2] + seen[2])
            self._seen[name] = (0, 0, 0)
            if not any(items for items, _, _ in self._seen.values()):
                self._begun = time.monotonic()
            self._bar.update(self._tasks[name], visible=False)
            if self._all is not None:
                self._bar.update(self._all, visible=False)

    def _add(self, text: str) -> Any:
        late = time.monotonic() - self._begun >= SLOW_S
        return self._bar.add_task(text, total=None, visible=late, numbers="", what="asking the server")

    def _show_all(self) -> None:
        for task in self._bar.task_ids:
            self._bar.update(task, visible=True)

    def _update(self, task: Any, counted: tuple[int, int, int], what: str) -> None:
        items, total, size = counted
        if not total:
            return
        seconds = max(time.monotonic() - self._begun, 0.1)
        numbers = f"{items:,} of {total:,}"
        if size:
            numbers += f"  {human_size(size)}  {human_size(size / seconds)}/s"
        if 0 < items < total:
            left = int(seconds * (total - items) / items)
            numbers += f"  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        self._bar.update(task, completed=items, total=total, visible=True, numbers=numbers, what=what)


def _json_lines(name: str) -> "Callable[[Progress], None]":
    last = [0.0]

    def show(progress: "Progress") -> None:
        now = time.monotonic()
        if now - last[0] >= EVERY_S:
            last[0] = now
            facts = {
                "event": "progress",
                "remote": name,
                "messages": progress.items,
                "messages_total": progress.items_total,
                "bytes": progress.done,
                "folder": progress.what,
            }
            click.echo(json.dumps(facts))

    return show


# ---- the server asked again


def verify_against(call: Call, names: tuple[str, ...]) -> int:
    """`verify --against-server`: compare all that the servers have with what is here; the exit code."""
    with opened(call.settings()) as store:
        runner = Runner(call.out, store, Wish(None, None, retry=False, watch=False, report=None, proves=True))
        reports = runner.run(chosen_remotes(store, names, everything=False))
        for report in filter(got_in, reports):
            sizes = f"{report.total('kept'):,} of {report.total('server'):,} messages are here"
            call.out.say(f"{report.remote}: {sizes}; {_differences(report)}, in {report.seconds:.1f} s.")
        return runner.tell(reports)


def _differences(report: "RemoteReport") -> str:
    flags, dates = report.total("flags"), report.total("dates")
    parts = [f"{flags:,} have other flags there (a pull brings them)"] if flags else []
    parts += [f"{dates:,} another date of arrival"] if dates else []
    return ", ".join(parts) or "flags and dates agree"


# ---- status


@click.command(short_help="Show what is kept of each remote, and since when.")
@click.argument("remotes", nargs=-1, metavar="[REMOTE…]")
@common
def status(call: Call, remotes: tuple[str, ...]) -> int:
    """Show, of all remotes or of those named, when they were pulled or synchronised last and what came of it.

    Asks no server: `mailkeep verify --against-server REMOTE` does.
    """
    from mailkeep.backup.settings import load_remotes
    from mailkeep.backup.states import read_state

    out = call.out
    with opened(call.settings()) as store:
        known = chosen_remotes(store, remotes, everything=False) if remotes else load_remotes(store)
        if not known:
            out.say("There is no remote yet; add one with `mailkeep remote add ADDRESS`.")
        rows, facts = [], []
        for remote in known:
            state = read_state(remote.state)
            last = state.get("last") or {}
            facts.append({"remote": remote.name, "schedule": remote.schedule, **state})
            account = store.directory.find_id(remote.account)
            rows.append(
                [
                    remote.name,
                    account.name if account else "",
                    remote.schedule or "none",
                    _moment(last.get("started")),
                    *_numbers(last),
                    _word(last),
                ]
            )
    if rows:
        out.table(["Remote", "Account", "Schedule", "Last run", "Server", "Kept", "Missing", "Gone", ""], rows)
    if len(remotes) == 1 and facts:
        folders = (facts[0].get("last") or {}).get("folders") or []
        cells = [[each["folder"], each["server"], each["kept"], each["lacking"], each["gone"]] for each in folders]
        if cells:
            out.say("")
            out.table(["Folder", "Server", "Kept", "Missing", "Gone"], cells)
    out.facts({"remotes": facts})
    return OK


def _moment(seconds: Any) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if isinstance(seconds, int) else "never"


def _numbers(last: dict[str, Any]) -> list[int]:
    return [int(last.get(name) or 0) for name in ("server", "kept", "lacking", "gone")]


def _word(last: dict[str, Any]) -> str:
    if not last:
        return "never run"
    equal = "both sides equal" if last.get("both_ways") else "equal"
    return equal if last.get("equal") else str(last.get("error") or last.get("stopped") or f"not {equal}")
