"""Nonsense at the doors: a clear error or a closed connection, memory bounded, the others undisturbed, nothing lost."""

import contextlib
import imaplib
import random
import resource
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import messages
from tests.server import Server
from tests.system.lmtp import Lmtp
from tests.system.login import HOST, Login, ok

USER, PASSWORD = "ann@example.org", "secret"
MEMORY_MAX = 400 << 20
CONFIG = """
[limits]
connections = 20000
connections_per_peer = 20000
login_timeout = "5s"
"""


class Bystander:
    """Another client, that works all the while and must notice nothing."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.rounds = 0
        self.error: BaseException | None = None
        self._end = threading.Event()
        self._worked = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with self.login.imap("INBOX") as client, Lmtp(self.login.ports["lmtp"]) as lmtp:
                while not self._end.is_set():
                    number = self.rounds
                    assert lmtp.deliver(self.login.user, messages.numbered(number))[0] == 250
                    ok(client.noop())
                    answer = ok(client.fetch("*", "(UID FLAGS BODY.PEEK[])"))
                    assert answer[0][1].endswith(messages.numbered(number)), answer
                    with self._worked:
                        self.rounds += 1
                        self._worked.notify_all()
        except BaseException as error:
            self.error = error
            with self._worked:
                self._worked.notify_all()

    def works(self, rounds: int = 3) -> None:
        """Return when it has done some more rounds; fail when it cannot."""
        with self._worked:
            goal = self.rounds + rounds
            moved = self._worked.wait_for(lambda: self.rounds >= goal or self.error is not None, timeout=60)
        assert self.error is None and moved, f"the bystander was disturbed: {self.error!r}"

    def __enter__(self) -> "Bystander":
        self._thread.start()
        self.works(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=60)
        assert self.error is None, f"the bystander was disturbed: {self.error!r}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("bad-input")
    (root / "mailkeep.toml").write_text(CONFIG)
    options = ["--config", str(root / "mailkeep.toml")]
    with Server(root / "data", users={USER: PASSWORD, "bob@example.org": PASSWORD}, options=options) as server:
        yield server
        assert server.memory("VmHWM") < MEMORY_MAX, f"{server.memory('VmHWM') >> 20} MiB at its highest"


@pytest.fixture
def bystander(server: Server) -> Iterator[Bystander]:
    with Bystander(Login("bob@example.org", PASSWORD, server.ports)) as bystander:
        yield bystander
        bystander.works()


class Raw:
    """A connection on which anything may be written, and what comes back is read until a line or the end."""

    def __init__(self, server: Server, door: str, *, logged_in: bool = False) -> None:
        self.socket = socket.create_connection((HOST, server.port(door)), timeout=60)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        if logged_in:
            self.send(f"l LOGIN {USER} {PASSWORD}\r\n".encode())
            assert self.until(b"l ").startswith(b"l OK")
            self.send(b"s SELECT INBOX\r\n")
            assert self.until(b"s ").startswith(b"s OK")

    def send(self, data: bytes) -> bool:
        """False when the server does not take it any more."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def until(self, *marks: bytes) -> bytes:
        """The first line that begins with one of the marks; b"" at the end of the connection."""
        try:
            while line := self.file.readline():
                if line.startswith(marks):
                    return line
        except ConnectionResetError:
            pass
        return b""

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


REFUSED = (b"x NO", b"x BAD", b"* BAD", b"* BYE")


def flood(raw: Raw, size: int, fill: bytes = b"x" * (1 << 16)) -> int:
    """Write so many bytes, or until the server closes; returns how many it took."""
    sent = 0
    raw.socket.settimeout(10)
    with contextlib.suppress(TimeoutError):
        while sent < size and raw.send(fill):
            sent += len(fill)
    return sent


@pytest.mark.parametrize("command", ["x APPEND INBOX {%d}", "x LOGIN {%d}", "x SELECT {%d}", "x SEARCH SUBJECT {%d}"])
@pytest.mark.usefixtures("bystander")
def test_a_literal_of_2_gb_is_refused_before_it_is_sent(server: Server, command: str) -> None:
    with Raw(server, "imap", logged_in="LOGIN" not in command) as raw:
        raw.send((command % (2 << 30)).encode() + b"\r\n")
        answer = raw.until(b"+", *REFUSED)
        assert answer.startswith(REFUSED), f"asked for the literal: {answer!r}"


@pytest.mark.parametrize("command", ["x APPEND INBOX {%d+}", "x LOGIN {%d+}", "x APPEND INBOX ~{%d+}"])
@pytest.mark.usefixtures("bystander")
def test_a_literal_of_2_gb_sent_unasked_costs_no_memory(server: Server, command: str) -> None:
    before = server.memory()
    with Raw(server, "imap", logged_in="LOGIN" not in command) as raw:
        raw.send((command % (2 << 30)).encode() + b"\r\n")
        flood(raw, 96 << 20)
        assert server.memory() - before < 100 << 20
        raw.socket.settimeout(10)
        with contextlib.suppress(TimeoutError):
            assert raw.until(*REFUSED).startswith(REFUSED)


@pytest.mark.parametrize("door", ["imap", "pop3", "lmtp"])
@pytest.mark.usefixtures("bystander")
def test_a_line_without_an_end(server: Server, door: str) -> None:
    before = server.memory()
    with Raw(server, door) as raw:
        flood(raw, 64 << 20)
        assert server.memory() - before < 50 << 20
        raw.send(b"\r\n")
        # An error, or the end of the connection (whose last words a reset may swallow); never success.
        answer = raw.until(b"")
        assert not answer or answer.startswith((b"500", b"* BYE", b"-ERR", b"421", b"* BAD")), answer


@pytest.mark.parametrize("shape", ["(", "NOT ", "OR ", "((((ALL) ", "BODY[HEADER.FIELDS (", '"'])
@pytest.mark.parametrize("count", [500, 15_000, 1_000_000])
@pytest.mark.usefixtures("bystander")
def test_lists_without_a_bottom(server: Server, shape: str, count: int) -> None:
    verb = b"x FETCH 1 " if shape.startswith("BODY") else b"x SEARCH "
    with Raw(server, "imap", logged_in=True) as raw:
        raw.send(verb + shape.encode() * count + b"\r\n")
        raw.socket.settimeout(30)
        assert raw.until(*REFUSED).startswith(REFUSED)


@pytest.mark.usefixtures("bystander")
def test_a_header_of_100_mb(server: Server) -> None:
    """Over the limit of a message: refused by every door. Within it: whatever is said, it is said in words."""
    with Lmtp(server.port("lmtp"), timeout_s=120) as session:
        assert session.begin([USER], f" SIZE={100 << 20}")[0][0] == 552
        assert session.begin([USER])[0][0] == 250
        code, text = session.data(b"Subject: " + b"x" * (100 << 20) + b"\r\n\r\nbody\r\n")[0]
        assert code == 552 and text
        assert session.ask(b"RSET")[0] == 250
    with imaplib.IMAP4(HOST, server.port("imap"), timeout=120) as client:
        client.login(USER, PASSWORD)
        field = b"X-Long: " + b"y" * 70 + b"\r\n"
        status, answer = client.append("INBOX", None, None, field * ((48 << 20) // len(field)) + b"\r\nbody\r\n")
        assert status in {"OK", "NO"} and answer[0]


@pytest.mark.usefixtures("bystander")
def test_nul_in_a_command(server: Server) -> None:
    for line in (b"x NO\0OP\r\n", b"x LOGIN a\0b c\r\n", b'x LOGIN "a\0b" c\r\n', b"\0\r\n", b"x SELECT \0\r\n"):
        with Raw(server, "imap") as raw:
            raw.send(line)
            assert raw.until(*REFUSED), line
    with Raw(server, "pop3") as raw:
        raw.send(b"US\0ER x\r\n")
        assert raw.until(b"-ERR")
    with Raw(server, "lmtp") as raw:
        raw.send(b"LHLO \0\r\n")
        assert raw.until(b"5")


@pytest.mark.parametrize("door", ["imap", "imaps", "pop3", "pop3s", "lmtp"])
@pytest.mark.usefixtures("bystander")
def test_noise(server: Server, door: str, rng: random.Random) -> None:
    for _ in range(40):
        text = b"".join(rng.choice((rng.randbytes(50), b"\r\n", b"x ", b"{9}", b"(")) for _ in range(50))
        with socket.create_connection((HOST, server.port(door)), timeout=20) as noise, contextlib.suppress(OSError):
            noise.sendall(text)
            noise.shutdown(socket.SHUT_WR)
            while noise.recv(65536):
                pass


@pytest.mark.usefixtures("bystander")
def test_half_a_tls_handshake(server: Server) -> None:
    """The handshake that never goes on is given up by the server, by its time for logging in."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    held = []
    for door in ("imaps", "pop3s"):
        for cut in (1, 5, len(hello) // 2, len(hello) - 1):
            half = socket.create_connection((HOST, server.port(door)), timeout=60)
            half.sendall(hello[:cut])
            held.append(half)
    starttls = Raw(server, "imap")
    starttls.send(b"x STARTTLS\r\n")
    assert starttls.until(b"x OK")
    starttls.send(hello[: len(hello) // 2])
    held.append(starttls.socket)
    for half in held:
        with contextlib.suppress(ConnectionResetError):
            while half.recv(4096):
                pass
        half.close()
    starttls.close()


@pytest.mark.usefixtures("bystander")
def test_commands_before_starttls_do_not_pass_into_it(server: Server) -> None:
    """RFC 9051, section 6.2.1: what was pipelined behind STARTTLS in the clear must not be obeyed under TLS."""
    with Raw(server, "imap") as raw:
        raw.send(b"x STARTTLS\r\ny NOOP\r\n")
        line = raw.until(b"x ", b"* BYE")
        assert not raw.until(b"y OK") or not line.startswith(b"x OK")


def test_idle_connections(server: Server, full: bool, bystander: Bystander) -> None:
    """Thousands that say nothing, some of them logged in and idling; each costs little, and the next is served."""
    count = 10_000 if full else 1_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 500:
        count = min(count, hard - 500)
        print(f"only {count} connections: this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    before = server.memory()
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(20):
            raw = stack.enter_context(Raw(server, "imap", logged_in=True))
            raw.send(b"i IDLE\r\n")
            assert raw.until(b"+")
        idle = []
        for number in range(count):
            idle.append(stack.enter_context(socket.create_connection((HOST, server.port("imap")), timeout=60)))
            if number % 100 == 99:
                assert idle[-1].recv(1024).startswith(b"* OK")
        each = (server.memory() - before) / count
        print(f"{count} connections, {each / 1024:.1f} KiB each")
        assert each < 32 << 10
        bystander.works(20)
        with socket.create_connection((HOST, server.port("imap")), timeout=60) as one_more:
            assert one_more.recv(1024).startswith(b"* OK")


def test_a_client_that_never_reads_stops_itself_only(server: Server, bystander: Bystander) -> None:
    """It asks for a lot and takes nothing: the server must not keep the answers in memory."""
    big = [messages.numbered(number, size=2_000_000) for number in range(10)]
    Login(USER, PASSWORD, server.ports).append("INBOX", big)
    before = server.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            raw = stack.enter_context(Raw(server, "imap", logged_in=True))
            for number in range(20):
                raw.send(b"f%d FETCH 1:* (BODY.PEEK[])\r\n" % number)
        bystander.works(20)
        assert server.memory() - before < 100 << 20


def test_nothing_was_lost(server: Server, tmp_path: Path) -> None:
    """After all that, the store is sound."""
    from tests.server import run_command

    done = run_command("verify", "--data", str(server.data), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in server.log(), server.log()[-3000:]
