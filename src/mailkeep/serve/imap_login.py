"""Before there is a mailbox: CAPABILITY, ID, NOOP, LOGOUT, STARTTLS, LOGIN, AUTHENTICATE, ENABLE.

What is advertised depends on who asks: LOGINDISABLED and STARTTLS on an open line (RFC 9051 section 6.2.1), mechanisms
before log-in only, the rest always, since some clients never ask again.
"""

from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Coroutine
from typing import Any

import mailkeep
from mailkeep import log
from mailkeep.errors import ProtocolError
from mailkeep.secret import Secret
from mailkeep.serve.imap_peer import Peer, Steps
from mailkeep.serve.imap_reply import Reply, bad, ok
from mailkeep.serve.services import Services
from mailkeep.store import AccountInfo
from mailkeep.wire import imap_response
from mailkeep.wire.imap_command import (
    Authenticate,
    Capability,
    Enable,
    Id,
    Login,
    Logout,
    Noop,
    StartTls,
)
from mailkeep.wire.imap_server import Limits
from mailkeep.wire.sasl import Challenge

_log = log.get("imap")

_ALWAYS = (
    b"IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE UIDPLUS MOVE UNSELECT CHILDREN ESEARCH SEARCHRES"
    b" LIST-EXTENDED LIST-STATUS STATUS=SIZE SPECIAL-USE CREATE-SPECIAL-USE CONDSTORE QRESYNC UTF8=ACCEPT BINARY"
    b" OBJECTID SAVEDATE PREVIEW"
)
OK_NOOP = ok(b"NOOP completed")
_NAMED = ("name", "version", "vendor", "os")  # of what a client's ID says, this goes into the log


def limits_before(services: Services) -> Limits:
    """What a stranger may send: room for a name and a password, no message."""
    return Limits(line_max=8 * 1024, literal_max=16 * 1024, append_max=64 * 1024)


def limits_after(services: Services) -> Limits:
    """What a user may send."""
    return Limits(line_max=services.limits.line_size_max, append_max=services.limits.message_size_max)


def capabilities(peer: Peer) -> bytes:
    """What this client can do now, the atoms of CAPABILITY."""
    parts = [_ALWAYS, b"APPENDLIMIT=%d" % peer.services.limits.message_size_max]
    if peer.account_open is None:
        conn = peer.conn
        if conn.can_start_tls:
            parts.append(b"STARTTLS")
        mechanisms = peer.services.auth.mechanisms(conn)
        if mechanisms:
            parts += [b"AUTH=" + name.encode("ascii") for name in mechanisms]
        else:
            parts.append(b"LOGINDISABLED")
    return b" ".join(parts)


def capability(peer: Peer, command: Capability) -> Reply:
    peer.write(b"* CAPABILITY %b\r\n" % capabilities(peer))
    return ok(b"CAPABILITY completed")


def noop(peer: Peer, command: Noop) -> Reply:
    """The news follows before the tagged line, as after every command."""
    return OK_NOOP


def logout(peer: Peer, command: Logout) -> Reply:
    peer.write(b"* BYE Logging out\r\n")
    return ok(b"LOGOUT completed")


def identify(peer: Peer, command: Id) -> Reply:
    """RFC 2971. `ID NIL` is answered like any other."""
    if command.fields:
        told = {name.lower(): value for name, value in command.fields if value}
        _log.info("client", peer=peer.conn.peer, **{f"id_{name}": told[name][:100] for name in _NAMED if name in told})
    peer.write(imap_response.id_line({"name": "Mailkeep", "version": mailkeep.__version__}))
    return ok(b"ID completed")


def starttls(peer: Peer, command: StartTls) -> Reply | Steps:
    """RFC 9051 section 6.2.1. What came in the clear behind it could be anybody's (CVE-2011-0411)."""
    if not peer.conn.can_start_tls:
        return bad(b"TLS is not available" if not peer.conn.is_tls else b"TLS is on already")
    if peer.wire.buffered:
        return bad(b"Nothing may follow STARTTLS before the handshake")
    peer.write(ok(b"Begin TLS negotiation").line(peer.tag))
    peer.flush()
    peer.conn.start_tls()
    return Reply(b"", b"")


def login(peer: Peer, command: Login) -> Coroutine[Any, Any, Reply]:
    return _login(peer, command)


async def _login(peer: Peer, command: Login) -> Reply:
    try:
        user = command.user.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("User name is not UTF-8") from None
    info = await peer.services.auth.password(user, Secret(command.password), peer.conn)
    return enter(peer, info, "LOGIN")


def authenticate(peer: Peer, command: Authenticate) -> Coroutine[Any, Any, Reply]:
    return _authenticate(peer, command)


async def _authenticate(peer: Peer, command: Authenticate) -> Reply:
    """RFC 9051 section 6.2.2: challenges as `+ base64`, answers as bare lines, `*` gives up."""
    exchange = peer.services.auth.exchange(command.mechanism, peer.conn)
    response = command.initial
    while True:
        outcome = await exchange.step(response)
        if not isinstance(outcome, Challenge):
            return enter(peer, outcome.account, command.mechanism)
        peer.write(b"+ %b\r\n" % b64encode(outcome.data))
        line = (await peer.line()).strip()
        if line == b"*":
            return bad(b"Log-in was given up")
        try:
            response = a2b_base64(line, strict_mode=True)
        except Base64Error:
            return bad(b"Bad base64")


def enter(peer: Peer, info: AccountInfo, method: str) -> Reply:
    """The authenticated state. Raises LoginThrottled when the user has too many sessions."""
    services = peer.services
    services.auth.enter(info)
    peer.info = info
    try:
        peer.account_open = services.store.account(info.id)
    except BaseException:
        leave(peer)
        raise
    peer.wire.limits = limits_after(services)
    peer.conn.set_timeout(services.limits.imap_timeout_s)
    _log.info("login", user=info.name, peer=peer.conn.peer, method=method, tls=peer.conn.is_tls)
    return ok(b"Logged in", b"CAPABILITY " + capabilities(peer))


def leave(peer: Peer) -> None:
    """The session is over: give back what it held."""
    peer.unselect()
    if peer.info is not None:
        peer.services.auth.leave(peer.info)
        peer.info = None


def enable(peer: Peer, command: Enable) -> Reply:
    """RFC 5161; what is not known is passed over. QRESYNC brings CONDSTORE (RFC 7162 section 3.2.3)."""
    enabled = peer.enabled
    told = []
    for name in command.names:
        if name == "CONDSTORE" and not enabled.condstore:
            enabled.condstore = True
        elif name == "QRESYNC" and not enabled.qresync:
            enabled.qresync = enabled.condstore = True
        elif name == "UTF8=ACCEPT" and not enabled.utf8:
            enabled.utf8 = peer.wire.utf8 = True
        elif name == "IMAP4REV2" and not enabled.rev2:
            enabled.rev2 = peer.wire.utf8 = True
        else:
            continue
        told.append("IMAP4rev2" if name == "IMAP4REV2" else name)
    peer.write(imap_response.enabled(told))
    return ok(b"ENABLE completed")
