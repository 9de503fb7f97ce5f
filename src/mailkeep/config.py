"""The configuration: what a TOML file and the command line say, checked and with every default filled in.

It knows names, defaults and units, and nothing of what they are for: no file but the configuration file is opened here,
no address is bound. `KEYS` is the whole list; `docs/configuration.md` describes each, and a test compares the two.

Strict: an unknown key is an error that names the line and the nearest key, because a misspelled `retention` that is
silently ignored costs mail. A key's value is checked where it is read, so an error can say `mailkeep.toml:12`.
"""

import functools
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mailkeep.errors import ConfigError

DOORS: Final[tuple[str, ...]] = ("imap", "imaps", "pop3", "pop3s", "lmtp")

# The standard port plus 1000: open to everybody, so a newcomer needs no root (24, 110, 143, 993, 995).
DEFAULT_LISTEN: Final = {
    "imap": "127.0.0.1:1143",
    "imaps": "127.0.0.1:1993",
    "pop3": "127.0.0.1:1110",
    "pop3s": "127.0.0.1:1995",
    "lmtp": "127.0.0.1:1024",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a door listens: host and port, or (LMTP) the path of a Unix socket."""

    host: str
    port: int
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return self.path is not None or self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Sizes are bytes, times are seconds."""

    data: Path
    host: str | None = None  # None: as this machine knows itself
    workers: int = 1
    domains: frozenset[str] = frozenset()
    postmaster: str | None = None
    listen: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    message_size_max: int = 64 << 20
    connections_max: int = 20_000
    connections_per_peer_max: int = 256
    sessions_per_user_max: int = 100
    login_timeout_s: int = 180
    idle_timeout_s: int = 1800
    pop3_timeout_s: int = 600
    lmtp_timeout_s: int = 300
    lmtp_recipients_max: int = 1000
    quota_default: int | None = None
    retention_s: int = 30 * 86400
    gc_grace_s: int = 3600
    gc_every_s: int = 86400
    search_index: bool = True
    log_level: str = "info"
    log_format: str = "text"
    file: Path | None = None

    @property
    def hostname(self) -> str:
        return self.host or _own_name()


@functools.cache
def _own_name() -> str:
    # Asked only by who needs it: where DNS is slow it takes seconds, and most commands have no use for it.
    return socket.getfqdn()


def default_data() -> Path:
    """The user's data directory (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "share") / "mailkeep"


def default_file() -> Path:
    """Where a configuration file is looked for when none is named."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".config") / "mailkeep" / "mailkeep.toml"


# --- values ----------------------------------------------------------------------------------------------------------

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SPANS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(\d+)\s*([smhdw]?)", re.IGNORECASE)


def size(value: object) -> int:
    """`5G`, `64 MiB`, `1048576` → bytes. Raises ValueError."""
    match = _SIZE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None or isinstance(value, bool):
        raise ValueError("must be a size such as 500M, 5G or 1048576")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def span(value: object) -> int:
    """`30d`, `12h`, `90` → seconds. Raises ValueError."""
    match = _SPAN.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None or isinstance(value, bool):
        raise ValueError("must be a length of time such as 90s, 15m, 12h, 30d or 4w")
    return int(match[1]) * _SPANS[match[2].lower()]


def address(value: object, *, unix: bool = False) -> Address:
    """`HOST:PORT`, `[V6]:PORT`, `*:PORT`, or a path that starts with `/` or `./` where `unix`. Raises ValueError."""
    text = value.strip() if isinstance(value, str) else ""
    if unix and (text.startswith(("/", "./", "../", "~/"))):
        return Address("", 0, Path(text).expanduser().absolute())
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and "[" not in text):
        raise ValueError("must be HOST:PORT such as 127.0.0.1:1143" + (" or a path such as /run/lmtp" if unix else ""))
    return Address("0.0.0.0" if host in ("", "*") else host, int(port))


def _listen(door: str) -> Callable[[object], tuple[Address, ...]]:
    def parse(value: object) -> tuple[Address, ...]:
        if value in ("", "none", False):
            return ()
        parts = value if isinstance(value, list) else [value]
        return tuple(address(part, unix=door == "lmtp") for part in parts)

    return parse


def _count(low: int, high: int = 1 << 31) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return str(value)

    return parse


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text in quotes")
    return value.strip()


def _domains(value: object) -> frozenset[str]:
    given = value if isinstance(value, list) else [value]
    parts = [part.strip().lower().rstrip(".") for part in given if isinstance(part, str)]
    if len(parts) < len(given) or not all(part and "@" not in part for part in parts):
        raise ValueError('must be domain names such as ["example.org"], or "*" for any')
    return frozenset(parts)


def _path(value: object) -> Path:
    return Path(_text(value)).expanduser()


def _quota(value: object) -> int | None:
    return None if value in ("none", 0) else size(value)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file: where its value goes and how it is read."""

    attribute: str
    parse: Callable[[object], Any]


KEYS: Final[dict[str, Key]] = {
    "data": Key("data", _path),
    "hostname": Key("host", _text),
    "workers": Key("workers", _count(1, 256)),
    "domains": Key("domains", _domains),
    "postmaster": Key("postmaster", _text),
    **{f"listen.{door}": Key(door, _listen(door)) for door in DOORS},
    "tls.certificate": Key("tls_certificate", _path),
    "tls.key": Key("tls_key", _path),
    "limits.message_size": Key("message_size_max", size),
    "limits.connections": Key("connections_max", _count(1)),
    "limits.connections_per_peer": Key("connections_per_peer_max", _count(1)),
    "limits.sessions_per_user": Key("sessions_per_user_max", _count(1)),
    "limits.recipients": Key("lmtp_recipients_max", _count(1)),
    "limits.login_timeout": Key("login_timeout_s", span),
    "limits.idle_timeout": Key("idle_timeout_s", span),
    "limits.pop3_timeout": Key("pop3_timeout_s", span),
    "limits.lmtp_timeout": Key("lmtp_timeout_s", span),
    "store.quota": Key("quota_default", _quota),
    "store.retention": Key("retention_s", span),
    "store.gc_grace": Key("gc_grace_s", span),
    "store.gc_every": Key("gc_every_s", span),
    "store.search_index": Key("search_index", _switch),
    "log.level": Key("log_level", _one_of("debug", "info", "warning", "error")),
    "log.format": Key("log_format", _one_of("text", "json")),
}


# --- reading ---------------------------------------------------------------------------------------------------------


def load(
    file: Path | None = None,
    *,
    data: Path | None = None,
    listen: Mapping[str, Sequence[str]] | None = None,
    workers: int | None = None,
) -> Config:
    """The configuration of `file` (default: `default_file()` if it is there), with the command line's words on top.

    Doors named on the command line replace the built-in ones altogether and the file's door by door. Raises
    ConfigError with a text of the form `FILE:LINE: what is wrong and how to mend it`.
    """
    path = file if file is not None else default_file()
    values: dict[str, Any] = {}
    if file is not None or path.is_file():
        values = _read(path)
    doors: dict[str, tuple[Address, ...]] = {door: values.pop(door) for door in DOORS if door in values}
    for door, texts in (listen or {}).items():
        try:
            doors[door] = _listen(door)(list(texts) if list(texts) != ["none"] else "none")
        except ValueError as error:
            raise ConfigError(f"--{door} {error}") from None
    if not doors:
        doors = {door: (address(text),) for door, text in DEFAULT_LISTEN.items()}
    for name, given in (("data", data), ("workers", workers)):
        if given is not None:
            values[name] = given
    values.setdefault("data", default_data())
    values["data"] = values["data"].absolute()
    if ("tls_certificate" in values) != ("tls_key" in values):
        missing = "key" if "tls_certificate" in values else "certificate"
        raise ConfigError(f"{path}: [tls] needs both certificate and key; {missing} is missing")
    return Config(listen=doors, file=path if path.is_file() else None, **values)


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # here, as most commands are given without a file

    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name an existing one with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    values: dict[str, Any] = {}
    for dotted, value in _flatten(tree):
        where = f"{path}:{_line(text, dotted)}"
        key = KEYS.get(dotted)
        if key is None:
            raise ConfigError(f"{where}: unknown key {dotted}{_suggestion(dotted)}")
        try:
            values[key.attribute] = key.parse(value)
        except ValueError as error:
            raise ConfigError(f"{where}: {dotted} {error}") from None
    for attribute in ("data", "tls_certificate", "tls_key"):
        if attribute in values:  # a path in the file is relative to the file, wherever the command is run
            values[attribute] = path.absolute().parent / values[attribute]
    return values


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            sections = {dotted.partition(".")[0] for dotted in KEYS if "." in dotted}
            inner = _flatten(value, f"{prefix}{name}.")
            # An empty section is fine when it is one of ours; a foreign one is told even when empty.
            flat += inner if inner or name in sections else [(prefix + name, value)]
        else:
            flat.append((prefix + name, value))
    return flat


def _suggestion(dotted: str) -> str:
    import difflib

    near = difflib.get_close_matches(dotted, KEYS, n=1, cutoff=0.5)
    if not near:  # right name, wrong section
        near = [known for known in KEYS if known.rpartition(".")[2] == dotted.rpartition(".")[2]]
    return f"; did you mean {near[0]}?" if near else "; see docs/configuration.md for the keys there are"


def _line(text: str, dotted: str) -> int:
    """The line that sets `dotted`: the key under its section header, or written with dots. 1 when it is not found."""
    section, found = "", 0
    wanted = dotted.replace(" ", "")
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if match := re.match(r"\[\s*([^\]]+?)\s*\]", bare):
            section = match[1].replace(" ", "").replace('"', "")
            if section == wanted:
                found = number
        elif match := re.match(r"([\w.\-\" ]+?)\s*=", bare):
            name = match[1].replace('"', "").replace(" ", "")
            full = f"{section}.{name}" if section else name
            if full == wanted or wanted.startswith(full + "."):
                return number
    return found or 1
