"""From a host's name to a connection that is logged in: greeting, TLS, log-in, what the server says of itself.

It knows the not-authenticated state of IMAP (RFC 9051 section 6.2) and nothing of mailboxes. The hard idea is
restraint: a refused log-in counts against the user at most providers, so there is one attempt; a second mechanism is
tried only when the server says that it does not know the first, and who calls must not try again after BadCredentials.
"""

import asyncio
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from msgspec.structs import replace

import mailkeep
from mailkeep.backup.imap_link import ImapLink, Reply, quietly
from mailkeep.backup.pace import PIPELINE_MAX, is_passing, refusal
from mailkeep.backup.quirks import Quirks, quirks_for
from mailkeep.backup.settings import Password, Settings, Token
from mailkeep.backup.stream import open_stream
from mailkeep.errors import (
    BadCredentials,
    MailkeepError,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    TlsRequired,
    Unreachable,
    Untrusted,
)
from mailkeep.secret import hush
from mailkeep.wire import imap_answer as answer
from mailkeep.wire import imap_command as command
from mailkeep.wire import sasl_client

SecretSource = Password | Token | Callable[[], Awaitable[Password | Token]]

COMPRESS_FROM_S: Final = 0.005  # below this round trip the line is not what takes the time
_UNKNOWN_MECHANISM = re.compile(
    r"(?:un(?:supported|known|recogni[sz]ed)|not (?:supported|available)|invalid).{0,40}mech|"
    r"mech.{0,40}(?:un(?:supported|known)|not (?:supported|available))",
    re.IGNORECASE,
)
# BAD to a password, as some say it, is no word about the mechanism.
_WRONG_PASSWORD = re.compile(
    r"credential|password|(?:auth\w*|log-?in|sign-?in) (?:is |was |has )?(?:fail|refus|reject|den)", re.I
)
# Refused for having tried too often: the next try makes it last longer.
_LOCKED = re.compile(
    r"lock|(?:log-?in|auth\w*|password|fail\w*|bad|wrong|invalid)\W.{0,40}(?:attempt|tries|too)|attempts", re.I
)
LOCKED_WAIT_S: Final = 3600.0
_REFUSED: Final = frozenset(("AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "CONTACTADMIN"))


async def open_link(
    settings: Settings,
    secret: SecretSource,
    quirks: Quirks,
    *,
    timeout_s: float,
    compress: bool | None = None,
    pipeline_max: int = PIPELINE_MAX,
    on_hang_up: Callable[[], None] | None = None,
    ahead: Callable[[ImapLink], None] | None = None,
) -> tuple[ImapLink, answer.NamespaceEntry | None]:
    """A logged-in link and its personal namespace. `compress`: None means when the line is slow enough.

    `on_hang_up`: called when the server cut the line because, perhaps, too much was asked of it at once.
    `ahead`: called when the last questions here are out and before they are answered, to put more.

    Raises Unreachable, Untrusted, BadCredentials, TlsRequired, RemoteError, RemoteBusy, ProtocolError.
    """
    tls, host = settings.tls, settings.host
    stream = await open_stream(host, settings.port, tls=tls, ca=settings.ca, timeout_s=timeout_s)
    link = ImapLink(stream, quirks, timeout_s=timeout_s)
    link.pipeline_max = pipeline_max
    try:
        greeting = await link.greeting()
        _check_greeting(link, greeting, settings)
        if not link.capabilities:
            await _ask_capabilities(link)
        if tls == "starttls":
            await _start_tls(link)
        if greeting.kind != "PREAUTH":
            shown = secret if isinstance(secret, Password | Token) else await secret()
            try:
                await _log_in(link, settings, shown)
            except MailkeepError as error:
                hush(error, shown.secret, user=settings.user)
                raise
        # Nothing may be under way beside COMPRESS.
        may_compress = compress is not False and "COMPRESS=DEFLATE" in link.capabilities
        namespace = await _introduce(link, settings, greeting, ahead=None if may_compress else ahead)
        wanted = link.rtt_s >= COMPRESS_FROM_S if compress is None else compress
        if wanted and "COMPRESS=DEFLATE" in link.capabilities:
            await _compress(link)
    except BaseException:
        if link.cut_with > 1 and on_hang_up is not None:
            on_hang_up()
        link.abort()
        raise
    return link, namespace


def _check_greeting(link: ImapLink, greeting: answer.Status, settings: Settings) -> None:
    """RFC 9051 section 7.1.4 and 7.1.5."""
    if greeting.kind in ("OK", "PREAUTH"):
        if greeting.kind == "PREAUTH" and settings.tls == "starttls":
            # Nothing can be encrypted any more (RFC 9051 section 11.3): somebody may want it so.
            raise Untrusted(f"{link.host} greets without asking who we are, so TLS cannot begin; use its TLS port")
        return
    code = greeting.code.name if greeting.code is not None else None
    what = f"{link.host} does not let us in"
    if is_passing(code, greeting.text, link.quirks):
        raise refusal(what, code=code, text=greeting.text, quirks=link.quirks)
    raise Unreachable(refusal(what, code=code, text=greeting.text, quirks=link.quirks).text)


async def _start_tls(link: ImapLink) -> None:
    if "STARTTLS" not in link.capabilities:
        raise Untrusted(f"{link.host} does not offer STARTTLS on this port; use its TLS port (993 as a rule)")
    reply = await _alone(link, command.StartTls())
    if not reply.ok:
        raise link.error_of(reply, "STARTTLS")
    if link.client.buffered:
        raise ProtocolError(f"{link.host} sent more than one answer before TLS began")
    await link.secure()
    # What was said in clear does not count (RFC 9051 section 6.2.1).
    await _ask_capabilities(link)


async def _ask_capabilities(link: ImapLink) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await link.run(command.Capability())
    link.measured(loop.time() - began)


async def _compress(link: ImapLink) -> None:
    """COMPRESS=DEFLATE (RFC 4978); a server that refuses goes on in plain."""
    reply = await _alone(link, command.Compress())
    if reply.ok:
        if link.client.buffered:
            raise ProtocolError(f"{link.host} sent more than one answer before compression began")
        link.compress()


async def _alone(link: ImapLink, asked: command.StartTls | command.Compress) -> Reply:
    """A command after which the bytes mean something else: nothing may be under way beside it."""
    assert not link.pending
    return await link.start(asked, last=True)


async def _log_in(link: ImapLink, settings: Settings, secret: Password | Token) -> None:
    """RFC 9051 section 6.2.2 and 6.2.3."""
    stream = link.stream
    open_allowed = settings.tls == "none" and stream.loopback
    if not stream.tls and not open_allowed:
        raise TlsRequired(f"a password is not sent to {link.host} over an open line")
    offered = {name.removeprefix("AUTH=") for name in link.capabilities if name.startswith("AUTH=")}
    kind: Literal["token", "password"] = "token" if isinstance(secret, Token) else "password"
    tried = False
    while True:
        name = sasl_client.choose(offered, kind, encrypted=stream.tls, open_allowed=open_allowed)
        if name is None and kind == "token" and not tried:
            name = "XOAUTH2"  # Yandex takes it and does not say so
        tried = True
        if name is not None:
            reply = await _authenticate(link, name, settings, secret)
        elif kind == "password" and "LOGINDISABLED" not in link.capabilities:
            name = "LOGIN"
            reply = await link.start(command.Login(settings.user.encode(), secret.secret.reveal().encode()))
        else:
            shown = ", ".join(sorted(offered)) or "none"
            raise RemoteError(f"{link.host} takes no {kind} for a log-in (it offers: {shown[:200]})")
        if reply.ok:
            break
        said = reply.status.text
        unknown = _UNKNOWN_MECHANISM.search(said) is not None
        unknown = unknown or (reply.status.kind == "BAD" and not _WRONG_PASSWORD.search(said))
        if name not in offered or not unknown or reply.code in _REFUSED:
            raise _refused(link, settings, reply)
        offered.discard(name)
    if not _told_capabilities(reply) or link.quirks.recapability_after_login:
        await _ask_capabilities(link)


def _told_capabilities(reply: Reply) -> bool:
    return reply.code == "CAPABILITY" or any(isinstance(each, answer.Capability) for each in reply.answers)


def _refused(link: ImapLink, settings: Settings, reply: Reply) -> MailkeepError:
    error = link.error_of(reply, "the log-in")
    if reply.code not in _REFUSED and is_passing(reply.code, reply.status.text, link.quirks):
        if isinstance(error, RemoteBusy) and _LOCKED.search(reply.status.text):
            error.retry_after_s = max(error.retry_after_s or 0.0, LOCKED_WAIT_S)
        return error
    advice = f". {link.quirks.password_help}" if link.quirks.password_help else ""
    words = re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", reply.status.text).strip()[:300]
    return BadCredentials(f"{link.host} refused the log-in of {settings.user}: {words or 'no reason given'}{advice}")


async def _authenticate(link: ImapLink, name: str, settings: Settings, secret: Password | Token) -> Reply:
    mechanism = sasl_client.make(
        name,
        settings.user,
        secret.secret.reveal(),
        bindings=link.stream.channel_bindings(),
        host=settings.host,
        port=settings.port,
    )
    initial = mechanism.step(None) if mechanism.client_first and "SASL-IR" in link.capabilities else None
    waiting = mechanism.client_first and initial is None  # the first, empty challenge asks for the initial response
    failure: list[MailkeepError] = []

    def respond(text: bytes) -> None:
        nonlocal waiting
        if failure:
            raise ProtocolError(f"{link.host} asks on after the log-in was given up")
        try:
            challenge = b64decode(text, validate=False)
            response = mechanism.step(None if waiting else challenge)
        except (ValueError, MailkeepError) as error:
            bad = ProtocolError(f"{link.host} sent a challenge that is no base64")
            failure.append(error if isinstance(error, MailkeepError) else bad)
            link.stream.write(b"*\r\n")
            return
        waiting = False
        link.stream.write(b64encode(response) + b"\r\n")

    reply = await link.start(command.Authenticate(name, initial), on_continue=respond)
    if failure:
        raise failure[0]
    if not reply.ok and mechanism.problem:
        reply.status = replace(reply.status, text=f"{reply.status.text} ({mechanism.problem})")
    if reply.ok and not mechanism.done:
        raise Untrusted(f"{link.host} did not prove that it knows the password; it may not be what it says it is")
    return reply


async def _introduce(
    link: ImapLink, settings: Settings, greeting: answer.Status, *, ahead: Callable[[ImapLink], None] | None
) -> answer.NamespaceEntry | None:
    """ID, ENABLE and NAMESPACE, one round trip for all; quirks are looked up again by what the server is."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked = []
    capabilities, quirks = link.capabilities, link.quirks
    if "ID" in capabilities:
        fields = (("name", "Mailkeep"), ("version", getattr(mailkeep, "__version__", "0")))
        asked.append(link.start(command.Id(fields)))
    if "NAMESPACE" in capabilities:
        asked.append(link.start(command.Namespace()))
    wanted = _enabled(capabilities, quirks)
    if wanted and "ENABLE" in capabilities:
        asked.append(link.start(command.Enable(wanted)))
    if ahead is not None:
        ahead(link)
    found: list[answer.Answer] = []
    for number, each in enumerate(asked):
        found += (await each).answers
        if number == 0:
            link.measured(loop.time() - began)
    named = next((each.fields for each in found if isinstance(each, answer.Id)), None)
    if quirks == quirks_for(settings):  # else the caller knows better
        link.quirks = quirks_for(settings, server_id=named, greeting=greeting.text)
    spaces = next((each for each in found if isinstance(each, answer.Namespace)), None)
    return spaces.personal[0] if spaces is not None and spaces.personal else None


def _enabled(capabilities: frozenset[str], quirks: Quirks) -> tuple[str, ...]:
    if "QRESYNC" in capabilities and quirks.trust_qresync:
        return ("QRESYNC",)  # CONDSTORE comes with it (RFC 7162 section 3.2.3)
    if "CONDSTORE" in capabilities and quirks.trust_condstore:
        return ("CONDSTORE",)
    return ()


async def close_link(link: ImapLink) -> None:
    """LOGOUT, then close. Never raises, never waits long."""
    if link.alive:
        async with asyncio.timeout(3.0):
            await quietly(link.start(command.Logout()))
    await link.close()
