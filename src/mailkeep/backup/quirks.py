"""How other people's servers differ from the standards, and where each provider's are: facts, read from data files.

`data/providers.toml` holds what we found out of the large providers and of server programs: endpoints, kinds of log-in,
limits, faults. `data/isp.json` holds the endpoints of many more. Nothing here opens a connection or guesses.

The one idea: a quirk is found by the surest sign there is. First the provider that the settings name, then the host,
then what the server says of itself (ID, greeting), because a program such as Domino or Exchange stands anywhere. A later
sign only adds to an earlier one where that one is silent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mailkeep.backup.settings import Protocol, Settings, Tls

FetchItem = str


@dataclass(frozen=True, slots=True)
class Quirks:
    """What to mind about one server. The defaults are a server that keeps to the RFCs and states no limit."""

    name: str = ""  # rows that apply, joined by "+"; "" where none does
    max_connections: int | None = None  # that the provider allows for one account
    pipeline_depth: int | None = None  # commands in flight; 1: one after the other
    fetch_item: FetchItem = "BODY.PEEK[]"
    trust_size: bool = True  # RFC822.SIZE is that of the bytes that come
    trust_search: bool = True  # SEARCH finds all there is
    trust_search_dates: bool = True
    trust_qresync: bool = True
    trust_condstore: bool = True
    stable_uidvalidity: bool = True
    stable_message_id: bool = True
    idle: bool = True
    recapability_after_login: bool = False  # the capabilities before log-in are not those after it
    fetch_sets_seen: bool = False  # even BODY.PEEK[] may: look at the flags afterwards
    folder_cap: int | None = None  # messages of a mailbox that it shows at all
    transient: tuple[str, ...] = ()  # texts of NO or BYE after which the same succeeds later
    backoff_regex: str | None = None  # group 1: milliseconds to wait
    reject_body_regex: str | None = None  # a body that is the server's replacement, not the mail
    custom_keywords: bool = True  # keeps keywords other than $Forwarded and the like
    append_max: int | None = None  # bytes
    append_final_crlf: bool = False  # an appended message must end in CRLF
    store_flags_after_append: tuple[str, ...] = ()  # flags that APPEND loses
    bytes_per_day: Mapping[str, int] = field(default_factory=dict)  # imap_down, imap_up, pop_down
    skip_folders: tuple[str, ...] = ()  # no mail in them
    line_max: int | None = None  # octets of a line that the server takes
    dedup_key: str | None = None  # "X-GM-MSGID", "EMAILID", "hash": what tells a message for good
    msgs_per_second: float | None = None
    real_delete: str = "expunge"  # "move-to-trash": where expunging only hides
    separator: str | None = None  # where LIST does not tell it right
    password_help: str = ""  # what to tell who is refused; ends without a full stop


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server of a provider. `user` is %EMAILADDRESS%, %EMAILLOCALPART% and %EMAILDOMAIN% in a text."""

    protocol: Protocol
    host: str
    port: int
    tls: Tls
    user: str = "%EMAILADDRESS%"
    auth: tuple[str, ...] = ("password",)  # "password", "app-password", "oauth2:<issuer>"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who gives OAuth 2 tokens (RFC 6749)."""

    name: str
    authorize_url: str
    token_url: str
    scope: str
    device_url: str | None = None
    register_url: str | None = None  # where one's own client id is made
    scope_pop3: str | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One row: who, where, how to get in, and what to do first."""

    id: str
    title: str
    domains: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()  # suffixes of MX hosts
    endpoints: tuple[Endpoint, ...] = ()
    enable_url: str | None = None  # where IMAP or POP3 is switched on
    password_url: str | None = None  # where an app password is made
    help_url: str | None = None
    note: str = ""  # a sentence for people
    no_imap: bool = False  # offers neither IMAP nor POP3
    checked_on: str = ""  # YYYY-MM-DD


def quirks_for(
    settings: Settings,
    *,
    server_id: Mapping[str, str | None] | None = None,
    greeting: str = "",
    mx: Sequence[str] = (),
) -> Quirks:
    """What to mind about this server. Call again with what it says of itself once connected: ID (RFC 2971), greeting."""
    return Quirks()
