"""How `mailkeep remote` gets a secret, tries it, and says where the server is.

A secret is asked for without echo, read from stdin, left where a command or keyring has it, or got from an OAuth 2
issuer. It is tried once: a second try with the same wrong password locks accounts at some providers.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from mailkeep.backup.quirks import Endpoint, Provider, at_tenant, issuer, provider_of_host, quirks_for
from mailkeep.backup.settings import OAuth, Password, Protocol, Settings, Tls, Token
from mailkeep.cli.output import Out, shown
from mailkeep.errors import BadCredentials, ConfigError, Unreachable, UsageError

if TYPE_CHECKING:
    from mailkeep.backup.discover import Found, Means
    from mailkeep.backup.seal import Kept

PASSWORD_MAX = 4096
TLS_OF_PORT: dict[int, Tls] = {993: "tls", 995: "tls", 143: "starttls", 110: "starttls"}
T = TypeVar("T")


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work of a command to its end."""
    return asyncio.run(work)


@dataclass(frozen=True, slots=True)
class Ways:
    """How the command line says that the secret is had; at most one of them."""

    stdin: bool = False
    command: str | None = None
    keyring: bool = False
    oauth2: bool = False
    client_id: str | None = None
    client_secret_command: str | None = None
    issuer: str | None = None

    def check(self) -> "Ways":
        """Raises UsageError."""
        given = [
            option
            for option, said in (
                ("--password-stdin", self.stdin),
                ("--password-command", self.command is not None),
                ("--keyring", self.keyring and not self.stdin),  # what comes from stdin may go into the keyring
                ("--oauth2", self.oauth2),
            )
            if said
        ]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} cannot both be; choose one")
        if not self.oauth2 and (self.client_id or self.client_secret_command or self.issuer):
            raise UsageError("--client-id, --client-secret-command and --issuer go with --oauth2")
        return self


def options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of Ways, each under its own name."""
    wrapped = command
    for option in reversed(
        (
            click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin."),
            click.option("--password-command", metavar="CMD", help="Run CMD for the password, each time it is needed."),
            click.option("--keyring", is_flag=True, help="Keep the password in the desktop's keyring."),
            click.option("--oauth2", is_flag=True, help="Log in with a browser instead of a password."),
            click.option("--client-id", metavar="ID", help="--oauth2: your own client id."),
            click.option("--client-secret-command", metavar="CMD", help="--oauth2: run CMD for the client's secret."),
            click.option("--issuer", metavar="NAME", help="--oauth2: who gives tokens, if not clear from the server."),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


# --- where -----------------------------------------------------------------------------------------------------------


def endpoint_of(protocol: Protocol, text: str, *, tls: Tls | None, user: str) -> Endpoint:
    """What --imap or --pop3 says. Raises UsageError."""
    from mailkeep.backup.settings import is_loopback

    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, "993" if protocol == "imap" else "995"
        port = port if tls != "starttls" else "143" if protocol == "imap" else "110"
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or any(c <= " " for c in host) or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--{protocol} must be HOST:PORT such as {protocol}.example.org:993, not {text}")
    line = tls or TLS_OF_PORT.get(int(port), "tls")
    if line == "none" and not is_loopback(host):
        raise UsageError(f"--tls none would show the password to everybody on the way to {host}; use tls or starttls")
    known = provider_of_host(host)
    auth = next((each.auth for each in known.endpoints if each.protocol == protocol), None) if known else None
    return Endpoint(protocol, host.lower(), int(port), line, user, auth or ("password",))


def means() -> "Means":
    """What discovery looks with outside of tests."""
    from mailkeep.backup.discover import Means, Resolver, probe
    from mailkeep.backup.fetch import fetcher

    return Means(Resolver(), fetcher(), probe)


def look(address: str, out: Out) -> "Found":
    """Find the servers of an address and say so. Raises UsageError."""
    from mailkeep.backup.discover import discover

    if sys.stderr.isatty():
        out.warn(f"Looking for the mail server of {address.rpartition('@')[2]} …")
    found = finished(discover(address, means()))
    for remark in found.remarks:
        out.warn(f"Note: {remark}.")
    return found


def confirm_host(found: "Found") -> None:
    """A host that only DNS or HTTP named gets the password when its user says so (RFC 6186 section 6)."""
    first = found.endpoints[0]
    if found.certain:
        return
    domain = found.address.rpartition("@")[2]
    # Whichever of them answers gets it, so each must be named.
    hosts = dict.fromkeys(each.host for each in found.endpoints if each.protocol == first.protocol)
    outside = [host for host in hosts if host != domain and not host.endswith("." + domain)] or [first.host]
    verb = "is" if len(outside) == 1 else "are"
    why = f"{found.how} names {', '.join(outside)}, which {verb} outside {domain} and not known to Mailkeep"
    if not sys.stdin.isatty():
        raise UsageError(
            f"{why}; if that is right, say so with --{first.protocol} {first.host}:{first.port} --tls {first.tls}"
        )
    click.confirm(f"{why}. Send the password there?", abort=True, err=True)


def advice(provider: Provider | None) -> list[str]:
    """Where to switch IMAP on and make an app password, as lines for people."""
    if provider is None:
        return []
    lines = [provider.note] if provider.note else []
    for url, words in (
        (provider.enable_url, "Switch IMAP on at"),
        (provider.password_url, "Make an app password at"),
        (provider.help_url, "Help of the provider:"),
    ):
        if url:
            lines.append(f"{words} {url}")
    return lines


# --- the secret ------------------------------------------------------------------------------------------------------


def ask(ways: Ways, settings: Settings, prompt: str) -> str:
    """A password from stdin or the terminal. Raises UsageError."""
    if ways.stdin:
        try:
            text = sys.stdin.readline().rstrip("\r\n")
            text.encode()
        except UnicodeError:
            raise UsageError("the password on stdin is not UTF-8") from None
    elif sys.stdin.isatty():
        text = click.prompt(prompt, hide_input=True, err=True)
    else:
        raise UsageError("there is no terminal to ask for the password on; pipe it in with --password-stdin")
    if not text:
        raise UsageError("the password is empty; give one")
    if len(text.encode(errors="replace")) > PASSWORD_MAX:
        raise UsageError(f"the password is longer than {PASSWORD_MAX} bytes; give a shorter one")
    # Google shows app passwords in groups of four; the spaces between them are not part of it.
    known = provider_of_host(settings.host)
    is_grouped = known is not None and known.id == "gmail" and len(text.replace(" ", "")) == 16
    return text.replace(" ", "") if is_grouped else text


def with_secret(settings: Settings, ways: Ways, out: Out) -> "tuple[Settings, Kept | None, Password | Token]":
    """Settings that say where the secret is, what is to be sealed of it, and the secret to try now.

    Raises UsageError, ConfigError, BadCredentials, Unreachable, RemoteError.
    """
    from mailkeep.backup import outside
    from mailkeep.backup.seal import Kept
    from mailkeep.secret import Secret

    if ways.oauth2:
        return _with_tokens(settings, ways)
    if ways.command is not None:
        changed = msgspec.structs.replace(settings, secret="command", command=ways.command, oauth=None)
        return changed, None, Password(finished(outside.outside_secret(changed)))
    if ways.keyring:
        outside.need_keyring()
    password = ask(ways, settings, f"Password of {settings.user} at {settings.host}")
    if ways.keyring:
        changed = msgspec.structs.replace(settings, secret="keyring", command=None, oauth=None)
        return changed, None, Password(Secret(password))
    changed = msgspec.structs.replace(settings, secret="sealed", command=None, oauth=None)
    return changed, Kept(password=password), Password(Secret(password))


def keep_outside(settings: Settings, secret: Password | Token) -> None:
    """What goes into the keyring, once it has been tried. Raises ConfigError."""
    if settings.secret == "keyring":
        from mailkeep.backup.outside import to_keyring

        to_keyring(settings, secret.secret)


def _with_tokens(settings: Settings, ways: Ways) -> "tuple[Settings, Kept, Token]":
    from mailkeep.backup import oauth
    from mailkeep.secret import Secret

    chosen = oauth_of(settings, ways)
    kept = finished(oauth.log_in(chosen, hint=settings.user, tell=_tell))
    assert kept.access_token is not None
    changed = msgspec.structs.replace(settings, secret="oauth2", command=None, oauth=chosen)
    return changed, kept, Token(Secret(kept.access_token))


def _tell(text: str) -> None:
    """What the user must do to log in; said even with --quiet, or nobody could."""
    for line in text.split("\n"):
        click.echo(shown(line), err=True)


def oauth_of(settings: Settings, ways: Ways) -> OAuth:
    """Whom to ask for tokens, and as which client. Raises UsageError."""
    before = settings.oauth
    name = ways.issuer or (before.issuer if before else None)
    if name is None:
        known = provider_of_host(settings.host)
        kinds = [kind for each in (known.endpoints if known else ()) for kind in each.auth]
        name = next((kind.partition(":")[2] for kind in kinds if kind.startswith("oauth2:")), None)
    if not name or name == "custom":
        raise UsageError(f"who gives tokens for {settings.host} is not known; name it with --issuer")
    name, _, tenant = name.partition(":")
    row = issuer(name)
    if tenant:  # an organisation's own directory: an app that is registered for it alone is not let in at "common"
        if name != "microsoft" or not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", tenant):
            raise UsageError("--issuer must be a name such as google, or microsoft:TENANT")
        row = at_tenant(row, tenant)
    client_id = ways.client_id or (before.client_id if before and before.issuer == row.name else None)
    if client_id is None:
        where = f" (made at {row.register_url})" if row.register_url else ""
        raise UsageError(f"OAuth 2 at {name} needs a client id of your own{where}; give it with --client-id")
    return OAuth(
        issuer=row.name,
        client_id=client_id,
        flow="device" if row.device_url else "loopback",
        token_url=row.token_url,
        scope=(row.scope_pop3 or row.scope) if settings.protocol == "pop3" else row.scope,
        authorize_url=row.authorize_url,
        device_url=row.device_url,
        client_secret_command=ways.client_secret_command or (before.client_secret_command if before else None),
    )


def only_oauth2(endpoint: Endpoint) -> bool:
    """Whether the server takes no password at all."""
    return bool(endpoint.auth) and all(kind.startswith("oauth2:") for kind in endpoint.auth)


# --- trying it -------------------------------------------------------------------------------------------------------


def try_log_in(settings: Settings, secret: Password | Token, provider: Provider | None) -> None:
    """One log-in and out. Raises what the connection raises; who is refused is told what the provider wants."""
    try:
        finished(_log_in(settings, secret))
    except BadCredentials as error:
        hints = [line for line in advice(provider) if line not in error.text]
        text = error.text.rstrip(".")
        raise BadCredentials(". ".join([text, *(hint.rstrip(".") for hint in hints)])) from None


async def _log_in(settings: Settings, secret: Password | Token) -> None:
    quirks = quirks_for(settings)
    if settings.protocol == "imap":
        from mailkeep.backup.imap_remote import open_imap

        imap = await open_imap(settings, secret, quirks)
        await imap.logout()
    else:
        from mailkeep.backup.pop3_remote import open_pop3

        pop = await open_pop3(settings, secret, quirks)
        await pop.leave()


def first_that_answers(
    settings: Settings, endpoints: tuple[Endpoint, ...], attempt: Callable[[Settings], None]
) -> Settings:
    """Try the endpoints of the first one's protocol until one can be reached. What is refused is not tried again.

    Raises what `attempt` raises: Unreachable only when none can be reached.
    """
    failed: Unreachable | None = None
    for endpoint in endpoints:
        if endpoint.protocol != settings.protocol:
            continue
        candidate = at(settings, endpoint)
        try:
            attempt(candidate)
            return candidate
        except Unreachable as error:
            failed = failed or error
    raise failed or ConfigError("there is no server to try")


def at(settings: Settings, endpoint: Endpoint) -> Settings:
    """The settings with another server in them."""
    return msgspec.structs.replace(
        settings,
        protocol=endpoint.protocol,
        host=endpoint.host,
        port=endpoint.port,
        tls=endpoint.tls,
        user=endpoint.user,
    )


def named_user(endpoints: tuple[Endpoint, ...], user: str | None) -> tuple[Endpoint, ...]:
    return endpoints if user is None else tuple(replace(each, user=user) for each in endpoints)


def ca_file(path: str | None) -> str | None:
    """The absolute path of a file of certificates. Raises UsageError when it cannot be read as one."""
    import ssl

    if path is None:
        return None
    full = Path(path).expanduser().absolute()
    try:
        ssl.create_default_context(cafile=str(full))
    except ssl.SSLError:
        raise UsageError(f"--ca {full}: there are no certificates in it; it must be a PEM file") from None
    except OSError as error:
        raise UsageError(f"--ca {full}: cannot be read: {error.strerror}") from None
    return str(full)
