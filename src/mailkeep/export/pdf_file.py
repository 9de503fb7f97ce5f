"""What is done to finished PDFs: files embedded, many joined into one with bookmarks, messages counted.

Knows pikepdf; knows no messages and no engine. The hard idea is that joining copies no page content: the parts stay
open until the whole is saved, qpdf takes their streams from there, and memory holds objects only. So parts are joined
in small groups first, and what a file holds is bounded.
"""

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, cast

from mailkeep.export.names import Names
from mailkeep.mail.letter import Letter

if TYPE_CHECKING:
    import pikepdf
    from _typeshed import ReadableBuffer

# RFC 6838, section 4.2: restricted-name
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")


class Enclosed(NamedTuple):
    """A file to embed. `name` is as the sender wrote it: it is made safe here."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class About:
    """What a PDF says of itself. `created` as a PDF writes it: D:YYYYMMDDHHmmSS+HH'mm'."""

    title: str
    author: str
    created: str

    @classmethod
    def of(cls, letter: Letter) -> "About":
        """Of a message: its subject, who wrote it and when."""
        zone = letter.date.strftime("%z")[:5] if letter.date is not None else ""
        # strftime would leave out the zeros before a year of three digits
        created = (
            "" if letter.date is None else f"D:{letter.date.year:04}{letter.date:%m%d%H%M%S}{zone[:3]}'{zone[3:]}'"
        )
        author = next((who.name or who.address for who in letter.from_), "")
        return cls(letter.subject or "(no subject)", author, created)


class Part(NamedTuple):
    """A PDF to be joined with others, and what its bookmark says; "" keeps the bookmarks that it has."""

    pdf: bytes | Path
    title: str = ""


def embed(pdf: bytes, files: Iterable[Enclosed], *, prefix: str = "", about: About | None = None) -> bytes:
    """The PDF with files embedded, and saying `about` of itself if given; the same input gives the same bytes.

    Names are made safe, and unique within the PDF; `prefix` is put before each, to stay unique where PDFs are joined.
    """
    import pikepdf

    names = Names()
    with pikepdf.open(io.BytesIO(pdf)) as document:
        for file in files:
            media_type = file.media_type if _MEDIA_TYPE.fullmatch(file.media_type) else "application/octet-stream"
            name = prefix + names.take(file.name)
            document.attachments[name] = pikepdf.AttachedFileSpec(
                document, file.data, description="", filename=name, mime_type=media_type, creation_date="", mod_date=""
            )
        if about is not None:
            document.docinfo["/Title"], document.docinfo["/Author"] = about.title, about.author
            for key in ("/CreationDate", "/ModDate"):
                document.docinfo[key] = about.created
        if len(document.attachments):
            document.Root.PageMode = pikepdf.Name.UseAttachments
        return _saved(document)


def _saved(document: "pikepdf.Pdf") -> bytes:
    import pikepdf

    out = io.BytesIO()
    document.save(out, deterministic_id=True, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return out.getvalue()


def join(parts: Sequence[Part], out: BinaryIO, *, title: str = "") -> None:
    """One PDF of many: a bookmark for each part, embedded files kept. Raises OSError.

    All parts that are paths are open at once; names of their embedded files must differ.
    """
    import pikepdf

    with ExitStack() as opened, pikepdf.new() as whole:
        marks: list[tuple[str, int]] = []
        files = pikepdf.NameTree.new(whole)
        for part in parts:
            source = io.BytesIO(part.pdf) if isinstance(part.pdf, bytes) else part.pdf
            document = opened.enter_context(pikepdf.open(source))
            first = len(whole.pages)
            marks += [(part.title, first)] if part.title else [(text, first + page) for text, page in _marks(document)]
            for page in document.pages:
                _free(page.obj)
            whole.pages.extend(document.pages)
            for name, spec in document.attachments.items():
                files[name] = whole.copy_foreign(document.make_indirect(spec.obj))
        with whole.open_outline() as outline:
            outline.root.extend(pikepdf.OutlineItem(text, page) for text, page in marks)
        if len(files):
            whole.Root.Names = pikepdf.Dictionary(EmbeddedFiles=files.obj)
        whole.Root.PageMode = pikepdf.Name.UseOutlines
        if title:
            whole.docinfo["/Title"] = title
        held = _Held(out)
        whole.save(cast(BinaryIO, held), deterministic_id=True, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    if held.error is not None:
        raise held.error


class _Held(io.RawIOBase):
    """What pikepdf writes to. An error of the disk is held back: where it met qpdf's cleaning up, it ended us."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        if self.error is None:
            try:
                return self._out.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def _marks(document: "pikepdf.Pdf") -> list[tuple[str, int]]:
    """Bookmarks of the top level, each with its page, from 0; those of `join`, nobody else's."""
    numbers = {page.obj.objgen: number for number, page in enumerate(document.pages)}
    with document.open_outline() as outline:
        destinations: list[tuple[str, Any]] = [(mark.title, mark.destination) for mark in outline.root]
    return [(title, numbers[destination[0].objgen]) for title, destination in destinations]


def _free(page: "pikepdf.Object") -> None:
    """Take from a page what works in its own document only: its place in the structure, links to names."""
    import pikepdf

    for key in ("/StructParents", "/Tabs"):
        if key in page:
            del page[key]
    if "/Annots" in page:
        kept = [note for note in page.Annots if "/Dest" not in note and note.get("/Subtype") == "/Link"]
        kept = [note for note in kept if "/A" not in note or note.A.get("/S") != "/GoTo"]
        for note in kept:
            if "/StructParent" in note:
                del note["/StructParent"]
        page.Annots = pikepdf.Array(kept)


def count(path: Path) -> int:
    """Messages in a finished PDF: its bookmarks, or 1 where there are none. Raises OSError, ValueError."""
    import pikepdf

    try:
        with pikepdf.open(path) as document, document.open_outline(max_depth=1) as outline:
            return len(outline.root) or min(len(document.pages), 1)
    except pikepdf.PdfError as error:
        raise ValueError(f"not a PDF: {error}") from error


def excuse(reason: str) -> list[str]:
    """What stands on a page of `plain` in place of a message."""
    return ["This message could not be shown:", reason, "", "It is attached as it is, as message.eml."]


def plain(lines: Sequence[str], files: Iterable[Enclosed], *, prefix: str = "") -> bytes:
    """A page that needs no engine, no fonts of this machine and next to no memory: what cannot fail. ASCII only."""
    import pikepdf

    text = ["BT /F 11 Tf 56 780 Td 16 TL"]
    for line in lines:
        shown = re.sub("[^ -~]", "?", line)[:90]
        text.append("(" + re.sub(r"[\\()]", lambda found: "\\" + found[0], shown) + ") Tj T*")
    with pikepdf.new() as document:
        document.add_blank_page(page_size=(595, 842))
        page = document.pages[0]
        font = pikepdf.Dictionary(Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica)
        page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F=font))
        page.Contents = document.make_stream("\n".join([*text, "ET"]).encode())
        return embed(_saved(document), files, prefix=prefix)
