"""What every session shares, handed in once: store, writer, log-in, limits, our name."""

from dataclasses import dataclass, field

from mailkeep.log import Log
from mailkeep.log import get as get_log
from mailkeep.serve.auth import Authenticator
from mailkeep.serve.tls import TlsConfig
from mailkeep.serve.turns import Turns
from mailkeep.store.offload import Offload
from mailkeep.store.store import Store


@dataclass(slots=True)
class Limits:
    """Sizes in bytes, times in seconds. `0` as a time means never."""

    message_size_max: int = 64 << 20
    recipients_max: int = 1_000
    line_size_max: int = 64 << 10
    login_timeout_s: int = 180  # until somebody has logged in (RFC 9051 section 5.4 lets it be shorter then)
    imap_timeout_s: int = 30 * 60  # RFC 9051 section 5.4
    pop3_timeout_s: int = 10 * 60  # RFC 1939 section 3
    lmtp_timeout_s: int = 5 * 60  # RFC 5321 section 4.5.3.2.7
    protocol_errors_max: int = 20  # in a row; then the peer is no mail client


@dataclass(slots=True)
class Services:
    store: Store
    offload: Offload
    auth: Authenticator
    hostname: str
    limits: Limits = field(default_factory=Limits)
    tls: TlsConfig | None = None
    local_domains: frozenset[str] = frozenset()  # besides the hostname; "*": any
    postmaster: str | None = None  # the account that gets mail for postmaster when nobody has that name
    log: Log = field(default_factory=lambda: get_log("serve"))
    turns: Turns = field(default_factory=Turns)
