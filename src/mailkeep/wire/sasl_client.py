"""SASL mechanisms, the client's side, over decoded bytes (RFC 4422): the mirror of sasl.

Each is a small machine: `step(challenge)` gives the next response; the first challenge is None when the response goes
with the command (SASL-IR), or what the server said first.
"""

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

SecretKind = Literal["password", "token", "certificate"]


class Mechanism(Protocol):
    """One attempt to log in."""

    @property
    def name(self) -> str:
        """As AUTHENTICATE wants it."""

    @property
    def done(self) -> bool:
        """All was said, and the server has proved itself where the mechanism lets it: an OK may be believed."""

    @property
    def client_first(self) -> bool:
        """Whether the first response may go with the command."""

    def step(self, challenge: bytes | None) -> bytes:
        """The response to a challenge. Raises ProtocolError (cancel with `*`), BadCredentials."""


def choose(offered: Collection[str], kind: SecretKind, *, encrypted: bool, open_allowed: bool = False) -> str | None:
    """The strongest mechanism of those offered (upper case, without AUTH=) that this kind of secret serves.

    `open_allowed`: the user asked for a password over an open line to this very machine.
    """
    raise NotImplementedError


def make(
    name: str, user: str, secret: str, *, bindings: Mapping[str, bytes] | None = None, host: str = "", port: int = 0
) -> Mechanism:
    """A machine for `name`; `bindings` are the TLS channel's (`tls-server-end-point` …), for -PLUS."""
    raise NotImplementedError
