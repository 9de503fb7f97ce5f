"""From an address to its server: where IMAP or POP3 is, how to get in, and how we know.

In this order, and the first that answers wins: our table of providers, SRV records (RFC 6186), the domain's own
autoconfig file, the MX host (its provider, or autoconfig of its domain), and at last trying the usual names. Resolver,
fetcher and prober are arguments. Only TLS and STARTTLS are taken; no password is sent from here.

The one hard idea is whom to believe. DNS and HTTP can be forged, and what they say decides where the password goes. So
a host that lies outside the address's own domain and is no provider of our table is not `certain` unless HTTPS of that
very domain named it (RFC 6186 section 6): the caller asks its user first.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree

from mailkeep.backup.fetch import Fetch
from mailkeep.backup.quirks import Endpoint, Provider, provider_of_domain, provider_of_host, provider_of_mx
from mailkeep.backup.settings import Protocol, Tls, is_loopback
from mailkeep.backup.stream import open_stream
from mailkeep.errors import MailkeepError, RemoteError, Unreachable, UsageError

DNS_S: Final = 6.0
PROBE_S: Final = 8.0
ANSWERS_MAX: Final = 10  # records and servers of one answer that are looked at
GREETING_MAX: Final = 8192
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")

# RFC 6186 section 3: the service says whether TLS comes at once; a plain one must then offer STARTTLS.
SERVICES: Final[tuple[tuple[str, Protocol, Tls], ...]] = (
    ("_imaps._tcp", "imap", "tls"),
    ("_imap._tcp", "imap", "starttls"),
    ("_pop3s._tcp", "pop3", "tls"),
    ("_pop3._tcp", "pop3", "starttls"),
)
PROBES: Final[tuple[tuple[str, Protocol, int, Tls], ...]] = (
    ("imap.", "imap", 993, "tls"),
    ("mail.", "imap", 993, "tls"),
    ("", "imap", 993, "tls"),
    ("imap.", "imap", 143, "starttls"),
    ("mail.", "imap", 143, "starttls"),
    ("", "imap", 143, "starttls"),
    ("pop.", "pop3", 995, "tls"),
    ("pop3.", "pop3", 995, "tls"),
    ("mail.", "pop3", 995, "tls"),
    ("", "pop3", 995, "tls"),
    ("pop.", "pop3", 110, "starttls"),
    ("mail.", "pop3", 110, "starttls"),
    ("", "pop3", 110, "starttls"),
)
# Second levels under which strangers register: no autoconfig is asked of these.
_SHARED: Final = frozenset(
    ("ac", "co", "com", "edu", "gob", "gov", "gv", "ltd", "mil", "ne", "net", "nom", "or", "org", "plc")
)


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of an address's servers. `endpoints` are named for the address, the best first."""

    address: str
    endpoints: tuple[Endpoint, ...]
    how: str  # for people: "the provider table", "the SRV record _imaps._tcp.example.org"
    provider: Provider | None = None
    certain: bool = True  # False: ask before the password goes there
    remarks: tuple[str, ...] = ()


Probe = Callable[[Endpoint], Awaitable[None]]  # raises Unreachable or RemoteError when it is no such server


@dataclass(frozen=True, slots=True)
class Means:
    """What discovery looks with."""

    resolver: "Resolver"
    fetch: Fetch
    probe: Probe


async def discover(address: str, means: Means) -> Found:
    """The servers of an address. Raises UsageError: it is no address, its provider has neither IMAP nor POP3, or
    nothing was found; the text says what to do."""
    address, domain = _parts(address)
    remarks: list[str] = []
    provider = provider_of_domain(domain)
    if provider is not None and (found := _of_provider(provider, address, "the table of providers", remarks)):
        return found
    for search in (_by_srv, _by_autoconfig, _by_mx, _by_probe):
        found = await search(address, domain, means, remarks)
        if found is not None:
            return replace(found, remarks=tuple(dict.fromkeys(remarks)))
    said = "".join(f"; {remark}" for remark in dict.fromkeys(remarks))
    raise UsageError(
        f"no mail server was found for {domain}{said}. Ask who runs it for its IMAP server, then give --imap HOST:PORT"
    )


def _parts(address: str) -> tuple[str, str]:
    """The address with its domain as DNS has it, and that domain."""
    import dns.exception
    import dns.name

    local, at, domain = address.strip().rpartition("@")
    try:
        name = dns.name.from_text(domain, idna_codec=dns.name.IDNA_2008_Practical).to_text(omit_final_dot=True).lower()
    except (dns.exception.DNSException, UnicodeError):
        name = ""
    if not at or not local or not _HOST.fullmatch(name) or any(char <= " " for char in address.strip()):
        raise UsageError(f"{address} is not a mail address; give one such as anna@example.org, or --imap HOST:PORT")
    return f"{local}@{name}", name


def _of_provider(provider: Provider, address: str, how: str, remarks: list[str]) -> Found | None:
    """Raises UsageError when the provider has no way in for us; None when it has only unencrypted ones."""
    if provider.no_imap:
        raise UsageError(f"{provider.note} ({provider.help_url})" if provider.help_url else provider.note)
    usable = _usable((each.named(address) for each in provider.endpoints), remarks)
    return Found(address, usable, how, provider) if usable else None


def _usable(endpoints: Iterable[Endpoint], remarks: list[str]) -> tuple[Endpoint, ...]:
    """Those with an encrypted line, IMAP first, otherwise in their order."""
    usable = []
    for endpoint in endpoints:
        if endpoint.tls == "none" and not is_loopback(endpoint.host):
            remarks.append(f"{endpoint} was named but is not used, for the password would be read on the way")
        elif endpoint not in usable:
            usable.append(endpoint)
    return tuple(sorted(usable, key=lambda each: each.protocol != "imap"))


def _judged(address: str, endpoints: tuple[Endpoint, ...], how: str, *, vouched: bool = False) -> Found:
    """With what we know of the hosts' provider, and whether the password may go there unasked."""
    domain = address.rpartition("@")[2]
    owner = provider_of_host(endpoints[0].host)
    known = {each.host for each in owner.endpoints} if owner is not None else set()
    if owner is not None and endpoints[0].host in known:
        auth = next(each.auth for each in owner.endpoints if each.host == endpoints[0].host)
        endpoints = tuple(replace(each, auth=auth) for each in endpoints)
    certain = vouched or all(
        each.host in known or each.host == domain or each.host.endswith("." + domain) for each in endpoints
    )
    return Found(address, endpoints, how, owner, certain)


# --- SRV -------------------------------------------------------------------------------------------------------------


class Resolver:
    """The three questions that discovery asks of DNS. What cannot be answered is an empty list."""

    def __init__(self, resolver: Any = None) -> None:
        """`resolver`: a dns.asyncresolver.Resolver; by default the system's."""
        self._resolver = resolver

    async def srv(self, name: str) -> list[tuple[int, int, int, str]]:
        """(priority, weight, port, host), best first; host "" means that the service is not offered."""
        rows = [
            (int(row.priority), int(row.weight), int(row.port), row.target.to_text(omit_final_dot=True).lower())
            for row in await self._ask(name, "SRV")
        ]
        rows = [(*row[:3], "" if row[3] in (".", "@", "") else row[3]) for row in rows]
        return sorted(rows, key=lambda row: (row[0], -row[1]))[:ANSWERS_MAX]

    async def mx(self, domain: str) -> list[str]:
        """Hosts, the preferred first."""
        rows = [
            (int(row.preference), row.exchange.to_text(omit_final_dot=True).lower())
            for row in await self._ask(domain, "MX")
        ]
        return [host for _, host in sorted(rows)][:ANSWERS_MAX]

    async def _ask(self, name: str, kind: str) -> list[Any]:
        import dns.asyncresolver
        import dns.exception

        try:
            if self._resolver is None:
                self._resolver = dns.asyncresolver.Resolver()
            return list(await self._resolver.resolve(name, kind, lifetime=DNS_S, search=False))
        except (dns.exception.DNSException, OSError):  # no such name, no answer, no resolver: all mean "not known"
            return []


async def _by_srv(address: str, domain: str, means: Means, remarks: list[str]) -> Found | None:
    answers = await asyncio.gather(*(means.resolver.srv(f"{name}.{domain}") for name, _, _ in SERVICES))
    endpoints = []
    first = ""
    for (name, protocol, tls), rows in zip(SERVICES, answers, strict=True):
        for _, _, port, host in rows:
            if not host:  # RFC 6186 section 3.4: "." says that there is no such service
                remarks.append(f"{domain} says that it has no {name.partition('.')[0][1:].upper()}")
            elif _HOST.fullmatch(host) and 0 < port < 65536:
                first = first or f"the SRV record {name}.{domain}"
                endpoints.append(Endpoint(protocol, host, port, tls).named(address))
    usable = _usable(endpoints, remarks)
    return _judged(address, usable, first) if usable else None


# --- autoconfig ------------------------------------------------------------------------------------------------------


async def _by_autoconfig(address: str, domain: str, means: Means, remarks: list[str]) -> Found | None:
    asked = f"?emailaddress={quote(address)}"
    places = (f"autoconfig.{domain}/mail/config-v1.1.xml", f"{domain}/.well-known/autoconfig/mail/config-v1.1.xml")
    secure = [f"https://{place}{asked}" for place in places]
    found = await _autoconfig(secure, address, means, remarks, vouched=True)
    if found is not None:
        return found
    # Many have no HTTPS. These are not told who asks, for all may listen.
    return await _autoconfig([f"http://{place}" for place in places], address, means, remarks, vouched=False)


async def _autoconfig(
    urls: Sequence[str], address: str, means: Means, remarks: list[str], *, vouched: bool
) -> Found | None:
    """What the first file says that says anything; all are fetched at once, for a silent host takes long."""
    for url, data in zip(urls, await asyncio.gather(*map(means.fetch, urls)), strict=True):
        if data is None:
            continue
        shown = url.partition("?")[0]
        try:
            endpoints = parse_autoconfig(data, address)
        except ValueError as error:
            remarks.append(f"{shown} {error}")
            continue
        if usable := _usable(endpoints, remarks):
            return _judged(address, usable, shown, vouched=vouched)
    return None


_SOCKETS: Final[dict[str, Tls]] = {"SSL": "tls", "STARTTLS": "starttls", "plain": "none"}
_KINDS: Final[dict[str, Protocol]] = {"imap": "imap", "pop3": "pop3"}


def parse_autoconfig(data: bytes, address: str) -> list[Endpoint]:
    """The servers of an autoconfig file (config-v1.1.xml), as far as they are sane. Raises ValueError.

    The file is anybody's: no document type, so no entities; few servers; hosts must look like hosts.
    """
    try:
        text = data.decode("utf-8-sig")
        if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
            raise ValueError("has a document type, which is not accepted")
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError):
        raise ValueError("is not XML") from None
    found = []
    for index, server in enumerate(root.iter("incomingServer")):
        if index >= ANSWERS_MAX:
            break
        endpoint = _endpoint(server, address)
        if endpoint is not None:
            found.append(endpoint)
    return found


def _endpoint(server: ElementTree.Element, address: str) -> Endpoint | None:
    def text(name: str, default: str = "") -> str:
        return (server.findtext(name) or default).strip()

    def filled(value: str) -> str:
        for theirs, ours in (
            ("%EMAILADDRESS%", "{address}"),
            ("%EMAILLOCALPART%", "{local}"),
            ("%EMAILDOMAIN%", "{domain}"),
        ):
            value = value.replace(theirs, ours)
        return value

    protocol, tls = _KINDS.get(server.get("type", "")), _SOCKETS.get(text("socketType"))
    port = text("port")
    if protocol is None or tls is None or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        return None
    kinds = [(each.text or "").strip() for each in server.findall("authentication")][:ANSWERS_MAX]
    auth = [kind for kind in ("password",) if not kinds or any(each.startswith("password") for each in kinds)]
    if not auth and "OAuth2" in kinds:
        auth = ["oauth2:custom"]
    user = text("username", "%EMAILADDRESS%")
    endpoint = Endpoint(protocol, filled(text("hostname")), int(port), tls, filled(user), tuple(auth)).named(address)
    if not auth or not _HOST.fullmatch(endpoint.host) or len(user) > 255 or any(char < " " for char in endpoint.user):
        return None
    return endpoint


# --- MX --------------------------------------------------------------------------------------------------------------


async def _by_mx(address: str, domain: str, means: Means, remarks: list[str]) -> Found | None:
    hosts = await means.resolver.mx(domain)
    for host in hosts:
        if provider := provider_of_mx(host):
            found = _of_provider(provider, address, f"the MX host {host}, which is {provider.title}", remarks)
            if found is not None:
                return found
    parents = dict.fromkeys(name for host in hosts[:2] for name in _parents(host, domain))
    urls = [
        f"https://{place}/mail/config-v1.1.xml?emailaddress={quote(address)}"
        for parent in parents
        for place in (f"autoconfig.{parent}", f"{parent}/.well-known/autoconfig")
    ]
    return await _autoconfig(urls, address, means, remarks, vouched=False)


def _parents(host: str, domain: str) -> list[str]:
    """The domains that an MX host may belong to: without its first label, and its last two or three labels."""
    labels = host.split(".")
    registered = labels[-3:] if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SHARED else labels[-2:]
    names = (".".join(labels[1:]), ".".join(registered))
    return [name for name in names if name != domain and _HOST.fullmatch(name) and len(name) >= len(names[1])]


# --- probing ---------------------------------------------------------------------------------------------------------


async def _by_probe(address: str, domain: str, means: Means, remarks: list[str]) -> Found | None:
    room = asyncio.Semaphore(8)

    async def answers(endpoint: Endpoint) -> bool:
        try:
            async with room:
                await means.probe(endpoint)
        except Unreachable:
            return False
        except MailkeepError as error:  # it is there, but must not be used: a certificate, no STARTTLS
            remarks.append(error.text)
            return False
        return True

    endpoints = [
        Endpoint(protocol, prefix + domain, port, tls).named(address) for prefix, protocol, port, tls in PROBES
    ]
    good = await asyncio.gather(*map(answers, endpoints))
    usable = tuple(endpoint for endpoint, yes in zip(endpoints, good, strict=True) if yes)
    return _judged(address, usable, "trying the usual names") if usable else None


async def probe(endpoint: Endpoint, *, ca: str | None = None) -> None:
    """Whether a server of that protocol answers there over a line that is or becomes encrypted, its certificate
    checked. Raises Unreachable, or RemoteError when something else is there."""
    stream = await open_stream(endpoint.host, endpoint.port, tls=endpoint.tls, ca=ca, timeout_s=PROBE_S)
    try:
        imap = endpoint.protocol == "imap"
        greeting = await _line(stream.read)
        if not greeting.startswith((b"* OK", b"* PREAUTH") if imap else b"+OK"):
            raise RemoteError(f"{endpoint.host} port {endpoint.port} is not {endpoint}")
        if endpoint.tls == "starttls":
            stream.write(b"a STARTTLS\r\n" if imap else b"STLS\r\n")
            await stream.drain()
            answer = await _line(stream.read)
            if not answer.upper().startswith(b"A OK" if imap else b"+OK"):
                raise RemoteError(f"{endpoint.host} port {endpoint.port} does not offer STARTTLS")
            await stream.start_tls()
    finally:
        stream.abort()


async def _line(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """The first line; what comes with it must not be, for nothing was asked. Raises Unreachable, RemoteError."""
    data = b""
    while b"\n" not in data:
        more = await read()
        if not more:
            raise Unreachable("the server closed the connection")
        data += more
        if len(data) > GREETING_MAX:
            raise RemoteError("the server's first line is too long")
    return data
