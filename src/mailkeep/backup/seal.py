"""Passwords and tokens for other servers, sealed: directory.db holds what nobody can read without `secret.key`.

AES-256-GCM under one key file at the store's root, mode 0600, made at first use. A copy of the database alone, in a
backup or a bug report, gives nothing away; a copy of the whole root does, and must be kept like a password. The name of
the remote is authenticated as well, so a sealed secret cannot be moved to a remote that sends it elsewhere.

The one care: a key is made only where there is none, and of several processes that start together one wins.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mailkeep.errors import BadCredentials, ConfigError
from mailkeep.secret import Secret

KEY_FILE: Final = "secret.key"
_KEY_SIZE: Final = 32
_NONCE_SIZE: Final = 12
_VERSION: Final = b"\x01"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is sealed of one remote. It is never printed."""

    password: str | None = None
    refresh_token: str | None = None
    access_token: str | None = None
    expires: int = 0  # Unix seconds

    def __repr__(self) -> str:
        return "…"

    __str__ = __repr__


def seal(root: Path, remote: str, kept: Kept) -> bytes:
    """For the store. Raises ConfigError when the key file cannot be used."""
    nonce = secrets.token_bytes(_NONCE_SIZE)
    sealed = AESGCM(_key(root, create=True)).encrypt(nonce, msgspec.json.encode(kept), _bound(remote))
    return _VERSION + nonce + sealed


def unseal(root: Path, remote: str, sealed: bytes | None) -> Kept:
    """The way back. Raises BadCredentials when there is none or it was sealed with another key; ConfigError."""
    again = f"run `mailkeep remote login {remote}`"
    if sealed is None:
        raise BadCredentials(f"no secret of {remote} is stored; {again}")
    try:
        if sealed[:1] != _VERSION:
            raise InvalidTag
        nonce, data = sealed[1 : 1 + _NONCE_SIZE], sealed[1 + _NONCE_SIZE :]
        return msgspec.json.decode(AESGCM(_key(root, create=False)).decrypt(nonce, data, _bound(remote)), type=Kept)
    except FileNotFoundError:
        raise BadCredentials(f"{root / KEY_FILE} is gone, and with it the secret of {remote}; {again}") from None
    except (InvalidTag, ValueError, msgspec.MsgspecError):
        raise BadCredentials(f"the secret of {remote} was sealed with another {KEY_FILE}; {again}") from None


def password_of(kept: Kept, remote: str) -> Secret:
    """Raises BadCredentials when something else is kept."""
    if kept.password is None:
        raise BadCredentials(f"no password of {remote} is stored; run `mailkeep remote login {remote}`")
    return Secret(kept.password)


def _bound(remote: str) -> bytes:
    return b"mailkeep remote\0" + remote.strip().casefold().encode()


def _key(root: Path, *, create: bool) -> bytes:
    """Raises FileNotFoundError when there is none and none is to be made."""
    path = root / KEY_FILE
    if create and not path.exists():
        _make_key(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others; run `chmod 600 {path}`")
        key = file.read(_KEY_SIZE + 1)
    if len(key) != _KEY_SIZE:
        raise ConfigError(f"{path} is damaged: put the right one back, or delete it and log in to each remote again")
    return key


def _make_key(path: Path) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:  # the key is on disk before anything sealed with it is
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
