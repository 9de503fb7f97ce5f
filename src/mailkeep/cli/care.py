"""`mailkeep verify`, `repair`, `gc` and `undelete`: the store's own care, told to people and programs."""

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mailkeep import config as configuration
from mailkeep.cli.output import BUSY, OK, SOME_FAILED, Call, Out, common, human_size, opened, plural, watched
from mailkeep.errors import AccountMissing, MailboxMissing, StoreError, UsageError

if TYPE_CHECKING:
    from mailkeep.jobs.progress import Progress
    from mailkeep.store.account import AccountInfo
    from mailkeep.store.repair import RepairReport
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
@click.option("--against-server", "remotes", multiple=True, metavar="REMOTE", help="Compare with that server instead.")
@common
def verify(call: Call, names: tuple[str, ...], remotes: tuple[str, ...]) -> int:
    """Prove every checksum, counter and reference of the store. Changes nothing; a server may be running.

    With --against-server: ask that server for all it has, and prove that it is here.
    """
    from mailkeep.store import check

    if remotes:
        from mailkeep.cli.pull import verify_against

        return verify_against(call, remotes)

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
    looked = ", ".join(f"{noun} {count:,}" for noun, count in report.counts.items())
    for problem in report.problems[:PROBLEMS_SHOWN]:
        out.warn(f"{problem.account}: {problem.where}: {problem.text}; {problem.remedy}")
    if len(report.problems) > PROBLEMS_SHOWN:
        out.warn(f"… and {len(report.problems) - PROBLEMS_SHOWN:,} more; --json lists them")
    for name in report.unlisted:
        out.warn(f"{name}: a directory of no account; remove it if you do not know it")
    out.say(f"{plural(len(report.problems), 'problem') if report.problems else 'Sound'}. Checked: {looked}.")
    return SOME_FAILED if report.problems else OK


@click.command(short_help="Rebuild what is lost or damaged.")
@click.option("--user", "names", multiple=True, metavar="NAME", help="Only this account. May be given several times.")
@click.option("--rebuild", is_flag=True, help="Make the databases anew even where nothing is wrong.")
@common
def repair(call: Call, names: tuple[str, ...], rebuild: bool) -> int:
    """Check every account and mend what is wrong: its database is rebuilt from its packs.

    Mailboxes, UIDs, dates and flags come back as of the last record; what could not be brought back is listed. A
    server must be stopped while an account is repaired.
    """
    from mailkeep.store import repair as mending

    out, failed, busy = call.out, False, False
    done: list[dict[str, Any]] = []
    with opened(call.settings()) as store:
        for info in _accounts(store, names) or store.directory.list():
            try:
                with watched(out, f"Repairing {info.name}", "") as progress:
                    report = mending.repair(store, info, _listener(progress), rebuild=rebuild)
            except StoreError as error:
                busy, failed = busy or error.temporary, failed or not error.temporary
                out.warn(f"{info.name}: not repaired: {error.text}")
                done.append({"account": info.name, "action": "failed", "error": error.text})
                continue
            failed = failed or report.lost_count > 0
            done.append(
                {
                    "account": info.name,
                    "action": report.action,
                    "problems": [f"{problem.where}: {problem.text}" for problem in report.problems],
                    "mailboxes": report.mailboxes,
                    "messages": report.messages,
                    "recovered": report.recovered,
                    "lost": report.lost,
                    "lost_count": report.lost_count,
                    "aside": str(report.aside) if report.aside is not None else None,
                }
            )
            _tell_repair(out, report)
    out.facts({"accounts": done})
    return SOME_FAILED if failed else BUSY if busy else OK


def _tell_repair(out: Out, report: "RepairReport") -> None:
    if report.action == "nothing":
        out.say(f"{report.account}: nothing to repair.")
        return
    found = plural(len(report.problems), "problem")
    out.say(
        f"{report.account}: {found} mended ({report.action}): "
        f"{plural(report.messages, 'message')} in {plural(report.mailboxes, 'mailbox').replace('boxs', 'boxes')}."
    )
    if report.recovered:
        out.say(
            f"{report.account}: {plural(report.recovered, 'message')} of unknown place put into the mailbox Recovered."
        )
    if report.aside is not None:
        out.say(f"{report.account}: the old database is kept as {report.aside}.")
    for text in report.lost[:PROBLEMS_SHOWN]:
        out.warn(f"{report.account}: lost: {text}")
    if report.lost_count > PROBLEMS_SHOWN:
        out.warn(f"… and {report.lost_count - PROBLEMS_SHOWN:,} more; --json lists them")


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
        f"{plural(report.tombstones, 'expunged message')} forgotten, {plural(report.emails, 'text')} dropped, "
        f"{plural(report.packs_rewritten, 'pack')} rewritten, {human_size(max(0, freed))} freed."
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
    """Bring back expunged messages whose retention is not over, as new messages of the mailboxes they were in."""
    out = call.out
    moment = None if since is None else point_in_time(since)
    back: dict[str, int] = {}
    with opened(call.settings()) as store:
        accounts = _accounts(store, (name,))
        assert accounts is not None
        account = store.account(accounts[0].id)
        # Deleted mailboxes first: bringing one back may make the name that another message wants.
        boxes = [box for box in account.removed_mailboxes() + account.mailboxes() if mailbox in (None, box.name)]
        if not boxes:
            raise MailboxMissing(f"{name} has and had no mailbox {mailbox}; leave out --mailbox to look into all")
        for box in boxes:
            with account.transaction() as transaction:
                count = transaction.undelete(box.id, since=moment)
            if count:
                back[box.name] = back.get(box.name, 0) + count
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
