"""How other people's servers differ from the standards, and where each provider's are: facts, read from data files.

`data/providers.toml` holds what we found out of the large providers and of server programs: endpoints, kinds of log-in,
limits, faults. `data/isp.json` holds the endpoints of many more. Nothing here opens a connection or guesses.

The one idea: a quirk is found by the surest sign there is. First the provider that the settings name, then the host,
then what the server says of itself (ID, greeting), because a program such as Domino or Exchange stands anywhere. A
later sign only adds to an earlier one where that one is silent.
"""

import datetime
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from mailkeep.backup.settings import Protocol, Settings, Tls, is_loopback
from mailkeep.errors import UsageError


@dataclass(frozen=True, slots=True)
class Quirks:
    """What to mind about one server. The defaults are a server that keeps to the RFCs and states no limit."""

    name: str = ""  # rows that apply, joined by "+"; "" where none does
    max_connections: int | None = None  # that the provider allows for one account
    pipeline_depth: int | None = None  # commands in flight; 1: one after the other
    fetch_item: str = "BODY.PEEK[]"
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
    """One server that takes log-ins. `host` and `user` may hold {address}, {local} and {domain}: see `named`."""

    protocol: Protocol
    host: str
    port: int
    tls: Tls
    user: str = "{address}"
    auth: tuple[str, ...] = ("password",)  # "password", "app-password", "oauth2:<issuer>", best first

    def named(self, address: str) -> "Endpoint":
        """For this address."""
        return replace(self, host=_filled(self.host, address).lower(), user=_filled(self.user, address))

    def __str__(self) -> str:
        line = {"tls": "TLS", "starttls": "STARTTLS", "none": "unencrypted"}[self.tls]
        return f"{'IMAP' if self.protocol == 'imap' else 'POP3'} {self.host}:{self.port} ({line})"


def _filled(text: str, address: str) -> str:
    local, _, domain = address.rpartition("@")
    for name, value in (("{address}", address), ("{local}", local), ("{domain}", domain)):
        text = text.replace(name, value)
    return text


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


# --- the files -------------------------------------------------------------------------------------------------------


_DATA: Final = Path(__file__).with_name("data")


class _Match(msgspec.Struct, forbid_unknown_fields=True):
    greeting: str
    id: str


class _Program(msgspec.Struct, forbid_unknown_fields=True):
    match: _Match
    quirks: dict[str, Any] = msgspec.field(default_factory=dict)


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """A provider as providers.toml has it."""

    title: str
    source: str
    checked_on: datetime.date
    domains: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    imap: tuple[str, ...] = ()
    pop3: tuple[str, ...] = ()
    imap_by_mx: str | None = None
    auth: tuple[str, ...] = ()
    user: str = "address"
    like: str | None = None
    enable_url: str | None = None
    password_url: str | None = None
    help_url: str | None = None
    note: str = ""
    no_imap: bool = False
    quirks: dict[str, Any] = msgspec.field(default_factory=dict)


class _Issuer(msgspec.Struct, forbid_unknown_fields=True):
    authorize_url: str
    token_url: str
    scope: str
    device_url: str | None = None
    register_url: str | None = None
    scope_pop3: str | None = None


class _Providers(msgspec.Struct, forbid_unknown_fields=True):
    issuer: dict[str, _Issuer]
    provider: dict[str, _Row]
    program: dict[str, _Program]


class _Isp(msgspec.Struct, forbid_unknown_fields=True):
    """A provider as isp.json has it."""

    id: str
    domains: tuple[str, ...]
    imap: tuple[str, ...] = ()
    pop3: tuple[str, ...] = ()
    provider: str | None = None  # the row of providers.toml that it belongs to
    issuer: str | None = None
    oauth2_only: bool = False
    help_url: str | None = None
    enable_url: str | None = None


class _Isps(msgspec.Struct, forbid_unknown_fields=True):
    origin: str
    licence: str
    checked_on: str
    providers: tuple[_Isp, ...]


@functools.cache
def _providers() -> _Providers:
    text = (_DATA / "providers.toml").read_bytes()
    return msgspec.toml.decode(text, type=_Providers)


@functools.cache
def _isps() -> _Isps:
    text = (_DATA / "isp.json").read_bytes()
    return msgspec.json.decode(text, type=_Isps)


def _endpoint(protocol: Protocol, text: str, *, user: str = "{address}", auth: tuple[str, ...]) -> Endpoint:
    """`HOST:PORT:TLS`, with `:USER` where it is not the address."""
    host, port, tls, *rest = text.split(":")
    return Endpoint(protocol, host, int(port), msgspec.convert(tls, Tls), rest[0] if rest else user, auth)


def _endpoints(row: "_Row | _Isp", *, user: str, auth: tuple[str, ...]) -> tuple[Endpoint, ...]:
    imap = (_endpoint("imap", text, user=user, auth=auth) for text in row.imap)
    return (*imap, *(_endpoint("pop3", text, user=user, auth=auth) for text in row.pop3))


@functools.cache
def providers() -> Mapping[str, Provider]:
    """All rows by id: the large ones, then those of isp.json that belong to none of these."""
    rows = {id: _of_row(id, row) for id, row in _providers().provider.items()}
    for isp in _isps().providers:
        id = isp.id if isp.id not in rows else f"isp:{isp.id}"
        rows[id] = _of_isp(id, isp, rows.get(isp.provider or ""))
    return rows


def _of_row(id: str, row: _Row) -> Provider:
    user = "{local}" if row.user == "local" else "{address}"
    return Provider(
        id=id,
        title=row.title,
        domains=row.domains,
        mx=row.mx,
        endpoints=_endpoints(row, user=user, auth=row.auth or ("password",)),
        enable_url=row.enable_url,
        password_url=row.password_url,
        help_url=row.help_url,
        note=row.note,
        no_imap=row.no_imap,
        checked_on=row.checked_on.isoformat(),
    )


def _of_isp(id: str, isp: _Isp, large: Provider | None) -> Provider:
    """A row of isp.json; with the large one's words, and its endpoints where they are the same service."""
    auth = (f"oauth2:{isp.issuer}",) if isp.issuer else ()
    auth = auth if isp.oauth2_only else (*auth, "password")
    endpoints = _endpoints(isp, user="{address}", auth=large.endpoints[0].auth if large else auth)
    checked_on = _isps().checked_on
    if large is None:
        title = isp.domains[0]
        return Provider(
            id, title, isp.domains, (), endpoints, isp.enable_url, None, isp.help_url, checked_on=checked_on
        )
    if {each.host for each in endpoints} & {each.host for each in large.endpoints}:
        endpoints = large.endpoints
    return replace(large, domains=isp.domains, mx=(), endpoints=endpoints)


def issuer(name: str) -> Issuer:
    """Who gives tokens, by the name that `oauth2:<name>` has. Raises UsageError naming those there are."""
    known = _providers().issuer
    if name not in known:
        raise UsageError(f"no OAuth 2 issuer {name} is known, only {', '.join(known)}")
    row = known[name]
    return Issuer(name, row.authorize_url, row.token_url, row.scope, row.device_url, row.register_url, row.scope_pop3)


def at_tenant(issuer: Issuer, tenant: str) -> Issuer:
    """Microsoft's addresses for one organisation's directory instead of for everybody's."""

    def moved(url: str) -> str:
        return url.replace("/common/", f"/{tenant}/")

    return replace(
        issuer,
        name=f"{issuer.name}:{tenant}",
        authorize_url=moved(issuer.authorize_url),
        token_url=moved(issuer.token_url),
        device_url=None if issuer.device_url is None else moved(issuer.device_url),
    )


@functools.cache
def _by_domain() -> Mapping[str, Provider]:
    found: dict[str, Provider] = {}
    for provider in providers().values():
        for domain in provider.domains:
            found.setdefault(domain, provider)
    return found


@functools.cache
def _by_mx() -> Mapping[str, Provider]:
    """By suffix of an MX host: those that are named as such, else the provider's own domains."""
    named = {suffix: provider for provider in providers().values() for suffix in provider.mx}
    return {**_by_domain(), **named}


def provider_of_domain(domain: str) -> Provider | None:
    """Who has the mail of a domain that is a provider's own."""
    return _by_domain().get(domain.lower().rstrip("."))


def provider_of_mx(host: str) -> Provider | None:
    """Who takes the mail that this MX host takes: the row with the longest suffix of its name."""
    host = host.lower().rstrip(".")
    labels = host.split(".")
    for start in range(len(labels) - 1):
        if provider := _by_mx().get(".".join(labels[start:])):
            return _with_region(provider, host)
    return None


def _with_region(provider: Provider, host: str) -> Provider:
    row = _providers().provider.get(provider.id)
    if row is None or row.imap_by_mx is None or (match := re.search(r"\.([a-z]+-[a-z]+-\d)\.", host)) is None:
        return provider
    text = row.imap_by_mx.replace("{region}", match[1])
    return replace(provider, endpoints=(_endpoint("imap", text, auth=row.auth),))


def provider_of_host(host: str) -> Provider | None:
    """Whose IMAP or POP3 server this is: by its exact name, or below a name that the row gives. Never of loopback."""
    host = host.lower().rstrip(".")
    if is_loopback(host):
        return None
    for id, row in _providers().provider.items():
        if host in {text.split(":")[0] for text in (*row.imap, *row.pop3)}:
            return providers()[id]
        if any(host == known or host.endswith("." + known) for known in row.hosts):
            return providers()[id]
    return next((each for each in providers().values() if any(host == e.host for e in each.endpoints)), None)


# --- quirks ----------------------------------------------------------------------------------------------------------


def quirks_for(
    settings: Settings,
    *,
    server_id: Mapping[str, str | None] | None = None,
    greeting: str = "",
    mx: Sequence[str] = (),
) -> Quirks:
    """What to mind about this server. Ask again once it has said who it is: `server_id` is its ID (RFC 2971)."""
    known = _providers().provider
    ids = [id for id in (settings.provider,) if id is not None and id in known]
    by_host = provider_of_host(settings.host)
    by_mx = next(filter(None, map(provider_of_mx, mx)), None)
    ids += [each.id for each in (by_host, by_mx) if each is not None and each.id in known]
    tables: dict[str, dict[str, Any]] = {}
    for id in ids[:1]:  # one provider: the surest sign wins
        tables[id] = known[id].quirks
        if like := known[id].like:
            tables[like] = known[like].quirks
    told = " ".join(value for value in (server_id or {}).values() if value)
    for name, program in _providers().program.items():
        if re.search(program.match.greeting, greeting) or re.search(program.match.id, told):
            tables[name] = program.quirks
    merged: dict[str, Any] = {}
    for table in tables.values():
        merged = {**table, **merged}
    return _quirks(merged, names=tables, host=settings.host, help=_password_help(ids, by_host))


def _quirks(table: Mapping[str, Any], *, names: Iterable[str], host: str, help: str) -> Quirks:
    values = dict(table)
    caps = values.pop("folder_caps", {})
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Quirks(**{**values, **lists}, name="+".join(names), folder_cap=caps.get(host.lower()), password_help=help)


def _password_help(ids: Sequence[str], by_host: Provider | None) -> str:
    provider = providers()[ids[0]] if ids else by_host
    if provider is None:
        return ""
    auth = {kind for endpoint in provider.endpoints for kind in endpoint.auth}
    if "app-password" in auth and provider.password_url:
        return f"{provider.title} takes an app password, made at {provider.password_url}"
    if not auth & {"password", "app-password"}:
        return f"{provider.title} takes no passwords here; use OAuth 2 (`mailkeep remote login NAME --oauth2`)"
    if provider.enable_url:
        return f"IMAP may have to be switched on first: {provider.enable_url}"
    return ""
