"""SASL mechanisms, the client's side, over decoded bytes (RFC 4422): the mirror of sasl.

Each is a small machine: `step(challenge)` gives the next response. Where `client_first` holds, the first response may
go with the command (SASL-IR): `step(None)`; else, and where the protocol cannot, the server's first challenge is empty.
Knows PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), CRAM-MD5 (RFC 2195), SCRAM (RFC 5802, RFC 7677), XOAUTH2
(Google, Microsoft), OAUTHBEARER (RFC 7628), EXTERNAL (RFC 4422 appendix A); not base64, not when to give up.

The hard idea is what not to trust: an open line, a server that lacks the proof that SCRAM owes us (`done` stays False,
and its OK must not be believed), one that lets us count hashes for hours.
"""

import hashlib
import hmac
import json
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from mailkeep.errors import BadCredentials, ProtocolError
from mailkeep.wire.sasl import prepare

SecretKind = Literal["password", "token", "certificate"]

# Strongest first. Over TLS a password may be shown to the server, and CRAM-MD5 is only for those who have no better.
_PLUS: Final = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS")
_SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1")
_SHOWN: Final = ("PLAIN", "LOGIN")
_BINDINGS: Final = ("tls-exporter", "tls-server-end-point", "tls-unique")  # best first
_CHALLENGE_MAX: Final = 8192  # octets
ITERATIONS_MIN: Final = 4096  # RFC 5802 section 5.1; fewer would make our answer worth guessing at
ITERATIONS_MAX: Final = 1_000_000  # about a second


@dataclass(frozen=True, slots=True)
class _Said:
    """A response. `done`: all was said, and the server has proved itself where the mechanism lets it."""

    data: bytes = field(repr=False)
    done: bool = False
    problem: str = ""


_Script = Generator[_Said | None, bytes, None]  # takes challenges, gives responses; the first thing it gives is None


class Mechanism:
    """One attempt to log in. `done` says whether an OK may be believed; `problem` what the server said against a token,
    safe to show, else empty.
    """

    __slots__ = ("_script", "client_first", "done", "name", "problem")

    def __init__(self, name: str, script: _Script, *, client_first: bool = True) -> None:
        self.name = name  # as AUTHENTICATE wants it
        self.client_first = client_first  # the first response may go with the command
        self.done = False
        self.problem = ""
        self._script = script
        next(script)

    def step(self, challenge: bytes | None) -> bytes:
        """The response to a challenge. Raises ProtocolError (cancel with `*`), BadCredentials."""
        if challenge is not None and len(challenge) > _CHALLENGE_MAX:
            raise ProtocolError("Challenge too long")
        self.done = False
        try:
            said = self._script.send(challenge or b"")
        except StopIteration:
            raise ProtocolError("The server asks on after the log-in was complete") from None
        assert said is not None
        self.done, self.problem = said.done, said.problem
        return said.data


def choose(
    offered: Collection[str],
    kind: SecretKind,
    *,
    encrypted: bool,
    bindings: bool = False,
    open_allowed: bool = False,
) -> str | None:
    """The strongest mechanism of those offered (upper case, without AUTH=) that this kind of secret serves; None: none.

    `bindings`: the TLS channel's bindings are at hand. `open_allowed`: the user asked for an open line, to this very
    machine; else nothing that shows the secret is chosen without TLS.
    """
    shown_allowed = encrypted or open_allowed
    order: tuple[str, ...]
    if kind == "certificate":
        order = ("EXTERNAL",)
    elif kind == "token":
        order = ("OAUTHBEARER", "XOAUTH2") if shown_allowed else ()
    else:
        proving = (_PLUS if bindings else ()) + _SCRAM
        shown = _SHOWN if shown_allowed else ()
        order = (*proving, *shown, "CRAM-MD5") if encrypted else (*proving, "CRAM-MD5", *shown)
    return next((name for name in order if name in offered), None)


def make(
    name: str,
    user: str,
    secret: str,
    *,
    bindings: Mapping[str, bytes] | None = None,
    host: str = "",
    port: int = 0,
    offered: Collection[str] = (),
) -> Mechanism:
    """A machine for `name`. `secret` is the password or the access token.

    `bindings` are the TLS channel's, by name, for -PLUS. `offered`: what the server offers, so that SCRAM can tell it
    that we would have bound the channel. Raises ProtocolError for a name or password that cannot be sent.
    """
    user, secret = _clean(user), _clean(secret)
    if name.startswith("SCRAM-"):
        return scram(name, user, secret, bindings=bindings, offered=offered)
    if name == "PLAIN":
        return Mechanism(name, _once(f"\0{user}\0{secret}"))
    if name == "LOGIN":
        # Never with the command: some servers want the name there, others nothing.
        return Mechanism(name, _login(user, secret), client_first=False)
    if name == "CRAM-MD5":
        return Mechanism(name, _cram_md5(user, secret), client_first=False)
    if name == "EXTERNAL":
        return Mechanism(name, _once(user))
    if name not in ("XOAUTH2", "OAUTHBEARER"):
        raise ProtocolError("Mechanism is not known")
    if "\x01" in user or not secret.isprintable() or not secret.isascii():
        raise ProtocolError("Name or token has characters that are not allowed")
    if name == "XOAUTH2":
        return Mechanism(name, _bearer(f"user={user}\x01auth=Bearer {secret}\x01\x01", b""))
    # gs2-header ^A *("key=value" ^A) ^A (RFC 7628 section 3.1); the answer to a report is one ^A
    where = (f"host={host}\x01" if host else "") + (f"port={port}\x01" if port else "")
    return Mechanism(name, _bearer(f"n,a={_saslname(user)},\x01{where}auth=Bearer {secret}\x01\x01", b"\x01"))


def _clean(text: str) -> str:
    if "\0" in text:
        raise ProtocolError("Name or password has characters that are not allowed")
    return text


def _once(message: str) -> _Script:
    """PLAIN: [authzid] UTF8NUL authcid UTF8NUL passwd, as typed: SASLprep is the server's part.

    EXTERNAL: the user to act as, or nothing for whom the certificate names.
    """
    yield None
    yield _Said(message.encode(), done=True)


def _login(user: str, password: str) -> _Script:
    """Two prompts, whatever they say."""
    yield None
    yield _Said(user.encode())
    yield _Said(password.encode(), done=True)


def _cram_md5(user: str, password: str) -> _Script:
    """user SP hex(HMAC-MD5(password, challenge))"""
    challenge = yield None
    if not challenge:
        raise ProtocolError("Bad CRAM-MD5 challenge")
    yield _Said(f"{user} {hmac.new(password.encode(), challenge, 'md5').hexdigest()}".encode(), done=True)


def _bearer(message: str, answer: bytes) -> _Script:
    """A token; then, if it is refused, a report that wants an answer before the server says NO."""
    yield None
    report = yield _Said(message.encode(), done=True)
    yield _Said(answer, problem=_reported(report))


# A word of an error report is safe to show; the server's prose is not.
_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def _reported(report: bytes) -> str:
    """What the JSON about a refused token says: its status, as "invalid_token" or "401"."""
    try:
        fields = json.loads(report)
    except (ValueError, RecursionError):
        fields = None
    status = fields.get("status") if isinstance(fields, dict) else None
    said = _SAFE.fullmatch(str(status)) if isinstance(status, str | int) else None
    return f"The token was refused: {said[0]}" if said is not None else "The token was refused"


def _saslname(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


# server-first-message = nonce "," salt "," iteration-count ["," extensions]; "m=" before them must fail, and does
_SERVER_FIRST = re.compile(rb"r=([!-+\--~]{1,1024}),s=([A-Za-z0-9+/=]{1,1024}),i=([1-9][0-9]{0,8})(?:,[A-Za-z]=.*)?")
# server-final-message = (server-error / verifier) ["," extensions]
_SERVER_FINAL = re.compile(rb"(?:v=([A-Za-z0-9+/=]+)|e=([A-Za-z0-9-]{1,100}))(?:,[A-Za-z]=.*)?")


def scram(
    name: str,
    user: str,
    password: str,
    *,
    bindings: Mapping[str, bytes] | None = None,
    offered: Collection[str] = (),
    nonce: str | None = None,
) -> Mechanism:
    """A machine for SCRAM, as `make` makes it; `nonce` is for tests only."""
    bound = bindings or {}
    plus = name.endswith("-PLUS")
    if name.removesuffix("-PLUS") not in _SCRAM:
        raise ProtocolError("Mechanism is not known")
    kind = next((kind for kind in _BINDINGS if kind in bound), None)
    if plus:
        if kind is None:
            raise ProtocolError("The TLS channel cannot be bound")
        gs2, channel = f"p={kind},,".encode(), bound[kind]
    else:
        # "y": we could, but you do not offer it. A server that does then knows that somebody took it off its list.
        could = kind is not None and bool(offered) and not any(mechanism in offered for mechanism in _PLUS)
        gs2, channel = b"y,," if could else b"n,,", b""
    own = nonce or secrets.token_urlsafe(24)
    bare = f"n={_saslname(prepare(user))},r={own}".encode()
    digest = "sha256" if "256" in name else "sha1"
    return Mechanism(name, _scram(digest, prepare(password).encode(), gs2=gs2, channel=channel, bare=bare, own=own))


def _scram(digest: str, password: bytes, *, gs2: bytes, channel: bytes, bare: bytes, own: str) -> _Script:
    """client-first → server-first → client-final → server-final → an empty response (RFC 5802 section 5)."""
    challenge = yield None
    if challenge:
        raise ProtocolError("Unexpected SCRAM message")
    first = yield _Said(gs2 + bare)
    match = _SERVER_FIRST.fullmatch(first)
    if match is None or not match[1].startswith(own.encode()) or len(match[1]) == len(own):
        raise ProtocolError("Bad SCRAM message")
    count = int(match[3])
    if not ITERATIONS_MIN <= count <= ITERATIONS_MAX:
        raise ProtocolError("SCRAM iteration count is out of range")
    salted = hashlib.pbkdf2_hmac(digest, password, _decoded(match[2]), count)
    client_key = hmac.digest(salted, b"Client Key", digest)
    unproved = b"c=" + b64encode(gs2 + channel) + b",r=" + match[1]
    signed = bare + b"," + first + b"," + unproved
    signature = hmac.digest(hashlib.new(digest, client_key).digest(), signed, digest)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    final = yield _Said(unproved + b",p=" + b64encode(proof))
    match = _SERVER_FINAL.fullmatch(final)
    if match is None:
        raise ProtocolError("Bad SCRAM message")
    if match[2]:
        raise BadCredentials("Wrong user or password")
    if not hmac.compare_digest(
        _decoded(match[1]), hmac.digest(hmac.digest(salted, b"Server Key", digest), signed, digest)
    ):
        raise ProtocolError("The server does not know the password: it is not who it says")
    yield _Said(b"", done=True)


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ProtocolError("Bad SCRAM message") from None
