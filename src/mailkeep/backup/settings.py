"""What we know of another server's account: where it is, who we are there, how its secret is had, what is wanted of it.

`Settings` is what the store keeps, as JSON, beside a remote's name; the secret itself is never in it (see seal.py and
login.py). It knows no sockets and no quirks. The hard part is only this: a file written by an older version must still
be read, so every field has a default but the few without which there is nothing to connect to.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from mailkeep.errors import StoreCorrupt, UsageError
from mailkeep.mail.ids import AccountId
from mailkeep.mail.selection import Selection
from mailkeep.secret import Secret

if TYPE_CHECKING:
    from mailkeep.store.remotes import RemoteRow
    from mailkeep.store.store import Store

Protocol = Literal["imap", "pop3"]
Tls = Literal["tls", "starttls", "none"]
LOOPBACK = ("localhost", "::1")


class OAuth(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=False):
    """How access tokens are had (RFC 6749). `issuer` is a row of the provider data or "custom"."""

    issuer: str
    client_id: str
    flow: Literal["device", "loopback"]
    token_url: str
    scope: str
    authorize_url: str | None = None
    device_url: str | None = None
    client_secret_command: str | None = None


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """One account on another server. Sizes are bytes."""

    protocol: Protocol
    host: str
    port: int
    user: str
    tls: Tls = "tls"
    provider: str | None = None  # a row of the provider data (quirks.py)
    ca: str | None = None  # path of a PEM file whose certificates are trusted instead of the system's
    secret: Literal["sealed", "command", "keyring", "oauth2"] = "sealed"
    command: str | None = None  # prints the password on its first line
    oauth: OAuth | None = None
    gone: Literal["keep", "mirror"] = "keep"  # what vanished at the source: kept and marked, or removed here as well
    into: str | None = None  # a folder under which the whole tree is put
    selection: Selection | None = None  # what is wanted, unless a command says otherwise
    leave: Literal["keep", "delete", "days", "verified"] = "keep"  # POP3: when mail is deleted from the server
    leave_days: int | None = None
    connections_max: int | None = None
    bytes_per_day: int | None = None
    size_max: int | None = None  # larger messages are booked as too large

    @property
    def is_loopback(self) -> bool:
        """Whether an unencrypted line to the host stays within this machine."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """A host that is this machine, by its name or address."""
    return host.lower() in LOOPBACK or (host.startswith("127.") and host.replace(".", "").isdigit())


@dataclass(frozen=True, slots=True)
class Password:
    """What SASL's password mechanisms want."""

    secret: Secret


@dataclass(frozen=True, slots=True)
class Token:
    """A fresh access token, for XOAUTH2 and OAUTHBEARER (RFC 7628)."""

    secret: Secret


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote as the store has it. `sealed` is opened by `backup.login`; `state` belongs to the pull."""

    id: int
    name: str
    account: AccountId
    settings: Settings
    sealed: bytes | None = field(repr=False)
    schedule: str | None
    state: bytes | None = field(repr=False)
    created: int  # Unix seconds


def pack(settings: Settings) -> bytes:
    """What the store keeps of it."""
    return msgspec.json.encode(settings)


def unpack(data: bytes, *, name: str) -> Settings:
    """The way back. Raises StoreCorrupt, naming the remote."""
    try:
        return msgspec.json.decode(data, type=Settings)
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"The settings of remote {name} cannot be read: {error}") from None


def of_row(row: "RemoteRow") -> Remote:
    """Raises StoreCorrupt."""
    settings = unpack(row.settings, name=row.name)
    return Remote(row.id, row.name, row.account, settings, row.secret, row.schedule, row.state, row.created)


def load_remotes(store: "Store") -> list[Remote]:
    """All remotes, by name. Raises StoreCorrupt."""
    return [of_row(row) for row in store.remotes.list()]


def add_remote(store: "Store", name: str, account: int, settings: Settings, *, sealed: bytes | None = None) -> Remote:
    """A new remote; or, where the same one (server, user, account) was removed before, that one again.

    So its mail is known, and does not come twice. Raises AccountExists, AccountMissing, NotAllowed, StoreCorrupt.
    """
    who = (settings.protocol, settings.host.lower(), settings.user)
    again = None
    for row in store.remotes.removed():
        if row.account == account and row.settings:
            before = unpack(row.settings, name=row.name)
            if (before.protocol, before.host.lower(), before.user) == who:
                again = row.id
                break
    return of_row(store.remotes.add(name, account, settings=pack(settings), secret=sealed, again=again))


def remove_remote(store: "Store", remote: Remote) -> None:
    """Forget it and all that leads to its secret. That it was there is remembered, for `add_remote`."""
    bare = msgspec.structs.replace(remote.settings, command=None, oauth=None)
    store.remotes.update(remote.id, settings=pack(bare))
    store.remotes.remove(remote.name)


def find_remote(store: "Store", name: str) -> Remote:
    """By name, whatever its case. Raises UsageError that names the nearest ones, StoreCorrupt."""
    row = store.remotes.find(name)
    if row is None:
        raise UsageError(_unknown(name, [each.name for each in store.remotes.list()]))
    return of_row(row)


def _unknown(name: str, names: Iterable[str]) -> str:
    known = {each.casefold(): each for each in names}
    if not known:
        return f"there is no remote {name}, and no other; add one with `mailkeep remote add ADDRESS`"
    near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.5)
    near += [each for each in known if name.casefold() in each and each not in near][:3]
    if near:
        return f"there is no remote {name}; did you mean {' or '.join(known[each] for each in near[:3])}?"
    return f"there is no remote {name}; `mailkeep remote list` shows those there are"
