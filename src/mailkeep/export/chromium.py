"""Messages to PDF by a Chromium without a window, over the pipe of its DevTools protocol.

Knows the browser's switches, the few commands that it takes (https://chromedevtools.github.io/devtools-protocol/), and
where the program may be; the page itself comes from `page`. One browser prints many messages; one that does not answer
in time is killed with all its processes, and the next message has another.

The hard idea is what must not happen: nothing is fetched and nothing runs, though the page were to ask for it. The page
is handed over, not navigated to, so that it has no origin and no files; scripts are off in the browser; each name
resolves to nothing, all that is left (addresses, this machine) goes to a proxy that is not there; and DevTools refuses
what is neither a data: URL nor the page. Its profile is a directory of its own that goes with it.
"""

import base64
import binascii
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from mailkeep.errors import ToolMissing
from mailkeep.export import confined, pdf_file
from mailkeep.export.killable import Lost
from mailkeep.export.page import Show, page, problem_page
from mailkeep.export.pdf_engine import Printed
from mailkeep.export.pdf_file import About, Enclosed
from mailkeep.export.pictures import Pictures
from mailkeep.export.writer import Message
from mailkeep.log import Log
from mailkeep.mail.letter import Attachment, letter_of

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING: Final = "PDF by Chromium needs the browser: apt-get install chromium"
PAGE_S: Final = 60  # for a message, and as much again for each MiB of it
START_S: Final = 60
AGE_MAX: Final = 500  # messages for one browser: it never gives all memory back
ANSWER_MAX: Final = 1 << 30
MEMORY_MAX: Final = 4 << 30  # for each of its processes

_DEAD: Final = "http://127.0.0.1:9"  # RFC 863; nothing answers there, and if it did, it would only discard
_SWITCHES: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--blink-settings=scriptEnabled=false",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    f"--proxy-server={_DEAD}",
    "--proxy-bypass-list=<-loopback>",  # not even this machine is reached past the proxy
    "--dns-prefetch-disable",
    "--no-pings",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-component-extensions-with-background-pages",
    "--disable-client-side-phishing-detection",
    "--disable-domain-reliability",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have 64 MiB of it
    "--disable-features=MediaRouter,OptimizationHints,Translate,DialMediaRouteProvider",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-service-autorun",
    "--password-store=basic",
    "--use-mock-keychain",
    "--mute-audio",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
)
_FOOTER: Final = (
    '<div style="width:100%;margin:0 15mm;text-align:right;font:8px sans-serif;color:#666">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></div>'
)
_INCH: Final = 25.4
_PAPER: Final = (210.0, 297.0)  # mm
_MARGIN: Final = 15.0
_WIDTH: Final = 680  # of what is printed, in pixels of CSS: 180 mm
# A mail must not draw over its own header, but it may be wide: it is measured, and shrunk.
_SHEET: Final = ".mk-mail { overflow-x: visible !important; overflow-y: clip !important }"
TURN: Final = 1.25  # times wider than the paper: then the paper lies on its side
SCALE_MIN: Final = 0.2

_log = Log("export")
T = TypeVar("T")


class Chromium:
    """The engine of `--engine chromium`. Raises ToolMissing when there is no such program."""

    def __init__(self) -> None:
        self._program = find()
        self._browser: Browser | None = None
        self._printed = 0

    def print(self, messages: Sequence[Message], *, names: bool) -> Iterator[Printed]:
        """See `pdf_engine.Engine`."""
        for message in messages:
            yield self._print(message, names=names)

    def _print(self, message: Message, *, names: bool) -> Printed:
        letter = letter_of(message.data)
        prefix = f"({message.uid}) " if names else ""
        raw = [Enclosed("message.eml", "message/rfc822", message.data)]
        timeout_s = PAGE_S * (1 + len(message.data) / (1 << 20))
        try:
            pictures = Pictures(letter)
            html = page(message, letter, Show(pictures.url, _none, "print"))
            files = [
                Enclosed(attachment.name, attachment.media_type, letter.content(attachment))
                for attachment in letter.attachments
                if attachment.number not in pictures.shown
            ]
            pdf = self._lay_out(html, timeout_s)
            return Printed(pdf_file.embed(pdf, files, prefix=prefix, about=About.of(letter)))
        except Lost as lost:
            reason = str(lost)
        note = f"could not be shown ({reason}); the message is attached to a page that says so"
        try:
            pdf = self._lay_out(problem_page(message, reason, Show(_none, _none, "print")), timeout_s)
            return Printed(pdf_file.embed(pdf, raw, prefix=prefix, about=About.of(letter)), note)
        except Lost:
            return Printed(pdf_file.plain(pdf_file.excuse(reason), raw, prefix=prefix), note)

    def _lay_out(self, html: str, timeout_s: float) -> bytes:
        if self._browser is not None and self._printed >= AGE_MAX:
            self.close()
        if self._browser is None:
            self._browser, self._printed = Browser(self._program), 0
        self._printed += 1
        try:
            return self._browser.print(html, timeout_s=timeout_s)
        except Lost:
            self.close()
            raise

    def close(self) -> None:
        """End the browser, and remove its profile."""
        browser, self._browser = self._browser, None
        if browser is not None:
            browser.close()


def find() -> str:
    """The browser's program. Raises ToolMissing."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ToolMissing(MISSING)


def _none(attachment: Attachment) -> None:
    return None


class Browser:
    """One running browser with one tab. Raises Lost when it cannot be started; after a Lost it is only to be closed."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="mailkeep-chromium-")
        self._next = 0
        self._left = bytearray()
        self._late = False
        self._session: str | None = None
        self._process = self._start(program)
        try:
            self._timed(START_S, self._open_tab)
        except Lost:
            self.close()
            raise

    def _start(self, program: str) -> subprocess.Popen[bytes]:
        to_it, self._write = os.pipe()
        self._read, from_it = os.pipe()
        switches = [*_SWITCHES, f"--user-data-dir={self._profile}"]
        if os.geteuid() == 0:
            # Its sandbox does not work for root, and it refuses to start.
            _log.warning("chromium runs without its sandbox, because this is root", advice="run as another user")
            switches.append("--no-sandbox")
        # The pipe of the protocol is its descriptors 3 and 4. As another user than root it has a sandbox of its own.
        try:
            return confined.start(
                [program, *switches, "about:blank"],
                home=self._profile,
                limits={"RLIMIT_CORE": 0, "RLIMIT_DATA": MEMORY_MAX},
                descriptors=(to_it, from_it),
                namespace=False,
            )
        finally:
            os.close(to_it)
            os.close(from_it)

    def _open_tab(self) -> None:
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._call("Page.enable")
        self._call("Page.setLifecycleEventsEnabled", {"enabled": True})
        self._call("Emulation.setScriptExecutionDisabled", {"value": True})
        self._call("Network.enable")
        self._call(
            "Network.emulateNetworkConditions",
            {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
        )
        self._call(
            "Network.setBlockedURLs", {"urls": ["http:*", "https:*", "ws:*", "wss:*", "ftp:*", "file:*", "blob:*"]}
        )
        self._call("Emulation.setEmulatedMedia", {"media": "print"})
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": _WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False},
        )
        self._frame = self._call("Page.getFrameTree")["frameTree"]["frame"]["id"]

    def print(self, html: str, *, timeout_s: float) -> bytes:
        """The page as PDF. Raises Lost."""
        return self._timed(timeout_s, lambda: self._print(html))

    def _print(self, html: str) -> bytes:
        html = html.replace("</head>", f"<style>{_SHEET}</style></head>", 1)
        self._call("Page.setDocumentContent", {"frameId": self._frame, "html": html}, until="Page.loadEventFired")
        wide: float = self._call("Page.getLayoutMetrics")["cssContentSize"]["width"] / _WIDTH
        width, height = _PAPER if wide < TURN else (_PAPER[1], _PAPER[0])
        room = (width - 2 * _MARGIN) / (_PAPER[0] - 2 * _MARGIN)
        printed = self._call(
            "Page.printToPDF",
            {
                "printBackground": True,
                "displayHeaderFooter": True,
                "headerTemplate": "<span></span>",
                "footerTemplate": _FOOTER,
                "paperWidth": width / _INCH,
                "paperHeight": height / _INCH,
                "marginTop": _MARGIN / _INCH,
                "marginBottom": _MARGIN * 1.2 / _INCH,
                "marginLeft": _MARGIN / _INCH,
                "marginRight": _MARGIN / _INCH,
                "scale": max(min(room / wide, 1.0), SCALE_MIN),
                "generateTaggedPDF": True,
            },
        )
        try:
            return base64.b64decode(printed["data"])
        except (KeyError, TypeError, binascii.Error):
            raise Lost("the browser gave no PDF") from None

    def _timed(self, timeout_s: float, work: Callable[[], T]) -> T:
        timer = threading.Timer(timeout_s, self._kill_late)
        timer.daemon = True
        timer.start()
        try:
            return work()
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise Lost("it took too long" if self._late else "the browser ended") from error
        finally:
            timer.cancel()

    def _kill_late(self) -> None:
        self._late = True
        confined.kill(self._process)

    def _call(self, method: str, parameters: dict[str, Any] | None = None, *, until: str = "") -> Any:
        """What a command answers; with `until`, not before that event came. Raises OSError, EOFError, Lost."""
        self._next += 1
        command: dict[str, Any] = {"id": self._next, "method": method, "params": parameters or {}}
        if self._session is not None:
            command["sessionId"] = self._session
        view = memoryview(json.dumps(command).encode() + b"\0")
        while view:
            view = view[os.write(self._write, view) :]
        result: Any = None
        while result is None or until:
            told = self._hear()
            if told.get("id") == self._next:
                if "result" not in told:
                    raise Lost(f"the browser refused {method}")
                result = told["result"]
            elif until and told.get("method") == until:
                until = ""
            elif told.get("method") in ("Inspector.targetCrashed", "Target.targetCrashed"):
                raise Lost("the browser's page crashed or ran out of memory")
        return result

    def _hear(self) -> dict[str, Any]:
        while (end := self._left.find(b"\0")) < 0:
            if len(self._left) > ANSWER_MAX:
                raise Lost("the browser's answer has no end")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise EOFError
            self._left += data
        told = self._left[:end]
        del self._left[: end + 1]
        heard: dict[str, Any] = json.loads(told)
        return heard

    def close(self) -> None:
        """End all its processes, and remove its profile."""
        confined.end(self._process)
        for descriptor in (self._read, self._write):
            with suppress(OSError):
                os.close(descriptor)
        shutil.rmtree(self._profile, ignore_errors=True)
