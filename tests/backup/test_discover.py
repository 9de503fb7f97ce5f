"""From an address to its server, on a little internet of our own: who is asked, in which order, and who is believed."""

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.backup.discover import Found, Means, Resolver, discover, parse_autoconfig, probe
from mailkeep.backup.fetch import ANSWER_MAX, fetcher
from mailkeep.backup.quirks import Endpoint
from mailkeep.errors import RemoteError, Unreachable, Untrusted, UsageError
from tests.backup.nets import Page, Zone, dns_server, web_server

ADDRESS = "anna@example.org"


def config(*servers: str) -> bytes:
    return f'<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="x">{"".join(servers)}'.encode() + (
        b"</emailProvider></clientConfig>"
    )


def server(host: str, port: int = 993, socket: str = "SSL", kind: str = "imap", more: str = "") -> str:
    return (
        f'<incomingServer type="{kind}"><hostname>{host}</hostname><port>{port}</port><socketType>{socket}</socketType>'
        f"{more}</incomingServer>"
    )


PIECES = [
    b"<clientConfig>", b"</clientConfig>", b'<incomingServer type="imap">', b'<incomingServer type="pop3">',
    b"</incomingServer>", b"<hostname>a.example.org</hostname>", b"<hostname>%EMAILDOMAIN%</hostname>",
    b"<hostname>{local}:x@y.z</hostname>", b"<port>993</port>", b"<port>-1</port>", b"<socketType>SSL</socketType>",
    b"<username>%EMAILADDRESS%</username>", b"<username>{address}&#9;</username>", b"<a/>", b"\xff", b"&x;", b"<!--",
    b"<authentication/>", b"<authentication>OAuth2</authentication>",
]  # fmt: skip


class World:
    """What a discovery sees and does."""

    def __init__(
        self, *, zone: Zone | None = None, web: Mapping[str, bytes | Page] | None = None, up: str = ""
    ) -> None:
        self.zone = zone or {}
        self.web = web or {}
        self.up = up.split()
        self.fetched: list[str] = []
        self.probed: list[str] = []
        self.asked: list[tuple[str, str]] = []

    def find(self, address: str = ADDRESS) -> Found:
        return asyncio.run(self._find(address))

    async def _find(self, address: str) -> Found:
        async with dns_server(self.zone) as (resolver, self.asked), web_server(self._site) as transport:
            return await discover(address, Means(Resolver(resolver), fetcher(transport), self._probe))

    def _site(self, method: str, url: str, body: bytes) -> Page:
        self.fetched.append(url)
        page = self.web.get(url.partition("?")[0], Page(status=404))
        return page if isinstance(page, Page) else Page(page)

    async def _probe(self, endpoint: Endpoint) -> None:
        here = f"{endpoint.host}:{endpoint.port}"
        self.probed.append(here)
        if f"!{here}" in self.up:
            raise Untrusted(f"the certificate of {here} does not hold")
        if here not in self.up:
            raise Unreachable("refused")


def shown(found: Found) -> list[str]:
    return [f"{each} {each.user}" for each in found.endpoints]


# --- the table -------------------------------------------------------------------------------------------------------


def test_a_known_domain_asks_nobody() -> None:
    world = World()
    found = world.find("Anna@GMail.com")
    assert found.endpoints[0] == Endpoint(
        "imap", "imap.gmail.com", 993, "tls", "Anna@gmail.com", ("oauth2:google", "app-password")
    )
    assert found.certain and found.provider is not None and found.provider.password_url
    assert not world.asked and not world.fetched and not world.probed


@pytest.mark.parametrize(
    ("address", "words"), [("x@tutanota.com", "neither IMAP nor POP3"), ("x@hey.com", "neither IMAP nor POP3")]
)
def test_a_provider_without_imap_is_named(address: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        World().find(address)


def test_a_domain_of_its_own_at_such_a_provider_is_named_too() -> None:
    with pytest.raises(UsageError, match="Tuta offers neither"):
        World(zone={("example.org", "MX"): ["10 mail.tutanota.de."]}).find()


def test_proton_leads_to_its_bridge() -> None:
    found = World().find("anna@proton.me")
    assert found.endpoints[0].host == "127.0.0.1" and found.endpoints[0].port == 1143
    assert found.provider is not None and "Bridge" in found.provider.note


def test_a_provider_with_open_lines_only_is_not_used() -> None:
    with pytest.raises(UsageError, match=r"POP3 pop\.mail\.goo\.ne\.jp:110 \(unencrypted\) was named but is not used"):
        World().find("x@goo.jp")


@pytest.mark.parametrize("address", ["anna", "anna@", "@example.org", "a b@example.org", "a@b", "a@-x.org", "a@x..org"])
def test_what_is_no_address_is_told_so(address: str) -> None:
    with pytest.raises(UsageError, match="is not a mail address"):
        World().find(address)


# --- SRV -------------------------------------------------------------------------------------------------------------


def test_srv_records_in_the_order_of_their_priority() -> None:
    world = World(
        zone={
            ("_imaps._tcp.example.org", "SRV"): ["20 0 993 b.example.org.", "10 1 1993 a.example.org."],
            ("_imap._tcp.example.org", "SRV"): ["0 0 143 a.example.org."],
            ("_pop3s._tcp.example.org", "SRV"): ["0 0 995 pop.example.org."],
            ("_pop3._tcp.example.org", "SRV"): ["0 0 0 ."],
        }
    )
    found = world.find()
    assert shown(found) == [
        "IMAP a.example.org:1993 (TLS) anna@example.org",
        "IMAP b.example.org:993 (TLS) anna@example.org",
        "IMAP a.example.org:143 (STARTTLS) anna@example.org",
        "POP3 pop.example.org:995 (TLS) anna@example.org",
    ]
    assert found.how == "the SRV record _imaps._tcp.example.org" and found.certain
    assert any("no POP3" in remark for remark in found.remarks)
    assert not world.fetched and not world.probed


def test_a_host_outside_the_domain_is_not_certain() -> None:
    """RFC 6186 section 6: whoever forges DNS must not get the password unasked."""
    stranger = World(zone={("_imaps._tcp.example.org", "SRV"): ["0 0 993 mail.evil.net."]}).find()
    assert not stranger.certain
    lookalike = World(zone={("_imaps._tcp.example.org", "SRV"): ["0 0 993 evilexample.org."]}).find()
    assert not lookalike.certain
    known = World(zone={("_imaps._tcp.example.org", "SRV"): ["0 0 993 imap.gmail.com."]}).find()
    assert known.certain and known.provider is not None and known.provider.id == "gmail"
    assert "app-password" in known.endpoints[0].auth


def test_srv_records_that_are_odd_are_passed_over() -> None:
    world = World(
        zone={
            ("_imaps._tcp.example.org", "SRV"): ["0 0 0 a.example.org.", "0 0 993 bad\\032host.example.org."],
            ("_pop3s._tcp.example.org", "SRV"): ["0 0 995 pop.example.org."],
        }
    )
    assert shown(world.find()) == ["POP3 pop.example.org:995 (TLS) anna@example.org"]


def test_no_resolver_means_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.asyncresolver
    import dns.resolver

    def missing() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.asyncresolver, "Resolver", missing)
    assert asyncio.run(Resolver().mx("example.org")) == []


# --- autoconfig ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://autoconfig.example.org/mail/config-v1.1.xml",
        "https://example.org/.well-known/autoconfig/mail/config-v1.1.xml",
    ],
)
def test_the_domains_own_file_over_https_is_believed(url: str) -> None:
    found = World(web={url: config(server("imap.hoster.net", more="<username>%EMAILLOCALPART%</username>"))}).find()
    assert shown(found) == ["IMAP imap.hoster.net:993 (TLS) anna"] and found.certain and found.how == url


def test_over_http_only_hosts_of_the_domain_are_certain() -> None:
    url = "http://autoconfig.example.org/mail/config-v1.1.xml"
    world = World(web={url: config(server("imap.hoster.net"))})
    assert not world.find().certain
    assert not any(ADDRESS in each or "%40" in each for each in world.fetched if each.startswith("http:"))
    assert World(web={url: config(server("mail.example.org"))}).find().certain


def test_redirects_are_followed_but_never_out_of_https() -> None:
    start, end = "https://autoconfig.example.org/mail/config-v1.1.xml", "https://other.example.org/x.xml"
    page = config(server("imap.example.org"))
    assert World(web={start: Page(status=302, headers={"Location": end}), end: page}).find().endpoints
    down = "http://other.example.org/x.xml"
    with pytest.raises(UsageError, match="no mail server"):
        World(web={start: Page(status=302, headers={"Location": down}), down: page}).find()
    with pytest.raises(UsageError, match="no mail server"):
        World(web={start: Page(status=302, headers={"Location": start})}).find()


def test_a_file_that_never_ends_is_not_read() -> None:
    page = config(server("imap.example.org")) + b" " * ANSWER_MAX
    with pytest.raises(UsageError, match="no mail server"):
        World(web={"https://autoconfig.example.org/mail/config-v1.1.xml": page}).find()


def test_a_file_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    packed = Page(gzip.compress(config(server("imap.example.org"))), headers={"Content-Encoding": "gzip"})
    with pytest.raises(UsageError, match="no mail server"):
        World(web={"https://autoconfig.example.org/mail/config-v1.1.xml": packed}).find()


def test_servers_of_a_file_are_taken_imap_first_and_encrypted_only() -> None:
    data = config(
        server("pop.example.org", 995, kind="pop3"),
        server("open.example.org", 143, "plain"),
        server("imap.example.org", 143, "STARTTLS"),
        server("old.example.org", more="<authentication>GSSAPI</authentication>"),
        server("smtp.example.org", 465, kind="smtp"),
        server("new.example.org", more="<authentication>OAuth2</authentication>"),
    )
    found = World(web={"https://autoconfig.example.org/mail/config-v1.1.xml": data}).find()
    assert [(each.host, each.tls, each.auth) for each in found.endpoints] == [
        ("imap.example.org", "starttls", ("password",)),
        ("new.example.org", "tls", ("oauth2:custom",)),
        ("pop.example.org", "tls", ("password",)),
    ]
    assert any("open.example.org" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found",
        b"\xff\xfe\x00",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><clientConfig>&a;</clientConfig>',
        b'<?xml version="1.0"?><!doctype x><clientConfig/>',
        "<clientConfig/>".encode("utf-16"),
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"XML|document type"):
        parse_autoconfig(data, ADDRESS)


@pytest.mark.parametrize(
    "bad",
    [
        server("imap example.org"),
        server("imap.example.org/../x"),
        server("imap.example.org", 0),
        server("imap.example.org", 99999),
        server("imap.example.org", socket="magic"),
        server("imap.example.org", more="<username>a\nb</username>"),
        server("imap.example.org", more=f"<username>{'x' * 300}</username>"),
        server("localhost"),
        '<incomingServer type="imap"/>',
    ],
)
def test_insane_servers_are_passed_over(bad: str) -> None:
    (only,) = parse_autoconfig(config(bad, server("good.example.org")), ADDRESS)
    assert only.host == "good.example.org"


@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)))
def test_garbage_is_refused_or_gives_sane_servers(data: bytes) -> None:
    try:
        found = parse_autoconfig(data, ADDRESS)
    except ValueError:
        return
    for endpoint in found:
        assert 0 < endpoint.port < 65536 and "." in endpoint.host and endpoint.auth
        assert not set(endpoint.host) & set(" /:@%{}")


def test_a_deep_and_a_wide_file_are_bounded() -> None:
    assert parse_autoconfig(b"<a>" * 30_000 + b"</a>" * 30_000, ADDRESS) == []
    assert len(parse_autoconfig(config(*(server(f"h{n}.example.org") for n in range(500))), ADDRESS)) == 10


# --- MX --------------------------------------------------------------------------------------------------------------


def test_an_mx_host_tells_the_provider() -> None:
    found = World(
        zone={("example.org", "MX"): ["20 mx.example.org.", "10 example-org.mail.protection.outlook.com."]}
    ).find()
    assert found.endpoints[0].host == "outlook.office365.com" and found.certain
    assert found.provider is not None and found.provider.id == "o365" and "MX" in found.how


def test_the_mx_hosts_domain_is_asked_for_its_file() -> None:
    world = World(
        zone={("example.org", "MX"): ["10 mx1.in.hoster.co.uk."]},
        web={"https://autoconfig.hoster.co.uk/mail/config-v1.1.xml": config(server("imap.hoster.co.uk"))},
    )
    found = world.find()
    assert found.endpoints[0].host == "imap.hoster.co.uk"
    assert not found.certain, "an MX record can be forged"
    assert not any("autoconfig.co.uk" in url for url in world.fetched), "nobody's domain is everybody's"


# --- probing ---------------------------------------------------------------------------------------------------------


def test_at_last_the_usual_names_are_tried() -> None:
    world = World(up="mail.example.org:143 pop.example.org:995 !imap.example.org:993")
    found = world.find()
    assert shown(found) == [
        "IMAP mail.example.org:143 (STARTTLS) anna@example.org",
        "POP3 pop.example.org:995 (TLS) anna@example.org",
    ]
    assert found.how == "trying the usual names" and found.certain
    assert "the certificate of imap.example.org:993 does not hold" in found.remarks


def test_when_nothing_is_found_it_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"no mail server was found for example\.org.*--imap HOST:PORT"):
        World().find()


def test_the_order_is_table_srv_autoconfig_mx_probe() -> None:
    world = World()
    with pytest.raises(UsageError):
        world.find("anna@bücher.example.org")
    assert {name for name, _ in world.asked} >= {"_imaps._tcp.xn--bcher-kva.example.org", "xn--bcher-kva.example.org"}
    asked = [url.partition("/mail/")[0] for url in world.fetched]
    places = {"autoconfig.xn--bcher-kva.example.org", "xn--bcher-kva.example.org/.well-known/autoconfig"}
    assert set(asked[:2]) == {f"https://{place}" for place in places}
    assert set(asked[2:]) == {f"http://{place}" for place in places}, "HTTP only after HTTPS"
    assert "imap.xn--bcher-kva.example.org:993" in world.probed and len(world.probed) == 13


@contextlib.asynccontextmanager
async def talking(
    *says: bytes, tls: ssl.SSLContext | None = None, start: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server that says one thing after each line it gets; with `start`, TLS after the second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(says[0])
            for answer in says[1:]:
                await reader.readline()
                writer.write(answer)
            await writer.drain()
            if start is not None:
                await writer.start_tls(start)
            await reader.read()
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


def test_a_probe_wants_the_right_greeting_over_checked_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))

    async def probed(endpoint: Endpoint, **more: str) -> None:
        await probe(endpoint, **more)

    async def work() -> None:
        async with talking(b"* OK ready\r\n", tls=context) as port:
            imap = Endpoint("imap", "127.0.0.1", port, "tls")
            await probed(imap, ca=str(ca))
            with pytest.raises(Untrusted):
                await probed(imap)
            with pytest.raises(RemoteError, match="is not POP3"):
                await probed(Endpoint("pop3", "127.0.0.1", port, "tls"), ca=str(ca))
        async with talking(b"* OK ready\r\n", b"a OK begin\r\n", start=context) as port:
            await probed(Endpoint("imap", "127.0.0.1", port, "starttls"), ca=str(ca))
        async with talking(b"+OK\r\n", b"+OK begin\r\n", start=context) as port:
            await probed(Endpoint("pop3", "127.0.0.1", port, "starttls"), ca=str(ca))
        async with talking(b"* OK ready\r\n", b"a BAD what\r\n") as port:
            with pytest.raises(RemoteError, match="does not offer STARTTLS"):
                await probed(Endpoint("imap", "127.0.0.1", port, "starttls"), ca=str(ca))
        async with talking(b"x" * 10_000) as port:
            with pytest.raises(RemoteError, match="too long"):
                await probed(Endpoint("imap", "127.0.0.1", port, "starttls"))
        with pytest.raises(Unreachable):
            await probed(Endpoint("imap", "127.0.0.1", port, "starttls"))

    asyncio.run(work())


def test_a_file_over_https_comes_from_a_certified_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    monkeypatch.setenv("NO_PROXY", "localhost")
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"

    async def work() -> list[bytes | None]:
        async with talking(b"", b"", b"", page, tls=context) as port:
            stranger = await fetcher()(f"https://localhost:{port}/")
            monkeypatch.setenv("SSL_CERT_FILE", str(ca))
            return [stranger, await fetcher()(f"https://localhost:{port}/")]

    assert asyncio.run(work()) == [None, b"hello"]
