"""The pages of an HTML export that list messages: the first page, and plain lists for whoever runs no scripts.

Knows rows and folders, and how they look without a script; `data/site.js` makes more of the first page. All text comes
from mail and is escaped; every page forbids what is not its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from importlib.resources import files as package_files
from typing import Any, Final
from urllib.parse import quote

from mailkeep.export.html_index import ANSWERED, DRAFT, FLAGGED, FORWARDED, SEEN, Shown

DEPTH_MAX: Final = 9  # levels of folders that are told apart
PAGE: Final = 500  # messages of a plain list's page
# Firefox takes no file for 'self'; for Chromium both say the same.
_PLAIN_POLICY: Final = "default-src 'none'; style-src 'self' file:; base-uri 'none'; form-action 'none'"
_POLICY: Final = _PLAIN_POLICY + "; script-src 'self' file:"
_FIRST: Final = (("\\inbox",), ("\\drafts",), ("\\sent",), ("\\archive",), ("\\junk",), ("\\trash",))
_STATES: Final = (
    (FLAGGED, "★", "starred"),
    (ANSWERED, "↩", "answered"),
    (FORWARDED, "↪", "forwarded"),
    (DRAFT, "✎", "draft"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Listed:
    """A folder of the export. `ranges`: the numbers of its messages, as (first, count)."""

    path: tuple[str, ...]
    directory: str  # in the output, "/" between levels
    special_use: tuple[str, ...] = ()
    ranges: list[list[int]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(count for _, count in self.ranges)

    @property
    def name(self) -> str:
        return " / ".join(self.path) or "Mail"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a folder stands in the tree. `label`: the levels of its name that no folder above shows."""

    number: int
    depth: int
    label: str


def tree(folders: Sequence[Listed]) -> list[Placed]:
    """The folders in the order that people expect: INBOX, then what is special, then by name, children below."""

    def rank(path: tuple[str, ...]) -> tuple[int, str, str]:
        listed = known.get(path)
        special = {use.lower() for use in listed.special_use} if listed is not None else set()
        if len(path) == 1 and path[0].upper() == "INBOX":
            special.add("\\inbox")
        place = next((number for number, (use,) in enumerate(_FIRST) if use in special), len(_FIRST))
        return place, path[-1].casefold(), path[-1]

    known = {listed.path: listed for listed in folders}
    numbers = {listed.path: number for number, listed in enumerate(folders)}
    ordered = sorted(known, key=lambda path: [rank(path[: level + 1]) for level in range(len(path))])
    placed = []
    for path in ordered:
        above = [level for level in range(1, len(path)) if path[:level] in known]
        rest = path[above[-1] :] if above else path
        placed.append(Placed(numbers[path], len(above), " / ".join(rest) or "Mail"))
    return placed


def asset(name: str) -> bytes:
    """A file of `data/`."""
    return (package_files("mailkeep.export") / "data" / name).read_bytes()


def href(path: str, fragment: str = "") -> str:
    """A path of the output as a URL, escaped for an attribute."""
    return quote(path, safe="/~()") + fragment


def account(title: str, folders: Sequence[Listed], *, chunk: int, per_folder: int, words: list[str]) -> dict[str, Any]:
    """What the script of the first page is told first."""
    return {
        "title": title,
        "count": sum(listed.count for listed in folders),
        "chunk": chunk,
        "perFolder": per_folder,
        "words": words,
        "folders": [
            {"name": listed.name, "directory": listed.directory, "ranges": listed.ranges, "sent": _is_sent(listed)}
            for listed in folders
        ],
    }


def _is_sent(listed: Listed) -> bool:
    """Whether a list shows whom its messages went to, rather than whom they are from."""
    return any(use.lower() in ("\\sent", "\\drafts") for use in listed.special_use)


def first_page(title: str, folders: Sequence[Listed], made: str) -> str:
    """index.html: the folders as links to the plain lists, and what the script fills."""
    text = escape(title)
    return (
        _head(f"Mail of {title}", _POLICY, "index/")
        + '<script src="index/site.js" defer></script><script src="index/account.js" defer></script></head>\n'
        '<body class="site"><a class="skip" href="#list">To the messages</a>'
        f'<header><h1><bdi>{text}</bdi></h1><div id="search" role="search" hidden></div></header>\n'
        f'<nav aria-label="Folders" id="folders">{_folder_list(folders)}</nav>\n'
        '<main id="list" tabindex="-1"><noscript><p class="note">Scripts are off, so this page cannot sort or search. '
        "The folders lead to plain lists of all messages.</p></noscript></main>\n"
        f"<footer>{escape(made)}</footer></body></html>\n"
    )


def _folder_list(folders: Sequence[Listed]) -> str:
    items = []
    for each in tree(folders):
        listed = folders[each.number]
        items.append(
            f'<li class="d{min(each.depth, DEPTH_MAX)}"><a id="f{each.number}" href="{list_file(each.number, 1)}" '
            f'data-folder="{each.number}"><bdi>{escape(each.label)}</bdi> '
            f'<span class="count">{listed.count:,}</span></a></li>'
        )
    return f"<ul>{''.join(items)}</ul>"


def list_file(folder: int, page: int) -> str:
    return f"lists/{folder}-{page}.html"


def list_pages(folder: int, listed: Listed, rows: Iterable[Shown]) -> Iterator[tuple[str, str]]:
    """A folder's plain lists, as (file, page). One at least, though it be empty."""
    pages = max(1, -(-listed.count // PAGE))
    batch: list[str] = []
    number = 0
    for shown in rows:
        batch.append(_row(shown, "../" + listed.directory))
        if len(batch) == PAGE and number + 1 < pages:
            number += 1
            yield list_file(folder, number), _list_page(folder, listed, number, pages, batch)
            batch = []
    number += 1
    yield list_file(folder, number), _list_page(folder, listed, number, pages, batch)


def _list_page(folder: int, listed: Listed, number: int, pages: int, rows: list[str]) -> str:
    links = [f'<a href="../index.html#f{folder}">All folders</a>']
    if pages > 1:
        near = sorted({1, pages, *range(max(1, number - 3), min(pages, number + 3) + 1)})
        links += [f"<b>{each}</b>" if each == number else f'<a href="{folder}-{each}.html">{each}</a>' for each in near]
    links += [f'<a rel="prev" href="{folder}-{number - 1}.html">Newer</a>'] if number > 1 else []
    links += [f'<a rel="next" href="{folder}-{number + 1}.html">Older</a>'] if number < pages else []
    navigation = f'<nav aria-label="Pages">{" ".join(links)}</nav>'
    which = f", page {number} of {pages}" if pages > 1 else ""
    table = (
        '<div class="wide"><table><thead><tr><th scope="col">From</th><th scope="col">Subject</th>'
        '<th scope="col">Date (UTC)</th><th scope="col" class="n">Size</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        if rows
        else '<p class="note">No messages.</p>'
    )
    return (
        _head(f"{listed.name}{which}", _PLAIN_POLICY, "../index/")
        + f'</head>\n<body class="plain"><h1><bdi>{escape(listed.name)}</bdi>{which}</h1>'
        f"{navigation}\n{table}\n{navigation}</body></html>\n"
    )


def _row(shown: Shown, directory: str) -> str:
    states = "".join(
        f'<span title="{name}" role="img" aria-label="{name}">{sign}</span> '
        for bit, sign, name in _STATES
        if shown.flags & bit
    )
    if shown.attachments:
        states += '<span title="attachments" role="img" aria-label="attachments">📎</span> '
    kind = "" if shown.flags & SEEN else ' class="new"'
    return (
        f'<tr{kind}><td><bdi title="{escape(shown.address)}">{escape(shown.sender) or "(nobody)"}</bdi></td>'
        f'<td>{states}<a href="{href(f"{directory}/{shown.file}.html")}"><bdi>{escape(shown.subject) or "(no subject)"}'
        f'</bdi></a></td><td class="when">{moment(shown.date)}</td><td class="n">{size_text(shown.size)}</td></tr>\n'
    )


def moment(seconds: int) -> str:
    """`2023-05-17 10:42`, in UTC; whatever the number."""
    try:
        return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M")
    except OverflowError:
        return ""


def size_text(size: int) -> str:
    """As `data/site.js` shows it."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000  # type: ignore[assignment]  # the fraction is shown
    return f"{size:.1f} GB"


def _head(title: str, policy: str, assets: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="referrer" content="no-referrer"><title>{escape(title)}</title>'
        f'<link rel="stylesheet" href="{assets}site.css">'
    )
