"""`mailkeep sync`: an account here and one on another server kept the same, both ways, and what came of it.

Knows terminals; the run itself is `backup.sync`'s, Ctrl-C is `running`'s.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from mailkeep.cli.output import INTERRUPTED, OK, SOME_FAILED, Call, Out, common, exit_code, opened, plural, shown
from mailkeep.cli.pull import Bars, bars, chosen_remotes
from mailkeep.cli.running import run_until_done
from mailkeep.errors import BadCredentials

if TYPE_CHECKING:
    from mailkeep.backup.settings import Remote
    from mailkeep.backup.sync_ledger import SyncReport
    from mailkeep.mail.selection import Selection
    from mailkeep.store.store import Store

SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks of all remotes."""

    selection: "Selection | None"
    plan: bool
    watch: bool
    allow_mass: bool


@click.command(short_help="Keep an account here and one there the same, both ways.")
@click.argument("remotes", nargs=-1, metavar="[REMOTE…]")
@click.option("--all", "everything", is_flag=True, help="All remotes.")
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@click.option("--watch", is_flag=True, help="Stay, and run again as soon as either side changes.")
@click.option("--allow-mass-delete", "allow_mass", is_flag=True, help="Remove most of a folder too, if so it is.")
@click.option("--folder", multiple=True, metavar="PATTERN", help="Only these: `Work/*`, `\\Sent`. Repeatable.")
@click.option("--not-folder", multiple=True, metavar="PATTERN", help="Not these. Repeatable.")
@common
def sync(
    call: Call,
    remotes: tuple[str, ...],
    *,
    everything: bool,
    plan: bool,
    watch: bool,
    allow_mass: bool,
    folder: tuple[str, ...],
    not_folder: tuple[str, ...],
) -> int:
    """Keep an account here and one on another server the same, both ways.

    New mail, flags, moves, deletions and folders go either way; what was done here without a connection, by whatever
    mail program, is done there now. Where both sides changed the same, what is changed beats what is deleted. The exit
    code is 0 when both sides are the same.
    """
    from mailkeep.mail.selection import Selection

    selection = Selection(folders=folder, not_folders=not_folder).check() if folder or not_folder else None
    with opened(call.settings()) as store:
        chosen = chosen_remotes(store, remotes, everything=everything)
        runner = Runner(call.out, store, Wish(selection, plan, watch and not plan, allow_mass))
        return runner.tell(runner.run(chosen))


@dataclass(slots=True)
class Runner:
    """The runs of one command."""

    out: Out
    store: "Store"
    wish: Wish
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: bool = False

    def run(self, remotes: "Sequence[Remote]") -> "list[SyncReport]":
        """All of them, one after the other; while watching, all at once."""
        with bars(self.out) as shows:
            work = self._follow_all if self.wish.watch else self._each
            reports, self.interrupted = run_until_done(self.out, lambda: work(remotes, shows), stop=self.stop)
        return reports

    async def _each(self, remotes: "Sequence[Remote]", shows: Bars) -> "list[SyncReport]":
        return [await self._one(remote, shows) for remote in remotes if not self.stop.is_set()]

    async def _follow_all(self, remotes: "Sequence[Remote]", shows: Bars) -> "list[SyncReport]":
        return list(await asyncio.gather(*(self._follow(remote, shows) for remote in remotes)))

    async def _one(self, remote: "Remote", shows: Bars) -> "SyncReport":
        from mailkeep.backup import sync as syncing
        from mailkeep.backup.context import Context

        context = Context(
            self.store, selection=self.wish.selection, progress=shows.progress(remote.name), stop=self.stop
        )
        return await syncing.sync(context, remote, plan=self.wish.plan, allow_mass=self.wish.allow_mass)

    async def _follow(self, remote: "Remote", shows: Bars) -> "SyncReport":
        from mailkeep.backup import sync as syncing
        from mailkeep.backup.context import Context

        context = Context(
            self.store, selection=self.wish.selection, progress=shows.progress(remote.name), stop=self.stop
        )
        report = None
        async for latest in syncing.follow(context, remote, allow_mass=self.wish.allow_mass):
            shows.rest(remote.name)
            self.out.facts({"event": "run", **latest.facts()})
            if latest.error is not None:
                refused = isinstance(latest.failure, BadCredentials)
                self.out.warn(f"{latest.remote}: {latest.error}" + ("" if refused else "; trying again"))
            elif report is None or done_of(latest) or latest.actions:
                watching = " Watching." if report is None else ""
                self.out.say(f"{datetime.now():%H:%M:%S} {summary_line(latest)}{watching}")
            report = latest
        assert report is not None, "there is one run at least"
        return report

    # ---- what came of it

    def tell(self, reports: "Sequence[SyncReport]") -> int:
        """Print; the exit code."""
        code = self._code(reports)
        # Cron sends what is printed: all is well is no news there.
        if code != OK or self.wish.plan or sys.stdout.isatty() or sys.stderr.isatty() or self.out.json:
            for report in reports:
                tell_report(self.out, report)
        self.out.facts({"event": "done", "code": code, "remotes": [report.facts() for report in reports]})
        return code

    def _code(self, reports: "Sequence[SyncReport]") -> int:
        if self.interrupted:
            return INTERRUPTED if not self.wish.watch else OK
        failures = [report.failure for report in reports]
        if len(reports) == 1 and failures[0] is not None:
            return exit_code(failures[0])
        if self.wish.plan:
            return SOME_FAILED if any(failures) else OK
        return OK if all(report.equal for report in reports) else SOME_FAILED


_WORDS: Final = (
    ("fetched", "brought here"),
    ("uploaded", "put there"),
    ("recognised", "known on both sides"),
    ("moved_here", "moved here"),
    ("moved_there", "moved there"),
    ("flags_here", "with other flags here"),
    ("flags_there", "with other flags there"),
    ("removed_here", "removed here"),
    ("removed_there", "removed there"),
)


def done_of(report: "SyncReport") -> str:
    """What was done to messages, in words; empty: nothing."""
    return ", ".join(f"{report.total(name):,} {words}" for name, words in _WORDS if report.total(name))


def summary_line(report: "SyncReport") -> str:
    """One line of what a run did, or would do."""
    done = done_of(report)
    if report.planned:
        return f"{report.remote}: {f'to do: {done}' if done or report.actions else 'nothing to do'}."
    state = "both sides are the same" if report.equal else "the sides differ still"
    return f"{report.remote}: {f'{done}; ' if done else ''}{state}, in {report.seconds:.1f} s."


def tell_report(out: Out, report: "SyncReport") -> None:
    """For people."""
    if report.error is None or report.folders:
        out.say(summary_line(report))
    for text in (*report.actions, *report.notes)[:SHOWN]:
        out.say(shown(f"  {text}"))
    for folder in report.folders:
        for reason, count in folder.missing.items():
            out.warn(shown(f"{report.remote}: {folder.name}: {plural(count, 'message')} on one side only: {reason}"))
        for each in folder.listed[:SHOWN]:
            if each.detail:
                out.warn(shown(f"{report.remote}: {folder.name} UID {each.uid}: {each.reason}: {each.detail}"))
        if folder.error is not None:
            out.warn(shown(f"{report.remote}: {folder.name}: {folder.error}"))
    if report.error:
        out.error(f"{report.remote}: {report.error}")
    if report.stopped:
        out.warn(f"{report.remote}: {report.stopped}")
