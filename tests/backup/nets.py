"""A little internet on loopback for discovery and OAuth 2: DNS over UDP, and a web server that is every host.

Nothing here leaves 127.0.0.1: the transport sends every request to the local server, with the wanted URL in a header.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dns.asyncresolver
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import httpx2

Zone = Mapping[tuple[str, str], list[str]]  # (name, "SRV"|"MX") → records as text


class _Dns(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: Any = None
        self.asked: list[tuple[str, str]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        records = self._zone.get((name, kind))
        if records is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
        self._transport.sendto(answer.to_wire(), addr)


@contextlib.asynccontextmanager
async def dns_server(zone: Zone) -> AsyncIterator[tuple[dns.asyncresolver.Resolver, list[tuple[str, str]]]]:
    """A resolver that asks a server of ours, and what that was asked."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: _Dns(zone), local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    try:
        yield resolver, protocol.asked
    finally:
        transport.close()


@dataclass(frozen=True, slots=True)
class Page:
    """What the web answers."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Site = Callable[[str, str, bytes], Page]  # method, the URL that was wanted, body → answer


class Everywhere(httpx2.AsyncBaseTransport):
    """Sends every request to one local port, whatever host and scheme it names."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        wanted = str(request.url)
        headers = [*request.headers.raw, (b"X-Wanted", wanted.encode())]
        local = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        sent = httpx2.Request(
            request.method, local, headers=headers, stream=request.stream, extensions=request.extensions
        )
        return await self._inner.handle_async_request(sent)

    async def aclose(self) -> None:
        """The transport outlives the clients that use it."""

    async def end(self) -> None:
        await self._inner.aclose()


@contextlib.asynccontextmanager
async def web_server(site: Site) -> AsyncIterator[Everywhere]:
    """A transport in whose world `site` answers for every host."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            page = site(head[0].split()[0], headers["x-wanted"], body)
            lines = [f"HTTP/1.1 {page.status} Answer", f"Content-Length: {len(page.body)}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in page.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + page.body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = Everywhere(server.sockets[0].getsockname()[1])
    try:
        yield transport
    finally:
        await transport.end()
        server.close()
        await server.wait_closed()
