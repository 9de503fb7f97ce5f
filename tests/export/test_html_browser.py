"""The HTML export as its reader meets it: opened from the disk in Chromium, with and without scripts.

Searches are compared with what the words of the index say by Python's rules, so that both sides cut words alike.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import msgspec
import pytest

from mailkeep.export import html_index, html_lists, html_words
from mailkeep.export.files import Files
from mailkeep.export.html_lists import asset
from mailkeep.export.writer import Folder, Message
from tests.browser import Browser, Tab
from tests.export.test_html import HOSTILE, everything, export, rows_of, words_in

Site = tuple[Path, list[list[Any]], dict[str, list[int]]]

REMOTE = "http://127.0.0.1:9/canary"


def encoded(text: str) -> str:
    return f"=?utf-8?B?{base64.b64encode(text.encode()).decode()}?="


def trap() -> bytes:
    """A message that wants to run and to call home in every way, attached and not."""
    page = (
        "<html><script>document.title = 'RAN'</script>"
        f"<body onload=\"document.title='RAN'\"><img src='{REMOTE}'></body></html>"
    )
    drawing = "<svg xmlns='http://www.w3.org/2000/svg'><script>document.title = 'RAN'</script></svg>"
    parts = [("text/html", "", page), ("text/html", "evil.html", page), ("image/svg+xml", "evil.svg", drawing)]
    parts += [("text/plain", HOSTILE, "x"), ("application/octet-stream", "no suffix", page)]
    bodies = "".join(
        f"--b\r\nContent-Type: {kind}; charset=utf-8\r\n"
        + (f'Content-Disposition: attachment; filename="{encoded(name)}"\r\n' if name else "")
        + f"\r\n{text}\r\n"
        for kind, name, text in parts
    )
    return (
        f"From: {encoded(HOSTILE)} <a@example.org>\r\nTo: b@example.org\r\nSubject: {encoded('Trap ' + HOSTILE)}\r\n"
        f"Date: Thu, 15 Jan 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/mixed; boundary="b"\r\n\r\n{bodies}--b--\r\n'
    ).encode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    mail = everything()
    place = Folder("Trap <b>", ("Trap <b>",))
    mail[place] = [Message(10_000, place, 1, frozenset(), 1_768_471_200, trap())]
    out = tmp_path_factory.mktemp("browser") / "a folder with spaces & ümlaut #1"
    export(out, mail)
    return out, rows_of(out), words_in(out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as opened:
        yield opened
        assert not opened.faults()
        assert not [url for url in opened.requests() if not url.startswith(("file:", "data:", "about:"))]


def first_page(site: Site, fragment: str = "") -> str:
    return f"file://{quote(str(site[0] / 'index.html'))}{fragment}"


READY = "document.documentElement.dataset.ready"
SHOWN = (
    "[...document.querySelectorAll('#room .row')].sort((a, b) => a.dataset.at - b.dataset.at)"
    ".map((row) => ({at: +row.dataset.at, subject: row.querySelector('.open')?.textContent,"
    " href: row.querySelector('.open')?.getAttribute('href'), text: row.textContent,"
    " size: row.querySelector('.size')?.textContent}))"
)


def settle(tab: Tab) -> list[dict[str, Any]]:
    """The rows that are shown, once all of them are there."""
    tab.wait(f"{READY} && ![...document.querySelectorAll('#room .row')].some((row) => row.dataset.empty)")
    return list(tab.run(SHOWN))


def after(tab: Tab, act: Callable[[], object]) -> list[dict[str, Any]]:
    """The rows that are shown after something was done."""
    before = tab.run(READY)
    act()
    tab.wait(f"{READY} !== {json.dumps(before)}")
    return settle(tab)


def status(tab: Tab) -> str:
    return str(tab.run("document.getElementById('status').textContent"))


def test_the_inbox_is_shown_newest_first(site: Site, tab: Tab) -> None:
    tab.open(first_page(site))
    rows = settle(tab)
    assert status(tab) == "81 messages"
    inbox = sorted((row for row in site[1][:300] if "mail/INBOX/" + row[0] in paths(site)), key=lambda row: -row[5])
    assert [row["subject"] for row in rows] == [row[1] for row in inbox[: len(rows)]]
    assert len(rows) < 60, "all rows are drawn at once"
    assert tab.run("document.title") == "INBOX · demo@example.org"


def paths(site: Site) -> set[str]:
    return {str(path.relative_to(site[0]))[: -len(".html")] for path in (site[0] / "mail").rglob("*.html")}


def test_it_scrolls_to_the_end(site: Site, tab: Tab) -> None:
    tab.open(first_page(site))
    settle(tab)
    tab.run("document.getElementById('rows').scrollTop = 1e9")
    tab.wait("document.querySelector('#room .row[data-at=\"80\"] .open')")


@pytest.mark.parametrize(("column", "place"), [("from", 2), ("subject", 1), ("date", 5), ("size", 6)])
def test_columns_sort_both_ways(site: Site, tab: Tab, column: str, place: int) -> None:
    tab.open(first_page(site))
    settle(tab)
    by_href = {quote(f"mail/INBOX/{row[0]}.html", safe="/"): row for row in site[1]}
    directions = set()
    for _ in range(2):
        rows = after(tab, lambda: tab.click(f"#head .{column} button"))
        values = [by_href[quote(unquote(row["href"]), safe="/")][place] for row in rows]
        if place == 1:
            values = [html_words.fold(re.sub(r"^((re|fwd?): *)+", "", value, flags=re.IGNORECASE)) for value in values]
        elif place == 2:
            values = [html_words.fold(value) for value in values]
        direction = tab.run(f"document.querySelector('#head .{column}').getAttribute('aria-sort')")
        directions.add(direction)
        assert values == sorted(values, reverse=direction == "descending")
    assert directions == {"ascending", "descending"}


def expected(words: dict[str, list[int]], query: str) -> set[int]:
    """By Python's words: all of them, each as a beginning; neighbours of scripts without spaces as they are."""
    found: set[int] | None = None
    for text in query.split():
        for word in html_words.words_of(text):
            unspaced = re.search("[\u0e00-\u0eff\u3041-\u30ff\u4e00-\u9fff]", word) is not None
            if unspaced and len(word) == 1 and len(text) > 1:
                continue
            whole = unspaced and len(word) > 1
            hits = {n for each, ns in words.items() if (each == word if whole else each.startswith(word)) for n in ns}
            found = hits if found is None else found & hits
    return found if found is not None else set()


QUERIES = (
    """
harbour|HARB|boat weekend|invoice march|grüße|GRUSSE|naive|sommerfest|photos pier|jonas|anna@example.org|写真|写
周末去爬山|ありがとう|الخريطة|خريطة|שלום|привет|🎉|日本|한국|zzzznothing|the old version|re|a|leaflet.pdf|Ελλάδα
trap alert|x-klingon|naïve 你好
""".strip()
    .replace("\n", "|")
    .split("|")
)


def test_searches_find_what_the_words_say(site: Site, tab: Tab) -> None:
    tab.open(first_page(site))
    settle(tab)
    for query in QUERIES:
        address = "#" + urlencode({"q": query})
        rows = after(tab, lambda address=address: tab.run(f"location.hash = {json.dumps(address)}"))  # type: ignore[misc]
        count = len(expected(site[2], query))
        said = status(tab)
        assert said.startswith("Nothing found" if count == 0 else f"{count:,} message"), (query, said)
        assert len(rows) == min(count, len(rows))
        assert bool(rows) == bool(count)


def test_fields_states_and_not(site: Site, tab: Tab) -> None:
    words = site[2]
    tab.open(first_page(site))
    settle(tab)
    starts = lambda start: {n for word, ns in words.items() if word.startswith(start) for n in ns}  # noqa: E731
    everyone = set(range(len(site[1])))
    for query, wanted in {
        "from:jonas": starts("f:jonas"),
        "subject:boat from:hana": starts("s:boat") & starts("f:hana"),
        "to:demo@example.org": starts("t:demo") & starts("t:example") & starts("t:org"),
        "file:pdf": starts("a:pdf"),
        "has:attachment": set(words["h:attachment"]),
        "is:starred": set(words["i:starred"]),
        "is:unread the": set(words["i:unread"]) & starts("the"),
        "the -boat": starts("the") - starts("boat"),
        "-is:unread": everyone - set(words["i:unread"]),
    }.items():
        address = "#" + urlencode({"q": query})
        after(tab, lambda address=address: tab.run(f"location.hash = {json.dumps(address)}"))  # type: ignore[misc]
        assert status(tab).startswith(f"{len(wanted):,} message"), query
        assert wanted


def test_typing_searches_and_a_click_opens_and_back_comes_back(site: Site, tab: Tab) -> None:
    tab.open(first_page(site))
    settle(tab)
    tab.press("/")
    rows = after(tab, lambda: tab.type("boat weekend"))
    assert rows and all("Boat for the weekend" in row["subject"] for row in rows)
    tab.click("#room .row[data-at='1'] .open")
    tab.loaded()
    assert "Boat for the weekend" in tab.run("document.querySelector('h1').textContent")
    tab.run("history.back()")
    tab.wait("document.getElementById('q')?.value === 'boat weekend'")
    assert [row["subject"] for row in settle(tab)] == [row["subject"] for row in rows]


def test_the_keyboard_is_enough(site: Site, tab: Tab) -> None:
    tab.open(first_page(site))
    rows = settle(tab)
    tab.run("document.getElementById('rows').focus()")
    for _ in range(3):
        tab.press("ArrowDown")
    subject = tab.run("document.activeElement.textContent")
    assert subject == rows[2]["subject"]
    tab.press("End")
    tab.wait("document.activeElement.closest?.('.row')?.dataset.at === '80'")
    tab.run("document.getElementById('rows').focus()")
    tab.press("Home")
    tab.wait("document.activeElement.closest?.('.row')?.dataset.at === '0'")
    tab.press("Enter")
    tab.loaded()
    assert tab.run("document.querySelector('h1').textContent") == rows[0]["subject"]


def rows_only(place: Path, count: int) -> None:
    """An index of so many messages, whose pages are not there."""
    folder = Folder("INBOX", ("INBOX",))
    place.mkdir()
    log = place.with_name("rows").open("wb")
    for number in range(count):
        shown = html_index.Shown("x", f"Subject {number}", f"Name {number % 99}", "a@x.org", "", number, 1, 1, 0, "")
        row = html_index.Row(
            0, shown, str(number % 99), f"s{number}", False, None, (), f"all n{number} m{number % 999}"
        )
        log.write(json.dumps(msgspec.to_builtins(row)).encode() + b"\n")
    log.close()
    listed = [html_lists.Listed(folder.path, "mail/INBOX", (), [[0, count]])]
    files = Files(place)
    scratch = place.with_name("scratch")
    scratch.mkdir()
    index = html_index.Index(place.with_name("rows"), files, scratch)
    index.build()
    index.close()
    told = html_lists.account("x", listed, chunk=128, per_folder=500, words=index.first_words)
    files.put("index/account.js", html_index.script("account", json.dumps(told).encode()))
    files.put("index/site.js", asset("site.js"))
    files.put("index/site.css", asset("site.css"))
    files.put("index.html", html_lists.first_page("x", listed, "").encode())


@pytest.mark.skipif(os.environ.get("MAILKEEP_TORTURE") != "full", reason="MAILKEEP_TORTURE=full only")
def test_a_list_longer_than_a_browser_can_lay_out(tmp_path: Path, browser: Browser) -> None:
    count = 600_000  # rows of 34 pixels; browsers end at some 17 million pixels
    rows_only(tmp_path / "out", count)
    with browser.tab() as tab:
        tab.open((tmp_path / "out" / "index.html").as_uri())
        assert settle(tab)[0]["subject"] == f"Subject {count - 1}"
        tab.run("document.getElementById('rows').focus()")
        tab.press("End")
        tab.wait(f"document.activeElement.closest?.('.row')?.dataset.at === '{count - 1}'")
        assert settle(tab)[-1]["subject"] == "Subject 0"
        for query, found in {"n123456": 1, "m776": 600, "all": count, "n59999": 11}.items():
            rows = after(tab, lambda query=query: tab.run(f"location.hash = '#q={query}'"))  # type: ignore[misc]
            assert status(tab).startswith(f"{found:,} message"), (query, status(tab))
            assert rows


def test_conversations_hold_together(site: Site, tab: Tab) -> None:
    tab.open(first_page(site, "#q=minutes+tuesday&threads=1"))
    rows = settle(tab)
    subjects = [row["subject"] for row in rows if "Minutes of Tuesday" in row["subject"]]
    assert len(subjects) > 3
    first = next(row for row in rows if row["subject"] == "Re: Minutes of Tuesday")
    tab.click(f"#room .row[data-at='{first['at']}'] .open")
    tab.loaded()
    tab.click("nav a[href*='#c']")
    tab.loaded()
    together = settle(tab)
    assert status(tab) == f"Conversation of {len(together)} messages"
    assert all("Minutes of Tuesday" in row["subject"] for row in together)
    assert any("Sent" in row["text"] for row in together)


def test_without_scripts_every_message_can_be_reached(site: Site, browser: Browser) -> None:
    with browser.tab(scripts=False) as tab:
        tab.open(first_page(site))
        tab.click("#f1")
        tab.loaded()
        tab.click("table a")
        tab.loaded()
        tab.click("nav a[rel=prev]")
        tab.loaded()
        tab.click("nav a[href*='#f']")
        tab.loaded()
        assert not tab.faults()


def test_hostile_mail_stays_text_and_calls_nobody(site: Site, browser: Browser) -> None:
    with browser.tab() as tab:
        tab.open(first_page(site, "#q=trap"))
        rows = settle(tab)
        assert rows[0]["subject"].startswith("Trap </script><script>alert(1)</script><img src=x onerror=alert(1)>")
        assert tab.run("document.querySelectorAll('img, #list script').length") == 0
        tab.click("#room .open")
        tab.loaded()
        assert tab.run("document.title").startswith("Trap </script>")
        assert tab.run("document.querySelectorAll('script, [onload], [onerror]').length") == 0
        names = tab.run("[...document.querySelectorAll('.mk-files a')].map((a) => a.getAttribute('href'))")
        assert len(names) == 4
        here = tab.run("location.href")
        for name in names:
            if name.endswith(".bin"):
                continue  # is downloaded, whatever is in it
            tab.open(here.rpartition("/")[0] + "/" + name)
            assert tab.run("document.title") != "RAN", name
            assert tab.run("document.contentType") == "text/plain", name
        assert not [url for url in tab.requests() if not url.startswith(("file:", "data:", "about:"))]


def test_a_phone_shows_all_of_it(site: Site, browser: Browser) -> None:
    with browser.tab(width=360, height=640) as tab:
        tab.open(first_page(site))
        rows = settle(tab)
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        tab.click("#show-folders")
        assert tab.run("document.getElementById('folders').offsetHeight") > 100
        after(tab, lambda: tab.click("#folders a[data-folder='1']"))
        assert tab.run("document.getElementById('folders').offsetHeight") == 0
        assert rows


def test_a_piece_that_is_missing_is_told(site: Site, browser: Browser) -> None:
    moved = site[0] / "index" / "order-size.js"
    kept = moved.read_bytes()
    moved.unlink()
    try:
        with browser.tab() as tab:
            tab.open(first_page(site))
            settle(tab)
            tab.click("#head .size button")
            tab.wait("document.getElementById('status').textContent.includes('not complete')")
    finally:
        moved.write_bytes(kept)


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_from_its_ground() -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    sheet = asset("site.css").decode()
    themes = re.findall(r":root \{([^}]*--text[^}]*)\}", sheet)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #([0-9a-f]+)", theme))
        for ink in ("text", "dim", "link"):
            for ground in ("back", "side", "mark"):
                light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
