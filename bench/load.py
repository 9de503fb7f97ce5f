"""The load driver's clients: raw blocking sockets that do as little as a client can.

A client that parses would measure itself. These write prepared bytes and read until the completion that they wait
for stands at the end of what came; everything else is counted, not looked at. The driver's own CPU time is measured
beside the server's, so that a case in which the driver was the limit can be told from one in which the server was.
"""

import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 1 << 20
TICK = os.sysconf("SC_CLK_TCK")


def tree_cpu_s(pid: int) -> float:
    """CPU seconds used so far by a process, its descendants, and those of them that have ended and been waited for."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_bytes().rpartition(b") ")[2].split()
            except OSError:
                continue  # it ended while we looked
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
            ended = sum(map(int, fields[13:15])) / TICK
            used[int(entry.name)] = ended + (_own_cpu_s(entry) or sum(map(int, fields[11:13])) / TICK)
    total, waiting = 0.0, [pid]
    while waiting:
        here = waiting.pop()
        total += used.get(here, 0.0)
        waiting += parents.get(here, [])
    return total


def _own_cpu_s(process: Path) -> float | None:
    """To the nanosecond, where the kernel keeps it so; a tick of 10 ms is much beside a run of one second."""
    try:
        return sum(int((task / "schedstat").read_bytes().split()[0]) for task in (process / "task").iterdir()) / 1e9
    except OSError:
        return None


@dataclass(slots=True)
class Result:
    """What one run of one case measured."""

    operations: int = 0
    seconds: float = 0.0
    server_cpu_s: float = 0.0
    driver_cpu_s: float = 0.0
    received: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class Meter:
    """The measured region of a run: `with Meter(pid) as meter:`, then `meter.result`."""

    def __init__(self, pid: int) -> None:
        self.result = Result()
        self._pid = pid

    def __enter__(self) -> "Meter":
        self._server = tree_cpu_s(self._pid)
        self._driver = time.process_time()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        result = self.result
        result.seconds = time.perf_counter() - self._start
        result.driver_cpu_s = time.process_time() - self._driver
        result.server_cpu_s = tree_cpu_s(self._pid) - self._server

    def elapsed(self) -> float:
        return time.perf_counter() - self._start


class Failed(Exception):
    """A server answered something other than success: the figure would be worth nothing."""


class Wire:
    """A connection. `until` reads to the completion wanted and says how many bytes came."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Python's own timeout costs a poll() for each send and receive; the kernel's costs nothing.
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 60, 0))
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """What comes up to the end of a line; for short dialogues, where no more than an answer is under way."""
        data = b""
        while not data.endswith(b"\n"):
            chunk = self.socket.recv(65536)
            if not chunk:
                raise Failed(f"closed after {data!r}")
            data += chunk
        return data

    def until(self, mark: bytes, *, keep: bool = False) -> tuple[int, bytes]:
        """Read until a line that begins with `mark` ends the input. Returns (bytes read, the tail, or all of it)."""
        total, tail, kept = 0, b"", []
        wanted = b"\n" + mark
        while True:
            size = self.socket.recv_into(self._buffer)
            if not size:
                raise Failed(f"closed while waiting for {mark!r}, after {tail!r}")
            total += size
            if keep:
                kept.append(bytes(self._view[:size]))
            # A completion line is short: it stands in the last 500 bytes, or began in those of the chunk before.
            tail = (
                (tail + bytes(self._view[max(0, size - 500) : size]))[-1000:]
                if size < 500
                else bytes(self._view[size - 500 : size])
            )
            if tail.endswith(b"\n"):
                at = tail.rfind(wanted)
                if at < 0 and tail.startswith(mark):
                    at = -1
                elif at < 0:
                    continue
                status = tail[at + 1 + len(mark) :]
                if not status.startswith((b"OK", b"+OK")) and not mark.endswith(b"OK"):
                    raise Failed(f"{mark!r} was answered {status!r}")
                return total, (b"".join(kept) if keep else tail)

    def close(self) -> None:
        self.socket.close()


class Imap(Wire):
    """An IMAP session, logged in."""

    def __init__(self, port: int, user: str, password: str, mailbox: str = "") -> None:
        super().__init__(port)
        self.line()
        self._count = 0
        self.command(f"LOGIN {user} {password}".encode())
        if mailbox:
            self.command(f"SELECT {mailbox}".encode())

    def tag(self) -> bytes:
        self._count += 1
        return b"q%dz" % self._count

    def command(self, text: bytes, *, keep: bool = False) -> tuple[int, bytes]:
        tag = self.tag()
        self.send(tag + b" " + text + b"\r\n")
        return self.until(tag + b" ", keep=keep)

    def line_of(self, text: bytes) -> tuple[bytes, bytes]:
        """The bytes of a command, and the start of its completion."""
        tag = self.tag()
        return tag + b" " + text + b"\r\n", tag + b" OK"

    def exchange(self, lines: Iterable[tuple[bytes, bytes]]) -> int:
        """Say these commands, each when the one before is answered. Returns how many bytes came."""
        total, send, receive = 0, self.socket.send, self.socket.recv
        for data, done in lines:
            send(data)
            answer = receive(65536)
            while not answer.endswith(b"\n") or done not in answer:
                chunk = receive(65536)
                if not chunk or done[:-3] + b" NO" in answer or done[:-3] + b" BAD" in answer:
                    raise Failed(f"{data!r} was answered {answer[-200:]!r}")
                answer += chunk
            total += len(answer)
        return total

    def pipeline(self, commands: list[bytes]) -> tuple[bytes, bytes]:
        """Bytes that ask for all of them, and the mark of the last one's completion."""
        tags = [self.tag() for _ in commands]
        data = b"".join(tag + b" " + text + b"\r\n" for tag, text in zip(tags, commands, strict=True))
        return data, tags[-1] + b" "


def lmtp_wire(port: int) -> Wire:
    wire = Wire(port)
    wire.line()
    wire.send(b"LHLO bench\r\n")
    while not wire.line().splitlines()[-1].startswith(b"250 "):
        pass
    return wire


def stuffed(message: bytes) -> bytes:
    """The message as DATA carries it."""
    text = message.replace(b"\r\n.", b"\r\n..")
    return (b"." if text.startswith(b".") else b"") + text + (b"" if text.endswith(b"\r\n") else b"\r\n") + b".\r\n"


def envelope(recipient: str) -> bytes:
    return f"MAIL FROM:<bench@example.org>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()


def deliver(
    port: int, sessions: int, work: Iterable[tuple[str, bytes]], done: Callable[[], bool] = lambda: False
) -> Iterator[int]:
    """Deliver (recipient, stuffed message) over so many sessions at a time; yields the acknowledged count as it grows.

    Each session waits for its 250 before it begins the next message, as an MTA does.
    """
    source = iter(work)
    selector = selectors.DefaultSelector()
    delivered = 0
    for _ in range(sessions):
        item = next(source, None)
        if item is not None:
            wire = lmtp_wire(port)
            wire.send(envelope(item[0]))
            selector.register(wire.socket, selectors.EVENT_READ, [wire, item[1], b"", False])
    while selector.get_map():
        for key, _ in selector.select(timeout=60):
            state = key.data
            state[2] += wire_read(state[0])
            if not state[2].endswith(b"\n"):
                continue
            last = state[2].splitlines()[-1]
            if not state[3] and last.startswith(b"354"):
                state[0].send(state[1])
                state[2:] = [b"", True]
            elif state[3] and last.startswith(b"250"):
                delivered += 1
                yield delivered
                item = None if done() else next(source, None)
                if item is None:
                    selector.unregister(key.fileobj)
                    state[0].close()
                else:
                    state[0].send(envelope(item[0]))
                    state[1:] = [item[1], b"", False]
            elif last[:1] in b"45":
                raise Failed(f"delivery was refused: {last!r}")


def wire_read(wire: Wire) -> bytes:
    data = wire.socket.recv(65536)
    if not data:
        raise Failed("an LMTP session was closed")
    return data
