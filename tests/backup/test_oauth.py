"""OAuth 2 against an issuer of our own: device code, loopback with PKCE, and one refresh for all who need it."""

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import msgspec
import pytest

from mailkeep.backup import oauth as subject
from mailkeep.backup.imap_remote import open_imap
from mailkeep.backup.login import secret_of
from mailkeep.backup.oauth import DEVICE_GRANT, access_token, log_in
from mailkeep.backup.pop3_remote import open_pop3
from mailkeep.backup.quirks import quirks_for
from mailkeep.backup.seal import Kept, seal, unseal
from mailkeep.backup.settings import OAuth, Protocol, Remote, Settings, Token, find_remote, pack
from mailkeep.errors import BadCredentials, ConfigError, RemoteError, Unreachable
from mailkeep.store.store import Store
from mailkeep.testing.faulty import Faulty
from tests.backup.nets import Everywhere, Page, web_server

DEVICE = OAuth(
    issuer="microsoft",
    client_id="our-client",
    flow="device",
    token_url="https://issuer.example/token",
    scope="mail offline_access",
    device_url="https://issuer.example/device",
)
LOOPBACK = OAuth(
    issuer="google",
    client_id="our-client",
    flow="loopback",
    token_url="https://issuer.example/token",
    scope="https://mail.example/",
    authorize_url="https://issuer.example/auth",
    client_secret_command="echo client-secret",
)
TOKENS = {"access_token": "access-1", "refresh_token": "refresh-1", "expires_in": 3600, "token_type": "Bearer"}


class Issuer:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, *token_answers: Any, device: Any = None) -> None:
        self.answers = list(token_answers)
        self.device = device or {
            "device_code": "device-code",
            "user_code": "ABC-DEF",
            "verification_uri": "https://issuer.example/enter",
            "interval": 5,
            "expires_in": 900,
        }
        self.asked: list[dict[str, str]] = []

    def __call__(self, method: str, url: str, body: bytes) -> Page:
        fields = dict(parse_qsl(body.decode()))
        if url.endswith("/device"):
            return self._page(self.device)
        self.asked.append(fields)
        return self._page(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    @staticmethod
    def _page(answer: Any) -> Page:
        if isinstance(answer, Page):
            return answer
        headers = {"Content-Type": "application/json"}
        return Page(
            json.dumps(answer).encode(), 400 if isinstance(answer, dict) and "error" in answer else 200, headers
        )


def run(issuer: Issuer, work: Callable[[Everywhere], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with web_server(issuer) as transport:
            return await work(transport)

    return asyncio.run(main())


def pending(error: str = "authorization_pending", **more: str) -> dict[str, str]:
    return {"error": error, **more}


class Device:
    """A device log-in whose clock only counts."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.waited: list[float] = []
        self.told: list[str] = []

    def __call__(self) -> Kept:
        async def wait(seconds: float) -> None:
            self.waited.append(seconds)

        found: Kept = run(
            self.issuer, lambda net: log_in(DEVICE, hint="", tell=self.told.append, transport=net, sleep=wait)
        )
        return found


# --- by device code --------------------------------------------------------------------------------------------------


def test_a_device_log_in_waits_until_the_user_is_done() -> None:
    issuer = Issuer(pending(), pending("slow_down"), pending(), TOKENS)
    login = Device(issuer)
    kept = login()
    assert (kept.access_token, kept.refresh_token) == ("access-1", "refresh-1")
    assert abs(kept.expires - time.time() - 3600) < 60
    assert login.waited == [5, 5, 10, 10], "RFC 8628 section 3.5: slow_down adds five seconds for good"
    assert login.told == ["Open https://issuer.example/enter in a browser, on any machine, and enter the code ABC-DEF"]
    assert all(asked["grant_type"] == DEVICE_GRANT and asked["device_code"] == "device-code" for asked in issuer.asked)
    assert all(asked["client_id"] == "our-client" for asked in issuer.asked)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (pending("access_denied"), BadCredentials, "declined"),
        (pending("authorization_declined"), BadCredentials, "declined"),
        (pending("expired_token"), BadCredentials, "not used in time"),
        (
            pending("invalid_client", error_description="AADSTS700016 no\nsuch app"),
            RemoteError,
            "AADSTS700016 nosuch app",
        ),
        (Page(b"<html>", 200), RemoteError, "not OAuth 2"),
        (Page(b"[]", 200), RemoteError, "not OAuth 2"),
        (Page(b"", 500), RemoteError, "HTTP 500"),
        ({"token_type": "Bearer"}, RemoteError, "no access token"),
        ({**TOKENS, "access_token": "x" * 20_000}, RemoteError, "no access token"),
        ({**TOKENS, "refresh_token": 7}, RemoteError, "cannot be one"),
    ],
)
def test_a_device_log_in_that_fails_says_why(answer: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Device(Issuer(answer))()


def test_a_device_log_in_ends_with_its_code() -> None:
    issuer = Issuer(pending())
    issuer.device |= {"interval": 0, "expires_in": "30"}
    login = Device(issuer)
    with pytest.raises(BadCredentials, match="in time"):
        login()
    assert sum(login.waited) >= 30 and len(login.waited) <= 31


@pytest.mark.parametrize("device", [{"user_code": "x"}, pending("invalid_scope"), Page(b"{}", 200)])
def test_an_issuer_without_device_codes_is_told(device: Any) -> None:
    with pytest.raises(RemoteError):
        Device(Issuer(TOKENS, device=device))()


def test_an_answer_without_end_is_not_read() -> None:
    endless = Page(b'{"access_token": "' + b"x" * (1 << 20) + b'"}')
    issuer = Issuer(endless, TOKENS)
    login = Device(issuer)
    assert login().access_token == "access-1"
    assert login.waited == [5, 10], "what cannot be read counts as unreachable, and is tried again more slowly"


# --- by loopback -----------------------------------------------------------------------------------------------------


async def browse(url: str, **changes: str) -> str:
    """What a browser does after the user agreed (or not): goes where the issuer sends it. The page's first line."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    back = urlsplit(query["redirect_uri"])
    assert back.hostname == "127.0.0.1" and back.port is not None
    target = changes.pop("target", None) or "/?" + "&".join(
        f"{name}={value}" for name, value in {"state": query["state"], "code": "the-code", **changes}.items() if value
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode().split("\r\n")[0]


def loopback(issuer: Issuer, visits: list[dict[str, str]]) -> tuple[Kept, str, list[str]]:
    """Log in while a browser visits; the tokens, the address shown, the pages' status lines."""

    async def work(net: Everywhere) -> tuple[Kept, str, list[str]]:
        told: asyncio.Queue[str] = asyncio.Queue()
        login = asyncio.create_task(log_in(LOOPBACK, hint="anna@example.org", tell=told.put_nowait, transport=net))
        url = (await told.get()).splitlines()[-1]
        pages = [await browse(url, **visit) for visit in visits]
        return await login, url, pages

    found: tuple[Kept, str, list[str]] = run(issuer, work)
    return found


def test_a_browser_log_in_proves_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    issuer = Issuer(TOKENS)
    visits = [{"target": "/favicon.ico"}, {"state": "guess"}, {"state": "ü"}, {"target": "nonsense"}, {}]
    kept, url, pages = loopback(issuer, visits)
    assert kept.refresh_token == "refresh-1"
    assert [page.split()[1] for page in pages] == ["404", "404", "404", "404", "200"], "only our state counts"
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert url.startswith("https://issuer.example/auth?") and asked["response_type"] == "code"
    assert asked["login_hint"] == "anna@example.org" and asked["access_type"] == "offline"
    assert asked["scope"] == LOOPBACK.scope and len(asked["state"]) > 30
    (sent,) = issuer.asked
    challenge = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert asked["code_challenge"] == challenge and asked["code_challenge_method"] == "S256"
    assert 43 <= len(sent["code_verifier"]) <= 128, "RFC 7636 section 4.1"
    assert sent["code"] == "the-code" and sent["redirect_uri"] == asked["redirect_uri"]
    assert sent["client_secret"] == "client-secret" and "client-secret" not in url


def test_a_browser_log_in_can_be_declined() -> None:
    with pytest.raises(BadCredentials, match=r"declined in the browser \(access_denied\)"):
        loopback(Issuer(TOKENS), [{"code": "", "error": "access_denied"}])


def test_a_browser_log_in_that_the_issuer_refuses_says_why() -> None:
    with pytest.raises(RemoteError, match="google refuses: invalid_grant too late"):
        loopback(Issuer(pending("invalid_grant", error_description="too late")), [{}])


def test_nobody_logs_in_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LOOPBACK_S", 0.01)
    with pytest.raises(BadCredentials, match="in time"):
        run(Issuer(TOKENS), lambda net: log_in(LOOPBACK, hint="", tell=lambda _: None, transport=net))


# --- keeping and refreshing ------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


def add(store: Store, kept: Kept, oauth: OAuth | None = DEVICE) -> Remote:
    account = store.directory.add("anna").id
    settings = Settings("imap", "outlook.office365.com", 993, "anna", secret="oauth2", oauth=oauth)
    store.remotes.add("anna", account, settings=pack(settings), secret=seal(store.root, "anna", kept))
    return find_remote(store, "anna")


def stale() -> Kept:
    return Kept(refresh_token="refresh-0", access_token="access-0", expires=int(time.time()) + 60)


def test_a_fresh_token_asks_nobody(store: Store) -> None:
    remote = add(store, Kept(refresh_token="r", access_token="still-good", expires=int(time.time()) + 3000))
    found = asyncio.run(secret_of(store, remote))
    assert isinstance(found, Token) and found.secret.reveal() == "still-good"
    assert "still-good" not in f"{found} {found!r} {remote}"


def test_all_who_find_a_token_stale_cause_one_refresh(store: Store) -> None:
    issuer = Issuer({**TOKENS, "refresh_token": "refresh-2"}, pending("invalid_grant"))
    remote = add(store, stale())

    async def work(net: Everywhere) -> list[str]:
        found = await asyncio.gather(*(access_token(store, remote, transport=net) for _ in range(5)))
        return [each.reveal() for each in found]

    assert run(issuer, work) == ["access-1"] * 5
    (sent,) = issuer.asked
    assert sent["grant_type"] == "refresh_token" and sent["refresh_token"] == "refresh-0"
    row = store.remotes.find("anna")
    assert row is not None and row.secret is not None and b"refresh" not in row.secret
    assert unseal(store.root, "anna", row.secret).refresh_token == "refresh-2", "the new one replaces the old"


def test_an_issuer_that_gives_no_new_refresh_token_keeps_the_old(store: Store) -> None:
    remote = add(store, stale())
    issuer = Issuer({"access_token": "access-1", "expires_in": "3599", "token_type": "Bearer"})
    assert run(issuer, lambda net: access_token(store, remote, transport=net)).reveal() == "access-1"
    row = store.remotes.find("anna")
    assert row is not None and unseal(store.root, "anna", row.secret).refresh_token == "refresh-0"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (pending("invalid_grant", error_description="refresh-0 revoked"), BadCredentials, "mailkeep remote login anna"),
        (pending("temporarily_unavailable"), RemoteError, "microsoft refuses: temporarily_unavailable"),
        (Page(b"busy", 503), RemoteError, "HTTP 503"),
    ],
)
def test_a_refresh_that_fails_leaves_what_was(store: Store, answer: Any, error: type[Exception], words: str) -> None:
    remote = add(store, stale())
    with pytest.raises(error, match=words):
        run(Issuer(answer), lambda net: access_token(store, remote, transport=net))
    row = store.remotes.find("anna")
    assert row is not None and row.secret == remote.sealed


def test_an_issuer_that_cannot_be_reached_is_temporary(store: Store) -> None:
    remote = add(store, stale())

    async def work() -> None:
        async with web_server(Issuer(TOKENS)) as transport:
            pass
        await access_token(store, remote, transport=transport)

    with pytest.raises(Unreachable, match="microsoft cannot be reached"):
        asyncio.run(work())


def test_what_is_missing_is_said(store: Store) -> None:
    remote = add(store, Kept(access_token="old", expires=1))
    with pytest.raises(BadCredentials, match="has ended"):
        asyncio.run(access_token(store, remote))
    bare = msgspec.structs.replace(remote.settings, oauth=None)
    without = Remote(remote.id, "anna", remote.account, bare, remote.sealed, None, None, 0)
    with pytest.raises(BadCredentials, match="no OAuth 2 client"):
        asyncio.run(access_token(store, without))
    failing = msgspec.structs.replace(DEVICE, client_secret_command="exit 4")
    with pytest.raises(ConfigError, match="--client-secret-command ended with code 4"):
        asyncio.run(log_in(failing, hint="", tell=lambda _: None))


def test_no_secret_is_in_any_error(store: Store) -> None:
    remote = add(store, stale())
    with pytest.raises(RemoteError) as caught:
        run(Issuer(Page(b'{"access_token": 5}', 200)), lambda net: access_token(store, remote, transport=net))
    seen: BaseException | None = caught.value
    while seen is not None:
        assert not re.search("refresh-0|access-0", str(seen))
        seen = seen.__cause__


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_a_stale_remote_logs_in_with_the_renewed_token(store: Store, protocol: Protocol) -> None:
    """From the sealed refresh token to a server that takes XOAUTH2 alone."""
    remote = add(store, stale())

    async def work(net: Everywhere) -> None:
        async def fresh() -> Token:
            return Token(await access_token(store, remote, transport=net))

        settings = Settings(protocol, "127.0.0.1", server.port, server.user, tls="none", secret="oauth2")
        if protocol == "imap":
            imap = await open_imap(settings, fresh, quirks_for(settings))
            assert [box.name for box in await imap.list_mailboxes()]
            await imap.logout()
        else:
            pop = await open_pop3(settings, fresh, quirks_for(settings))
            await pop.leave()

    with Faulty("plain" if protocol == "imap" else "pop3", token="access-1") as server:
        run(Issuer(TOKENS), work)
        server.state.token = "revoked"
        with pytest.raises(BadCredentials):
            run(Issuer(TOKENS), work)


@pytest.mark.parametrize("lasts", ["1e999", "-1e999", '"soon"', "null", "[]", '"99999999999999999999"'])
def test_any_lifetime_of_a_token_is_one(lasts: str) -> None:
    oauth = subject._tokens({"access_token": "a", "expires_in": json.loads(lasts)}, DEVICE)
    assert 0 < oauth.expires - time.time() <= 8 * 86400
