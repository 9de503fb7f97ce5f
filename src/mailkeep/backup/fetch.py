"""HTTP for discovery and OAuth 2: a small answer, soon, over checked TLS, or none.

Other people's web servers decide what comes back, so everything has a bound: bytes, seconds, redirects; and a redirect
never leads from HTTPS to HTTP. It knows nothing of what is fetched.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import httpx2

ANSWER_MAX: Final = 256 * 1024  # bytes
FETCH_S: Final = 10.0
REDIRECTS_MAX: Final = 4

Fetch = Callable[[str], Awaitable[bytes | None]]


class _Bounded(httpx2.AsyncByteStream):
    """A body that may not grow beyond the bound."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for chunk in self._inner:
            seen += len(chunk)
            if seen > ANSWER_MAX:
                raise httpx2.ReadError("the answer is too long")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Before the body is read. What is compressed was not asked for, and a few bytes of it may become gigabytes."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise httpx2.DecodingError("the answer is compressed, which was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


def client_options(transport: httpx2.AsyncBaseTransport | None = None, *, timeout_s: float = FETCH_S) -> dict[str, Any]:
    """How every HTTP client of ours is made. Proxies and authorities are those of the environment."""
    return {
        "transport": transport,
        "timeout": timeout_s,
        "follow_redirects": False,
        "headers": {"Accept-Encoding": "identity", "User-Agent": "Mailkeep"},
        "event_hooks": {"response": [_bound]},
    }


def fetcher(transport: httpx2.AsyncBaseTransport | None = None) -> Fetch:
    """A function from a URL to its bytes; None for anything but 200, or when it cannot be had."""

    async def fetch(url: str) -> bytes | None:
        try:
            async with asyncio.timeout(FETCH_S), httpx2.AsyncClient(**client_options(transport)) as client:
                for _ in range(REDIRECTS_MAX + 1):
                    response = await client.get(url)
                    if response.status_code == 200:
                        return response.content
                    next_request = response.next_request
                    if next_request is None or (url.startswith("https:") and next_request.url.scheme != "https"):
                        return None
                    url = str(next_request.url)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError):
            return None  # no such host, no TLS, too long: all mean that there is nothing to be read
        return None

    return fetch
