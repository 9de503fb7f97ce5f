"""How commands speak: to people, to programs (`--json`), or hardly at all (`--quiet`).

Results go to stdout, everything else (progress, warnings, errors) to stderr. With --json a command prints exactly one
JSON object on stdout; those that run long print one a line, each with its `event`, and the result last. Errors are one
line that says what to do; each class of error has one exit code (sysexits.h).
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mailkeep import config, errors, log

if TYPE_CHECKING:
    from mailkeep.jobs.progress import Progress
    from mailkeep.store.store import Store

OK: Final = 0
BUSY: Final = 75
SOME_FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it

# The first class that fits decides. 69 … 78 are those of sysexits.h.
EXIT_CODES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.UsageError, USAGE),
    (errors.ConfigError, 78),
    (errors.LoginError, 77),
    (errors.CannotWrite, 73),
    (errors.ToolMissing, 69),
    (errors.Unreachable, 69),
    (errors.RemoteBusy, BUSY),
    (errors.RemoteError, 76),
    (errors.StoreReadOnly, 73),
    (errors.StoreFull, 74),
    (errors.StoreCorrupt, 74),
    (errors.StoreBusy, 75),
    (errors.StoreError, USAGE),  # no such account, no such mailbox, a bad name: what was asked for cannot be
    (errors.MailkeepError, SOME_FAILED),
)


# What to do, where the store's own words (which a mail client may see as well) only say what is the matter.
REMEDIES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (errors.StoreFull, "make room on the disk, then run it again"),
    (errors.StoreReadOnly, "let this user write to it, or name another with --data DIR"),
    (errors.StoreBusy, "try again"),
    (errors.StoreCorrupt, "run `mailkeep verify`, then `mailkeep repair`"),
)


def remedy_of(error: errors.MailkeepError) -> str:
    return next((words for kind, words in REMEDIES if isinstance(error, kind)), "")


def told(error: errors.MailkeepError) -> str:
    """The error's text with what to do about it."""
    remedy = remedy_of(error)
    return error.text if not remedy or ";" in error.text or ":" in error.text else f"{error.text}; {remedy}"


def exit_code(error: BaseException) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 70)


@dataclass(frozen=True, slots=True)
class Out:
    """The voice of one command."""

    json: bool
    quiet: bool

    def say(self, text: str) -> None:
        """For people; not with --json or --quiet."""
        if not self.json and not self.quiet:
            click.echo("\n".join(map(shown, text.split("\n"))))

    def warn(self, text: str) -> None:
        if not self.quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Why something could not be done: said whatever was asked for."""
        click.echo("\n".join(map(shown, text.split("\n"))), err=True)

    def facts(self, facts: Any) -> None:
        """For programs: the one object of --json."""
        if self.json:
            text = json.dumps(facts, ensure_ascii=False)
            # What a terminal would obey (C1 controls, directions), and lone surrogates of names that are no UTF-8, can
            # only be written escaped.
            click.echo(text if text.isprintable() else json.dumps(facts))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Aligned columns; numbers to the right."""
        if self.json or self.quiet:
            return
        texts = [[shown(str(cell)) for cell in row] for row in rows]
        widths = [max(_width(row[i]) for row in [list(head), *texts]) for i in range(len(head))]
        right = [all(isinstance(row[i], int) for row in rows) and bool(rows) for i in range(len(head))]
        for row in [list(head), *texts]:
            cells = [
                " " * (width - _width(cell)) + cell if to_right else cell + " " * (width - _width(cell))
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ]
            click.echo("  ".join(cells).rstrip())

    @property
    def shows_progress(self) -> bool:
        """A bar is for a person who watches, and never for a log."""
        return not self.json and not self.quiet and sys.stderr.isatty()


def shown(text: str) -> str:
    """Fit for a terminal: names of files and mailboxes may hold escape sequences, or bytes that are no UTF-8."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == " " else ascii(c)[1:-1] for c in text)


def _width(text: str) -> int:
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def human_size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


# --- what every command has ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command: its voice, and where its store is."""

    out: Out
    data: Path | None
    file: Path | None
    debug: bool

    def settings(self) -> config.Config:
        return config.load(self.file, data=self.data)


def common(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command --data, --config, --json, --quiet and --debug; it gets them as a Call, its first argument."""

    @functools.wraps(command)
    def called(*, data: Path | None, file: Path | None, as_json: bool, quiet: bool, debug: bool, **own: Any) -> int:
        # A command says itself what came of it; the log is for servers, which set it as they are configured.
        log.configure(level="debug" if debug else "warning")
        return command(Call(Out(as_json, quiet), data, file, debug), **own)

    options = (
        click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Where the store is."),
        click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object; long runs one a line."),
        click.option("--quiet", is_flag=True, help="Print nothing but errors."),
        click.option("--debug", is_flag=True, help="Show where an error comes from."),
    )
    wrapped: Callable[..., int] = called
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@contextmanager
def opened(settings: config.Config, *, create: bool = False) -> "Iterator[Store]":
    """The store of a command. Files that it makes are nobody else's to read."""
    from mailkeep.store.store import Store

    os.umask(0o077)
    if not create and not (settings.data / "directory.db").exists():
        raise errors.UsageError(
            f"there is no store in {settings.data}; make one with `mailkeep user add NAME` or "
            "`mailkeep remote add ADDRESS`, or name it with --data DIR"
        )
    store = Store.open(settings.data, create=create)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def watched(out: Out, text: str, unit: str) -> "Iterator[Progress]":
    """A Progress that draws a bar on the terminal, if there is one to draw on."""
    from mailkeep.jobs.progress import Progress

    if not out.shows_progress:
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[items]:,} " + unit),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None, items=0)

        def show(progress: Progress) -> None:
            # The number of bytes is an estimate (quoting, zips), so the bar is never fuller than full.
            # In a phase of unknown length it only shows that something goes on.
            total = None if progress.phase else progress.total or None
            done = min(progress.done, total or progress.done)
            bar.update(task, description=progress.phase or text, total=total, completed=done, items=progress.items)

        yield Progress(show)
