"""`mailkeep bulk`: many accounts from one CSV file, and what came of each in a file beside it.

Knows the terminal and where the result file is; what a row means is `backup.bulk`'s, what it does
`backup.bulk_work`'s.
"""

import asyncio
import json
import stat
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mailkeep.cli.output import INTERRUPTED, OK, SOME_FAILED, Call, Out, common, human_size, opened, plural, shown
from mailkeep.cli.running import run_until_done
from mailkeep.cli.selection import selection_options

if TYPE_CHECKING:
    from mailkeep.backup.bulk import Result, Results, Row, Task
    from mailkeep.backup.bulk_work import Worker
    from mailkeep.mail.selection import Selection
    from mailkeep.store.store import Store

AT_ONCE: Final = 8
PER_PROVIDER: Final = 2
MOST: Final = 64


@click.command(short_help="Pull or migrate many accounts named in a CSV file.")
@click.argument("accounts", type=click.Path(path_type=Path), metavar="FILE.csv")
@click.option("--plan", is_flag=True, help="Only say what each row would do; contact nobody.")
@click.option("--again", is_flag=True, help="Run rows that were done before as well.")
@click.option("--jobs", type=click.IntRange(1, MOST), default=AT_ONCE, metavar="N", help="Rows at a time. Default 8.")
@click.option(
    "--per-provider",
    type=click.IntRange(1, MOST),
    default=PER_PROVIDER,
    metavar="N",
    help="Rows at a time with one provider. Default 2.",
)
@click.option(
    "--results", type=click.Path(path_type=Path), metavar="FILE", help="The result file. Default: FILE.results.csv."
)
@selection_options
@common
def bulk(
    call: Call,
    accounts: Path,
    *,
    plan: bool,
    again: bool,
    jobs: int,
    per_provider: int,
    results: Path | None,
    selection: "Selection",
) -> int:
    """Run many accounts at once: each row of FILE.csv maps a source to a target, an account here or another server.

    What came of each row is written to a result file beside it. Given again, the command goes on where it was: rows
    that were done are passed over. The exit code is 0 when every row is done.
    """
    from mailkeep.backup.bulk import Queue, Results, read_rows, results_path

    out, config = call.out, call.settings()
    rows = read_rows(accounts)
    _warn_of_readers(out, accounts, rows)
    found = Results.load(results or results_path(accounts))
    waiting = [row for row in rows if again or not found.is_done(row)]
    with opened(config, create=not plan) as store:
        run = _Run(out, found, len(rows), len(rows) - len(waiting))
        worker = run.worker(store, None if selection.takes_all else selection)
        tasks = [worker.task_of(row) for row in waiting]
        if plan:
            return _tell_plan(out, tasks, run)
        run.go(Queue(tasks, at_once=jobs, per_provider=per_provider), worker)
    return run.tell(rows)


def _warn_of_readers(out: Out, file: Path, rows: "list[Row]") -> None:
    secret = any(place.password is not None for row in rows for place in (row.source, row.target))
    if secret and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        out.warn(f"Others can read {file}, and there are passwords in it: chmod 600 {file}")


def _tell_plan(out: Out, tasks: "list[Task]", run: "_Run") -> int:
    bad = [task.row for task in tasks if task.row.problem is not None]
    rows: list[dict[str, Any]] = [
        {
            "line": task.row.line,
            "source": str(task.row.source),
            "target": str(task.row.target) or str(task.row.source),
            "providers": list(task.providers),
            "problem": task.row.problem,
        }
        for task in tasks
    ]
    out.table(
        ["Line", "Source", "Target", "Provider"],
        [[row["line"], row["source"], row["target"], row["problem"] or " → ".join(row["providers"])] for row in rows],
    )
    out.say(f"{plural(len(tasks) - len(bad), 'row')} to run, {len(bad):,} that cannot be, {run.before:,} done before.")
    out.facts({"rows": rows, "done_before": run.before})
    return SOME_FAILED if bad else OK


@dataclass(slots=True)
class _Run:
    """One call of the command, watched from the terminal."""

    out: Out
    results: "Results"
    rows: int
    before: int
    ended: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: bool = False

    def worker(self, store: "Store", selection: "Selection | None") -> "Worker":
        from mailkeep.backup.bulk_work import Worker
        from mailkeep.backup.discover import Found, discover
        from mailkeep.cli.remote_login import means

        async def find(address: str) -> Found:
            return await discover(address, means())

        return Worker(store, find, self.stop, selection)

    def go(self, queue: Any, worker: "Worker") -> None:
        """Run all rows; what has ended is in the result file, whatever happens."""
        from mailkeep.backup.bulk import run

        try:
            _, self.interrupted = run_until_done(
                self.out, lambda: run(queue, worker, stop=self.stop, ended=self._ended), stop=self.stop
            )
        finally:
            self.results.save()

    def _ended(self, result: "Result") -> None:
        self.ended += 1
        self.results.put(result)
        place = f"[{self.before + self.ended}/{self.rows}] {result.source} → {result.target}"
        numbers = f"{result.kept:,} of {result.server:,} there, {result.copied:,} new ({human_size(result.bytes)})"
        why = f": {result.error}" if result.error else ""
        if result.state == "done":
            self.out.say(f"{place}: {numbers}, in {result.seconds:.1f} s")
        else:
            self.out.warn(shown(f"{place}: {result.state}{why}"))
        if self.out.json:
            click.echo(json.dumps({"event": "row", **asdict(result)}, ensure_ascii=True))

    def tell(self, rows: "list[Row]") -> int:
        """The sum of all rows, those of earlier runs among them; the exit code."""
        found = [self.results.found.get(row.id) for row in rows]
        states = Counter(result.state if result is not None else "waiting" for result in found)
        done = states["done"] == len(rows)
        code = INTERRUPTED if self.interrupted else OK if done else SOME_FAILED
        parts = [f"{count:,} {state}" for state, count in sorted(states.items())]
        self.out.say(f"{plural(len(rows), 'row')}: {', '.join(parts)}. Results: {self.results.path}")
        if not done:
            self.out.warn("Give the same command again to go on.")
        self.out.facts({"event": "done", "code": code, "rows": dict(states), "results": str(self.results.path)})
        return code
