"""`mailkeep verify`, `repair`, `gc` and `undelete`: the store's own care, told to people and programs."""

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mailkeep import config as configuration
from mailkeep.cli.output import OK, SOME_FAILED, Call, common, human_size, opened, plural, watched
from mailkeep.errors import AccountMissing, StoreError, UsageError

if TYPE_CHECKING:
    from mailkeep.jobs.progress import Progress
    from mailkeep.store.accounts import AccountInfo
    from mailkeep.store.store import Store

PROBLEMS_SHOWN: Final = 50


def _accounts(store: "Store", names: tuple[str, ...]) -> "list[AccountInfo] | None":
    """The accounts named; None for all."""
    found = []
    for name in names:
        info = store.directory.find(name)
        if info is None:
            raise AccountMissing(f"there is no account {name}; `mailkeep user list` shows those there are")
        found.append(info)
    return found or None


def _listener(progress: "Progress") -> Callable[[str, int, int], None]:
    """The store's checks say `what, done, total`; a Progress wants how much came on."""

    def tell(what: str, done: int, total: int) -> None:
        progress.total, progress.done = total, done
        progress.report(what=what)

    return tell


@click.command(short_help="Prove that the store is sound.")
@click.option("--user", "names", multiple=True, metavar="NAME", help="Only this account. May be given several times.")
@common
def verify(call: Call, names: tuple[str, ...]) -> int:
    """Prove every checksum, counter and reference of the store. Changes nothing; a server may be running."""
    from mailkeep.store import check

    out = call.out
    with opened(call.settings()) as store, watched(out, "Verifying", "") as progress:
        report = check.verify(store, _accounts(store, names), _listener(progress))
    out.facts(
        {
            "sound": not report.problems,
            "counts": report.counts,
            "problems": [
                {"kind": p.kind, "account": p.account, "where": p.where, "text": p.text, "remedy": p.remedy}
                for p in report.problems
            ],
            "unlisted": report.unlisted,
        }
    )
    looked = ", ".join(f"{count:,} {noun}" for noun, count in report.counts.items())
    for problem in report.problems[:PROBLEMS_SHOWN]:
        out.warn(f"{problem.account}: {problem.where}: {problem.text}; {problem.remedy}")
    if len(report.problems) > PROBLEMS_SHOWN:
        out.warn(f"… and {len(report.problems) - PROBLEMS_SHOWN:,} more; --json lists them")
    for name in report.unlisted:
        out.warn(f"{name}: a directory of no account; remove it if you do not know it")
    out.say(f"{plural(len(report.problems), 'problem') if report.problems else 'Sound'}: {looked} checked.")
    return SOME_FAILED if report.problems else OK


@click.command(short_help="Rebuild what is lost or damaged.")
@click.option("--user", "names", multiple=True, metavar="NAME", help="This account, sound or not. May be repeated.")
@common
def repair(call: Call, names: tuple[str, ...]) -> int:
    """Rebuild the databases of damaged accounts from their packs: mailboxes, UIDs, dates and flags.

    Without --user, every account that `verify` finds a problem in is repaired. The account is shut for everybody else
    while that lasts.
    """
    from mailkeep.store import check
    from mailkeep.store import repair as mending

    out, done = call.out, []
    failed = False
    with opened(call.settings()) as store:
        accounts = _accounts(store, names)
        if accounts is None:
            with watched(out, "Verifying", "") as progress:
                damaged = {p.account for p in check.verify(store, progress=_listener(progress)).problems}
            accounts = [info for info in store.directory.list() if info.name in damaged]
        for info in accounts:
            try:
                with watched(out, f"Repairing {info.name}", "") as progress:
                    report = mending.repair(store, info, _listener(progress))
            except StoreError as error:
                failed = True
                out.warn(f"{info.name}: not repaired: {error.text}")
                done.append({"account": info.name, "error": error.text})
                continue
            facts = _facts(report)
            done.append({"account": info.name, **facts})
            out.say(f"{info.name}: repaired. " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in _numbers(facts)))
            for text in _texts(facts):
                failed = True
                out.warn(f"{info.name}: {text}")
    if not done:
        out.say("Nothing to repair.")
    out.facts({"repaired": done})
    return SOME_FAILED if failed else OK


@click.command(short_help="Remove what is past its time, and compress.")
@click.option("--user", "names", multiple=True, metavar="NAME", help="Only this account. May be given several times.")
@click.option("--retention", metavar="TIME", help="How long expunged messages can be had back. Default 30d.")
@click.option("--grace", metavar="TIME", help="How long bytes that nothing refers to are kept. Default 1h.")
@common
def gc(call: Call, names: tuple[str, ...], retention: str | None, grace: str | None) -> int:
    """Forget expunged messages whose retention is over, free their space, and compress what is cold.

    The only thing that removes mail. `serve` does it by itself once a day.
    """
    from mailkeep.store import collect

    out, config = call.out, call.settings()
    retention_s = config.retention_s if retention is None else _span("--retention", retention)
    grace_s = config.gc_grace_s if grace is None else _span("--grace", grace)
    with opened(config) as store, watched(out, "Collecting", "") as progress:
        report = collect.collect(
            store,
            grace_s=grace_s,
            retention_s=retention_s,
            accounts=_accounts(store, names),
            progress=_listener(progress),
        )
    facts = _facts(report)
    out.facts(facts)
    freed = report.bytes_removed - report.bytes_written
    out.say(
        f"{plural(report.tombstones, 'expunged message')} forgotten, {plural(report.emails, 'body').replace('ys', 'ies')} "
        f"dropped, {plural(report.packs_rewritten, 'pack')} rewritten, {human_size(max(0, freed))} freed."
    )
    for text in report.skipped:
        out.warn(f"skipped: {text}")
    return SOME_FAILED if report.skipped else OK


@click.command(short_help="Bring expunged messages back.")
@click.option("--user", "name", required=True, metavar="NAME", help="Whose mail.")
@click.option("--mailbox", metavar="MAILBOX", help="Only what was in this mailbox. Default: all.")
@click.option("--since", metavar="TIME", help="Only what was removed since: 2h, 3d, 2026-01-20 or 2026-01-20T15:00.")
@common
def undelete(call: Call, name: str, mailbox: str | None, since: str | None) -> int:
    """Bring back expunged messages whose retention is not over, into the mailboxes that they were in, as new messages."""
    out = call.out
    moment = None if since is None else point_in_time(since)
    back: dict[str, int] = {}
    with opened(call.settings()) as store:
        accounts = _accounts(store, (name,))
        assert accounts is not None
        account = store.account(accounts[0].id)
        boxes = account.mailboxes() if mailbox is None else [account.mailbox(mailbox)]
        for box in boxes:
            with account.transaction() as transaction:
                count = transaction.undelete(box.id, since=moment)
            if count:
                back[box.name] = count
    total = sum(back.values())
    out.say(f"{plural(total, 'message')} brought back." if total else "Nothing to bring back.")
    out.table(["Mailbox", "Messages"], [[box_name, count] for box_name, count in back.items()] if back else [])
    out.facts({"messages": total, "mailboxes": back})
    return OK


# --- words and facts -------------------------------------------------------------------------------------------------


def point_in_time(text: str) -> int:
    """`3d` (that long ago) or a date with or without a time, in local time → Unix seconds. Raises UsageError."""
    if re.fullmatch(r"\d+\s*[smhdw]", text.strip()):
        return int(time.time()) - configuration.span(text)
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp())
    except (ValueError, OverflowError):
        raise UsageError(f"--since {text}: give a time such as 2h, 3d, 2026-01-20 or 2026-01-20T15:00") from None


def _span(option: str, text: str) -> int:
    try:
        return configuration.span(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from None


def _facts(report: Any) -> dict[str, Any]:
    """The public fields of a report of the store."""
    return {name: getattr(report, name) for name in type(report).__slots__ if not name.startswith("_")}


def _numbers(facts: dict[str, Any]) -> list[tuple[str, int]]:
    return [(key, value) for key, value in facts.items() if isinstance(value, int)]


def _texts(facts: dict[str, Any]) -> list[str]:
    return [str(text) for value in facts.values() if isinstance(value, list) for text in value]
