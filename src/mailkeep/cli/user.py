"""`mailkeep user`: accounts, their passwords and quotas."""

import sys
import time
from typing import Any

import click

from mailkeep import config as configuration
from mailkeep.cli.output import Call, common, human_size, opened, plural
from mailkeep.errors import AccountMissing, UsageError

PASSWORD_MAX = 1024


@click.group(short_help="Add, list and remove accounts; set passwords and quotas.")
def user() -> None:
    """Accounts. NAME is an address (anna@example.org) or a plain name."""


def _password(from_stdin: bool, name: str) -> Any:
    """A Secret, from the first line of stdin or asked for twice without echo."""
    from mailkeep.secret import Secret

    if from_stdin:
        text = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        text = click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt="Once more", err=True)
    else:
        raise UsageError("there is no terminal to ask for the password on; pipe it in with --password-stdin")
    if not text:
        raise UsageError("the password is empty; give one")
    if len(text.encode()) > PASSWORD_MAX:
        raise UsageError(f"the password is longer than {PASSWORD_MAX} bytes; give a shorter one")
    return Secret(text)


def _quota(text: str | None) -> int | None:
    if text is None or text.lower() in ("none", "0"):
        return None
    try:
        return configuration.size(text)
    except ValueError as error:
        raise UsageError(f"--quota {error}, or none") from None


def _missing(name: str) -> AccountMissing:
    return AccountMissing(f"there is no account {name}; `mailkeep user list` shows those there are")


@user.command("add", short_help="Make an account.")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")
@click.option("--quota", metavar="SIZE", help="How much mail it may hold, such as 5G. Default: the configuration's.")
@common
def add(call: Call, name: str, *, password_stdin: bool, quota: str | None) -> int:
    """Make an account with the mailboxes INBOX, Drafts, Sent, Junk, Trash and Archive."""
    from mailkeep.serve.auth import make_credentials

    out, config = call.out, call.settings()
    limit = config.quota_default if quota is None else _quota(quota)
    credentials = make_credentials(_password(password_stdin, name))
    with opened(config, create=True) as store:
        info = store.directory.add(name, credentials=credentials, quota=limit)
    out.say(f"Added {info.name}.")
    out.facts({"id": info.id, "name": info.name, "quota": info.quota})
    return 0


@user.command("list", short_help="Show all accounts.")
@common
def list_users(call: Call) -> int:
    """Show all accounts with what they hold."""
    out, config = call.out, call.settings()
    rows: list[dict[str, Any]] = []
    with opened(config) as store:
        for info in store.directory.list():
            usage = store.account(info.id).usage()
            rows.append(
                {
                    "id": info.id,
                    "name": info.name,
                    "messages": usage.messages,
                    "bytes": usage.bytes,
                    "quota": info.quota,
                    "created": info.created,
                }
            )
    out.facts({"accounts": rows})
    if not rows:
        out.say("There are no accounts; make one with `mailkeep user add NAME`.")
        return 0
    out.table(
        ["Name", "Messages", "Size", "Quota", "Since"],
        [
            [
                row["name"],
                row["messages"],
                human_size(row["bytes"]),
                human_size(row["quota"]) if row["quota"] is not None else "none",
                time.strftime("%Y-%m-%d", time.localtime(row["created"])),
            ]
            for row in rows
        ],
    )
    return 0


@user.command("passwd", short_help="Set a password.")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")
@common
def passwd(call: Call, name: str, *, password_stdin: bool) -> int:
    """Set a new password. It holds at once, also for a server that runs; open sessions go on."""
    from mailkeep.serve.auth import make_credentials

    out, config = call.out, call.settings()
    with opened(config) as store:
        info = store.directory.find(name)
        if info is None:
            raise _missing(name)
        store.directory.set_credentials(info.name, make_credentials(_password(password_stdin, info.name)))
    out.say(f"Password of {info.name} set.")
    out.facts({"name": info.name})
    return 0


@user.command("quota", short_help="Set how much mail an account may hold.")
@click.argument("name")
@click.argument("size")
@common
def set_quota(call: Call, name: str, *, size: str) -> int:
    """Set how much mail an account may hold: SIZE such as 500M or 5G, or none."""
    out, config = call.out, call.settings()
    limit = _quota(size)
    with opened(config) as store:
        info = store.directory.find(name)
        if info is None:
            raise _missing(name)
        store.directory.set_quota(info.name, limit)
    out.say(f"Quota of {info.name}: {'none' if limit is None else human_size(limit)}.")
    out.facts({"name": info.name, "quota": limit})
    return 0


@user.command("remove", short_help="Remove an account with all its mail.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def remove(call: Call, name: str, *, yes: bool) -> int:
    """Remove an account with all its mail. No log-in and no delivery from now on; `gc` deletes the mail itself when
    retention is over."""
    out, config = call.out, call.settings()
    with opened(config) as store:
        info = store.directory.find(name)
        if info is None:
            raise _missing(name)
        usage = store.account(info.id).usage()
        holds = f"{plural(usage.messages, 'message')} ({human_size(usage.bytes)})"
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"{info.name} holds {holds}; say --yes to remove it without being asked")
            click.confirm(f"Remove {info.name} with {holds}?", abort=True, err=True)
        store.directory.remove(info.name)
    out.say(f"Removed {info.name} with {holds}.")
    out.facts({"name": info.name, "messages": usage.messages, "bytes": usage.bytes})
    return 0
