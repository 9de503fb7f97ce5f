"""`mailkeep export`: shows how far the export is, and what came of it.

Knows options, terminals and Ctrl-C; the run itself is `export.exporter`'s. The first Ctrl-C (or TERM) lets the batch at
hand be finished and kept, the second ends it where it is; either way the same command goes on.
"""

import difflib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, Literal

import click

from mailkeep.cli.output import (
    INTERRUPTED,
    OK,
    SOME_FAILED,
    Call,
    Out,
    common,
    human_size,
    opened,
    plural,
    shown,
    watched,
)
from mailkeep.cli.selection import selection_options, typed_filters
from mailkeep.errors import AccountMissing, CannotWrite, StoreError, UsageError

if TYPE_CHECKING:
    from mailkeep.export.exporter import Report
    from mailkeep.jobs.progress import Progress
    from mailkeep.mail.selection import Selection
    from mailkeep.store.account import AccountInfo
    from mailkeep.store.store import Store

SHOWN: Final = 20
FOLDERS_SHOWN: Final = 40
EVERY_S: Final = 1.0  # between two lines of progress with --json
SPLIT_MIN: Final = 1 << 20


@click.command(short_help="Put mail into files of any format.")
@click.argument("account", metavar="ACCOUNT")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--to", "name", required=True, metavar="FORMAT", help="One of the formats above.")
@click.option("--per", type=click.Choice(["message", "folder", "all"]), help="What becomes one file.")
@click.option("--into", metavar="FOLDER", help="Put the whole tree below this folder.")
@click.option("--split", metavar="SIZE|year", help="Several outputs: of at most this size each, or one a year.")
@click.option("--engine", type=click.Choice(["weasyprint", "chromium"]), help="What makes the pages of a PDF.")
@click.option("--restart", is_flag=True, help="Begin anew where an export was left unfinished.")
@selection_options
@common
def export(
    call: Call,
    account: str,
    out: Path,
    *,
    name: str,
    per: str | None,
    into: str | None,
    split: str | None,
    engine: str | None,
    restart: bool,
    selection: "Selection",
) -> int:
    """Put an account's mail, or a part of it, into files: OUT is a new directory, or a file for pst and --per all.

    Nothing is ever overwritten. An export that was stopped goes on when the same command is given again. Beside the
    mail stands a manifest with a line for each message; the exit code is 0 when all of them are in the output.

    Formats: eml, mbox, maildir, html, mht, pdf, docx, doc, msg, pst.
    """
    from mailkeep.export.exporter import Export, Wish
    from mailkeep.export.formats import find_format
    from mailkeep.mail.mailbox_name import check_name

    chosen = find_format(name)
    chosen.check(per=per or "", engine=engine or "")
    wish = Wish(
        chosen,
        out,
        selection,
        per=per or "",
        engine=engine or "",
        into="" if into is None else check_name(into),
        split=None if split is None else parse_split(split),
        filters=typed_filters(),
        restart=restart,
    )
    begun = time.monotonic()
    with opened(call.settings()) as store:
        info = find_account(store, account)
        with _asked_to_stop(call.out) as stop, _watching(call.out, f"Exporting {info.name}") as progress:
            run = Export(store, store.account(info.id), wish, progress=progress, stop=stop)
            try:
                report = run.run()
            except (CannotWrite, StoreError) as error:
                if run.report.out and Path(f"{run.report.out}.partial").exists():
                    error.text += "; what was done is kept: give the same command again to go on"
                raise
        return tell(call.out, report, time.monotonic() - begun)


def parse_split(text: str) -> int | Literal["year"]:
    """`10G` or `year`. Raises UsageError."""
    from mailkeep.mail.search_text import parse_size

    if text.lower() == "year":
        return "year"
    try:
        size = parse_size(text)
    except UsageError:
        raise UsageError(f"--split {text}: give a size such as 10G, or year") from None
    if size < SPLIT_MIN:
        raise UsageError(f"--split {text}: too small; 1M is the least")
    return size


def find_account(store: "Store", name: str) -> "AccountInfo":
    """Raises AccountMissing, which names those that are near."""
    info = store.directory.find(name)
    if info is None:
        names = [each.name for each in store.directory.list()]
        near = [each for each in names if each.startswith(f"{name.casefold()}@")]
        near = near[:3] or difflib.get_close_matches(name.casefold(), names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `mailkeep user list` shows them"
        raise AccountMissing(f"there is no account {name}{hint}")
    return info


@contextmanager
def _asked_to_stop(out: Out) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or TERM came; the second one ends the process's work where it is."""
    asked = False

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        out.warn("Stopping: what is done so far is being kept. Once more to stop at once.")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watching(out: Out, text: str) -> "Iterator[Progress]":
    """A bar on a terminal; with --json a line a second."""
    from mailkeep.jobs.progress import Progress

    if not out.json:
        with watched(out, text, "messages") as progress:
            yield progress
        return
    last = 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_S or progress.phase:
            last = now
            out.facts(
                {
                    "event": "progress",
                    "messages": progress.items,
                    "of": progress.items_total,
                    "bytes": progress.done,
                    "total_bytes": progress.total,
                    "folder": progress.what,
                    "phase": progress.phase,
                }
            )

    yield Progress(show)


def tell(out: Out, report: "Report", seconds: float) -> int:
    """Print what came of it; the exit code."""
    code = OK if report.complete else SOME_FAILED
    if report.resumed_at is not None:
        out.say(f"Went on with an export that was stopped after {plural(report.resumed_at, 'message')}.")
    if report.stopped is not None:
        done = report.exported + report.missing
        out.error(f"mailkeep: {report.stopped} ({done:,} of {plural(report.listed, 'message')} done)")
        code = INTERRUPTED
    else:
        _tell_result(out, report, seconds)
    out.facts({"event": "done", **report.facts(), "seconds": round(seconds, 3), "code": code})
    return code


def _tell_result(out: Out, report: "Report", seconds: float) -> None:
    rate = f", {report.written / seconds:,.0f} a second" if seconds > 0 and report.written > 100 else ""
    size = human_size(report.bytes)
    parts = report.parts
    where = parts[0].path if len(parts) == 1 else f"{len(parts)} parts"
    made = f"{where} ({human_size(sum(part.size for part in parts))})"
    out.say(f"{plural(report.exported, 'message')} exported ({size}), in {seconds:.1f} s{rate}: {made}")
    if len(parts) > 1:
        out.table(["Part", "Messages", "Size"], [[part.path, part.messages, human_size(part.size)] for part in parts])
    rows = [[name, count.messages, human_size(count.bytes)] for name, count in report.folders.items()]
    if rows:
        out.table(["Folder", "Messages", "Size"], rows[:FOLDERS_SHOWN])
    if len(rows) > FOLDERS_SHOWN:
        out.say(f"… and {plural(len(rows) - FOLDERS_SHOWN, 'folder')} more")
    faults = (("Not exported", report.faults, report.missing), ("Note", report.notes, report.noted))
    for title, listed, count in faults:
        for each in listed[:SHOWN]:
            out.warn(shown(f"{title}: {each.source}: {each.reason}"))
        if max(count, len(listed)) > SHOWN:
            out.warn(f"… and {max(count, len(listed)) - SHOWN:,} more; {report.manifest} lists them")
    if report.complete:
        out.say(f"All {report.listed:,} of the list were found again in the output. Manifest: {report.manifest}")
    else:
        out.error(f"mailkeep: {report.counted:,} of {plural(report.listed, 'message')} are in {report.out}")
