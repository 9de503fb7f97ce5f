"""`mailkeep user`: accounts, their passwords, quotas and other names, and what clients may do in them."""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from mailkeep import config as configuration
from mailkeep.cli.output import Call, common, human_size, opened, plural
from mailkeep.errors import AccountMissing, UsageError

if TYPE_CHECKING:
    from mailkeep.store.account import Access, AccountInfo, Gone
    from mailkeep.store.store import Store

PASSWORD_MAX = 1024


@click.group(short_help="Add, list and remove accounts; set passwords, quotas, access.")
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


def _existing(store: "Store", name: str) -> "AccountInfo":
    info = store.directory.find(name)
    if info is None:
        raise _missing(name)
    return info


def _missing(name: str) -> AccountMissing:
    return AccountMissing(f"there is no account {name}; `mailkeep user list` shows those there are")


@user.command("add", short_help="Make an account.")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")
@click.option("--quota", metavar="SIZE", help="How much mail it may hold, such as 5G. Default: the configuration's.")
@click.option("--read-only", is_flag=True, help="Clients may read its mail, not change it: an archive.")
@common
def add(call: Call, name: str, *, password_stdin: bool, quota: str | None, read_only: bool) -> int:
    """Make an account with the mailboxes INBOX, Drafts, Sent, Junk, Trash and Archive."""
    from mailkeep.serve.auth import make_credentials

    out, config = call.out, call.settings()
    limit = config.quota_default if quota is None else _quota(quota)
    credentials = make_credentials(_password(password_stdin, name))
    with opened(config, create=True) as store:
        info = store.directory.add(name, credentials=credentials, quota=limit, access="read" if read_only else "full")
    out.say(f"Added {info.name}.")
    out.facts({"id": info.id, "name": info.name, "quota": info.quota, "access": info.access})
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
                    "access": info.access,
                    "gone": info.gone,
                    "aliases": list(store.directory.aliases(info.id)),
                    "created": info.created,
                }
            )
    out.facts({"accounts": rows})
    if not rows:
        out.say("There are no accounts; make one with `mailkeep user add NAME`.")
        return 0
    out.table(
        ["Name", "Messages", "Size", "Quota", "Access", "Since"],
        [
            [
                row["name"],
                row["messages"],
                human_size(row["bytes"]),
                human_size(row["quota"]) if row["quota"] is not None else "none",
                row["access"],
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
        info = _existing(store, name)
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
        info = _existing(store, name)
        store.directory.set_quota(info.name, limit)
    out.say(f"Quota of {info.name}: {'none' if limit is None else human_size(limit)}.")
    out.facts({"name": info.name, "quota": limit})
    return 0


@user.command("access", short_help="Say whether clients may change an account.")
@click.argument("name")
@click.argument("access", type=click.Choice(["read", "full"]))
@common
def set_access(call: Call, name: str, *, access: "Access") -> int:
    """Say what clients may do: `read` its mail, or change it as well (`full`). With `read` IMAP and POP3 refuse every
    change, and no mail is delivered to it; what `pull` and `import` bring still comes in."""
    out, config = call.out, call.settings()
    with opened(config) as store:
        info = _existing(store, name)
        store.directory.set_access(info.name, access)
    may = "only read" if access == "read" else "read and change"
    out.say(f"Clients may {may} the mail of {info.name}.")
    out.facts({"name": info.name, "access": access})
    return 0


@user.command("gone", short_help="Say what becomes of mail that vanished at its source.")
@click.argument("name")
@click.argument("gone", type=click.Choice(["show", "hide"]))
@common
def set_gone(call: Call, name: str, *, gone: "Gone") -> int:
    """Say where clients find what the other server no longer has: in its place, with the keyword $Gone (`show`), or
    nowhere (`hide`). It is kept in either case. What there is now is moved at once."""
    out, config = call.out, call.settings()
    with opened(config) as store:
        info = _existing(store, name)
        store.directory.set_gone(info.name, gone)
        moved = store.account(info.id).place_gone(gone)
    where = "out of sight" if gone == "hide" else "in its place"
    out.say(f"What vanished at its source is {where} for {info.name}; {plural(moved, 'message')} moved.")
    out.facts({"name": info.name, "gone": gone, "moved": moved})
    return 0


@user.command("alias", short_help="Give an account another name.")
@click.argument("name")
@click.argument("address")
@click.option("--remove", "removing", is_flag=True, help="Take the name away again.")
@common
def alias(call: Call, name: str, *, address: str, removing: bool) -> int:
    """Give an account another name: mail for ADDRESS comes to it, and its owner may log in with it."""
    out, config = call.out, call.settings()
    with opened(config) as store:
        info = _existing(store, name)
        if not removing:
            store.directory.add_alias(info.name, address)
        elif not store.directory.remove_alias(address, of=info.id):
            raise UsageError(f"{info.name} has no other name {address}; `mailkeep user list --json` shows those it has")
        aliases = store.directory.aliases(info.id)
    out.say(f"{address} is no longer {info.name}." if removing else f"{address} is {info.name} as well.")
    out.facts({"name": info.name, "aliases": list(aliases)})
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
        info = _existing(store, name)
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
