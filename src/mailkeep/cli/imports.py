"""`mailkeep import`: shows how far the importer is and what came of it."""

import time
from pathlib import Path
from typing import Any

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
from mailkeep.errors import AccountMissing, StoreError, UsageError

FAULTS_SHOWN = 20


@click.command("import", short_help="Bring mail in from files.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…")
@click.option("--user", "name", required=True, metavar="NAME", help="Whose mail it becomes.")
@click.option("--into", metavar="MAILBOX", help="Put it into this mailbox, folders below it. Default INBOX.")
@common
def import_mail(call: Call, paths: tuple[Path, ...], name: str, into: str | None) -> int:
    """Bring mail in from mbox files, Maildirs, .eml and .emlx files, Gmail Takeout, Outlook's .pst, .ost and .msg
    files, and folders and zips of these.

    A message is never imported twice into the same mailbox: a command that was stopped goes on when it is given again.
    Flags, dates, folders and Gmail's labels are kept; the bytes of a message are not changed. Outlook keeps no bytes,
    but properties: of these the message is made anew.
    """
    from mailkeep.export.importer import Importer
    from mailkeep.mail.mailbox_name import check_name

    out, config = call.out, call.settings()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder; name files or folders with mail in them")
    target = check_name(into) if into is not None else None
    begun = time.monotonic()
    with opened(config) as store:
        info = store.directory.find(name)
        if info is None:
            raise AccountMissing(f"there is no account {name}; make it with `mailkeep user add {name}`")
        with watched(out, f"Importing for {info.name}", "messages") as progress:
            importer = Importer(
                store, store.account(info.id), target, size_max=config.message_size_max, progress=progress
            )
            try:
                importer.files(paths)
            except StoreError:  # the disk is full, above all
                if importer.summary.added:
                    out.warn(f"{plural(importer.summary.added, 'message')} were imported before it stopped.")
                raise
            except KeyboardInterrupt:
                importer.summary.stopped = "by Ctrl-C; give the same command again to go on"
        return _tell(out, importer.summary, time.monotonic() - begun)


def _tell(out: Out, summary: Any, seconds: float) -> int:
    """Print the summary; the exit code."""
    if summary.resumed_at is not None:
        out.say(f"Went on with an import that was stopped after {plural(summary.resumed_at, 'message')}.")
    parts = [f"{plural(summary.added, 'message')} imported ({human_size(summary.bytes)})"]
    if summary.already:
        parts.append(f"{summary.already:,} there already")
    if summary.failed:
        parts.append(f"{summary.failed:,} not readable")
    rate = f", {summary.added / seconds:,.0f} a second" if seconds > 0 and summary.added > 100 else ""
    out.say(", ".join(parts) + f", in {seconds:.1f} s{rate}.")
    rows = [[name, count.added, count.already] for name, count in sorted(summary.mailboxes.items())]
    if rows:
        out.table(["Mailbox", "Imported", "There already"], rows)
    for reason, count in sorted(summary.skipped.items()):
        out.say(f"Passed over: {count:,} × {reason}")
    for title, faults, count in (("Not imported", summary.faults, summary.failed), ("Note", summary.notes, 0)):
        for fault in faults[:FAULTS_SHOWN]:
            out.warn(shown(f"{title}: {fault.source}: {fault.reason}"))
        if max(count, len(faults)) > FAULTS_SHOWN:
            out.warn(f"… and {max(count, len(faults)) - FAULTS_SHOWN:,} more; --json lists them")
    code = SOME_FAILED if summary.failed else OK
    if summary.stopped is not None:
        click.echo(f"mailkeep: stopped: {summary.stopped}", err=True)
        code = INTERRUPTED if "Ctrl-C" in summary.stopped else SOME_FAILED
    out.facts({**summary.facts(), "seconds": round(seconds, 3), "code": code})
    return code
