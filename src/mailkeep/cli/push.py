"""`mailkeep push` and `mailkeep migrate`: plans, bars, and what came of it.

Knows terminals and words; the work itself is in `backup.push`, `backup.migrate` and `backup.migrate_here`, and Ctrl-C
is `running`'s.
"""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mailkeep.cli.output import (
    INTERRUPTED,
    OK,
    SOME_FAILED,
    Call,
    Out,
    common,
    exit_code,
    human_size,
    opened,
    plural,
    shown,
)
from mailkeep.cli.pull import bars, got_in, summary_line, tell_report
from mailkeep.cli.running import run_until_done
from mailkeep.cli.selection import selection_options
from mailkeep.errors import AccountMissing, UsageError

if TYPE_CHECKING:
    from mailkeep.backup.migrate_here import Pop3Door
    from mailkeep.backup.push_ledger import PushReport
    from mailkeep.mail.selection import Selection
    from mailkeep.store.account import Account
    from mailkeep.store.store import Store

SHOWN: Final = 20


@click.command(short_help="Put an account's mail onto another server.")
@click.argument("name", metavar="ACCOUNT")
@click.argument("target", metavar="REMOTE")
@click.option("--plan", is_flag=True, help="Only say what would be copied, how long it takes and what cannot be kept.")
@click.option("--into", metavar="PREFIX", help="Put the whole tree below this folder of the server.")
@selection_options
@common
def push(call: Call, name: str, target: str, *, plan: bool, into: str | None, selection: "Selection") -> int:
    """Copy an account's folders, messages, flags, dates and subscriptions to a remote.

    What is there already is recognised and not copied again, so a command that was stopped goes on when it is given
    again. Nothing is ever deleted or changed on the server. The exit code is 0 when all that was chosen is there.
    """
    from mailkeep.backup.context import Context
    from mailkeep.backup.push import push as run_push
    from mailkeep.backup.settings import find_remote

    into = _folder(into)
    with opened(call.settings()) as store, bars(call.out) as shows:
        account, remote = account_of(store, name), find_remote(store, target)
        progress, stop = shows.progress(remote.name), asyncio.Event()

        async def work() -> "PushReport":
            context = Context(store, selection=selection, into=into, progress=progress, stop=stop)
            return await run_push(context, account, remote, plan=plan)

        report, interrupted = run_until_done(call.out, work, stop=stop)
    tell_push(call.out, report)
    code = INTERRUPTED if interrupted else code_of(report)
    call.out.facts({"event": "done", "code": code, **report.facts()})
    return code


@click.command(short_help="Move an account from one server to another, or here.")
@click.argument("source", metavar="REMOTE")
@click.argument("target", metavar="[REMOTE]", required=False)
@click.option("--account", "name", metavar="NAME", help="Into this account here, with the numbers that clients know.")
@click.option("--pop3", metavar="HOST:PORT", help="With --account: take over the UIDLs that POP3 clients know.")
@click.option("--plan", is_flag=True, help="Only say what would be copied, how long it takes and what cannot be kept.")
@click.option("--into", metavar="PREFIX", help="Put the whole tree below this folder.")
@selection_options
@common
def migrate(
    call: Call,
    source: str,
    target: str | None,
    *,
    name: str | None,
    pop3: str | None,
    plan: bool,
    into: str | None,
    selection: "Selection",
) -> int:
    """Copy all of one remote to another one, or into an account of this server.

    From server to server it is pulled into the archive account of the first and pushed from there, at the same time.
    Into an account here, UIDs, UIDVALIDITY and POP3's UIDLs stay what they are, so that clients download nothing again.
    It may be given again until the day of the change, and brings what is new.
    """
    if (target is None) == (name is None):
        raise UsageError("name where to: another remote, or an account here with --account NAME")
    if pop3 is not None and name is None:
        raise UsageError("--pop3 goes with --account only: other servers do not let UIDLs be set")
    into = _folder(into)
    with opened(call.settings()) as store:
        if name is not None and not plan:
            door = None if pop3 is None else pop3_door(pop3)
            return _migrate_here(call.out, store, source, name, door, into=into, selection=selection)
        return _migrate(call.out, store, source, target, plan=plan, into=into, selection=selection)


def _migrate(
    out: Out, store: "Store", source: str, target: str | None, *, plan: bool, into: str | None, selection: "Selection"
) -> int:
    from mailkeep.backup.context import Context
    from mailkeep.backup.migrate import Migration, check, plan_migration
    from mailkeep.backup.migrate import migrate as run_migration
    from mailkeep.backup.settings import find_remote

    old = find_remote(store, source)
    new = None if target is None else find_remote(store, target)
    if new is not None:
        check(old, new)
    if old.settings.protocol != "imap" and plan:
        raise UsageError(f"{old.name} is reached by POP3, which tells too little for a plan; pull it, then push --plan")

    stop = asyncio.Event()

    async def look() -> "PushReport":
        return await plan_migration(Context(store, selection=selection, into=into, stop=stop), old, new)

    if plan or new is None:
        report, interrupted = run_until_done(out, look, stop=stop)
        tell_push(out, report)
        code = INTERRUPTED if interrupted else code_of(report)
        out.facts({"event": "done", "code": code, **report.facts()})
        return code
    with bars(out) as shows:
        first, second = shows.progress(old.name), shows.progress(new.name)

        async def work() -> Migration:
            context = Context(store, selection=selection, into=into, progress=first, stop=stop)
            return await run_migration(context, old, new, pushing=second)

        done, interrupted = run_until_done(out, work, stop=stop)
    if got_in(done.pulled):
        out.say(summary_line(done.pulled))
    tell_report(out, done.pulled)
    tell_push(out, done.pushed)
    failure = done.pulled.failure or done.pushed.failure
    code = OK if done.equal else exit_code(failure) if failure is not None else SOME_FAILED
    code = INTERRUPTED if interrupted else code
    out.facts({"event": "done", "code": code, **done.facts()})
    return code


def _migrate_here(
    out: Out,
    store: "Store",
    source: str,
    name: str,
    door: "Pop3Door | None",
    *,
    into: str | None,
    selection: "Selection",
) -> int:
    from mailkeep.backup.context import Context
    from mailkeep.backup.ledger import RemoteReport
    from mailkeep.backup.migrate_here import migrate_here
    from mailkeep.backup.settings import find_remote

    remote, account = find_remote(store, source), account_of(store, name)
    if remote.settings.protocol != "imap":
        raise UsageError(f"{remote.name} is reached by POP3, which has no UIDs to keep; use `mailkeep pull`")
    with bars(out) as shows:
        progress, stop = shows.progress(remote.name), asyncio.Event()

        async def work() -> RemoteReport:
            context = Context(store, selection=selection, into=into, progress=progress, stop=stop)
            return await migrate_here(context, remote, account, pop3=door)

        report, interrupted = run_until_done(out, work, stop=stop)
    if got_in(report):
        out.say(summary_line(report))
    tell_report(out, report)
    code = OK if report.equal else exit_code(report.failure) if report.failure is not None else SOME_FAILED
    code = INTERRUPTED if interrupted else code
    out.facts({"event": "done", "code": code, **report.facts()})
    return code


# ---- words of the command line


def account_of(store: "Store", name: str) -> "Account":
    """Raises AccountMissing, which says what to do."""
    info = store.directory.find(name)
    if info is None:
        known = [each.name for each in store.directory.list()]
        some = f"there are {', '.join(known[:5])}{' …' if len(known) > 5 else ''}" if known else "there is none yet"
        raise AccountMissing(f"there is no account {name}; {some}")
    return store.account(info.id)


def _folder(into: str | None) -> str | None:
    from mailkeep.errors import NotAllowed
    from mailkeep.mail.mailbox_name import check_name

    try:
        return None if into is None else check_name(into)
    except NotAllowed as error:
        raise UsageError(f"--into {into}: {error.text}") from None


def pop3_door(text: str) -> "Pop3Door":
    """HOST:PORT; port 995 is TLS from the start, on this machine any other is plain. Raises UsageError."""
    from mailkeep.backup.migrate_here import Pop3Door
    from mailkeep.backup.settings import is_loopback

    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--pop3 {text}: give HOST:PORT, such as pop.example.org:995")
    tls = "tls" if int(port) == 995 else "none" if is_loopback(host) else "starttls"
    return Pop3Door(host, int(port), tls)  # type: ignore[arg-type]  # the three that there are


def code_of(report: "PushReport") -> int:
    """0: all is there; for a plan: all can be."""
    if report.failure is not None:
        return exit_code(report.failure)
    if report.planned:
        return OK if report.error is None and not report.counted("missing") else SOME_FAILED
    return OK if report.equal else SOME_FAILED


# ---- what came of it


def tell_push(out: Out, report: "PushReport") -> None:
    """For people: what was done or would be, and all that is not kept, with the reasons."""
    copied, size = report.total("copied"), human_size(report.total("copied_bytes"))
    if report.error is not None and not report.folders:
        pass  # it is all that there is to say
    elif report.planned:
        out.say(f"{report.remote or report.host}: {plural(copied, 'message')} ({size}) to copy{_duration(report)}.")
        rows: list[list[object]] = [
            [each.mailbox, each.name + ("" if each.exists else " (new)"), each.copied, human_size(each.copied_bytes)]
            for each in report.folders
        ]
        out.table(["Folder", "Goes to", "Messages", "Size"], rows)
    else:
        there = f"{report.total('there'):,} of {report.total('chosen'):,} there"
        done = f"{plural(copied, 'message')} ({size}) copied" if copied else "nothing new"
        out.say(f"{report.remote}: {done}; {there}, in {report.seconds:.1f} s.")
    for folder in report.folders:
        if folder.note is not None and (report.planned or not folder.note.startswith("the server's folder")):
            out.say(f"  {folder.mailbox} goes to {folder.name}: {folder.note}")
    if report.left_out:
        out.say(f"  {plural(len(report.left_out), 'folder')} left out by the filters")
    if report.total("gone"):
        out.say(f"  {report.total('gone'):,} of them are gone from their source; `--flag !gone` leaves them out")
    for flag, count in sorted(report.counted("lost").items()):
        out.say(f"  {flag} cannot be kept there ({plural(count, 'message')})")
    for reason, count in report.counted("missing").items():
        out.warn(f"{report.remote}: {plural(count, 'message')} not there: {reason}")
    listed = [(folder, each) for folder in report.folders for each in folder.listed]
    for folder, each in listed[:SHOWN]:
        out.warn(shown(f"{report.remote}: {folder.mailbox} UID {each.uid}: {each.reason}: {each.detail or ''}"))
    if len(listed) > SHOWN:
        out.warn(f"… and {len(listed) - SHOWN:,} more; --json lists them")
    for folder in report.folders:
        if folder.error is not None:
            out.warn(f"{report.remote}: {folder.name}: {folder.error}")
    later = f", from {datetime.fromtimestamp(report.resume_at):%Y-%m-%d %H:%M} on" if report.resume_at else ""
    if report.error:
        out.error(f"{report.remote or report.host}: {report.error}{later}")
    if report.stopped:
        out.warn(f"{report.remote}: {report.stopped}{later}")


def _duration(report: "PushReport") -> str:
    seconds: Any = report.estimate_s
    if seconds is None:
        return ""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f", in about {plural(round(seconds / length), unit)}"
    return f", in about {plural(max(1, round(seconds)), 'second')}"
