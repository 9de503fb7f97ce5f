"""Nothing that a message contains is fetched and nothing in it runs, in any engine that an export uses or is opened in.

A server on this machine, the canary, must see no request. Hostile mail goes through each engine twice: as it is
exported, and with the filter of the HTML taken away, since the engine and the page's own policy have to hold alone.
That the canary sees what happens is shown first, by pages that are neither filtered nor held.
"""

import http.server
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.export import page
from mailkeep.export.formats import FORMATS
from mailkeep.export.writer import Folder, Message, Options
from mailkeep.mail.safe_html import SafeHtml
from tests.browser import Browser
from tests.export import hostile
from tests.programs import find_program, need_files


class Canary:
    """An HTTP server that notes every path, and a port that notes every connection, as if it spoke TLS."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        canary = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.startswith("/fence"):
                    canary.seen.append(f"{self.command} {self.path}")
                body = b'<link rel="icon" href="data:,">' if self.path.startswith("/fence") else b""
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_HEAD = do_OPTIONS = do_PROPFIND = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._tls = socket.create_server(("127.0.0.1", 0))
        self.http = f"http://127.0.0.1:{self._server.server_port}"
        self.https = f"https://127.0.0.1:{self._tls.getsockname()[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._tls.accept()
            except OSError:
                return
            self.seen.append("a connection for TLS")
            connection.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._tls.shutdown(socket.SHUT_RDWR)
        self._tls.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    """One for each test: what a browser still has under way goes to the one before."""
    opened = Canary()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(params=["filtered", "unfiltered"])
def filtering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without the filter of the HTML."""
    if request.param == "unfiltered":
        monkeypatch.setattr(page, "sanitise", lambda html, **_: SafeHtml(html, 0, "auto"))
    return str(request.param)


def export(name: str, place: Path, canary: Canary, *, filtering: str, engine: str = "") -> list[Path]:
    """Hostile messages through a format; the files that came of it."""
    folder = Folder("INBOX", ("INBOX",))
    past = filtering == "filtered"
    data = [
        hostile.message(canary.http, past_policy=past),
        hostile.message(canary.https, past_policy=past),
        hostile.text_message(canary.http),
    ]
    messages = [Message(n, folder, n, frozenset(), 1_768_903_200, raw) for n, raw in enumerate(data, 1)]
    row = FORMATS[name]
    place.mkdir()
    writer = row.make(place, Options(format=name, per=row.per[0], engine=engine, folders=(folder,)), None)
    try:
        writer.folder(folder)
        written = writer.write(messages)
        writer.checkpoint()
        writer.finish()
    finally:
        writer.abandon()
    assert [one.note for one in written] == [None] * len(messages)
    assert row.count(place) == len(messages)
    return [place / one.file for one in written]


def visit(browser: Browser, url: str, canary: Canary) -> dict[str, object]:
    """Open a page as a reader does; what it has become. Loads that it began have arrived when this returns."""
    with browser.tab() as tab:
        tab.open(url)
        state: dict[str, object] = {
            "title": tab.run("document.title"),
            "run": tab.run("document.querySelector('[data-run]') !== null"),
            "url": tab.run("document.URL"),
        }
        # Whatever was queued before this is sent before it.
        with browser.tab() as other:
            other.open(f"{canary.http}/fence")
    return state


def test_the_canary_sees_an_unfiltered_page(browser: Browser, canary: Canary, tmp_path: Path) -> None:
    bare = tmp_path / "bare.html"
    bare.write_text("<meta charset=utf-8>" + hostile.document(canary.http), encoding="utf-8")
    with browser.tab() as tab:
        tab.open(bare.as_uri())
        assert tab.run("document.title") == "run"
        with browser.tab() as other:
            other.open(f"{canary.http}/fence")
    seen = {line.partition(" ")[2].strip("/") for line in canary.seen}
    assert {"img", "srcset", "onerror", "link-stylesheet", "css-import-string", "css-import-url",
            "object", "poster", "script-src", "script", "table-background", "style-attribute", "td-style",
            "inline-svg-image", "input-image", "css-escaped"} <= seen  # fmt: skip
    bare.write_text(hostile.document(canary.https), encoding="utf-8")
    with browser.tab() as tab:
        tab.open(bare.as_uri())
    assert "a connection for TLS" in canary.seen


@pytest.mark.parametrize("name", ["html", "mht"])
def test_opened_in_a_browser(name: str, filtering: str, browser: Browser, canary: Canary, tmp_path: Path) -> None:
    for number, file in enumerate(export(name, tmp_path / "out", canary, filtering=filtering), 1):
        state = visit(browser, file.as_uri(), canary)
        assert canary.seen == [], f"message {number}"
        assert state["url"] == file.as_uri()
        assert state["run"] is False
        assert str(state["title"]).startswith("<script>" if number < 3 else "text")


@pytest.mark.parametrize("engine", ["weasyprint", "chromium"])
def test_pdf(engine: str, filtering: str, canary: Canary, tmp_path: Path) -> None:
    if engine == "chromium":
        find_program("chromium")
    else:
        need_files("Pango")
    for file in export("pdf", tmp_path / "out", canary, filtering=filtering, engine=engine):
        assert file.read_bytes().startswith(b"%PDF-")
    assert canary.seen == []


def test_docx(filtering: str, canary: Canary, tmp_path: Path) -> None:
    find_program("soffice")
    files = export("docx", tmp_path / "out", canary, filtering=filtering)
    assert canary.seen == []
    if filtering == "filtered":
        for file in files:
            with zipfile.ZipFile(file) as archive:
                foreign = [
                    found
                    for name in archive.namelist()
                    if name.endswith(".rels")
                    for found in re.findall(
                        r'<Relationship [^>]*TargetMode="External"[^>]*>', archive.read(name).decode()
                    )
                ]
            assert all("/hyperlink" in found for found in foreign), foreign
