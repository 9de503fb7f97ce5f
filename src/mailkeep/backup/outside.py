"""Secrets that are kept elsewhere: printed by a command of the user's, or in the desktop's keyring.

It never logs, and an error says where the secret was sought, not what was found. The keyring library is the user's to
install: it brings what suits the desktop, and a server needs none of it.
"""

import asyncio
import contextlib
import subprocess
from typing import Any, Final

from mailkeep.backup.settings import Settings
from mailkeep.errors import BadCredentials, ConfigError
from mailkeep.secret import Secret

COMMAND_TIMEOUT_S: Final = 120.0  # it may ask for a passphrase
SECRET_MAX: Final = 8192
_SERVICE: Final = "mailkeep"


async def outside_secret(settings: Settings) -> Secret:
    """Of a command or the keyring, as the settings say. Raises BadCredentials, ConfigError."""
    if settings.secret == "command":
        return await run_command(settings.command or "", "--password-command")
    return await asyncio.to_thread(from_keyring, settings)


async def run_command(command: str, option: str) -> Secret:
    """The first line that a shell command prints. Its stdin and stderr are the user's. Raises ConfigError."""
    return await asyncio.to_thread(_run, command, option)


def _run(command: str, option: str) -> Secret:
    try:
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"the command of {option} took longer than {COMMAND_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise ConfigError(f"the command of {option} ended with code {done.returncode}")
    line = done.stdout.partition(b"\n")[0].rstrip(b"\r")
    if not line:
        raise ConfigError(f"the command of {option} printed nothing on its first line")
    if len(line) > SECRET_MAX:
        raise ConfigError(f"the command of {option} printed a line longer than {SECRET_MAX} bytes")
    return Secret(line)


# --- the keyring -----------------------------------------------------------------------------------------------------


def _keyring() -> Any:
    """The library, if the user has it. Raises ConfigError."""
    import importlib

    try:
        return importlib.import_module("keyring")
    except ImportError:
        raise ConfigError(
            "the keyring library is not installed; install it beside Mailkeep with `pip install keyring`, "
            "or use --password-command"
        ) from None


def need_keyring() -> None:
    """Before a password is asked for. Raises ConfigError."""
    _keyring()


def _entry(settings: Settings) -> str:
    return f"{settings.user}@{settings.host}:{settings.protocol}"


def from_keyring(settings: Settings) -> Secret:
    """Raises BadCredentials when there is no such entry, ConfigError when there is no keyring."""
    library = _keyring()
    try:
        found = library.get_password(_SERVICE, _entry(settings))
    except Exception as error:  # each backend of the library has errors of its own
        raise ConfigError(f"the keyring cannot be read: {type(error).__name__}") from None
    if not found:
        raise BadCredentials(f"the keyring has no entry {_SERVICE} {_entry(settings)}")
    return Secret(found)


def to_keyring(settings: Settings, secret: Secret) -> None:
    """Raises ConfigError."""
    library = _keyring()
    try:
        library.set_password(_SERVICE, _entry(settings), secret.reveal())
    except Exception as error:
        raise ConfigError(f"the keyring cannot be written: {type(error).__name__}") from None


def drop_from_keyring(settings: Settings) -> None:
    """Harmless when there is none."""
    with contextlib.suppress(Exception):
        _keyring().delete_password(_SERVICE, _entry(settings))
