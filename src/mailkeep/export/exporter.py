"""From an account to files: chooses, reads, hands to the writer of a format, and proves at the end that all is there.

**The list is fixed first** (`listing`) and stays as it is, so that an export that takes days is of one moment.

**Killed anywhere, it goes on.** A checkpoint is made in this order: the writer's files are on the disk, then the
manifest, then the state that says how far both are. What stands beyond a state is cut off or written again, the same
way. So the same command, given after a kill, makes the output that it would have made.

**Nothing is lost in silence.** At the end three numbers must be equal: what the list has, the lines of the manifest,
and the messages that are found by reading the finished output again. Otherwise the report names what is missing.

**One message never stops a run.** What the store cannot read is reported. A writer that fails on a message, against
what it promised, is taken back to the last checkpoint and given what follows one by one, without that message.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from mailkeep import log
from mailkeep.errors import ToolMissing, UsageError
from mailkeep.export.files import size_on_disk
from mailkeep.export.formats import Format
from mailkeep.export.listing import Cancelled, make_list
from mailkeep.export.manifest import Head, Line, read_lines
from mailkeep.export.reading import Batch, Reader
from mailkeep.export.session import Session, WriterFailed
from mailkeep.export.work import Plan, Work, taken
from mailkeep.export.writer import Options
from mailkeep.jobs.job import Job
from mailkeep.jobs.progress import FAULTS_KEPT_MAX, Fault, Progress
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.store import Store

CHECKPOINT_S: Final = 5.0
CHECKPOINT_BYTES: Final = 256 << 20
CHECKPOINT_SHARE: Final = 20  # a checkpoint that took a second is followed by twenty without one
BAD_MAX: Final = 100  # messages that a writer may fail on before it is not worth going on

STOPPED: Final = "stopped; give the same command again to go on where it was"

_log = log.get("export")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. `split`: bytes of one output, or "year". `filters`: the selection in the user's words."""

    format: Format
    out: Path
    selection: Selection = field(default_factory=Selection)
    per: str = ""
    engine: str = ""
    into: str = ""
    split: int | Literal["year"] | None = None
    filters: str = ""
    restart: bool = False

    @property
    def asked(self) -> str:
        """All that makes a command another one. The words of a filter count, not its days: "30d" is "30d" tomorrow."""
        words = [f"--to {self.format.name} --per {self.per or self.format.per[0]}"]
        words += [f"--engine {self.engine}"] if self.engine else []
        words += [f"--into {self.into}"] if self.into else []
        words += [f"--split {self.split}"] if self.split else []
        filters = self.filters or self.selection.describe()
        return " ".join(words) + (f"; filters: {filters}" if filters else "")


@dataclass(slots=True)
class FolderCount:
    """Of one folder."""

    messages: int = 0
    bytes: int = 0
    missing: int = 0


class Output(NamedTuple):
    """One of what came out. `found`: messages that reading it again found; `size`: bytes of its files."""

    path: str
    messages: int
    found: int
    size: int


@dataclass(slots=True)
class Report:
    """What an export did. `counted`: messages found in the finished outputs."""

    out: str = ""
    manifest: str = ""
    parts: list[Output] = field(default_factory=list)
    listed: int = 0
    exported: int = 0
    missing: int = 0
    counted: int = 0
    bytes: int = 0
    noted: int = 0
    folders: dict[str, FolderCount] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)  # what is not in the output
    notes: list[Fault] = field(default_factory=list)  # what is there, but not as wanted
    resumed_at: int | None = None
    stopped: str | None = None
    written: int = 0  # by this run

    def take(self, line: Line, missing: str) -> None:
        """Count a line of the manifest; `missing` is why the message is not in the output, or empty."""
        count = self.folders.setdefault(line.folder, FolderCount())
        source = f"{line.folder} UID {line.uid}"
        if missing:
            self.missing += 1
            count.missing += 1
            if len(self.faults) < FAULTS_KEPT_MAX:
                self.faults.append(Fault(source, missing))
            return
        self.exported += 1
        self.bytes += line.size
        count.messages += 1
        count.bytes += line.size
        if line.note:
            self.noted += 1
            if len(self.notes) < FAULTS_KEPT_MAX:
                self.notes.append(Fault(source, line.note))

    @property
    def complete(self) -> bool:
        return self.stopped is None and not self.missing and self.listed == self.exported == self.counted

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": self.out,
            "manifest": self.manifest,
            "parts": [part._asdict() for part in self.parts],
            "listed": self.listed,
            "exported": self.exported,
            "missing": self.missing,
            "counted": self.counted,
            "bytes": self.bytes,
            "complete": self.complete,
            "resumed_at": self.resumed_at,
            "stopped": self.stopped,
            "folders": {
                name: {"messages": count.messages, "bytes": count.bytes, "missing": count.missing}
                for name, count in self.folders.items()
            },
            "noted": self.noted,
            "notes": [{"source": each.source, "text": each.reason} for each in self.notes],
            "faults": [{"source": each.source, "reason": each.reason} for each in self.faults],
        }


@dataclass(slots=True)
class Export:
    """One run. `stop` is asked between batches; when it says yes, what is done is kept and the run ends."""

    store: Store
    account: Account
    wish: Wish
    progress: Progress = field(default_factory=Progress)
    stop: Callable[[], bool] = lambda: False
    report: Report = field(default_factory=Report)
    _alone: int = 0  # up to this position of the list messages are given to the writer one by one

    def run(self) -> Report:
        """All of it. Raises UsageError, CannotWrite, ToolMissing, StoreError; what was done is kept in any case."""
        wish = self.wish
        suffix = wish.format.single.get(wish.format.check(per=wish.per, engine=wish.engine), "")
        who, asked = self._identity
        with taken(wish.out, suffix, account=who, asked=asked, restart=wish.restart) as work:
            self.report.out, self.report.manifest = str(work.out), str(work.manifest_target)
            if work.plan is None:
                try:
                    work.begin(self._choose(work))
                except (Cancelled, UsageError) as error:
                    work.remove()
                    if isinstance(error, UsageError):
                        raise
                    self.report.stopped = STOPPED
                    return self.report
            elif work.state.position:
                self.report.resumed_at = work.state.done
            try:
                self._run(work, work.planned)
            except ToolMissing:
                if not work.state.position:  # nothing was made yet, and perhaps never will be
                    work.remove()
                raise
        return self.report

    @property
    def _identity(self) -> tuple[str, str]:
        """What must be the same for work to be taken up."""
        info = self.account.info
        return f"{info.id} {info.created}", f"{info.name}: {self.wish.asked}"

    def _choose(self, work: Work) -> Plan:
        """Fix what is exported. Raises UsageError when filters leave nothing: a misspelled name, most likely."""
        wish, selection = self.wish, self.wish.selection
        into = tuple(wish.into.split("/")) if wish.into else ()
        by_year = wish.split == "year"
        self.progress.report(phase="Making the list")
        listed = make_list(self.account, selection, work.listing, into=into, by_year=by_year, stopped=self.stop)
        if not listed.messages and not selection.takes_all:
            names = [box.name for box in self.account.mailboxes()]
            some = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
            folders = "1 folder" if len(listed.sources) == 1 else f"{len(listed.sources)} folders"
            why = f"no message in {folders}" if listed.sources else f"none of the folders: {some}"
            raise UsageError(f"the filters take {why}; nothing was exported")
        when = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Plan(*self._identity, when, listed.sources, listed.sections, listed.messages, listed.bytes)

    def _run(self, work: Work, plan: Plan) -> None:
        state, report = work.state, self.report
        report.listed = plan.messages
        self.progress.total, self.progress.items_total = plan.bytes, plan.messages
        key = hashlib.sha256(str(work.out).encode("utf-8", "surrogateescape")).digest()
        job = Job.start(self.store, "export", self.account.info.id, key=key, fingerprint=plan.asked)
        before = state.done
        try:
            if state.phase == "writing":
                self._write(work, job)
            report.written = state.done - before
            if report.stopped is None:
                self._count(work)
                work.put_in_place()
        except BaseException:
            job.stop(state.done)
            raise
        if report.stopped is None:
            job.finish(state.done, {"summary": {**report.facts(), "faults": [], "notes": []}})
        else:
            job.stop(state.done)
            report.exported, report.missing, report.bytes = state.exported, state.missing, state.bytes

    # ---- writing

    def _write(self, work: Work, job: Job) -> None:
        """The whole list, from where it was left, whatever becomes of single messages."""
        while True:
            self.progress.done, self.progress.items = work.state.bytes, work.state.done
            session = Session(work, self.wish.format, self._options(work))
            try:
                self._sections(work, session, job)
                return
            except WriterFailed as failed:
                self._blame(work, failed)
            finally:
                session.abandon()

    def _options(self, work: Work) -> Options:
        chosen = self.wish.format
        return Options(
            format=chosen.name,
            title=self.account.info.name,
            per=self.wish.per or chosen.per[0],
            engine=self.wish.engine or next(iter(chosen.engines), ""),
            folders=tuple(source.folder for source in work.planned.sources),
        )

    def _blame(self, work: Work, failed: WriterFailed) -> None:
        """Back at the last checkpoint: find out which message it was, or leave that one out."""
        error, bad = failed.__cause__, work.state.bad
        assert error is not None
        if len(failed.reads) > 1:
            self._alone = failed.reads[-1].position + 1
        elif len(bad) >= BAD_MAX:
            raise error
        else:
            _log.warning("the writer failed on a message", uid=failed.reads[0].uid, exc_info=error)
            bad[failed.reads[0].position] = f"a fault in Mailkeep: {type(error).__name__}: {error}"[:300]
            work.save()

    def _sections(self, work: Work, session: Session, job: Job) -> None:
        plan, state = work.planned, work.state
        session.begin(self._head(plan).line())
        reader = Reader(self.account, plan.sources, work.listing)
        while state.sections < len(plan.sections):
            section = plan.sections[state.sections]
            session.open(section.label or state.label or ("1" if isinstance(self.wish.split, int) else ""))
            if not self._section(session, reader.batches(state.position, section.stop, number=state.done + 1), job):
                self.report.stopped = STOPPED
                return
            self.progress.report(phase="Completing it")  # an index, tables: of a large export some minutes
            session.close_part(section_ends=True)
        session.end()

    def _section(self, session: Session, batches: Iterator[Batch], job: Job) -> bool:
        """Write what becomes one output, or several of a size. False: it was stopped; what is done is kept."""
        begun, size, pause = time.monotonic(), 0, CHECKPOINT_S
        for batch in batches:
            if self.stop():
                session.checkpoint()
                return False
            for reads in session.portions(batch.reads, alone_below=self._alone) if batch.reads else [()]:
                session.write(batch.source, reads, size_max=self._size_max)
            session.position = batch.stop
            self._report(session, batch)
            size += sum(read.size for read in batch.reads)
            if time.monotonic() - begun >= pause or size >= CHECKPOINT_BYTES:
                before = time.monotonic()
                session.checkpoint()
                job.advance(session.done)
                begun, size = time.monotonic(), 0
                pause = max(CHECKPOINT_S, (begun - before) * CHECKPOINT_SHARE)
        return True

    @property
    def _size_max(self) -> int | None:
        return self.wish.split if isinstance(self.wish.split, int) else None

    def _report(self, session: Session, batch: Batch) -> None:
        name = session.folders[batch.source].name
        self.progress.report(done=sum(read.size for read in batch.reads), items=len(batch.reads), what=name)

    def _head(self, plan: Plan) -> Head:
        wish = self.wish
        return Head(
            account=self.account.info.name,
            format=wish.format.name,
            per=wish.per or wish.format.per[0],
            listed=plan.listed,
            messages=plan.messages,
            filters=wish.filters or wish.selection.describe(),
            into=wish.into,
            split=str(wish.split or ""),
        )

    # ---- the proof

    def _count(self, work: Work) -> None:
        """Compare the list, the manifest and what the outputs hold when they are read again."""
        for part in work.state.parts:
            if part.found < 0:
                work.drop_scratch(part.label)
                self.progress.report(phase="Reading it again")
                place = work.place(part.label)
                part.found, part.size = self.wish.format.count(place), size_on_disk(place)
                work.save()
        report = self.report
        target = work.out.parent if work.suffix else work.out
        report.parts = [
            Output(str(target / work.name(part.label)), part.messages, part.found, part.size)
            for part in work.state.parts
        ]
        report.counted = sum(part.found for part in work.state.parts)
        looks = report.counted != work.state.exported and not work.suffix
        for line in read_lines(work.manifest_now()):
            lost = looks and line.file and not (work.tree_now() / line.file).exists()
            report.take(line, "it is not in the finished output" if lost else line.missing)
        if report.exported + report.missing != report.listed:
            text = f"{report.exported + report.missing:,} lines for {report.listed:,} messages"
            report.faults.append(Fault(report.manifest, text))
        if report.counted != report.exported:
            text = f"{report.counted:,} messages found in it, {report.exported:,} expected"
            report.faults.append(Fault(report.out, text))
