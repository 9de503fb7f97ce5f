"""`mailkeep remote`: accounts on other servers, where they are and how they are logged in to.

`add` asks for nothing but the address and the secret; everything else has an option. What is found out is printed
before the secret is asked for, and the secret is tried once before anything is kept.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from mailkeep import config as configuration
from mailkeep.backup.settings import Remote, Settings, Tls, is_loopback
from mailkeep.cli import remote_login
from mailkeep.cli.output import Call, Out, common, human_size, opened, plural
from mailkeep.cli.remote_login import Ways
from mailkeep.cli.selection import selection_options
from mailkeep.errors import AccountExists, UsageError

if TYPE_CHECKING:
    from mailkeep.backup.quirks import Endpoint, Provider
    from mailkeep.mail.selection import Selection
    from mailkeep.store.account import AccountInfo
    from mailkeep.store.store import Store

TLS: Final = click.Choice(["tls", "starttls", "none"])


@click.group(short_help="Add, list and change accounts on other servers.")
def remote() -> None:
    """Accounts on other servers, whose mail `mailkeep pull` keeps. NAME is the remote's name, its address as a rule."""


# --- options that add and set share ----------------------------------------------------------------------------------


def policy_options(command: Callable[..., int]) -> Callable[..., int]:
    """What is wanted of a remote; the command gets them as `policy`."""
    names = ("into", "gone", "leave", "connections", "bytes_per_day", "size_max")

    @functools.wraps(command)
    def called(**given: Any) -> int:
        policy = {name: given.pop(name) for name in names}
        return command(policy=policy, **given)

    wrapped: Callable[..., int] = called
    for option in reversed(
        (
            click.option("--into", metavar="PREFIX", help="Put the whole tree under this folder."),
            click.option("--gone", type=click.Choice(["keep", "mirror"]), help="Mail that vanished there: keep it."),
            click.option(
                "--leave", metavar="WHEN", help="POP3: keep on the server, delete, verified, or a number of days."
            ),
            click.option("--connections", metavar="N", help="At most so many at once."),
            click.option("--bytes-per-day", metavar="SIZE", help="Fetch no more than this a day."),
            click.option("--size-max", metavar="SIZE", help="Do not fetch larger messages."),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


def _policy(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of Settings that the policy options set. Raises UsageError."""
    from mailkeep.errors import NotAllowed
    from mailkeep.mail.mailbox_name import check_name

    changed: dict[str, Any] = {}
    if (into := given["into"]) is not None:
        try:
            changed["into"] = None if into.lower() in ("", "none") else check_name(into)
        except NotAllowed as error:
            raise UsageError(f"--into {into}: {error.text}") from None
    if given["gone"] is not None:
        changed["gone"] = given["gone"]
    if given["leave"] is not None:
        changed |= _leave(given["leave"])
    if given["connections"] is not None:
        changed["connections_max"] = _count(given["connections"], "--connections")
    for name, option in (("bytes_per_day", "--bytes-per-day"), ("size_max", "--size-max")):
        if given[name] is not None:
            changed[name] = _size(given[name], option)
    return changed


def _leave(text: str) -> dict[str, Any]:
    if text in ("keep", "delete", "verified"):
        return {"leave": text, "leave_days": None}
    if text.isascii() and text.isdigit() and 0 < int(text) <= 36500:
        return {"leave": "days", "leave_days": int(text)}
    raise UsageError("--leave must be keep, delete, verified, or a number of days such as 14")


def _count(text: str, option: str) -> int | None:
    if text.lower() == "none":
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 64:
        raise UsageError(f"{option} must be a number from 1 to 64, or none")
    return int(text)


def _size(text: str, option: str) -> int | None:
    try:
        return None if text.lower() == "none" else configuration.size(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}, or none") from None


def _filters(selection: "Selection") -> "Selection | None":
    from mailkeep.mail.selection import Selection

    return None if selection == Selection() else selection


def _ways(given: dict[str, Any]) -> Ways:
    """Takes the secret's options out of those given."""
    names = ("command", "stdin", "keyring")
    ways = {name: given.pop(f"password_{name}" if name != "keyring" else name) for name in names}
    return Ways(
        **ways, **{name: given.pop(name) for name in ("oauth2", "client_id", "client_secret_command", "issuer")}
    ).check()


# --- add -------------------------------------------------------------------------------------------------------------


@remote.command("add", short_help="Add an account on another server.")
@click.argument("address")
@click.option("--imap", metavar="HOST:PORT", help="The IMAP server, instead of looking for it.")
@click.option("--pop3", metavar="HOST:PORT", help="The POP3 server, instead of looking for it.")
@click.option("--tls", type=TLS, help="With --imap or --pop3; by default as the port has it. none: loopback only.")
@click.option("--user", metavar="USER", help="The name to log in with, if it is not the address.")
@click.option("--ca", metavar="FILE", help="Trust the certificates in this file instead of the system's.")
@click.option("--name", metavar="NAME", help="What to call it here. Default: the address.")
@click.option("--account", metavar="NAME", help="Keep the mail in this account. Default: a new one, as the address.")
@click.option("--no-check", is_flag=True, help="Do not try to log in.")
@remote_login.options
@policy_options
@selection_options
@common
def add(call: Call, address: str, *, policy: dict[str, Any], selection: "Selection", **given: Any) -> int:
    """Add the account ADDRESS on another server. It is found from the address alone: Mailkeep looks in its table of
    providers, in DNS, for an autoconfig file, and tries the usual names; it prints what it found, asks for the
    password, and logs in once. The mail goes into an archive account of the same name, which is read-only."""
    out, config, ways = call.out, call.settings(), _ways(given)
    changes = {**_policy(policy), "ca": remote_login.ca_file(given["ca"]), "selection": _filters(selection)}
    name = given["name"] or address
    with opened(config, create=True) as store:
        _check_names(store, name, given["account"] or address, own=given["account"] is not None)
        endpoints, provider, how = _where(address, given, out)
        settings = msgspec.structs.replace(_start(endpoints[0], provider), **changes)
        if remote_login.only_oauth2(endpoints[0]) and not (ways.oauth2 or ways.stdin or ways.command):
            raise UsageError(
                f"{provider.title if provider else settings.host} takes no passwords: give --oauth2 --client-id ID"
            )
        settings, kept, secret = remote_login.with_secret(settings, ways, out)
        if not given["no_check"]:

            def attempt(candidate: Settings) -> None:
                remote_login.try_log_in(candidate, secret, provider)

            settings = remote_login.first_that_answers(settings, endpoints, attempt)
            out.say(f"Logged in to {settings.host} as {settings.user}.")
        remote_login.keep_outside(settings, secret)
        info, made = _archive(store, given["account"] or address)
        row = _keep(store, name, info.id, settings, kept)
    out.say(f"Added {row.name}; its mail will be in the {'new ' if made else ''}account {info.name}.")
    if made:
        out.say(f"To open it with a mail client, give it a password: mailkeep user passwd {info.name}")
    out.say(f"Next: mailkeep pull {row.name}")
    out.facts({**facts(row, info.name), "found": how, "account_made": made, "advice": remote_login.advice(provider)})
    return 0


def _where(address: str, given: dict[str, Any], out: Out) -> "tuple[tuple[Endpoint, ...], Provider | None, str]":
    """The endpoints to try, whose they are, and how they were found; printed. Raises UsageError."""
    from mailkeep.backup.quirks import provider_of_domain, provider_of_host

    _check_user(given["user"] or address)
    if given["imap"] and given["pop3"]:
        raise UsageError("--imap and --pop3 cannot both be; add the account twice, with two names")
    for protocol in ("imap", "pop3"):
        if given[protocol]:
            user = given["user"] or address
            endpoint = remote_login.endpoint_of(protocol, given[protocol], tls=given["tls"], user=user)
            owner = provider_of_host(endpoint.host)
            if owner is None and is_loopback(endpoint.host):  # Proton's Bridge, and no other program on this machine
                owner = provider_of_domain(address.rpartition("@")[2])
            return (endpoint,), owner, "as given"
    if given["tls"]:
        raise UsageError("--tls goes with --imap or --pop3")
    found = remote_login.look(address, out)
    endpoints = remote_login.named_user(found.endpoints, given["user"])
    whose = f" ({found.provider.title})" if found.provider else ""
    out.say(f"{address}{whose}, found by {found.how}:")
    for endpoint in endpoints:
        out.say(f"  {endpoint}, user {endpoint.user}")
    for line in remote_login.advice(found.provider):
        out.say(f"  {line}")
    remote_login.confirm_host(found)
    return endpoints, found.provider, found.how


def _check_user(user: str) -> None:
    if not user.isprintable() or len(user) > 512:
        raise UsageError("the name to log in with has characters that cannot be in one")


def _start(endpoint: "Endpoint", provider: "Provider | None") -> Settings:
    return Settings(
        protocol=endpoint.protocol,
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        tls=endpoint.tls,
        provider=provider.id if provider is not None else None,
    )


def _check_names(store: "Store", name: str, account: str, *, own: bool) -> None:
    """Before anything is looked for or asked: whether the names are free. Raises AccountExists."""
    if store.remotes.find(name) is not None:
        raise AccountExists(f"there is a remote {name} already; choose another name with --name, or see `remote set`")
    info = store.directory.find(account)
    if not own and info is not None and not info.read_only:
        raise AccountExists(
            f"there is an account {info.name} already that is no archive; name one to keep the mail in with --account"
        )
    other = next((each.name for each in store.remotes.list() if info is not None and each.account == info.id), None)
    if not own and info is not None and other is not None:  # two sources in one tree are mixed only if that is meant
        raise AccountExists(
            f"the account {info.name} has the mail of remote {other}; name another with --account, "
            "or this one to put both into it (--into keeps them apart)"
        )


def _archive(store: "Store", name: str) -> "tuple[AccountInfo, bool]":
    """The account that the mail goes to, made read-only where there is none."""
    info = store.directory.find(name)
    if info is not None:
        return info, False
    return store.directory.add(name, access="read"), True


def _keep(store: "Store", name: str, account: int, settings: Settings, kept: Any) -> Remote:
    from mailkeep.backup.seal import seal
    from mailkeep.backup.settings import add_remote

    sealed = None if kept is None else seal(store.root, name, kept)
    return add_remote(store, name, account, settings, sealed=sealed)


# --- list, show ------------------------------------------------------------------------------------------------------


def facts(remote: Remote, account: str) -> dict[str, Any]:
    """For programs. Neither the secret nor the command that prints it."""
    settings = msgspec.to_builtins(remote.settings)
    settings.pop("command", None)
    if "oauth" in settings:
        settings["oauth"].pop("client_secret_command", None)
    settings |= {"tls": remote.settings.tls, "secret": remote.settings.secret, "gone": remote.settings.gone}
    if remote.settings.protocol == "pop3":
        settings["leave"] = remote.settings.leave
    return {"name": remote.name, "account": account, **settings, "schedule": remote.schedule, "created": remote.created}


def _account_name(store: "Store", remote: Remote) -> str:
    info = store.directory.find_id(remote.account)
    return info.name if info is not None else f"account {remote.account}"


@remote.command("list", short_help="Show all remotes.")
@common
def list_remotes(call: Call) -> int:
    """Show all remotes: server, user and the account that has their mail."""
    from mailkeep.backup.settings import load_remotes

    out, config = call.out, call.settings()
    with opened(config) as store:
        rows = [(each, _account_name(store, each)) for each in load_remotes(store)]
    out.facts({"remotes": [facts(each, account) for each, account in rows]})
    if not rows:
        out.say("There are no remotes; add one with `mailkeep remote add ADDRESS`.")
        return 0
    out.table(
        ["Name", "Server", "User", "Account", "Schedule"],
        [
            [each.name, _server(each.settings), each.settings.user, account, each.schedule or "none"]
            for each, account in rows
        ],
    )
    return 0


def _server(settings: Settings) -> str:
    return f"{settings.protocol}://{settings.host}:{settings.port}"


_SECRETS: Final = {
    "sealed": "a password, sealed in the store",
    "command": "what a command prints",
    "keyring": "in the keyring",
    "oauth2": "OAuth 2 tokens, sealed in the store",
}
_GONE: Final = {"keep": "is kept, marked as gone", "mirror": "is removed here as well"}


@remote.command("show", short_help="Show one remote.")
@click.argument("name")
@common
def show(call: Call, name: str) -> int:
    """Show what is known of a remote: its server, how it is logged in to, what is wanted of it."""
    from mailkeep.backup.quirks import providers, quirks_for
    from mailkeep.backup.settings import find_remote

    out, config = call.out, call.settings()
    with opened(config) as store:
        found = find_remote(store, name)
        account = _account_name(store, found)
    settings = found.settings
    provider = providers().get(settings.provider or "")
    line: Tls = settings.tls
    encrypted = {"tls": "TLS", "starttls": "STARTTLS", "none": "not encrypted"}[line]
    rows: list[tuple[str, object]] = [
        ("Name", found.name),
        ("Server", f"{_server(settings)} ({encrypted})"),
        ("Provider", provider.title if provider else None),
        ("User", settings.user),
        ("Secret", _SECRETS[settings.secret]),
        ("Trusts", settings.ca),
        ("Account", account),
        ("Under", settings.into),
        ("Only", settings.selection.describe() if settings.selection else None),
        ("Mail gone there", _GONE[settings.gone]),
        ("On the server", _left(settings) if settings.protocol == "pop3" else None),
        ("Connections", settings.connections_max),
        ("Bytes a day", settings.bytes_per_day and human_size(settings.bytes_per_day)),
        ("Largest message", settings.size_max and human_size(settings.size_max)),
        ("Quirks", quirks_for(settings).name or None),
        ("Schedule", found.schedule or "none"),
        ("Added", time.strftime("%Y-%m-%d", time.localtime(found.created))),
    ]
    for label, value in rows:
        if value is not None:
            out.say(f"{label + ':':<18}{value}")
    out.facts({**facts(found, account), "quirks": quirks_for(settings).name})
    return 0


def _left(settings: Settings) -> str:
    if settings.leave == "days":
        return f"deleted after {plural(settings.leave_days or 0, 'day')}"
    return {"keep": "kept", "delete": "deleted when it is on disk here", "verified": "deleted when verified here"}[
        settings.leave
    ]


# --- set, login, remove ----------------------------------------------------------------------------------------------


@remote.command("set", short_help="Change a remote.")
@click.argument("name")
@click.option("--imap", metavar="HOST:PORT", help="Another IMAP server.")
@click.option("--pop3", metavar="HOST:PORT", help="Another POP3 server.")
@click.option("--tls", type=TLS, help="How the line is encrypted. none: loopback only.")
@click.option("--user", metavar="USER", help="The name to log in with.")
@click.option("--ca", metavar="FILE", help="Trust the certificates in this file; none for the system's.")
@click.option("--no-filters", is_flag=True, help="Take everything; without it, filters given here replace all before.")
@policy_options
@selection_options
@common
def set_remote(call: Call, name: str, *, policy: dict[str, Any], selection: "Selection", **given: Any) -> int:
    """Change a remote. What is not named stays; `none` takes a limit or a folder away. What was pulled already is not
    touched. For another password see `mailkeep remote login`."""
    from mailkeep.backup.settings import find_remote, pack

    out, config = call.out, call.settings()
    with opened(config) as store:
        found = find_remote(store, name)
        settings = msgspec.structs.replace(_moved(found.settings, given), **_policy(policy))
        if given["ca"] is not None:
            ca = None if given["ca"] == "none" else remote_login.ca_file(given["ca"])
            settings = msgspec.structs.replace(settings, ca=ca)
        filters = _filters(selection)
        if filters is not None and given["no_filters"]:
            raise UsageError("--no-filters cannot go with filters")
        if filters is not None or given["no_filters"]:
            settings = msgspec.structs.replace(settings, selection=filters)
        changed = settings != found.settings
        if changed:
            store.remotes.update(found.id, settings=pack(settings))
        account = _account_name(store, found)
    out.say(f"Changed {found.name}." if changed else f"Nothing to change in {found.name}.")
    after = Remote(found.id, found.name, found.account, settings, None, found.schedule, None, found.created)
    out.facts({**facts(after, account), "changed": changed})
    return 0


def _moved(settings: Settings, given: dict[str, Any]) -> Settings:
    """With another server, line or user. Raises UsageError."""
    from mailkeep.backup.quirks import provider_of_host

    if given["imap"] and given["pop3"]:
        raise UsageError("--imap and --pop3 cannot both be")
    user = given["user"] or settings.user
    _check_user(user)
    for protocol in ("imap", "pop3"):
        if given[protocol]:
            endpoint = remote_login.endpoint_of(protocol, given[protocol], tls=given["tls"], user=user)
            owner = provider_of_host(endpoint.host)
            moved = remote_login.at(settings, endpoint)
            return msgspec.structs.replace(moved, provider=owner.id if owner else None)
    if given["tls"]:
        where = f"{settings.host}:{settings.port}" if ":" not in settings.host else f"[{settings.host}]:{settings.port}"
        return remote_login.at(
            settings, remote_login.endpoint_of(settings.protocol, where, tls=given["tls"], user=user)
        )
    return msgspec.structs.replace(settings, user=user)


@remote.command("login", short_help="Renew the password or tokens of a remote.")
@click.argument("name")
@click.option("--no-check", is_flag=True, help="Do not try to log in.")
@remote_login.options
@common
def login(call: Call, name: str, *, no_check: bool, **given: Any) -> int:
    """Give a remote a new password or new tokens, and try them. Without options in the way it had before."""
    from mailkeep.backup.quirks import providers
    from mailkeep.backup.seal import seal
    from mailkeep.backup.settings import find_remote, pack
    from mailkeep.backup.states import forget_refusal

    out, config, ways = call.out, call.settings(), _ways(given)
    with opened(config) as store:
        found = find_remote(store, name)
        before = found.settings
        if ways == Ways():
            command = before.command if before.secret == "command" else None
            ways = Ways(command=command, keyring=before.secret == "keyring", oauth2=before.secret == "oauth2")
        settings, kept, secret = remote_login.with_secret(before, ways, out)
        if not no_check:
            remote_login.try_log_in(settings, secret, providers().get(settings.provider or ""))
            out.say(f"Logged in to {settings.host} as {settings.user}.")
        remote_login.keep_outside(settings, secret)
        sealed = None if kept is None else seal(store.root, found.name, kept)
        store.remotes.update(found.id, settings=pack(settings), secret=sealed, state=forget_refusal(found.state))
        account = _account_name(store, found)
    out.say(f"Secret of {found.name} renewed.")
    after = Remote(found.id, found.name, found.account, settings, None, found.schedule, None, found.created)
    out.facts({**facts(after, account), "checked": not no_check})
    return 0


@remote.command("schedule", short_help="Let `serve` pull a remote by itself.")
@click.argument("name")
@click.argument("when", required=False)
@click.option("--sync", "both_ways", is_flag=True, help="Keep both sides the same, as `mailkeep sync` does.")
@common
def schedule(call: Call, name: str, *, when: str | None, both_ways: bool) -> int:
    """Let `mailkeep serve` pull a remote by itself: WHEN is "every 15 min", "every 2 hours", "daily at 03:30" or
    "never". Without WHEN it shows the schedule. It holds at once, also for a server that runs."""
    from mailkeep.backup.schedule import parse
    from mailkeep.backup.settings import find_remote

    out, config = call.out, call.settings()
    if both_ways and when is None:
        raise UsageError('--sync goes with a time, such as "every 15 min"')
    chosen = parse(when) if when is not None else None
    if chosen is not None and both_ways:
        chosen = dataclasses.replace(chosen, both_ways=True)
    with opened(config) as store:
        found = find_remote(store, name)
        if when is None:
            chosen = parse(found.schedule or "never")
        elif chosen is not None and chosen.both_ways:
            from mailkeep.backup.context import Context
            from mailkeep.backup.sync import check_possible

            check_possible(Context(store), found, store.account(found.account))
        text = None if chosen is None else str(chosen)
        if text != found.schedule:
            store.remotes.update(found.id, schedule=text)
    if chosen is None:
        out.say(f"{found.name} has no schedule.")
    else:
        done = "synchronised" if chosen.both_ways else "pulled"
        out.say(f"{found.name} is {done} {chosen.when} while `mailkeep serve` runs.")
    out.facts({"name": found.name, "schedule": text})
    return 0


@remote.command("remove", short_help="Forget a remote; its mail stays.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def remove(call: Call, name: str, *, yes: bool) -> int:
    """Forget a remote with its secret. The mail that was pulled stays in its account, and nothing is changed on the
    server."""
    from mailkeep.backup.outside import drop_from_keyring
    from mailkeep.backup.settings import find_remote, remove_remote

    out, config = call.out, call.settings()
    with opened(config) as store:
        found = find_remote(store, name)
        account = _account_name(store, found)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"say --yes to forget {found.name} without being asked; its mail stays in {account}")
            click.confirm(f"Forget {found.name}? Its mail stays in {account}.", abort=True, err=True)
        if found.settings.secret == "keyring":
            drop_from_keyring(found.settings)
        remove_remote(store, found)
        kept = store.account(found.account).usage().messages
    out.say(f"Forgot {found.name}. Its mail, {plural(kept, 'message')}, stays in the account {account};")
    out.say(f"to remove that as well: mailkeep user remove {account}")
    out.facts({"name": found.name, "account": account, "messages": kept})
    return 0
