"""SASL mechanisms, the server's side, over decoded bytes (RFC 4422).

Knows the messages of PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), SCRAM (RFC 5802, 7677) and EXTERNAL
(RFC 4422 appendix A); does not know accounts, passwords' hashes, throttling or base64 framing, which is each
protocol's own. A mechanism is a small machine: `step(response)` gives the next `Challenge` or what it concluded; the
first response is None when the client sent none with the command.

SCRAM is our own: scramp (whose SASLprep we use, and whose client tests us) takes one channel binding only, and refuses
an authorisation identity even when it is the user's own, which Cyrus SASL's clients send.
"""

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mailkeep.errors import BadCredentials, ProtocolError

# Strongest first: the order in which they are advertised. -PLUS is only offered with a channel binding.
PLUS: Final = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS")
SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1")
PASSWORD: Final = ("PLAIN", "LOGIN")

RESPONSE_MAX: Final = 8192  # bytes; no honest response is near it
_HASHES: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
_NAME_MAX = 1024  # bytes, RFC 4616 asks for 255 code points at least


@dataclass(frozen=True, slots=True)
class Challenge:
    """To be sent; the client's answer goes into the next step."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PasswordClaim:
    """The client says who it is; the password is yet to be verified."""

    login: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScramVerified:
    """The client has proved that it knows the password of `login`."""

    login: str


@dataclass(frozen=True, slots=True)
class ExternalClaim:
    """Act as this user, or (empty) as whom the TLS layer proved."""

    login: str


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What the store keeps in place of a password (RFC 5802 section 3)."""

    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    iterations: int


def prepare(text: str) -> str:
    """SASLprep (RFC 4013), so that two ways to type one password are one. Raises ProtocolError."""
    if text.isascii() and text.isprintable():
        return text
    from scramp import ScramException  # it takes 25 ms to import, and hardly anybody needs it
    from scramp.utils import saslprep

    try:
        return str(saslprep(text))
    except ScramException:
        raise ProtocolError("Name or password has characters that are not allowed") from None


def make_keys(mechanism: str, password: str, *, iterations: int) -> ScramKeys:
    """Fresh salted keys for one of `SCRAM` (RFC 5802 section 3). `password` as prepared."""
    digest, salt = _HASHES[mechanism], secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, iterations)
    stored = hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()
    return ScramKeys(salt, stored, hmac.digest(salted, b"Server Key", digest), iterations)


def _text(data: bytes) -> str:
    if len(data) > _NAME_MAX:
        raise ProtocolError("Name or password too long")
    try:
        return prepare(data.decode())
    except UnicodeDecodeError:
        raise ProtocolError("Name or password is not UTF-8") from None


def _own_identity(authzid: str, login: str) -> None:
    """Acting for another user is not supported."""
    if authzid and authzid != login:
        raise BadCredentials("Acting for another user is not allowed")


class PlainServer:
    """message = [authzid] UTF8NUL authcid UTF8NUL passwd"""

    __slots__ = ()

    def step(self, response: bytes | None) -> Challenge | PasswordClaim:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1]:
            raise ProtocolError("Bad PLAIN message")
        authzid, login, password = (_text(part) for part in parts)
        _own_identity(authzid, login)
        return PasswordClaim(login, password)


class LoginServer:
    """Two prompts, two answers. Outlook sends the name as initial response, others wait for the prompt."""

    __slots__ = ("_login",)

    def __init__(self) -> None:
        self._login: str | None = None

    def step(self, response: bytes | None) -> Challenge | PasswordClaim:
        if response is None:
            return Challenge(b"Username:")
        if self._login is None:
            self._login = _text(response)
            return Challenge(b"Password:")
        return PasswordClaim(self._login, _text(response))


class ExternalServer:
    __slots__ = ()

    def step(self, response: bytes | None) -> Challenge | ExternalClaim:
        if response is None:
            return Challenge(b"")
        return ExternalClaim(_text(response))


class ScramServer:
    """client-first → server-first → client-final → server-final (as a challenge) → empty → verified.

    `find` gives the keys of a login; it must do so for unknown ones as well (made up, but the same each time), or the
    salt tells who exists.
    """

    __slots__ = (
        "_bindings",
        "_cbind_input",
        "_done",
        "_find",
        "_first_pair",
        "_hash",
        "_keys",
        "_nonce",
        "_plus",
        "login",
    )

    def __init__(
        self,
        mechanism: str,
        bindings: Mapping[str, bytes],
        find: Callable[[str], ScramKeys],
        *,
        nonce: str | None = None,
    ) -> None:
        self._hash = _HASHES[mechanism.removesuffix("-PLUS")]
        self._plus = mechanism.endswith("-PLUS")
        self._bindings = bindings
        self._find = find
        self._nonce = nonce or secrets.token_urlsafe(24)
        self._keys: ScramKeys | None = None
        self._cbind_input = b""
        self._first_pair = b""  # client-first-bare "," server-first, what both sides sign
        self._done = False
        self.login = ""  # known once the first message is read

    @property
    def proving(self) -> bool:
        """The next response carries the proof."""
        return self._keys is not None and not self._done

    def step(self, response: bytes | None) -> Challenge | ScramVerified:
        if response is None:
            return Challenge(b"")
        if len(response) > RESPONSE_MAX:
            raise ProtocolError("Response too long")
        if self._done:
            if response:
                raise ProtocolError("An empty response is wanted")
            return ScramVerified(self.login)
        if self._keys is None:
            return self._first(response)
        return self._final(response)

    def _first(self, message: bytes) -> Challenge:
        match = _CLIENT_FIRST.fullmatch(message)
        if match is None:
            raise ProtocolError("Bad SCRAM message")
        flag, authzid, bare, name, nonce = match.group("flag", "authzid", "bare", "name", "nonce")
        self._cbind_input = message[: match.start("bare")] + self._bound(flag)
        self.login = _saslname(name)
        if not self.login:
            raise ProtocolError("Bad SCRAM message")
        if authzid is not None:
            _own_identity(_saslname(authzid), self.login)
        self._keys = self._find(self.login)
        self._nonce = nonce.decode() + self._nonce
        salt = b64encode(self._keys.salt).decode()
        first = f"r={self._nonce},s={salt},i={self._keys.iterations}".encode()
        self._first_pair = bare + b"," + first
        return Challenge(first)

    def _bound(self, flag: bytes) -> bytes:
        """The channel's own bytes that the client's final message must repeat; b"" without binding."""
        if flag.startswith(b"p="):
            name = flag[2:].decode("ascii")
            if not self._plus:
                raise ProtocolError("Channel binding needs the -PLUS mechanism")
            if name not in self._bindings:
                raise ProtocolError("Channel binding type is not supported")
            return self._bindings[name]
        if self._plus:
            raise ProtocolError("The -PLUS mechanism needs channel binding")
        if flag == b"y" and self._bindings:
            # The client could bind, but was told that we cannot: somebody took -PLUS off our list (RFC 5802 section 6).
            raise BadCredentials("The list of mechanisms was changed on the way")
        return b""

    def _final(self, message: bytes) -> Challenge:
        match = _CLIENT_FINAL.fullmatch(message)
        assert self._keys is not None
        if match is None:
            raise ProtocolError("Bad SCRAM message")
        try:
            bound = b64decode(match["bound"], validate=True)
            proof = b64decode(match["proof"], validate=True)
        except ValueError:
            raise ProtocolError("Bad SCRAM message") from None
        signed = self._first_pair + b"," + match["unproved"]
        digest = self._hash
        signature = hmac.digest(self._keys.stored_key, signed, digest)
        client_key = bytes(a ^ b for a, b in zip(signature, proof, strict=False))
        # All three compared before any is judged: what failed must not be told by the time it took.
        holds = hmac.compare_digest(hashlib.new(digest, client_key).digest(), self._keys.stored_key)
        holds &= len(proof) == len(signature)
        holds &= hmac.compare_digest(bound, self._cbind_input)
        holds &= hmac.compare_digest(match["nonce"], self._nonce.encode())
        if not holds:
            raise BadCredentials("Wrong user or password")
        self._done = True
        return Challenge(b"v=" + b64encode(hmac.digest(self._keys.server_key, signed, digest)))


# client-first-message = gs2-header client-first-message-bare (RFC 5802 section 7)
# gs2-header = gs2-cbind-flag "," [ "a=" saslname ] ","; gs2-cbind-flag = ("p=" cb-name) / "n" / "y"
# client-first-message-bare = "n=" username "," "r=" c-nonce ["," extensions]
# A mandatory extension ("m=", before "n=") does not match and so fails, as it must.
_CLIENT_FIRST = re.compile(
    rb"(?P<flag>p=[A-Za-z0-9.-]+|n|y),(?:a=(?P<authzid>[^,\0]*))?,"
    rb"(?P<bare>n=(?P<name>[^,\0]*),r=(?P<nonce>[!-+\--~]{1,512})(?:,[A-Za-z]=[^\0]*)?)"
)
# client-final-message = "c=" base64 "," "r=" nonce ["," extensions] "," "p=" base64
_CLIENT_FINAL = re.compile(
    rb"(?P<unproved>c=(?P<bound>[A-Za-z0-9+/=]*),r=(?P<nonce>[!-+\--~]+)(?:,[A-Za-z]=[^\0]*?)?),p=(?P<proof>[A-Za-z0-9+/=]+)"
)


def _saslname(name: bytes) -> str:
    """saslname = 1*(value-safe-char / "=2C" / "=3D")"""
    if re.search(rb"=(?!2C|3D)", name):
        raise ProtocolError("Bad SCRAM message")
    return _text(name.replace(b"=2C", b",").replace(b"=3D", b"="))
