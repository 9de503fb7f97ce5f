"""OAuth 2: tokens for Microsoft by device code (RFC 8628), for others by loopback and PKCE (RFC 8252, 7636).

The messages are authlib's over httpx2; the device flow's polling, the listener on 127.0.0.1 and the keeping of tokens
are ours. One's own client id is needed: an issuer lets a program in by its registration, and an open source program
cannot keep a registration of its own secret.

The one hard idea is single flight. A refresh token may be good for one use only, so of all tasks and processes that
find the access token stale, one refreshes, under a lock file, and writes both tokens back sealed; the others read them.
"""

import asyncio
import contextlib
import functools
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from mailkeep.backup.fetch import client_options
from mailkeep.backup.outside import run_command
from mailkeep.backup.seal import Kept, seal, unseal
from mailkeep.backup.settings import OAuth, Remote
from mailkeep.errors import BadCredentials, ConfigError, RemoteError, StoreBusy, Unreachable
from mailkeep.secret import Secret
from mailkeep.store.locks import locked
from mailkeep.store.store import Store

REQUEST_S: Final = 30.0
LEEWAY_S: Final = 120  # a token that ends sooner is refreshed: it must outlive the log-in
LOOPBACK_S: Final = 600.0  # for the user to log in with the browser
DEVICE_S: Final = 900  # RFC 8628 has the issuer say; this is the most we wait
INTERVAL_S: Final = 5  # RFC 8628 section 3.2: when the issuer does not say
LOCK_S: Final = 60.0
TOKEN_MAX: Final = 16 * 1024
REQUEST_LINE_MAX: Final = 16 * 1024
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"

Sleep = Callable[[float], Awaitable[object]]
Tell = Callable[[str], None]
_PAGE: Final = "<!doctype html><meta charset=utf-8><title>Mailkeep</title><p>%s You can close this window.\n"


async def log_in(
    oauth: OAuth,
    *,
    hint: str,
    tell: Tell,
    transport: httpx2.AsyncBaseTransport | None = None,
    sleep: Sleep = asyncio.sleep,
) -> Kept:
    """Tokens for a user who logs in with a browser; `tell` says what they have to do, `hint` is the address.

    Raises BadCredentials when they do not, ConfigError, Unreachable, RemoteError.
    """
    async with _client(oauth, transport) as client:
        if oauth.flow == "device":
            return await _by_device(client, oauth, tell=tell, sleep=sleep)
        return await _by_loopback(client, oauth, hint=hint, tell=tell)


async def access_token(
    store: Store, remote: Remote, *, transport: httpx2.AsyncBaseTransport | None = None, now: float | None = None
) -> Secret:
    """Of a remote; refreshed if need be, and then sealed in the store.

    Raises BadCredentials when the user must log in again, Unreachable, RemoteError, ConfigError.
    """
    oauth = remote.settings.oauth
    if oauth is None:
        raise BadCredentials(f"{remote.name} has no OAuth 2 client; {_again(remote)}")
    if (fresh := _fresh(_kept(store, remote), now)) is not None:
        return fresh
    path = store.directory.account_path(remote.account) / f"oauth.{remote.id}.lock"
    async with _alone(path):
        kept = _kept(store, remote)  # another may have refreshed it while we waited
        if (fresh := _fresh(kept, now)) is not None:
            return fresh
        if kept.refresh_token is None:
            raise BadCredentials(f"the log-in of {remote.name} has ended; {_again(remote)}")
        async with _client(oauth, transport) as client:
            try:
                got = await _asked(
                    oauth, lambda: client.refresh_token(oauth.token_url, refresh_token=kept.refresh_token)
                )
            except _Refused as refused:
                if refused.error in ("invalid_grant", "interaction_required", "consent_required"):
                    raise BadCredentials(
                        f"{oauth.issuer} ended the log-in of {remote.name}; {_again(remote)}"
                    ) from None
                raise RemoteError(refused.text) from None
        renewed = _tokens(got, oauth, before=kept.refresh_token)
        store.remotes.update(remote.id, secret=seal(store.root, remote.name, renewed))
    assert renewed.access_token is not None
    return Secret(renewed.access_token)


def _again(remote: Remote) -> str:
    return f"run `mailkeep remote login {remote.name}`"


def _kept(store: Store, remote: Remote) -> Kept:
    row = store.remotes.find(remote.name)
    return unseal(store.root, remote.name, row.secret if row is not None else remote.sealed)


def _fresh(kept: Kept, now: float | None) -> Secret | None:
    current = time.time() if now is None else now
    if kept.access_token is not None and kept.expires > current + LEEWAY_S:
        return Secret(kept.access_token)
    return None


@contextlib.asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """One refresh of a remote at a time, in all processes."""
    deadline = asyncio.get_running_loop().time() + LOCK_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(path, alone=True, busy="Another process is logging in"))
                break
            except StoreBusy:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)
        yield


# --- asking the issuer -----------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The issuer's error, as RFC 6749 section 5.2 has it. Never leaves this file."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(error)
        self.error = error
        self.text = text


@contextlib.asynccontextmanager
async def _client(oauth: OAuth, transport: httpx2.AsyncBaseTransport | None) -> AsyncIterator[Any]:
    secret = None
    if oauth.client_secret_command is not None:
        secret = (await run_command(oauth.client_secret_command, "--client-secret-command")).reveal()
    client = AsyncOAuth2Client(
        client_id=oauth.client_id,
        client_secret=secret,
        scope=oauth.scope,
        token_endpoint_auth_method="client_secret_post" if secret else "none",
        code_challenge_method="S256",
        **client_options(transport, timeout_s=REQUEST_S),
    )
    for answer in ("access_token_response", "refresh_token_response"):
        client.register_compliance_hook(answer, functools.partial(_checked, oauth))
    async with client:
        yield client


async def _asked(oauth: OAuth, request: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    """An answer that is an object. Raises _Refused, Unreachable, RemoteError; foreign errors end here."""
    try:
        async with asyncio.timeout(REQUEST_S):
            answer = await request()
    except OAuthError as error:
        raise _refusal(oauth, {"error": error.error, "error_description": error.description}) from None
    except (httpx2.HTTPError, TimeoutError, OSError) as error:
        raise Unreachable(f"{oauth.issuer} cannot be reached for tokens: {type(error).__name__}") from None
    answer = answer.json() if isinstance(answer, httpx2.Response) else dict(answer)
    if "error" in answer:
        raise _refusal(oauth, answer)
    return answer


def _checked(oauth: OAuth, response: httpx2.Response) -> httpx2.Response:
    """Before authlib reads it: an object, whatever the issuer's proxy says. Raises RemoteError."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    if response.status_code >= 500 or (response.status_code >= 300 and not isinstance(answer, dict)):
        raise RemoteError(f"{oauth.issuer} answered with HTTP {response.status_code}")
    if not isinstance(answer, dict):
        raise RemoteError(f"{oauth.issuer} answered something that is not OAuth 2")
    return response


def _refusal(oauth: OAuth, answer: dict[str, Any]) -> _Refused:
    error, description = str(answer.get("error") or "error")[:80], str(answer.get("error_description") or "")[:300]
    said = "".join(char for char in f"{error} {description}".strip() if char.isprintable())
    return _Refused(error, f"{oauth.issuer} refuses: {said}")


def _tokens(answer: dict[str, Any], oauth: OAuth, *, before: str | None = None) -> Kept:
    """RFC 6749 section 5.1. An issuer that gives no new refresh token means that the old one stays."""
    access, refresh, lasts = answer.get("access_token"), answer.get("refresh_token") or before, answer.get("expires_in")
    if not isinstance(access, str) or not 0 < len(access) <= TOKEN_MAX:
        raise RemoteError(f"{oauth.issuer} gave no access token")
    if refresh is not None and (not isinstance(refresh, str) or len(refresh) > TOKEN_MAX):
        raise RemoteError(f"{oauth.issuer} gave a refresh token that cannot be one")
    return Kept(refresh_token=refresh, access_token=access, expires=int(time.time()) + _seconds(lasts, 3600, 7 * 86400))


def _seconds(value: object, default: int, most: int) -> int:
    """What an issuer says of time, as a number or, at some, as a text."""
    try:
        number = int(value) if isinstance(value, int | float | str) else default
    except (ValueError, OverflowError):  # no number, NaN, an infinite one
        number = default
    return max(1, min(number, most))


# --- by device code --------------------------------------------------------------------------------------------------


async def _by_device(client: Any, oauth: OAuth, *, tell: Tell, sleep: Sleep) -> Kept:
    if oauth.device_url is None:
        raise ConfigError(f"{oauth.issuer} has no log-in by device code")
    fields = {"client_id": oauth.client_id, "scope": oauth.scope}

    async def ask() -> httpx2.Response:
        return _checked(oauth, await client.request("POST", oauth.device_url, data=fields, withhold_token=True))

    try:
        answer = await _asked(oauth, ask)
    except _Refused as refused:
        raise RemoteError(refused.text) from None
    code, user_code = answer.get("device_code"), answer.get("user_code")
    where = answer.get("verification_uri") or answer.get("verification_url")  # the latter at Google
    if not isinstance(code, str) or not isinstance(user_code, str) or not isinstance(where, str):
        raise RemoteError(f"{oauth.issuer} gave no device code")
    tell(f"Open {where[:300]} in a browser, on any machine, and enter the code {user_code[:40]}")
    interval = float(_seconds(answer.get("interval"), INTERVAL_S, 60))
    left = float(_seconds(answer.get("expires_in"), DEVICE_S, DEVICE_S))
    while left > 0:
        await sleep(interval)
        left -= interval
        try:
            got = await _asked(
                oauth, lambda: client.fetch_token(oauth.token_url, grant_type=DEVICE_GRANT, device_code=code)
            )
        except _Refused as refused:  # RFC 8628 section 3.5
            if refused.error == "slow_down":
                interval += 5
            elif refused.error in ("access_denied", "authorization_declined"):
                raise BadCredentials("the log-in was declined in the browser") from None
            elif refused.error == "expired_token":
                break
            elif refused.error != "authorization_pending":
                raise RemoteError(refused.text) from None
        except Unreachable:
            interval = min(interval * 2, 60.0)  # section 3.5: exponential back-off
        else:
            return _tokens(got, oauth)
    raise BadCredentials("the code was not used in time; run it again")


# --- by loopback and PKCE --------------------------------------------------------------------------------------------


async def _by_loopback(client: Any, oauth: OAuth, *, hint: str, tell: Tell) -> Kept:
    """RFC 8252 section 7.3: the browser is sent to a port of ours; what comes there must know our state."""
    if oauth.authorize_url is None:
        raise ConfigError(f"{oauth.issuer} has no address to log in at")
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    came: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _redirected(reader, writer, state, came)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=REQUEST_LINE_MAX)
    try:
        port = server.sockets[0].getsockname()[1]
        client.redirect_uri = f"http://127.0.0.1:{port}/"
        url, _ = client.create_authorization_url(
            oauth.authorize_url,
            state=state,
            code_verifier=verifier,
            login_hint=hint,
            access_type="offline",  # Google gives a refresh token only so
            prompt="consent",
        )
        tell(f"Open this address in a browser on this machine and log in:\n{url}")
        if os.environ.get("SSH_CONNECTION"):
            tell(f"From another machine, first: ssh -L {port}:127.0.0.1:{port} and this host")
        async with asyncio.timeout(LOOPBACK_S):
            answer = await came
    except TimeoutError:
        raise BadCredentials("nobody logged in with the browser in time; run it again") from None
    finally:
        server.close()
    if "code" not in answer:
        raise BadCredentials(f"the log-in was declined in the browser ({answer.get('error', 'no code')[:80]})")
    try:
        got = await _asked(
            oauth,
            lambda: client.fetch_token(
                oauth.token_url, grant_type="authorization_code", code=answer["code"], code_verifier=verifier
            ),
        )
    except _Refused as refused:
        raise RemoteError(refused.text) from None
    return _tokens(got, oauth)


async def _redirected(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    state: str,
    came: "asyncio.Future[dict[str, str]]",
) -> None:
    """One request of a browser, or of anybody on this machine: only the one with our state counts."""
    try:
        async with asyncio.timeout(10):
            line = (await reader.readline()).decode("latin-1").split()
        target = urlsplit(line[1]) if len(line) == 3 and line[0] == "GET" else None
        answer = {name: values[0] for name, values in parse_qs(target.query).items()} if target is not None else {}
        if (
            target is not None
            and target.path == "/"
            and hmac.compare_digest(answer.get("state", "").encode(), state.encode())
        ):
            status, text = "200 OK", "Mailkeep is logged in." if "code" in answer else "The log-in was declined."
            if not came.done():
                came.set_result(answer)
        else:
            status, text = "404 Not Found", "This is not the log-in that Mailkeep waits for."
        page = (_PAGE % text).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n"
        writer.write(f"{head}Referrer-Policy: no-referrer\r\n\r\n".encode() + page)
        await writer.drain()
    except (TimeoutError, ValueError, OSError):  # no HTTP, too long, or gone
        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
