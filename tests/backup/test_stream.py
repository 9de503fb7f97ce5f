"""The stream to another server: TLS that is always checked, STARTTLS, DEFLATE, bounded memory, ends and cuts."""

import asyncio
import contextlib
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from mailkeep.backup.stream import INFLATE_MAX, QUEUE_MAX, Stream, open_stream
from mailkeep.errors import ConfigError, ProtocolError, Unreachable, Untrusted
from tests.backup.connecting import HOST, tls_context

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(handler: Handler, work: Callable[[int], Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> None:
    """Run `work(port)` against a server whose connections are handled by `handler`."""

    async def run() -> None:
        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            except OSError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(guarded, HOST, 0, ssl=tls)
        try:
            await asyncio.wait_for(work(server.sockets[0].getsockname()[1]), 60)
        finally:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(run())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def read_exactly(stream: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.read()
        assert piece, "the stream ended early"
        data += piece
    return data


def test_what_is_written_arrives_and_the_end_is_told() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n" + await reader.readline())

    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="none")
        assert stream.loopback
        assert not stream.tls
        stream.write(b"how are ")
        stream.write(b"you\r\n")
        assert await read_exactly(stream, 18) == b"hello\r\nhow are you\r\n"
        assert await stream.read() == b""
        await stream.close()
        stream.write(b"nobody hears this")
        with pytest.raises(Unreachable):
            await stream.drain()

    talk(hello, work)


@pytest.mark.parametrize("size", [1, 16_384, 3_000_000])
def test_tls_with_an_authority_of_ones_own(authority: trustme.CA, ca: str, size: int) -> None:
    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, ca=ca)
        assert stream.tls
        sent = bytes(range(256)) * (size // 256 + 1)
        stream.write(sent)
        assert await read_exactly(stream, len(sent)) == sent
        assert len(stream.channel_bindings()["tls-server-end-point"]) == 32
        await stream.close()

    talk(echo, work, tls=tls_context(authority))


def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    async def work(port: int) -> None:
        with pytest.raises(Untrusted, match=f"certificate of {HOST} does not hold.*--ca FILE"):
            await open_stream(HOST, port)

    talk(echo, work, tls=tls_context(authority))


def test_a_certificate_of_another_name_is_refused(authority: trustme.CA, ca: str) -> None:
    async def work(port: int) -> None:
        with pytest.raises(Untrusted, match="does not hold"):
            await open_stream(HOST, port, ca=ca)

    talk(echo, work, tls=tls_context(authority, "mail.example.org"))


def test_a_file_without_certificates_is_said_before_connecting(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing\n")

    async def work() -> None:
        for path in (str(bad), str(tmp_path / "missing.pem")):
            with pytest.raises(ConfigError, match="cannot be read"):
                await open_stream(HOST, 1, ca=path)

    asyncio.run(work())


def test_a_server_without_tls_is_told_from_a_bad_certificate(ca: str) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK ready\r\n")
        await reader.read()

    async def work(port: int) -> None:
        with pytest.raises(Untrusted, match="does not speak TLS here"):
            await open_stream(HOST, port, ca=ca)

    talk(plain, work)


def starttls(authority: trustme.CA, *, slipped: bytes = b"") -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"go\r\n" + slipped)
        await writer.drain()
        await writer.start_tls(tls_context(authority))
        await echo(reader, writer)

    return handler


def test_starttls(authority: trustme.CA, ca: str) -> None:
    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="starttls", ca=ca)
        assert not stream.tls
        stream.write(b"begin\r\n")
        assert await read_exactly(stream, 4) == b"go\r\n"
        await stream.start_tls()
        assert stream.tls
        stream.write(b"hidden\r\n")
        assert await read_exactly(stream, 8) == b"hidden\r\n"
        await stream.close()

    talk(starttls(authority), work)


def test_words_slipped_in_before_tls_are_not_read_after_it(authority: trustme.CA, ca: str) -> None:
    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="starttls", ca=ca)
        stream.write(b"begin\r\n")
        assert (await stream.read())[:4] == b"go\r\n"
        stream.data_received(b"* OK false words\r\n")  # a second segment, before TLS
        with pytest.raises(ProtocolError, match="before TLS"):
            await stream.start_tls()
        stream.abort()

    talk(starttls(authority), work)


def test_compression_goes_both_ways_and_into_tls(authority: trustme.CA, ca: str) -> None:
    async def squeezed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packer, unpacker = zlib.compressobj(6, zlib.DEFLATED, -15), zlib.decompressobj(-15)
        while data := await reader.read(65536):
            writer.write(packer.compress(unpacker.decompress(data)) + packer.flush(zlib.Z_SYNC_FLUSH))

    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, ca=ca)
        stream.start_compress()
        assert stream.compressed
        text = b"the same words again and again " * 20_000
        stream.write(text)
        assert await read_exactly(stream, len(text)) == text
        assert stream.bytes_in < len(text) / 20
        assert stream.bytes_out < len(text) / 20
        await stream.close()

    talk(squeezed, work, tls=tls_context(authority))


def test_a_compressed_bomb_is_taken_in_small_pieces() -> None:
    size = 64 << 20

    async def bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        writer.write(packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH))
        await reader.read()

    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="none")
        stream.start_compress()
        got = 0
        while got < size:
            piece = await stream.read()
            assert len(piece) <= 2 * INFLATE_MAX
            assert stream.buffered <= QUEUE_MAX + INFLATE_MAX
            got += len(piece)
        assert got == size
        stream.abort()

    talk(bomb, work)


def test_damaged_compression_is_an_error() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff" * 100)
        await reader.read()

    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="none")
        stream.start_compress()
        with pytest.raises(ProtocolError, match="damaged"):
            await stream.read()

    talk(garbage, work)


def test_what_follows_the_end_of_compression_is_not_gathered() -> None:
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        writer.write(packer.compress(b"all") + packer.flush(zlib.Z_FINISH))
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()

    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="none")
        stream.start_compress()
        assert await stream.read() == b"all"
        with pytest.raises(ProtocolError, match="after the end"):
            await stream.read()

    talk(ends, work)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_slow_reader_holds_the_server_back(authority: trustme.CA, ca: str, encrypted: bool) -> None:
    size = 32 << 20
    taken = [0]

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(size >> 16):
            writer.write(bytes(65536))
            await writer.drain()
            taken[0] += 65536
        await reader.read()

    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="tls" if encrypted else "none", ca=ca)
        last = -1
        while taken[0] != last:  # until the server is stuck
            last = taken[0]
            for _ in range(200):
                await asyncio.sleep(0)
        assert stream.buffered < QUEUE_MAX + (2 << 20)
        assert taken[0] < size
        got = 0
        while got < size:
            got += len(await stream.read())
        assert got == taken[0]
        stream.abort()

    talk(flood, work, tls=tls_context(authority) if encrypted else None)


def test_a_cut_line_is_unreachable() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        sock: Any = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="none")
        stream.write(b"x\r\n")
        with pytest.raises(Unreachable, match="cut the connection"):
            await stream.read()

    talk(cut, work)


def test_a_silent_server_is_given_up() -> None:
    async def work(port: int) -> None:
        stream = await open_stream(HOST, port, tls="none", timeout_s=0.05)
        with pytest.raises(Unreachable, match="does not answer"):
            await stream.read()
        assert stream.closed
        with pytest.raises(Unreachable, match="TLS handshake"):
            await open_stream(HOST, port, tls="tls", timeout_s=0.05)

    talk(silent, work)


def test_nobody_there() -> None:
    with socket.create_server((HOST, 0)) as sock:
        port = sock.getsockname()[1]

    async def work() -> None:
        with pytest.raises(Unreachable, match=f"{HOST} port {port} cannot be reached: connect"):
            await open_stream(HOST, port)
        with pytest.raises(Unreachable, match=r"nowhere\.invalid port 993 cannot be reached: its name is not known"):
            await open_stream("nowhere.invalid", 993)

    asyncio.run(work())
