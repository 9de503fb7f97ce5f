"""HTML: what is in the pages is what is in the letters, every link leads somewhere, and nothing of mail can run.

The pages are read back with the standard library's parser, the index with a decoder of its own; how both behave in a
browser is tests/export/test_html_browser.py.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from mailkeep.errors import CannotWrite
from mailkeep.export import demo, html, html_index, html_words
from mailkeep.export.html_attachments import file_name
from mailkeep.export.names import Names
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.mail.letter import Attachment, letter_of
from tests.messages import corpus, numbered

SPECIAL = {"Sent": "\\Sent", "Drafts": "\\Drafts", "Trash": "\\Trash", "Junk": "\\Junk", "Archive": "\\Archive"}


def folder(name: str) -> Folder:
    return Folder(name, tuple(name.split("/")), frozenset({SPECIAL[name]} if name in SPECIAL else ()))


def messages_of(mail: dict[str, list[tuple[bytes, frozenset[str], int]]]) -> dict[Folder, list[Message]]:
    number = 0
    found: dict[Folder, list[Message]] = {}
    for name, kept in mail.items():
        place = folder(name)
        found[place] = []
        for uid, (data, flags, when) in enumerate(kept, 1):
            number += 1
            found[place].append(Message(number, place, uid, flags, when, data))
    return found


def everything() -> dict[Folder, list[Message]]:
    """The demo account, and the corpus in a folder of its own."""
    mail: dict[str, list[tuple[bytes, frozenset[str], int]]] = {}
    for item in demo.items():
        data = b"".join(item.chunks)
        for name in item.mailboxes:
            mail.setdefault(name or "INBOX", []).append((data, item.flags, item.internaldate or 0))
    mail["Corpus"] = [(data, frozenset(), 1_700_000_000 + at) for at, (_, data) in enumerate(corpus())]
    mail["Empty/Below"] = []
    return messages_of(mail)


def export(place: Path, mail: dict[Folder, list[Message]], *, title: str = "demo@example.org") -> list[Written]:
    place.mkdir()
    writer = html.make(place, Options(title=title, folders=tuple(mail)), None)
    written = []
    for each, kept in mail.items():
        writer.folder(each)
        for at in range(0, len(kept), 64):
            written += writer.write(kept[at : at + 64])
    writer.checkpoint()
    writer.finish()
    return written


@pytest.fixture(scope="module")
def mail() -> dict[Folder, list[Message]]:
    return everything()


@pytest.fixture(scope="module")
def site(mail: dict[Folder, list[Message]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Written]]:
    place = tmp_path_factory.mktemp("html") / "out"
    return place, export(place, mail)


class Page(HTMLParser):
    """A page, read with no knowledge of who wrote it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.title = ""
        self.fields: dict[str, str] = {}
        self.links: list[tuple[str, str]] = []  # rel, href
        self.sources: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.files: list[str] = []
        self._open: list[str] = []
        self._field = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "a" and found.get("href"):
            self.links.append((found.get("rel") or "", found["href"] or ""))
        if found.get("src"):
            self.sources.append(found["src"] or "")
        if tag == "th":
            self._field = ""
        if tag == "li":
            self.files.append("")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "title":
            self.title += data
        elif inside == "style":
            pass
        elif inside == "th":
            self._field += data
        else:
            if "td" in self._open and self._field and "h2" not in self._open:
                self.fields[self._field] = self.fields.get(self._field, "") + data
            if "li" in self._open and self.files:
                self.files[-1] += data
            self.text.append(data)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def bare(text: str) -> str:
    """Without white space and controls, which a page may set as it likes."""
    return re.sub(r"[\s\x00-\x1f\x7f\x80-\x9f]+", "", text)


def pairs(mail: dict[Folder, list[Message]], written: Sequence[Written]) -> Iterator[tuple[Message, Written]]:
    yield from zip((message for kept in mail.values() for message in kept), written, strict=True)


def test_each_message_has_its_page_and_its_bytes(site: tuple[Path, list[Written]], mail: dict) -> None:  # type: ignore[type-arg]
    place, written = site
    assert html.count(place) == len(written) == len({each.file for each in written})
    for message, each in pairs(mail, written):
        assert (place / each.file).with_suffix(".eml").read_bytes() == message.data
        assert each.note is None, each


def test_pages_say_what_the_letters_say(site: tuple[Path, list[Written]], mail: dict) -> None:  # type: ignore[type-arg]
    place, written = site
    for message, each in pairs(mail, written):
        letter = letter_of(message.data)
        page = read(place / each.file)
        assert bare(page.title)[:1000] == bare(letter.subject or "(no subject)")[:1000], each
        for field, people in (("From", letter.from_), ("To", letter.to), ("Cc", letter.cc)):
            shown = bare(page.fields.get(field, ""))
            for name, address in people[:1000]:
                assert bare(name) in shown, (each, field)
                assert bare(address) in shown, (each, field)
        if letter.date is not None:
            date = page.fields["Date"]
            assert str(letter.date.year) in date and f"{letter.date:%H:%M}" in date, each
        if letter.text is not None and letter.html is None:
            assert bare(letter.text) in bare("".join(page.text)), each
        listed = bare("".join(page.files))
        for attachment in letter.attachments:
            if not attachment.inline and attachment.name:
                assert bare(attachment.name) in listed, (each, attachment.name)


def test_attachments_lie_beside_with_their_bytes(site: tuple[Path, list[Written]], mail: dict) -> None:  # type: ignore[type-arg]
    place, written = site
    seen = 0
    for message, each in pairs(mail, written):
        letter = letter_of(message.data)
        directory = place / (each.file.removesuffix(".html") + " files")
        there = sorted(path.read_bytes() for path in directory.iterdir()) if directory.is_dir() else []
        assert there == sorted(letter.content(attachment) for attachment in letter.attachments), each
        seen += len(there)
    assert seen > 20


def test_every_link_leads_somewhere_and_every_picture_is_there(site: tuple[Path, list[Written]]) -> None:
    place, _ = site
    pictures = 0
    for path in place.rglob("*.html"):
        page = read(path)
        for rel, href in page.links:
            if not re.match(r"[a-z]+:", href) and not href.startswith("#"):
                assert (path.parent / unquote(href.partition("#")[0])).is_file(), (path, rel, href)
        for source in page.sources:
            if not source.startswith("data:"):
                pictures += source.endswith((".png", ".jpg", ".gif"))
                assert (path.parent / unquote(source)).is_file(), (path, source)
    assert pictures > 0


def test_previous_and_next_lead_through_each_folder(site: tuple[Path, list[Written]], mail: dict) -> None:  # type: ignore[type-arg]
    place, written = site
    files = [each.file for each in written]
    at = 0
    for kept in mail.values():
        mine = files[at : at + len(kept)]
        at += len(kept)
        for number, file in enumerate(mine):
            links = dict(read(place / file).links[:4])
            for rel, other in (("prev", number - 1), ("next", number + 1)):
                if 0 <= other < len(mine):
                    target = (place / file).parent / unquote(links[rel])
                    assert target.resolve() == (place / mine[other]).resolve()
                else:
                    assert rel not in links


def test_plain_lists_name_every_message(site: tuple[Path, list[Written]]) -> None:
    place, written = site
    reached = set()
    start = read(place / "index.html")
    lists = [href for _, href in start.links if href.startswith("lists/")]
    todo, done = list(lists), set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        page = read(place / name)
        for _, href in page.links:
            if re.fullmatch(r"\d+-\d+\.html", href):
                todo.append(f"lists/{href}")
            elif href.startswith("../mail/"):
                reached.add(unquote(href.removeprefix("../")))
    assert reached == {each.file for each in written}
    assert len(lists) == len([path for path in (place / "lists").iterdir() if path.name.endswith("-1.html")])


POLICIES = ("default-src 'none'",)


def test_no_page_of_a_message_can_run_anything(site: tuple[Path, list[Written]]) -> None:
    place, _ = site
    for path in place.rglob("*.html"):
        page = read(path)
        policy = next(attrs for tag, attrs in page.elements if "http-equiv" in attrs)
        assert (policy["content"] or "").startswith("default-src 'none'")
        scripts = [attrs for tag, attrs in page.elements if tag == "script"]
        assert len(scripts) == (2 if path == place / "index.html" else 0), path
        assert "script-src" in (policy["content"] or "") or path != place / "index.html"
        for tag, attrs in page.elements:
            assert tag not in ("iframe", "object", "embed", "form", "base"), path
            assert not any(name.startswith("on") for name in attrs), (path, tag)
            assert tag != "meta" or "refresh" not in (attrs.get("http-equiv") or "")
        assert not [source for source in page.sources if re.match(r"(?!data:)[a-z]+:|//", source)], path


def data_of(path: Path) -> object:
    text = path.read_text(encoding="utf-8")
    match = re.fullmatch(r'mailkeep\("[\w-]+",(.*)\);\n', text, re.DOTALL)
    assert match is not None, path
    assert "<" not in text and "\u2028" not in text and "\u2029" not in text
    return json.loads(match[1])


def rows_of(place: Path) -> list[list]:  # type: ignore[type-arg]
    chunks = sorted((place / "index" / "rows").rglob("*.js"), key=lambda path: int(path.stem))
    return [row for chunk in chunks for row in data_of(chunk)]  # type: ignore[attr-defined]


def test_the_index_has_a_row_for_each_message(site: tuple[Path, list[Written]], mail: dict) -> None:  # type: ignore[type-arg]
    place, written = site
    account = data_of(place / "index" / "account.js")
    assert isinstance(account, dict)
    directories = {}
    for each in account["folders"]:
        for first, length in each["ranges"]:
            directories.update(dict.fromkeys(range(first, first + length), each["directory"]))
    rows = rows_of(place)
    assert len(rows) == account["count"] == len(written)
    for number, ((message, each), row) in enumerate(zip(pairs(mail, written), rows, strict=True)):
        letter = letter_of(message.data)
        assert f"{directories[number]}/{row[0]}.html" == each.file
        assert row[1] == letter.subject[:300]
        assert row[6] == len(message.data)
        assert bool(row[7] & 1) == ("\\Seen" in message.flags)
        if letter.from_:
            assert row[2] == (letter.from_[0].name or letter.from_[0].address)[:100]


DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def number_of(text: str) -> int:
    value = 0
    for digit in text:
        value = value * 64 + DIGITS.index(digit)
    return value


def test_orders_are_orders_of_all(site: tuple[Path, list[Written]]) -> None:
    place, _ = site
    rows = rows_of(place)
    for name, key in (("date", 5), ("size", 6)):
        text = data_of(place / "index" / f"order-{name}.js")
        assert isinstance(text, str)
        ids = [number_of(text[at : at + 4]) for at in range(0, len(text), 4)]
        assert sorted(ids) == list(range(len(rows)))
        assert [rows[id][key] for id in ids] == sorted(row[key] for row in rows)
    for name, key in (("from", 2), ("subject", 1)):
        text = data_of(place / "index" / f"order-{name}.js")
        assert isinstance(text, str)
        ids = [number_of(text[at : at + 4]) for at in range(0, len(text), 4)]
        assert sorted(ids) == list(range(len(rows)))
        if name == "from":
            folded = [html_words.fold(rows[id][key])[:100] for id in ids]
            assert folded == sorted(folded)


def test_conversations_are_those_of_the_demo(site: tuple[Path, list[Written]]) -> None:
    place, _ = site
    rows = rows_of(place)
    text = data_of(place / "index" / "threads.js")
    assert isinstance(text, str)
    threads: list[list[tuple[int, int]]] = []
    for at in range(0, len(text), 5):
        depth = DIGITS.index(text[at])
        if depth >= 32:
            threads.append([])
        threads[-1].append((number_of(text[at + 1 : at + 5]), depth % 32))
    assert all(len(thread) > 1 and thread[0][1] == 0 for thread in threads)
    members = [number for thread in threads for number, _ in thread]
    assert len(members) == len(set(members))
    demo_thread = next(
        thread for thread in threads if sum("Minutes of Tuesday" in rows[number][1] for number, _ in thread) > 3
    )
    assert max(depth for _, depth in demo_thread) >= 3


ALPHABET = [chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\<']


def numbers_of(text: str) -> list[int]:
    """The differences of a posting list, summed: an independent reading of its form."""
    numbers, number, at = [], 0, 0
    while at < len(text):
        difference, scale = 0, 1
        while (value := ALPHABET.index(text[at])) >= 46:
            difference += (value - 46) * scale
            scale *= 46
            at += 1
        number += difference + value * scale
        numbers.append(number)
        at += 1
    return numbers


def words_in(place: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for path in sorted((place / "index" / "words").rglob("*.js"), key=lambda path: int(path.stem)):
        data = data_of(path)
        assert isinstance(data, list)
        for word, numbers in zip(data[::2], data[1::2], strict=True):
            assert word not in found
            found[word] = numbers_of(numbers)
    assert list(found) == sorted(found)
    return found


def test_words_find_exactly_the_messages_that_have_them(site: tuple[Path, list[Written]], mail: dict) -> None:  # type: ignore[type-arg]
    place, written = site
    words = words_in(place)
    account = data_of(place / "index" / "account.js")
    assert isinstance(account, dict)
    assert account["words"] == sorted(account["words"])
    seen: dict[str, list[int]] = {}
    for number, (message, _) in enumerate(pairs(mail, written)):
        letter = letter_of(message.data)
        assert number in words["i:read" if "\\Seen" in message.flags else "i:unread"]
        text = " ".join([letter.subject, letter.text or "", *(f"{n} {a}" for n, a in (*letter.from_, *letter.to))])
        for word in html_words.words_of(text):
            seen.setdefault(word, []).append(number)
    assert len(seen) > 1000
    for word, numbers in seen.items():
        assert set(numbers) <= set(words[word]), word


def test_runs_merge_to_what_one_run_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    vocabulary = [f"w{number}" for number in range(300)] + ["日本", "🦊", "zeta\U00020000", "\ufffd"]
    mail = [sorted(rng.sample(vocabulary, rng.randint(0, 30))) for _ in range(2000)]
    found = []
    for run_max in (10**9, 500):
        monkeypatch.setattr(html_words, "RUN_MAX", run_max)
        monkeypatch.setattr(html_words, "SHARD_SIZE", 2000)
        scratch = tmp_path / str(run_max)
        scratch.mkdir()
        index = html_words.WordIndex(scratch)
        for number, words in enumerate(mail):
            index.add(number, words)
        found.append(list(index.shards()))
    assert found[0] == found[1]
    lists: dict[str, list[int]] = {}
    for first, data in found[0]:
        shard = json.loads(data)
        assert shard[0] == first
        lists.update({word: numbers_of(text) for word, text in zip(shard[::2], shard[1::2], strict=True)})
    assert lists == {word: [n for n, words in enumerate(mail) if word in words] for word in lists}
    assert len(lists) == len(vocabulary)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Grüße, STRASSE straße", {"grusse", "strasse"}),
        ("naïve Ångström", {"naive", "angstrom"}),
        ("日本語", {"日本", "本語", "語"}),
        ("ﬁle ＡＢＣ １２", {"file", "abc", "12"}),
        ("مَرْحَبًا", {"مرحبا"}),
        ("हिन्दी", {"हिन्दी"}),
        ("ёлка Ελλάς", {"елка", "ελλασ"}),
        ("a_b c-d e.f@g", {"a", "b", "c", "d", "e", "f", "g"}),
        ("🦊x", {"🦊", "x"}),
        ("x" * 40, {"x" * 24}),
        ("", set()),
    ],
)
def test_words(text: str, words: set[str]) -> None:
    assert html_words.words_of(text) == words


def attachment(name: str, media_type: str = "application/octet-stream") -> Attachment:
    part = letter_of(b"x").root
    return Attachment(1, name, media_type, None, None, inline=False, message=False, part=part)


@pytest.mark.parametrize(
    ("name", "media_type", "file"),
    [
        ("report.pdf", "application/pdf", "report.pdf"),
        ("evil.html", "text/html", "evil.html.txt"),
        ("evil.HTM", "text/html", "evil.HTM.txt"),
        ("drawing.svg", "image/svg+xml", "drawing.svg.txt"),
        ("run.exe", "application/pdf", "run.exe.txt"),
        ("page.xhtml", "image/png", "page.xhtml.txt"),
        ("script.js", "text/javascript", "script.js.txt"),
        ("link.url", "text/plain", "link.url.txt"),
        ("noextension", "application/octet-stream", "noextension.bin"),
        ("noextension", "text/html", "noextension.html.txt"),
        ("noextension", "x/unheard", "noextension.txt"),
        ("", "image/png", "attachment 1.png"),
        ("", "x/unheard", "attachment 1.txt"),
        ("../../etc/passwd", "text/plain", "passwd.txt"),
        ("C:\\Users\\x\\evil.hta", "text/plain", "evil.hta.txt"),
        ("evil.html.", "text/html", "evil.html.txt"),
        ("evil.html ", "text/html", "evil.html.txt"),
        ("photo\u202egnp.exe", "image/png", "photo_gnp.exe.txt"),
        ("evil.ht\u200bml", "text/html", "evil.ht_ml.html.txt"),
        ("con.txt", "text/plain", "_con.txt"),
        (".htaccess", "text/plain", "htaccess.txt"),
    ],
)
def test_no_file_beside_a_page_is_one_that_runs(name: str, media_type: str, file: str) -> None:
    assert file_name(Names(), attachment(name, media_type)) == file


def test_names_of_any_kind_end_in_a_suffix_that_nothing_runs() -> None:
    rng = random.Random(11)
    letters = "abc.. /\\<>:\u202e\u0301\u200b日🦊ÿ\x00\n\tHTMLhtmlsvgexe"
    for _ in range(3000):
        name = "".join(rng.choices(letters, k=rng.randint(0, 120)))
        found = file_name(Names(), attachment(name, rng.choice(["text/html", "image/png", "x/y"])))
        assert len(found.encode()) <= 72
        suffix = found.rpartition(".")[2].lower()
        assert suffix in ("txt", "png", "bin", "c", "h"), (name, found)


@pytest.mark.parametrize("name", ["a.dat", "a.bin", "a.conf", "htaccess.LOG", "a.md"])
def test_what_looks_like_a_page_is_no_kind_that_a_browser_guesses(name: str) -> None:
    """Firefox looks inside where it knows no type for a suffix."""
    for content in (b"<html>", b" \r\n\t<!doctype html>", b"\xef\xbb\xbf<script>", "\ufeff<svg".encode("utf-16-le")):
        assert file_name(Names(), attachment(name), content) == f"{name}.txt"
        assert file_name(Names(), attachment("a.png"), content) == "a.png"
    for content in (b"", b"text <html>", b"<3 hearts", b"\0\1<"):
        assert file_name(Names(), attachment(name), content) == name


def test_equal_names_in_any_case_are_told_apart() -> None:
    names = Names()
    found = [file_name(names, attachment(name)) for name in ("a.html", "A.HTML", "a.html.txt", "a.txt", "a")]
    assert len({name.lower() for name in found}) == 5


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u2028\u2029<!--"


def test_hostile_names_and_subjects_stay_text(tmp_path: Path) -> None:
    encoded = f"=?utf-8?B?{__import__('base64').b64encode(HOSTILE.encode()).decode()}?="
    data = (
        f"From: {encoded} <a@example.org>\r\nTo: {encoded} <b@example.org>\r\nSubject: {encoded}\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain;'
        f" charset=utf-8\r\n\r\n{HOSTILE}\r\n--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment;"
        f' filename="{encoded}"\r\n\r\nx\r\n--b--\r\n'
    ).encode()
    name = "<script>alert(1)</script>"
    place = Folder(name, (name, "2023-05", "index.html"))
    mail = {place: [Message(1, place, 1, frozenset({name}), 0, data)]}
    export(tmp_path / "out", mail, title=HOSTILE)
    for path in filter(Path.is_file, (tmp_path / "out").rglob("*.html")):
        page = read(path)
        scripts = [attrs for tag, attrs in page.elements if tag == "script"]
        assert [attrs["src"] for attrs in scripts] in ([], ["index/site.js", "index/account.js"])
        assert not [tag for tag, attrs in page.elements if tag == "img" or "onerror" in attrs]
    for path in (tmp_path / "out" / "index").rglob("*.js"):
        if path.name != "site.js":
            data_of(path)
    assert data_of(tmp_path / "out" / "index" / "account.js")["title"] == HOSTILE  # type: ignore[index]


def test_wild_dates_and_numbers(tmp_path: Path) -> None:
    place = folder("INBOX")
    dates = (0, -1, -(10**12), 10**18, 2**31, 253402300800)
    mail = {place: [Message(at, place, at, frozenset(), date, numbered(at)) for at, date in enumerate(dates, 1)]}
    written = export(tmp_path / "out", mail)
    assert html.count(tmp_path / "out") == len(dates)
    assert all(each.note is None for each in written)


def test_halves_of_characters_in_names_and_texts(tmp_path: Path) -> None:
    half = b"=?utf-16-be?Q?=D8=00x?= =?utf-7?Q?+2AA-?="
    data = b"From: " + half + b" <a@x.org>\r\nSubject: " + half + b"\r\n\r\n+2AA-\r\n"
    place = Folder("half \ud800", ("half \ud800", "\udfff"))
    written = export(tmp_path / "out", {place: [Message(1, place, 1, frozenset({"\ud800"}), 0, data)]})
    assert written[0].note is None
    assert html.count(tmp_path / "out") == 1


def test_nothing_at_all(tmp_path: Path) -> None:
    export(tmp_path / "out", {})
    assert html.count(tmp_path / "out") == 0
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_message_that_our_code_fails_on_becomes_a_page_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise RecursionError

    monkeypatch.setattr(html, "page", fails)
    place = folder("INBOX")
    (written,) = export(tmp_path / "out", {place: [Message(1, place, 1, frozenset(), 0, numbered(1))]})
    assert written.note is not None
    page = read(tmp_path / "out" / written.file)
    assert "cannot be shown" in "".join(page.text)
    assert [href for _, href in page.links if href.endswith(".eml")]


def tree_of(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def test_stopped_anywhere_it_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    rng = random.Random(3)
    mail = messages_of(
        {
            name: [(numbered(number), frozenset(), 1_700_000_000 + number * 86_400) for number in range(40)]
            for name in ("INBOX", "Work", "Work/Clients")
        }
    )
    export(tmp_path / "whole", mail)
    place = tmp_path / "parts"
    place.mkdir()
    options = Options(title="demo@example.org", folders=tuple(mail))
    steps = [(each, message) for each, kept in mail.items() for message in kept]
    state: bytes | None = None
    done = 0
    for _ in range(300):
        writer = html.make(place, options, state)
        present: Folder | None = None
        at = done
        for each, message in steps[done : done + rng.randint(1, 30)]:
            if each != present:
                writer.folder(each)
                present = each
            writer.write([message])
            at += 1
            if rng.random() < 0.2:
                state, done = writer.checkpoint(), at
        if at == len(steps):
            state, done = writer.checkpoint(), at
            writer.finish()
            break
        writer.abandon()
    else:
        raise AssertionError("it never ended")
    # Killed behind the end as well: the same again, from the last checkpoint.
    again = html.make(place, options, state)
    again.finish()
    parts, whole = tree_of(place), tree_of(tmp_path / "whole")
    del parts["index.html"], whole["index.html"]  # it names the day
    assert parts == whole


def test_folders_of_the_same_name_in_other_letters_stay_apart(tmp_path: Path) -> None:
    mail = messages_of({name: [(numbered(1), frozenset(), 0)] for name in ("a", "A", "a/1970-01", "a/1970-01/1970-01")})
    written = export(tmp_path / "out", mail)
    assert len({each.file.casefold() for each in written}) == 4
    assert html.count(tmp_path / "out") == 4


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    place = folder("INBOX")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mail").write_bytes(b"in the way")
    writer = html.make(tmp_path / "out", Options(folders=(place,)), None)
    with pytest.raises(CannotWrite):
        writer.folder(place)
    writer.abandon()
    writer = html.make(tmp_path / "out", Options(folders=(place,)), None)
    (tmp_path / "out" / "mail").unlink()
    writer.folder(place)
    (tmp_path / "out" / "mail" / "INBOX" / "1970-01").write_bytes(b"in the way")
    with pytest.raises(CannotWrite):
        writer.write([Message(1, place, 1, frozenset(), 0, numbered(1))])
    writer.abandon()


def test_the_index_of_many_is_cut_into_small_scripts(tmp_path: Path) -> None:
    place = folder("INBOX")
    mail = {place: [Message(n, place, n, frozenset(), n * 60, numbered(n)) for n in range(1, 1200)]}
    export(tmp_path / "out", mail)
    chunks = list((tmp_path / "out" / "index" / "rows").rglob("*.js"))
    assert len(chunks) == -(-1199 // html_index.CHUNK)
    assert len(list((tmp_path / "out" / "lists").iterdir())) == 3
