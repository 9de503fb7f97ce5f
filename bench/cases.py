"""The cases: what a client asks for, how often, and what counts as one operation.

Each case is a function of a `Target` (one server, its ports, the time a run may take) that returns a `Result`. It
warms up first, outside the measured region, and checks there that the server answers what it should: a fast wrong
answer is not a figure.
"""

import itertools
import multiprocessing
import random
import re
import selectors
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.load import Failed, Imap, Meter, Result, Wire, deliver, stuffed
from tests.messages import bulk

HEADER_SET = b"BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID)]"
USERS = 32
BIG, POP, BOX = "big@example.org", "pop@example.org", "box@example.org"
POP_MESSAGES = 2000
WAITING = 4000  # commands of a waiting case, said again and again


@dataclass(frozen=True, slots=True)
class Target:
    """One server as the driver sees it."""

    name: str
    pid: int
    imap: int
    pop3: int
    lmtp: int
    password: str
    messages: int
    seconds: float


Case = Callable[[Target], Result]
CASES: dict[str, tuple[str, Case]] = {}


def case(name: str, unit: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        CASES[name] = (unit, function)
        return function

    return add


def opened(target: Target, user: str = BIG) -> Imap:
    return Imap(target.imap, user, target.password, "INBOX")


def fetch_case(items: bytes, *, count_max: int | None = None) -> Case:
    """FETCH the same items of the whole mailbox (or its first so many), again and again."""

    def run(target: Target) -> Result:
        session = opened(target)
        count = min(count_max or target.messages, target.messages)
        command = b"FETCH 1:%d %s" % (count, items)
        _, answer = session.command(command, keep=True)
        seen = len(re.findall(rb"^\* \d+ FETCH ", answer, flags=re.MULTILINE))
        if seen != count:
            raise Failed(f"{command!r}: {seen} answers, {count} expected")
        session.command(command)
        with Meter(target.pid) as meter:
            while meter.elapsed() < target.seconds:
                meter.result.received += session.command(command)[0]
                meter.result.operations += count
        session.close()
        return meter.result

    return run


for _name, _items, _max in (
    ("fetch-flags", b"(UID FLAGS)", None),
    ("fetch-envelope", b"(ENVELOPE)", None),
    ("fetch-headers", b"(UID " + HEADER_SET + b")", None),
    ("fetch-bodystructure", b"(BODYSTRUCTURE)", None),
    ("fetch-bodies", b"(BODY.PEEK[])", 5000),
):
    CASES[_name] = ("messages/s", fetch_case(_items, count_max=_max))


def waiting_case(commands: Callable[[Target], Iterator[bytes]]) -> Case:
    """One small command at a time; the next is sent when the answer is complete.

    All are written down before the clock starts, and an answer is one `recv` and one look at it: whatever the driver
    does between an answer and the next command is added to both servers' times and hides what they differ by.
    """

    def run(target: Target) -> Result:
        session = opened(target)
        lines = [session.line_of(command) for command in itertools.islice(commands(target), WAITING)]
        session.exchange(lines[:300])
        portions = itertools.cycle([lines[start : start + 50] for start in range(0, WAITING, 50)])
        with Meter(target.pid) as meter:
            while meter.elapsed() < target.seconds:
                meter.result.received += session.exchange(next(portions))
                meter.result.operations += 50
        session.close()
        return meter.result

    return run


def pipelined_case(commands: Callable[[Target], Iterator[bytes]], *, batch: int = 100) -> Case:
    """Batches of small commands, the next batch sent before the last one is answered."""

    def run(target: Target) -> Result:
        session, source, rest = opened(target), commands(target), bytearray()
        for _ in range(5):
            data, mark = session.pipeline(list(itertools.islice(source, batch)))
            session.send(data)
            _, answer = session.until(mark, keep=True)
            if answer.count(b" OK ") != batch:
                raise Failed(f"{answer.count(b' OK ')} of {batch} pipelined commands succeeded")
        with Meter(target.pid) as meter:
            data, mark = session.pipeline(list(itertools.islice(source, batch)))
            session.send(data)
            while meter.elapsed() < target.seconds:
                data, following = session.pipeline(list(itertools.islice(source, batch)))
                session.send(data)
                meter.result.received += until_passed(session, mark, rest)
                meter.result.operations += batch
                mark = following
            meter.result.received += until_passed(session, mark, rest)
            meter.result.operations += batch
        session.close()
        return meter.result

    return run


def until_passed(session: Imap, mark: bytes, rest: bytearray) -> int:
    """Read until the completion has come; what came behind it stays in `rest` for the next one."""
    total = 0
    while (at := rest.find(mark)) < 0:
        del rest[:-40]
        chunk = session.socket.recv(1 << 18)
        if not chunk:
            raise Failed("closed in a pipeline")
        total += len(chunk)
        rest += chunk
    del rest[: at + len(mark)]
    return total


def noops(_: Target) -> Iterator[bytes]:
    return itertools.repeat(b"NOOP")


def uid_fetches(target: Target) -> Iterator[bytes]:
    rng = random.Random(7)
    return (b"UID FETCH %d (FLAGS)" % rng.randint(1, target.messages) for _ in itertools.count())


def single_stores(target: Target) -> Iterator[bytes]:
    """Each one a change: every message of a window gets the flag, then loses it."""
    for sign in itertools.cycle((b"+", b"-")):
        for uid in range(1, min(2000, target.messages) + 1):
            yield b"UID STORE %d %sFLAGS (\\Flagged)" % (uid, sign)


for _name, _source in (("noop", noops), ("uid-fetch", uid_fetches)):
    CASES[_name] = ("commands/s", waiting_case(_source))
    CASES[_name + "-pipelined"] = ("commands/s", pipelined_case(_source))
CASES["store-single"] = ("commands/s", waiting_case(single_stores))


@case("store-range", "messages/s")
def store_range(target: Target) -> Result:
    """A flag on a thousand messages, then off again."""
    session, count = opened(target), min(1000, target.messages)
    signs = itertools.cycle((b"+", b"-"))
    for _ in range(2):
        session.command(b"STORE 1:%d %sFLAGS (\\Answered)" % (count, next(signs)))
    with Meter(target.pid) as meter:
        while meter.elapsed() < target.seconds:
            meter.result.received += session.command(b"STORE 1:%d %sFLAGS (\\Answered)" % (count, next(signs)))[0]
            meter.result.operations += count
    session.close()
    return meter.result


def letters(recipients: list[str], seed: int) -> Iterator[tuple[str, bytes]]:
    """Endless deliveries, no message twice: each carries a number of its own on top."""
    texts = [stuffed(message) for message in bulk(200, seed)]
    for number, recipient in enumerate(itertools.cycle(recipients)):
        yield recipient, b"X-Bench: %d.%d\r\n" % (seed, number) + texts[number % len(texts)]


def lmtp_case(sessions: int, recipients: list[str]) -> Case:
    def run(target: Target) -> Result:
        work = letters(recipients, time.time_ns())
        for _ in deliver(target.lmtp, sessions, itertools.islice(work, max(20, sessions * 2))):
            pass
        with Meter(target.pid) as meter:
            for count in deliver(target.lmtp, sessions, work, done=lambda: meter.elapsed() > target.seconds):
                meter.result.operations = count
        return meter.result

    return run


CASES["lmtp-1"] = ("messages/s", lmtp_case(1, [BOX]))
CASES["lmtp-32"] = ("messages/s", lmtp_case(32, [f"u{n}@example.org" for n in range(USERS)]))
CASES["lmtp-32-one-user"] = ("messages/s", lmtp_case(32, [BOX]))


@case("append", "messages/s")
def append(target: Target) -> Result:
    session = Imap(target.imap, BOX, target.password)
    texts, numbers = bulk(200, 3), itertools.count(time.time_ns())

    def one() -> None:
        number = next(numbers)
        message = b"X-Bench: %d\r\n" % number + texts[number % 200]
        session.command(b"APPEND INBOX (\\Seen) {%d+}\r\n" % len(message) + message)

    for _ in range(20):
        one()
    with Meter(target.pid) as meter:
        while meter.elapsed() < target.seconds:
            one()
            meter.result.operations += 1
    session.close()
    return meter.result


@case("login", "log-ins/s")
def login(target: Target) -> Result:
    """Connect, LOGIN, LOGOUT, to the end of the connection; one at a time."""

    def one() -> None:
        session = Imap(target.imap, POP, target.password)
        session.command(b"LOGOUT")
        session.close()

    for _ in range(5):
        one()
    with Meter(target.pid) as meter:
        while meter.elapsed() < target.seconds:
            one()
            meter.result.operations += 1
    return meter.result


@case("pop3-retr", "messages/s")
def pop3_retr(target: Target) -> Result:
    """RETR one after the other, waiting for each; a new session when the list is done."""

    def session() -> Wire:
        wire = Wire(target.pop3)
        wire.line()
        for line in (f"USER {POP}", f"PASS {target.password}"):
            wire.send(line.encode() + b"\r\n")
            if not wire.line().startswith(b"+OK"):
                raise Failed("POP3 log-in")
        return wire

    def retr(wire: Wire, number: int) -> int:
        wire.send(b"RETR %d\r\n" % number)
        total, tail = 0, b""
        while not tail.endswith(b"\r\n.\r\n"):
            size = receive(buffer)
            if not size or (not total and view[:3] != b"+OK"):
                raise Failed(f"RETR {number}: {bytes(view[:80])!r}")
            total += size
            tail = bytes(view[size - 5 : size]) if size > 4 else (tail + bytes(view[:size]))[-5:]
        return total

    wire = session()
    # One buffer for all: `recv` would ask the kernel for fresh memory each time, and pay for it.
    buffer = bytearray(1 << 18)
    view, receive = memoryview(buffer), wire.socket.recv_into
    for number in range(1, 101):
        retr(wire, number)
    with Meter(target.pid) as meter:
        for number in itertools.cycle(range(1, POP_MESSAGES + 1)):
            meter.result.received += retr(wire, number)
            meter.result.operations += 1
            if meter.elapsed() > target.seconds:
                break
    wire.send(b"QUIT\r\n")
    wire.line()
    wire.close()
    return meter.result


@case("exists-latency", "ms")
def exists_latency(target: Target) -> Result:
    """From LMTP's 250 to EXISTS at an idling client."""
    session = Imap(target.imap, POP, target.password, "Junk")
    recipient = POP.replace("@", "+Junk@")
    texts = [stuffed(message) for message in bulk(40, time.time_ns())]
    session.send(b"i IDLE\r\n")
    session.line()
    meter = Meter(target.pid)
    with meter:
        for number in range(4 if target.name != "mailkeep" else 40):
            for _ in deliver(target.lmtp, 1, [(recipient, b"X-Bench: %d\r\n" % time.time_ns() + texts[number])]):
                start = time.perf_counter()
                heard = _heard(session, b" EXISTS\r\n")
                meter.result.latencies_ms.append(max(0.0, heard - start) * 1000)
            meter.result.operations += 1
    session.send(b"DONE\r\n")
    session.until(b"i ")
    session.close()
    return meter.result


def _heard(session: Imap, mark: bytes) -> float:
    """When an untagged line had come. Taken only after 250 was read, so one that came before counts as at once."""
    data = b""
    while mark not in data:
        chunk = session.socket.recv(65536)
        if not chunk:
            raise Failed("closed while idling")
        data += chunk
    return time.perf_counter()


def _fetch_without_end(target: Target, started: "multiprocessing.synchronize.Event") -> None:
    session = opened(target)
    while True:
        session.command(b"FETCH 1:* (UID FLAGS ENVELOPE)")
        started.set()


def noop_beside(fetchers: int) -> Case:
    """How long a NOOP takes while other sessions fetch without end."""

    def run(target: Target) -> Result:
        context = multiprocessing.get_context("fork")
        events = [context.Event() for _ in range(fetchers)]
        others = [context.Process(target=_fetch_without_end, args=(target, event), daemon=True) for event in events]
        for other in others:
            other.start()
        try:
            if not all(event.wait(60) for event in events):
                raise Failed("the other sessions do not fetch")
            session = opened(target, POP)
            for _ in range(100):
                session.command(b"NOOP")
            with Meter(target.pid) as meter:
                while meter.elapsed() < 2 * target.seconds:
                    start = time.perf_counter()
                    session.command(b"NOOP")
                    meter.result.latencies_ms.append((time.perf_counter() - start) * 1000)
                    meter.result.operations += 1
            session.close()
        finally:
            for other in others:
                other.kill()
                other.join()
        return meter.result

    return run


CASES["noop-beside-fetch"] = ("ms p99", noop_beside(1))
CASES["noop-beside-4-fetches"] = ("ms p99", noop_beside(4))


def fill(target: Target) -> None:
    """Put the same messages where the cases read them; then let the server cache what it caches.

    By APPEND without waiting: many messages in one command where the server can (MULTIAPPEND), else one command each
    over several sessions. How the mail came in is not measured here.
    """
    texts = bulk(1000, 1)
    for user, count in ((BIG, target.messages), (POP, POP_MESSAGES), (BOX, 50)):
        session = Imap(target.imap, user, target.password)
        several = b" MULTIAPPEND" in session.command(b"CAPABILITY", keep=True)[1]
        session.close()
        starts = range(0, count, 250)
        sessions = 1 if several else 8
        with ThreadPoolExecutor(sessions) as pool:
            shares = (starts[n::sessions] for n in range(sessions))
            rest = {"count": count, "several": several}
            for done in [pool.submit(fill_part, target, user, texts, starts=share, **rest) for share in shares]:
                done.result()
    session = opened(target)
    session.command(b"FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE INTERNALDATE)")
    session.command(b"FETCH 1:* (" + HEADER_SET + b")")
    session.close()


def fill_part(target: Target, user: str, texts: list[bytes], *, starts: range, count: int, several: bool) -> None:
    session = Imap(target.imap, user, target.password)
    for start in starts:
        batch = [b"X-Number: %d\r\n" % n + texts[n % 1000] for n in range(start, min(start + 250, count))]
        literals = [b" {%d+}\r\n%s" % (len(message), message) for message in batch]
        if several:
            session.command(b"APPEND INBOX" + b"".join(literals))
        else:
            data, mark = session.pipeline([b"APPEND INBOX" + literal for literal in literals])
            exchange(session, data, mark)
    session.close()


def exchange(session: Imap, data: bytes, mark: bytes) -> None:
    """Write much and read what comes meanwhile, so that neither side waits for the other for ever."""
    view, tail = memoryview(data), b""
    session.socket.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(session.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while mark not in tail:
            if not (events := selector.select(timeout=60)):
                raise Failed("no answer to pipelined commands")
            if events[0][1] & selectors.EVENT_WRITE:
                view = view[session.socket.send(view) :]
                if not view:
                    selector.modify(session.socket, selectors.EVENT_READ)
            if events[0][1] & selectors.EVENT_READ:
                chunk = session.socket.recv(1 << 18)
                if not chunk or b" NO " in chunk or b" BAD " in chunk:
                    raise Failed(f"APPEND: {chunk[:200]!r}")
                tail = tail[-40:] + chunk
    session.socket.setblocking(True)
