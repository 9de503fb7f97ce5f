"""The process that turns messages into PDF by WeasyPrint, one after the other, for a parent that may kill it.

Knows WeasyPrint, the page of a message and the limits of its own process; knows no files, no store and no network: all
that a page may load are the images of its own message, handed over in memory, and whatever else this process were
talked into opening (a socket, a program) is refused by an audit hook. Limits: CPU time for each message, memory for
all. `Child` of `export.killable` is the other end.

The hard idea is what a page costs. WeasyPrint's time goes into parsing the same style sheet again, looking fonts up
again and embedding whole fonts, so the sheets and the font configuration are kept, fonts are subset, and no font with
pictures is named before one with letters. Pages that are wider than the paper are laid out a second time, on a larger
sheet that is then shrunk to the paper.
"""

import gc
import io
import logging
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element

import msgspec

from mailkeep.export.killable import OUT_OF_MEMORY, read_frame, write_frame
from mailkeep.export.page import Show, page, problem_page
from mailkeep.export.page_style import PRINT
from mailkeep.export.pdf_file import Enclosed, embed
from mailkeep.export.writer import Message
from mailkeep.mail.letter import TEXT_MAX, Attachment, Letter, letter_of
from mailkeep.mail.text import html_text

if TYPE_CHECKING:
    import weasyprint

CPU_S: Final = 30  # for a message, and as much again for each MiB of it
CPU_PER_MIB_S: Final = 30
MEMORY_MAX: Final = 2 << 30
STACK: Final = 128 << 20  # nested tables and quotes are recursion, in WeasyPrint
DEPTH: Final = 20_000
TURN: Final = 1.25  # times wider than the paper: then the paper lies on its side
SCALE_MAX: Final = 5.0  # beyond, what is too wide is cut off: nobody could read it

_PAPER_MM: Final = (210.0, 297.0)
_MARGIN_MM: Final = 15.0
# overflow-wrap: anywhere would have the least width of a table's cell found letter by letter, in square time.
_SHEET: Final = """
@page {{ size: {width}mm {height}mm; margin: {margin}mm; margin-bottom: {bottom}mm;
  @bottom-right {{ content: counter(page) " / " counter(pages); font: {font}pt sans-serif; color: #666 }} }}
.mk-message > header, .mk-files, .mk-notes {{ font-size: {size}em !important }}
.mk-mail img[width] {{ height: auto !important }}
* {{ bookmark-level: none !important; overflow-wrap: break-word !important }}
"""
CHILD: Final = "from mailkeep.export.pdf_child import main; main()"
MISSING: Final = (
    "PDF by WeasyPrint needs Pango and HarfBuzz: apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
)


class Request(msgspec.Struct, array_like=True):
    """A message to lay out; with a `reason` its text alone, or, as an `excuse`, the page that says why it is not shown.

    With either the raw message is embedded.
    """

    message: Message
    reason: str = ""
    excuse: bool = False
    names: bool = False  # for a PDF that is joined with others: names of embedded files begin with the UID


class Answer(msgspec.Struct, array_like=True):
    """Its PDF, or the `failure`. `boxes`: characters for which this machine has no font, at most a hundred."""

    pdf: bytes
    failure: str = ""
    boxes: str = ""


def main() -> None:
    """Serve standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked, told = os.fdopen(os.dup(0), "rb", 1 << 18), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:  # whatever a library prints must not reach the parent
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))
    threading.stack_size(STACK)
    sys.setrecursionlimit(DEPTH)
    thread = threading.Thread(target=_serve, args=(asked, told))
    thread.start()
    thread.join()


def _serve(asked: io.BufferedReader, told: io.BufferedWriter) -> None:
    with suppress(EOFError, BrokenPipeError):
        try:
            printer = Printer()
        except (ImportError, OSError):  # a library of the system is missing: cffi's dlopen
            write_frame(told, MISSING.encode())
            return
        sys.addaudithook(_refuse)
        write_frame(told, b"")
        encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Request).decode
        while True:
            request = decode(read_frame(asked))
            _allow_cpu(cpu_allowed(len(request.message.data)))
            try:
                answer = printer.answer(request)
            except MemoryError:
                os._exit(OUT_OF_MEMORY)  # what of it would be left nobody knows
            write_frame(told, encode(answer))


def cpu_allowed(size: int) -> float:
    """Seconds for a message of this size in bytes; more of it than a letter's text can be is attached, not laid out."""
    return CPU_S + CPU_PER_MIB_S * min(size, TEXT_MAX) / (1 << 20)


def _allow_cpu(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


_REFUSED: Final = {"socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto", "subprocess.Popen"}


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in _REFUSED or event.startswith(("os.system", "os.exec", "os.posix_spawn", "os.fork", "ftplib.")):
        raise PermissionError(f"{event} is not for a page")


class _Heard(logging.Handler):
    """What WeasyPrint says: which characters no font has, and which pictures it could not read."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[str, None] = {}
        self.unread: set[str] = set()  # URLs

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record.args, tuple) or not record.args:
            return
        if str(record.msg).startswith(".notdef") and len(self.boxes) < 100:
            self.boxes[str(record.args[0])] = None
        elif str(record.msg).startswith("Failed to load image"):
            self.unread.add(str(record.args[0])[:100])


class Printer:
    """WeasyPrint, with what it need not do twice. Raises OSError or ImportError where it cannot be loaded."""

    def __init__(self) -> None:
        import weasyprint
        from weasyprint.text.fonts import FontConfiguration

        self._heard = _Heard()
        logger = logging.getLogger("weasyprint")
        logger.handlers[:] = [self._heard]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logging.getLogger("fontTools").setLevel(logging.CRITICAL)
        logging.getLogger("PIL").setLevel(logging.CRITICAL)
        self._weasyprint = weasyprint
        self._fonts = FontConfiguration()
        self._sheet = self._sheet_of(1.0)
        self._looks = weasyprint.CSS(string=PRINT)
        # What is here now stays for good; the rest is looked through seldom, as most of it lives as long as its page.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def answer(self, request: Request) -> Answer:
        """The PDF of a message, or why there is none. Raises MemoryError."""
        self._heard.boxes.clear()
        self._heard.unread.clear()
        try:
            pdf = self._print(request)
        except MemoryError:
            raise
        except Exception as error:  # of WeasyPrint or what it uses: whatever it is, it is this message's
            return Answer(b"", f"the program that lays it out failed ({type(error).__name__})")
        return Answer(pdf, "", "".join(self._heard.boxes))

    def _print(self, request: Request) -> bytes:
        message = request.message
        letter = letter_of(message.data)
        pictures = _Pictures(letter)
        show = Show(_none if request.reason else pictures.url, _none, "print")
        if request.excuse:
            html = problem_page(message, request.reason, show)
        else:
            if request.reason:
                letter = _as_text(letter)
                show = replace(show, top=f'<p class="mk-notes">Its text only: {escape(request.reason)}.</p>')
            html = page(message, letter, show)
        document = self._lay_out(html, pictures)
        pictures.forget(self._heard.unread)
        attached = () if request.excuse else letter.attachments
        enclosed = [
            Enclosed(attachment.name, attachment.media_type, letter.content(attachment))
            for attachment in attached
            if attachment not in pictures
        ]
        if request.reason:
            enclosed.append(Enclosed("message.eml", "message/rfc822", message.data))
        _describe(document, letter)
        out = io.BytesIO()
        document.write_pdf(out, zoom=_zoom(document), pdf_tags=not request.names)
        prefix = f"({message.uid}) " if request.names else ""
        return embed(out.getvalue(), enclosed, prefix=prefix) if enclosed else out.getvalue()

    def _lay_out(self, html: str, pictures: "_Pictures") -> "weasyprint.Document":
        fetcher = self._weasyprint.urls.URLFetcher(allowed_protocols=["data"])
        fetcher.fetch = pictures.fetch
        # The sheet of all pages is parsed once. As the user's, not the author's, it comes before what attributes say.
        html = html.replace(f"<style>{PRINT}</style>", "", 1)
        source = self._weasyprint.HTML(string=html, url_fetcher=fetcher)
        _cut_long_text(source.etree_element)
        render = partial(source.render, font_config=self._fonts, presentational_hints=True)
        document = render(stylesheets=[self._looks, self._sheet])
        wider = _overflow(document)
        return render(stylesheets=[self._looks, self._sheet_of(wider)]) if wider > 1.01 else document

    def _sheet_of(self, wider: float) -> "weasyprint.CSS":
        """The paper for what is so many times wider than it; what we say ourselves stays as large as it is."""
        width, height = _PAPER_MM if wider < TURN else reversed(_PAPER_MM)
        scale = (_PAPER_MM[0] - 2 * _MARGIN_MM) * wider / (width - 2 * _MARGIN_MM) if wider > 1 else 1.0
        scale = max(min(scale, SCALE_MAX), 1.0)
        margin = _MARGIN_MM * scale
        text = _SHEET.format(
            width=width * scale, height=height * scale, margin=margin, bottom=margin * 1.2, font=8 * scale, size=scale
        )
        return self._weasyprint.CSS(string=text)


class _Pictures:
    """The images of one message, as addresses that nobody else can resolve."""

    def __init__(self, letter: Letter) -> None:
        self._letter = letter
        self.shown: dict[str, Attachment] = {}

    def url(self, attachment: Attachment) -> str:
        url = f"cid:{attachment.number}"
        self.shown[url] = attachment
        return url

    def __contains__(self, attachment: Attachment) -> bool:
        return f"cid:{attachment.number}" in self.shown

    def forget(self, urls: Iterable[str]) -> None:
        """These could not be shown."""
        for url in urls:
            self.shown.pop(url, None)

    def fetch(self, url: str, headers: object = None) -> Any:
        """For WeasyPrint: an image of this message or in the page itself. Raises ValueError for all else."""
        from weasyprint.urls import URLFetcher, URLFetcherResponse

        image = self.shown.get(url)
        if image is not None:
            return URLFetcherResponse(url, self._letter.content(image), {"Content-Type": image.media_type})
        if url[:11].lower() == "data:image/":
            return URLFetcher(allowed_protocols=["data"]).fetch(url)
        raise ValueError("not an image of this message")


# Each line looks at all of its text that is left, up to the next place to break: 40,000 letters without one were 17 s.
_ENDLESS: Final = re.compile("[!-~\u00a0-\u024f]{200,}")
_STEP: Final = 40  # the widest letters of a heading fill a line with it
_CHUNK: Final = re.compile(".{1,1000}(?<=[ \n\u200b])|.{1,1000}", re.DOTALL)
_LONG: Final = 2000


def _cut_long_text(root: Element) -> None:
    """Long texts become several, an element of no meaning between them; what has no place to break gets some."""
    for element in list(root.iter()):
        if element.tag in ("style", "title"):
            continue
        if element.text is not None and len(element.text) > 200:
            element.text, rest = _pieces(element.text)
            element[:0] = rest
        for child in list(element):
            if child.tail is not None and len(child.tail) > 200:
                child.tail, rest = _pieces(child.tail)
                at = list(element).index(child) + 1
                element[at:at] = rest


def _pieces(text: str) -> tuple[str, list[Element]]:
    """The first piece, and elements whose tails are the others."""
    text = _ENDLESS.sub(lambda run: "\u200b".join(_steps(run[0])), text)
    if len(text) <= _LONG:
        return text, []
    first, *rest = _CHUNK.findall(text)
    cuts = [Element("mk-cut") for _ in rest]
    for cut, piece in zip(cuts, rest, strict=True):
        cut.tail = piece
    return first, cuts


def _steps(run: str) -> list[str]:
    return [run[start : start + _STEP] for start in range(0, len(run), _STEP)]


def _as_text(letter: Letter) -> Letter:
    """Without its HTML, which the engine could not do. Raises ValueError when it has none."""
    if letter.html is None:
        raise ValueError("it is text already")
    return replace(letter, html=None, text=letter.text or html_text(letter.html))


def _none(attachment: Attachment) -> None:
    return None


def _describe(document: "weasyprint.Document", letter: Letter) -> None:
    about = document.metadata
    about.title = letter.subject or "(no subject)"
    about.authors = [who.name or who.address for who in letter.from_[:1]]
    about.created = letter.date.strftime("%Y-%m-%dT%H:%M:%S%z") if letter.date is not None else None
    if about.created is not None:
        about.created = f"{about.created[:-2]}:{about.created[-2:]}"
    about.description = about.generator = about.modified = None
    about.keywords = []


def _overflow(document: "weasyprint.Document") -> float:
    """How many times wider than its place the widest thing in the document is."""
    from weasyprint.formatting_structure.boxes import ParentBox, ReplacedBox, TextBox

    drawn = (TextBox, ReplacedBox)
    widest = 1.0
    for sheet in document.pages:
        left, width = sheet._page_box.content_box_x(), sheet._page_box.width
        right, boxes = left + width, list(sheet._page_box.children[:1])  # the page's own; no margin boxes
        while boxes:
            box = boxes.pop()
            if isinstance(box, drawn):
                right = max(right, box.position_x + box.width)
            elif isinstance(box, ParentBox) and (box.style["overflow"] == "visible" or _is_mail(box)):
                boxes.extend(box.children)
        widest = max(widest, (right - left) / width)
    return widest


def _zoom(document: "weasyprint.Document") -> float:
    """What makes paper of the document's sheets again."""
    sheet = document.pages[0]
    side: float = min(sheet.width, sheet.height)
    return _PAPER_MM[0] * 96 / 25.4 / side


def _is_mail(box: Any) -> bool:
    """The box that keeps a mail from drawing over its own header."""
    return box.element is not None and "mk-mail" in box.element.get("class", "").split()
