"""The ledger as a page: one HTML file that needs nothing else, for who wants to see it or keep it beside the mail.

All that a server or a name says is escaped, and the page forbids scripts, styles and pictures from elsewhere.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from typing import Final

from mailkeep.backup.ledger import FolderLedger, RemoteReport

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem} h2{font-size:1.2rem;margin-top:2.5rem} .when{color:#666}
table{border-collapse:collapse;width:100%;margin:1rem 0} th,td{text-align:left;padding:.3rem .6rem;
border-bottom:1px solid #ddd;vertical-align:top} td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:#17692b;font-weight:600} .no{color:#a3140f;font-weight:600} td.name{overflow-wrap:anywhere}
details{margin:.5rem 0} summary{cursor:pointer}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd} td,th{border-color:#444}
.ok{color:#7bd88f} .no{color:#ff8a80}}
"""


def page(reports: Iterable[RemoteReport], *, made: int) -> str:
    """A whole HTML document. `made` in Unix seconds."""
    bodies = "".join(_remote(report) for report in reports)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><title>Mailkeep: what is kept</title>'
        f"<style>{_STYLE}</style></head><body><h1>What is kept</h1>"
        f'<p class="when">{_moment(made)}</p>{bodies}</body></html>\n'
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _verdict(equal: bool) -> str:
    return '<span class="ok">equal</span>' if equal else '<span class="no">not equal</span>'


def _remote(report: RemoteReport) -> str:
    parts = [
        f"<h2>{escape(report.remote)} → {escape(report.account)}: {_verdict(report.equal)}</h2>",
        f"<p>{report.total('kept'):,} of {report.total('server'):,} messages of {escape(report.host)} are kept; "
        f"{report.total('fetched'):,} came in this run, {report.total('gone'):,} are kept though the server has them "
        f'no more. <span class="when">{_moment(report.started)}, {report.seconds:.1f} s</span></p>',
    ]
    parts += [f'<p class="no">{escape(text)}</p>' for text in (report.error, report.stopped) if text]
    parts += [f"<p>{escape(note)}</p>" for note in report.notes]
    reasons = report.reasons()
    if reasons:
        rows = "".join(
            f'<tr><td>{escape(name)}</td><td class="n">{count:,}</td></tr>' for name, count in reasons.items()
        )
        parts.append(f'<table><tr><th>Not here, because</th><th class="n">Messages</th></tr>{rows}</table>')
    head = ("Folder", "Mailbox", "Server", "Kept", "Missing", "Gone", "New", "")
    cells = "".join(f'<th class="{"n" if 2 <= index <= 6 else ""}">{name}</th>' for index, name in enumerate(head))
    parts.append(f"<table><tr>{cells}</tr>{''.join(map(_folder, report.folders))}</table>")
    for title, names in (("Left out by the filters", report.left_out), ("No more on the server", report.removed)):
        if names:
            parts.append(f"<p>{title}: {escape(', '.join(names))}</p>")
    parts += [_messages(folder) for folder in report.folders if folder.listed or folder.notes or folder.error]
    return "".join(parts)


def _folder(folder: FolderLedger) -> str:
    numbers = (folder.server, folder.kept, sum(folder.missing.values()), folder.gone, folder.fetched)
    cells = "".join(f'<td class="n">{number:,}</td>' for number in numbers)
    names = f'<td class="name">{escape(folder.name)}</td><td class="name">{escape(folder.mailbox or "")}</td>'
    return f"<tr>{names}{cells}<td>{_verdict(folder.equal)}</td></tr>"


def _messages(folder: FolderLedger) -> str:
    texts = ([folder.error] if folder.error else []) + folder.notes
    notes = "".join(f"<p>{escape(text)}</p>" for text in texts)
    rows = "".join(
        f'<tr><td class="n">{each.uid}</td><td>{escape(each.reason)}</td><td>{escape(each.detail or "")}</td></tr>'
        for each in folder.listed
    )
    more = sum(folder.missing.values()) - folder.explained - len(folder.listed)
    rest = f"<p>… and {more:,} more</p>" if more > 0 and folder.listed else ""
    table = f'<table><tr><th class="n">UID</th><th>Reason</th><th>Detail</th></tr>{rows}</table>' if rows else ""
    return f"<details><summary>{escape(folder.name)}</summary>{notes}{table}{rest}</details>"
