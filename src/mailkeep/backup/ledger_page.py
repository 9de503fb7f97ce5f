"""The ledger as a page: one HTML file that needs nothing else, for who wants to see it or keep it beside the mail.

All that a server or a name says is escaped, and the page forbids scripts, styles and pictures from elsewhere.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from mailkeep.backup.ledger import FolderLedger, RemoteReport

OPEN_MAX: Final = 20  # so many missing messages are seen without a click
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root{color-scheme:light dark;--text:#1f2328;--dim:#656d76;--line:#d8dee4;--back:#fff;--yes:#17692b;--yes-back:#e3f4e7;
--no:#a3140f;--no-back:#fde9e7}
@media (prefers-color-scheme:dark){:root{--text:#dfe3e8;--dim:#939ba5;--line:#3a4048;--back:#16191d;--yes:#7bd88f;
--yes-back:#17331f;--no:#ff9a91;--no-back:#44201d}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:var(--text);
background:var(--back)}
h1{font-size:1.5rem;margin:0} h2{font-size:1.15rem;margin:2.5rem 0 .5rem;overflow-wrap:anywhere}
.dim{color:var(--dim)} p{margin:.5rem 0} .wide{overflow-x:auto}
table{border-collapse:collapse;margin:1rem 0} table.full{width:100%}
th,td{text-align:start;padding:.3rem .7rem;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600;font-size:.85rem;white-space:nowrap}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.name{overflow-wrap:anywhere;min-width:9rem}
.yes,.no{font-size:.85rem;font-weight:600;border-radius:1rem;padding:.1rem .6rem;white-space:nowrap}
.yes{color:var(--yes);background:var(--yes-back)} .no{color:var(--no);background:var(--no-back)}
p.why{color:var(--no)} details{margin:.5rem 0} summary{cursor:pointer;font-weight:600}
"""
# What turns the direction of text round: a name that has it could make a page say something else.
_TURNS: Final = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}


def page(reports: Iterable[RemoteReport], *, made: int) -> str:
    """A whole HTML document. `made` in Unix seconds."""
    reports = list(reports)
    bodies = "".join(_remote(report, number) for number, report in enumerate(reports))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><title>Mailkeep: what is kept</title>'
        f"<style>{_STYLE}</style></head><body><h1>What is kept</h1>"
        f'<p class="dim">Mailkeep, {_moment(made)}</p>{_overview(reports)}{bodies}</body></html>\n'
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _verdict(equal: bool) -> str:
    return '<span class="yes">equal</span>' if equal else '<span class="no">not equal</span>'


def _name(text: str) -> str:
    """Of a folder or an account: whatever its script, it does not touch what stands beside it."""
    return f"<bdi>{escape(text.translate(_TURNS))}</bdi>"


def _table(head: Sequence[tuple[str, bool]], rows: Iterable[str], *, full: bool = False) -> str:
    """`head`: title, and whether it is a column of numbers."""
    cells = "".join(f'<th class="n">{title}</th>' if number else f"<th>{title}</th>" for title, number in head)
    kind = ' class="full"' if full else ""
    return f'<div class="wide"><table{kind}><tr>{cells}</tr>{"".join(rows)}</table></div>'


def _numbers(*numbers: int) -> str:
    return "".join(f'<td class="n{" dim" if not number else ""}">{number:,}</td>' for number in numbers)


def _overview(reports: Sequence[RemoteReport]) -> str:
    if len(reports) < 2:
        return ""
    head = (("Remote", False), ("Account", False), ("Server", True), ("Kept", True), ("", False))
    rows = (
        f'<tr><td class="name"><a href="#r{number}">{_name(report.remote)}</a></td>'
        f'<td class="name">{_name(report.account)}</td>{_numbers(report.total("server"), report.total("kept"))}'
        f"<td>{_verdict(report.equal)}</td></tr>"
        for number, report in enumerate(reports)
    )
    return _table(head, rows, full=True)


def _remote(report: RemoteReport, number: int) -> str:
    told = [f"{report.total('kept'):,} of {report.total('server'):,} messages of {escape(report.host)} are kept"]
    if report.total("fetched"):
        told.append(f"{report.total('fetched'):,} came in this run")
    if report.total("gone"):
        told.append(f"{report.total('gone'):,} more are kept though the server has them no more")
    kept_in = "" if report.account == report.remote else f" → {_name(report.account)}"
    parts = [
        f'<h2 id="r{number}">{_name(report.remote)}{kept_in} {_verdict(report.equal)}</h2>',
        f'<p>{"; ".join(told)}. <span class="dim">{_moment(report.started)}, {report.seconds:.1f} s</span></p>',
    ]
    parts += [f'<p class="why">{escape(text)}</p>' for text in (report.error, report.stopped) if text]
    parts += [f"<p>{escape(note.translate(_TURNS))}</p>" for note in report.notes]
    reasons = report.reasons()
    if reasons:
        rows = (f"<tr><td>{escape(reason)}</td>{_numbers(count)}</tr>" for reason, count in reasons.items())
        parts.append(_table((("Not here, because", False), ("Messages", True)), rows))
    if report.folders:
        parts.append(_folders(report.folders))
    for title, names in (("Left out by the filters", report.left_out), ("No more on the server", report.removed)):
        if names:
            parts.append(f"<p>{title}: {', '.join(map(_name, names))}</p>")
    parts += [_messages(folder) for folder in report.folders if folder.listed or folder.notes or folder.error]
    return "".join(parts)


def _folders(folders: Sequence[FolderLedger]) -> str:
    """Under which name a folder is kept is said where any has another name."""
    renamed = any(folder.mailbox not in (None, folder.name) for folder in folders)
    numbers = tuple((title, True) for title in ("Server", "Kept", "Missing", "Gone", "New"))
    names = (("Folder", False), ("Mailbox here", False)) if renamed else (("Folder", False),)
    rows = []
    for each in folders:
        cells = f'<td class="name">{_name(each.name)}</td>'
        if renamed:
            cells += f'<td class="name">{_name(each.mailbox or "")}</td>'
        cells += _numbers(each.server, each.kept, sum(each.missing.values()), each.gone, each.fetched)
        rows.append(f"<tr>{cells}<td>{_verdict(each.equal)}</td></tr>")
    return _table((*names, *numbers, ("", False)), rows, full=True)


def _messages(folder: FolderLedger) -> str:
    texts = ([folder.error] if folder.error else []) + folder.notes
    notes = "".join(f"<p>{escape(text.translate(_TURNS))}</p>" for text in texts)
    rows = [
        f'<tr><td class="n">{each.uid}</td><td>{escape(each.reason)}</td>'
        f'<td class="name">{escape((each.detail or "").translate(_TURNS))}</td></tr>'
        for each in folder.listed
    ]
    more = sum(folder.missing.values()) - folder.explained - len(folder.listed)
    rest = f"<p>… and {more:,} more</p>" if more > 0 and folder.listed else ""
    table = _table((("UID", True), ("Reason", False), ("Detail", False)), rows) if rows else ""
    opened = " open" if len(rows) <= OPEN_MAX and not folder.equal else ""
    return f"<details{opened}><summary>{_name(folder.name)}</summary>{notes}{table}{rest}</details>"
