"""What is written between one checkpoint and the next: the writer of a part, its manifest lines, and the counts.

Knows the writer, the manifest and the work directory; neither the store nor when to stop. What it counts becomes the
state only at a checkpoint, when all that the counts speak of is on the disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from mailkeep.errors import MailkeepError
from mailkeep.export.files import Growing
from mailkeep.export.formats import Format
from mailkeep.export.manifest import Line, Tail, encode_line, iso_date
from mailkeep.export.reading import Read
from mailkeep.export.work import Part, Work
from mailkeep.export.writer import Message, Options, Writer, Written

_NO_FOLDER: Final = -1
_GROWTH: Final = 8  # times its own size that a small message takes in some formats


class WriterFailed(Exception):
    """A writer raised what it must not, given these. The cause is its error."""

    def __init__(self, reads: Sequence[Read]) -> None:
        super().__init__()
        self.reads = reads


class Session:
    """Begins at the state of the last checkpoint; ends with `end`, or anywhere with `abandon`."""

    def __init__(self, work: Work, chosen: Format, options: Options) -> None:
        """Raises CannotWrite, UsageError."""
        state = work.state
        self.folders = options.folders
        self.position = state.position  # of the list: what is done
        self._work = work
        self._format = chosen
        self._options = options
        self._sources = work.planned.sources
        self._manifest = Growing(work.manifest, state.manifest)
        self._writer: Writer | None = None
        self._label = ""
        self._folder = _NO_FOLDER
        self._part_messages = state.part_messages
        self._exported, self._missing, self._bytes = state.exported, state.missing, state.bytes

    @property
    def done(self) -> int:
        """Messages: exported ones and those that cannot be."""
        return self._exported + self._missing

    def begin(self, head: bytes) -> None:
        """`head` is the manifest's first line."""
        if not self._manifest.size:
            self._manifest.write(head)

    def open(self, label: str) -> None:
        """Go on with a part, or begin it. Raises CannotWrite, ToolMissing."""
        state = self._work.state
        self._label, self._folder = label, _NO_FOLDER
        if state.writer is not None:
            self._writer = self._format.make(self._work.place(label), self._options, state.writer)
        else:
            self._part_messages = 0
            self._writer = self._format.make(self._work.fresh_place(label), self._options, None)

    # ---- messages

    def portions(self, reads: Sequence[Read], *, alone_below: int) -> Iterator[Sequence[Read]]:
        """A batch without what the writer is known to fail on, one by one where it is not known yet what that is."""
        bad = self._work.state.bad
        if bad:
            reads = [
                replace(read, message=None, missing=bad[read.position]) if read.position in bad else read
                for read in reads
            ]
        if reads[0].position >= alone_below:
            yield reads
        else:
            yield from ([read] for read in reads)

    def write(self, source: int, reads: Sequence[Read], *, size_max: int | None) -> None:
        """Messages of a folder, or none: then there is the folder. A part that would grow beyond `size_max` ends.

        Raises CannotWrite, ToolMissing, WriterFailed.
        """
        self._enter(source)
        while reads:
            count = len(reads) if size_max is None else self._fitting(reads, size_max)
            if not count:
                self.position = reads[0].position
                self.close_part(section_ends=False)
                self.open(self._label)  # closing gave it the next number
                self._enter(source)
                continue
            self._give(source, reads[:count])
            reads = reads[count:]

    def _enter(self, source: int) -> None:
        if self._folder != source:
            self._open_writer.folder(self.folders[source])
            self._folder = source

    def _fitting(self, reads: Sequence[Read], size_max: int) -> int:
        """How many go into the present part next: one at least, if it is empty. What they become there nobody knows
        before they are written, so towards the end they are given one by one."""
        room = size_max - self._open_writer.size
        if sum(read.size for read in reads) * _GROWTH < room:
            return len(reads)
        return 1 if reads[0].size <= room or not self._part_messages else 0

    def _give(self, source: int, reads: Sequence[Read]) -> None:
        messages = [read.message for read in reads if read.message is not None]
        results: list[Written] = []
        if messages:
            try:
                results = self._open_writer.write(messages)
                assert len(results) == len(messages), "a result for each message"
            except MailkeepError:
                raise
            except Exception as error:
                raise WriterFailed([read for read in reads if read.message is not None]) from error
        written = iter(results)
        for read in reads:
            line = self._lost(source, read) if read.message is None else self._line(read, read.message, next(written))
            self._manifest.write(encode_line(line))
        self._part_messages += len(messages)

    def _lost(self, source: int, read: Read) -> Line:
        self._missing += 1
        box = self._sources[source]
        return Line(self.done, box.name, box.uidvalidity, read.uid, missing=read.missing)

    def _line(self, read: Read, message: Message, written: Written) -> Line:
        self._exported += 1
        self._bytes += len(message.data)
        single = bool(self._work.suffix)
        return Line(
            number=message.number,
            folder=message.folder.name,
            uidvalidity=message.folder.uidvalidity,
            uid=message.uid,
            sha256=read.sha256.hex(),
            size=len(message.data),
            internaldate=iso_date(message.internaldate),
            flags=sorted(message.flags),
            file=f"{self._label}/{written.file}" if self._label and not single else written.file,
            part=self._work.name(self._label) if self._label and single else "",
            note=written.note or "",
        )

    @property
    def _open_writer(self) -> Writer:
        assert self._writer is not None, "a part is open"
        return self._writer

    # ---- what is kept

    def checkpoint(self) -> None:
        """Keep all so far: first the writer's, then the manifest, then the state that speaks of them."""
        self._keep(self._open_writer.checkpoint())

    def _keep(self, writer: bytes | None) -> None:
        self._manifest.sync()
        state = self._work.state
        state.position, state.manifest, state.writer = self.position, self._manifest.size, writer
        state.label, state.part_messages = self._label, self._part_messages
        state.exported, state.missing, state.bytes = self._exported, self._missing, self._bytes
        self._work.save()

    def close_part(self, *, section_ends: bool) -> None:
        """The part is complete, and noted so after it is; killed before, it goes on at a checkpoint made just now."""
        self.checkpoint()
        self._open_writer.finish()
        self._writer = None
        state = self._work.state
        state.parts.append(Part(self._label, self._part_messages))
        state.sections += section_ends
        self._part_messages = 0
        done, self._label = self._label, "" if section_ends else str(int(self._label) + 1)
        self._keep(None)
        self._work.drop_scratch(done)

    def end(self) -> None:
        """All parts are complete: the manifest's last line."""
        done = (self._exported + self._missing, self._exported, self._missing, self._bytes)
        self._manifest.write(encode_line(Tail(*done)))
        self._work.state.phase = "placing"
        self._keep(None)

    def abandon(self) -> None:
        """Let go of all; what was not kept is lost."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.abandon()
        finally:
            self._manifest.close()
