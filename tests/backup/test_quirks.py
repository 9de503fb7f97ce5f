"""The provider data: every row is sane, and a server is known by the surest sign."""

import dataclasses
import datetime
import json
import re
import tomllib
from importlib import resources
from typing import Any

import pytest

from mailkeep.backup.quirks import (
    Endpoint,
    Provider,
    Quirks,
    issuer,
    provider_of_domain,
    provider_of_host,
    provider_of_mx,
    providers,
    quirks_for,
)
from mailkeep.backup.settings import Settings
from mailkeep.errors import UsageError

DATA = resources.files("mailkeep.backup") / "data"
TOML: dict[str, Any] = tomllib.loads((DATA / "providers.toml").read_text())
ISP: dict[str, Any] = json.loads((DATA / "isp.json").read_text())
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+", re.IGNORECASE)
PORTS = {"tls": {993, 995}, "starttls": {143, 110, 1143}, "none": {143, 110}}


def at(host: str, **more: Any) -> Settings:
    return Settings("imap", host, 993, "anna", **more)


@pytest.mark.parametrize("provider", providers().values(), ids=lambda each: each.id)
def test_every_row_is_sane(provider: Provider) -> None:
    assert provider.title and (provider.domains or provider.mx or provider.id == "workmail")
    assert provider.no_imap == (not provider.endpoints) or provider.id == "workmail"
    assert all(DOMAIN.fullmatch(domain) and domain == domain.lower() for domain in (*provider.domains, *provider.mx))
    assert datetime.date(2020, 1, 1) < datetime.date.fromisoformat(provider.checked_on)
    for url in (provider.enable_url, provider.password_url, provider.help_url):
        assert url is None or re.fullmatch(r"https?://[^\s]+", url)
    for endpoint in provider.endpoints:
        domain = provider.domains[0] if provider.domains else "example.org"
        named = endpoint.named(f"anna@{domain}")
        assert HOST.fullmatch(named.host) and "{" not in named.host + named.user
        assert named.user in (f"anna@{domain}", "anna", f"anna.{domain}")
        assert named.port in PORTS[named.tls] and endpoint.auth
        for kind in endpoint.auth:
            name, _, by = kind.partition(":")
            assert name in ("password", "app-password", "oauth2")
            assert name != "oauth2" or issuer(by).token_url.startswith("https://")


def test_large_rows_help_whoever_is_refused() -> None:
    for id in TOML["provider"]:
        provider = providers()[id]
        auth = {kind for each in provider.endpoints for kind in each.auth}
        assert provider.note or provider.help_url
        assert "app-password" not in auth or provider.password_url
        assert not provider.no_imap or provider.note


def test_the_table_has_what_it_says() -> None:
    assert len(ISP["providers"]) == 163
    assert sum(len(each["domains"]) for each in ISP["providers"]) == 963
    assert ISP["licence"] == "MPL-2.0" and "Thunderbird" in ISP["origin"]
    assert len({each["id"] for each in ISP["providers"]}) == 163


def test_rows_from_the_public_data_agree_with_it() -> None:
    """A row that says `ispdb` has no endpoint for its first domain that the public data lacks."""
    for id, row in TOML["provider"].items():
        if row["source"] != "ispdb":
            continue
        (public,) = [each for each in ISP["providers"] if row["domains"][0] in each["domains"]] or [None]
        if public is None:  # fastmail: under the name of its servers
            public = next(each for each in ISP["providers"] if each.get("provider") == id)
        bare = {text.rsplit(":{", 1)[0] for text in (*public.get("imap", ()), *public.get("pop3", ()))}
        assert {*row.get("imap", ()), *row.get("pop3", ())} <= bare, id
        local = any("{local}" in text for text in (*public.get("imap", ()), *public.get("pop3", ())))
        assert local == (row.get("user") == "local"), id


def test_quirks_are_fields_of_quirks() -> None:
    known = {field.name for field in dataclasses.fields(Quirks)} | {"folder_caps"}
    rows = {**TOML["provider"], **TOML["program"]}
    for id, row in rows.items():
        quirks = row.get("quirks", {})
        assert set(quirks) <= known - {"name", "folder_cap", "password_help"}, id
        assert row.get("like") is None or row["like"] in rows
        for name in ("backoff_regex", "reject_body_regex"):
            re.compile(quirks.get(name, ""))
        for field in dataclasses.fields(Quirks):
            if field.name in quirks and isinstance(field.default, bool):
                assert isinstance(quirks[field.name], bool), (id, field.name)


@pytest.mark.parametrize(
    ("domain", "id", "host"),
    [
        ("GMail.com", "gmail", "imap.gmail.com"),
        ("yahoo.co.uk", "yahoo", "export.imap.mail.yahoo.com"),
        ("hotmail.de", "outlook", "outlook.office365.com"),
        ("zohomail.eu", "zoho", "imap.zoho.eu"),
        ("aol.it", "aol", "imap.aol.com"),
        ("pm.me", "proton-bridge", "127.0.0.1"),
        ("posteo.de", "posteo.de", "posteo.de"),
    ],
)
def test_domains_lead_to_providers(domain: str, id: str, host: str) -> None:
    provider = provider_of_domain(domain)
    assert provider is not None and provider.endpoints[0].host == host
    assert provider.id.removeprefix("isp:") == id


def test_no_row_for_a_stranger() -> None:
    assert provider_of_domain("example.org") is None
    assert provider_of_mx("mx.example.org") is None and provider_of_mx("localhost") is None
    assert provider_of_host("imap.example.org") is None
    assert provider_of_mx("evilgoogle.com") is None, "a suffix is whole labels"
    assert provider_of_host("evil-outlook.com") is None
    assert provider_of_host("127.0.0.1") is None, "anything may run on this machine"


@pytest.mark.parametrize(
    ("mx", "id"),
    [
        ("aspmx.l.google.com.", "gmail"),
        ("alt1.aspmx.l.googlemail.com", "gmail"),
        ("example-org.mail.protection.outlook.com", "o365"),
        ("outlook-com.olc.protection.outlook.com", "outlook"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx-aol.mail.gm0.yahoodns.net", "aol"),
        ("mail.protonmail.ch", "proton-bridge"),
        ("mx01.mail.icloud.com", "icloud"),
        ("mail.tutanota.de", "tuta"),
    ],
)
def test_mx_hosts_lead_to_providers(mx: str, id: str) -> None:
    provider = provider_of_mx(mx)
    assert provider is not None and provider.id == id


def test_workmail_has_a_host_a_region() -> None:
    provider = provider_of_mx("inbound-smtp.eu-west-1.amazonaws.com")
    assert provider is not None
    assert [str(each) for each in provider.endpoints] == ["IMAP imap.mail.eu-west-1.awsapps.com:993 (TLS)"]
    assert quirks_for(at("imap.mail.eu-west-1.awsapps.com")).name == "workmail"


def test_quirks_by_provider_host_and_program() -> None:
    assert quirks_for(at("imap.example.org")) == Quirks()
    gmail = quirks_for(at("imap.gmail.com"))
    assert gmail.dedup_key == "X-GM-MSGID" and gmail.bytes_per_day["imap_down"] == 2_500_000_000
    assert "app password" in gmail.password_help
    outlook = quirks_for(at("127.0.0.1", provider="outlook"))
    assert outlook.name == "outlook+o365" and not outlook.trust_condstore and outlook.max_connections == 20
    assert re.search(outlook.backoff_regex or "", "Suggested Backoff Time: 2000 milliseconds")
    assert "OAuth 2" in outlook.password_help
    assert quirks_for(at("imap.mail.yahoo.com")).folder_cap == 10_000
    assert quirks_for(at("export.imap.mail.yahoo.com")).folder_cap is None
    assert quirks_for(at("p42-imap.mail.me.com")).name == "icloud"
    assert quirks_for(at("mail.example.org"), mx=["x.mail.protection.outlook.com"]).name == "o365"


def test_a_program_is_known_by_what_it_says() -> None:
    exchange = quirks_for(at("mail.example.org"), greeting="* OK The Microsoft Exchange IMAP4 service is ready.")
    assert exchange.pipeline_depth == 1 and not exchange.trust_size
    domino = quirks_for(at("mail.example.org"), server_id={"name": "Domino IMAP4 Server", "version": None})
    assert domino.separator == "\\" and not domino.idle
    both = quirks_for(at("outlook.office365.com"), greeting="* OK The Microsoft Exchange IMAP4 service is ready.")
    assert both.max_connections == 20, "what is known of the host is surer than what the program says"


def test_an_unknown_issuer_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="google, microsoft"):
        issuer("acme")
    assert issuer("microsoft").device_url is not None


def test_an_endpoint_is_named_for_an_address() -> None:
    endpoint = Endpoint("imap", "mail.{domain}", 993, "tls", "{local}.{domain}")
    named = endpoint.named("Anna@example.org")
    assert (named.host, named.user) == ("mail.example.org", "Anna.example.org")
