"""The proxy: what goes through unchanged, what waits, what is cut; over plain sockets."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mailkeep.testing import Cut, Proxy


class Echo:
    """A server that sends back what it gets; to `BIG n` it sends n octets and closes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.ends: list[bytes] = []  # what each connection had sent when it ended
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        got = b""
        with connection:
            try:
                while data := connection.recv(65536):
                    got += data
                    if got.startswith(b"BIG "):
                        connection.sendall(b"x" * int(got[4:]))
                        break
                    connection.sendall(data)
            except OSError:
                pass
        self.ends.append(got)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def rest(line: socket.socket) -> bytes:
    """All that comes until the end, even if the end is a reset."""
    data = b""
    try:
        while piece := line.recv(1 << 20):
            data += piece
    except ConnectionError:
        pass
    return data


def test_passes_everything_in_order_both_ways(echo: Echo) -> None:
    sent = bytes(range(256)) * 4000
    with Proxy(echo.address) as proxy, connect(proxy) as line:
        threading.Thread(target=line.sendall, args=(sent,), daemon=True).start()
        got = b""
        while len(got) < len(sent):
            got += line.recv(1 << 20)
        assert got == sent
        assert proxy.passed == {"up": len(sent), "down": len(sent)}
        assert proxy.connections == 1 and proxy.cut_count == 0


def test_the_end_of_either_side_reaches_the_other(echo: Echo) -> None:
    with Proxy(echo.address, delay_ms=5) as proxy:
        with connect(proxy) as line:
            line.sendall(b"BIG 300000")
            assert rest(line) == b"x" * 300_000
        with connect(proxy) as line:
            line.sendall(b"hello")
            assert line.recv(5) == b"hello"
            line.shutdown(socket.SHUT_WR)
            assert line.recv(1) == b""


def test_a_round_trip_takes_its_time_and_pipelining_does_not_add_it_up(echo: Echo) -> None:
    """A lower bound only: nothing here may depend on how fast the machine is."""
    with Proxy(echo.address, delay_ms=60) as proxy, connect(proxy) as line:
        line.sendall(b"0")
        line.recv(1)
        begun = time.monotonic()
        for digit in b"123":
            line.sendall(bytes([digit]))
            line.recv(1)
        assert time.monotonic() - begun >= 0.17
        waits: list[float] = []
        begun = time.monotonic()
        for _ in range(200):
            line.sendall(b"x")
        got = 0
        while got < 200:
            got += len(line.recv(1000))
            waits.append(time.monotonic() - begun)
        assert waits[0] >= 0.055
        # A proxy that waits for each piece by itself would need 200 × 60 ms.
        assert waits[-1] < 6


def test_bandwidth_is_bounded(echo: Echo) -> None:
    with Proxy(echo.address, bytes_per_s=1_000_000) as proxy, connect(proxy) as line:
        begun = time.monotonic()
        line.sendall(b"BIG 200000")
        assert len(rest(line)) == 200_000
        assert time.monotonic() - begun >= 0.19


def test_cut_after_octets_passes_exactly_those(echo: Echo) -> None:
    for delay in (0, 10):
        with Proxy(echo.address, delay_ms=delay, cuts=[Cut(after=1000)]) as proxy:
            with connect(proxy) as line:
                line.sendall(b"BIG 5000")
                assert rest(line) == b"x" * 1000
            assert proxy.cut_count == 1


def test_cut_at_a_pattern_that_comes_in_pieces(echo: Echo) -> None:
    cut = Cut(at=rb"FET(CH)", direction="up", times=1)
    with Proxy(echo.address, cuts=[cut]) as proxy:
        with connect(proxy) as line:
            line.sendall(b"a FE")
            assert line.recv(100) == b"a FE"
            line.sendall(b"TCH 1:*")
            rest(line)
        while not echo.ends:
            time.sleep(0)
        assert echo.ends[0] == b"a FETCH", "what matched is passed on, and nothing after it"
        with connect(proxy) as line:
            line.sendall(b"a FETCH")
            assert line.recv(100) == b"a FETCH", "only once"


def test_cut_the_second_connection(echo: Echo) -> None:
    with Proxy(echo.address, cuts=[Cut(connection=2)]) as proxy:
        answers = []
        for number in itertools.count(1):
            with connect(proxy) as line:
                try:
                    line.sendall(b"hi")
                    answers.append(line.recv(2))
                except ConnectionError:
                    answers.append(b"")
            if number == 3:
                break
        assert answers == [b"hi", b"", b"hi"]


def test_cut_now_and_settings_that_change(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as line:
        line.sendall(b"hi")
        assert line.recv(2) == b"hi"
        proxy.cut_now()
        assert rest(line) == b""
        proxy.delay_ms = 40
        with connect(proxy) as again:
            begun = time.monotonic()
            again.sendall(b"hi")
            assert again.recv(2) == b"hi"
            assert time.monotonic() - begun >= 0.038


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with Proxy(address) as proxy, connect(proxy) as line:
        assert rest(line) == b""


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        with pytest.raises(OSError, match=str(port)), Proxy((host, port), port=port):
            pass
