"""The same conversations with Mailkeep and with Dovecot: both must mean the same.

The conversations are data: `exchanges/*.txt`. A block starts with `== name`; with `| raw` after the name nobody has
logged in, else every connection has, and `box` holds the messages of `BOX`. Then one command a line, its tag left out:

    2> SELECT box           on the second connection
    & SEARCH ALL            in the same packet as the command above it
    wait EXISTS             reads what comes unasked, up to a response with this word
    save x                  notes the largest mod-sequence that this connection was told: `<x>` in a later command
    APPEND box @plain       `@name` is a message of `MESSAGES`, as a literal; `⏎` is a line's end inside a command

Where the two differ on purpose, the lines under a command say so, and hold both to just that difference:

    dovecot: * SEARCH 1     what only Dovecot says
    mailkeep: * SEARCH      what only Mailkeep says
    because: RFC 9051 section 6.4.4 …

Dovecot is a witness, not the law: a difference is either our fault or has a reason that an RFC gives.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailkeep.secret import Secret
from mailkeep.serve.auth import make_credentials
from mailkeep.store import Store
from tests.dovecot import Dovecot
from tests.server import Server
from tests.system.mailbag import BOX, MESSAGES
from tests.system.talk import Imap, Pop3, meaning

EXCHANGES = Path(__file__).parent / "exchanges"
PASSWORD = "secret"  # Dovecot's, too
NOTES = ("dovecot", "mailkeep", "because")


@dataclass(slots=True)
class Step:
    """One command, or `wait` or `save`, and how the two servers' answers may differ."""

    who: str
    command: str
    joined: bool
    notes: dict[str, list[str]] = field(default_factory=lambda: {note: [] for note in NOTES})


@dataclass(slots=True)
class Exchange:
    name: str
    raw: bool
    steps: list[Step] = field(default_factory=list)

    def packets(self) -> Iterator[list[Step]]:
        """Steps that go out together."""
        packet: list[Step] = []
        for step in self.steps:
            if packet and not step.joined:
                yield packet
                packet = []
            packet.append(step)
        if packet:
            yield packet


def exchanges(door: str) -> list[Exchange]:
    """The blocks of all files of one door, `imap-*.txt` or `pop3-*.txt`."""
    found: list[Exchange] = []
    for path in sorted(EXCHANGES.glob(f"{door}-*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("== "):
                name, _, how = line[3:].partition(" | ")
                found.append(Exchange(f"{path.stem.partition('-')[2]}: {name}", how == "raw"))
            elif line.strip() and not line.startswith("#"):
                note, _, text = line.strip().partition(": ")
                if note in NOTES:
                    found[-1].steps[-1].notes[note].append(text)
                else:
                    match = re.fullmatch(r"(?:(\d)> )?(& )?(.*)", line.strip())
                    assert match
                    found[-1].steps.append(Step(match[1] or "1", match[3], bool(match[2])))
    assert len({exchange.name for exchange in found}) == len(found), "two blocks of one name"
    return found


IMAP, POP3 = exchanges("imap"), exchanges("pop3")


def user_of(exchange: Exchange) -> str:
    return re.sub(r"[^a-z0-9]+", "-", exchange.name.lower()).strip("-") + "@example.org"


@pytest.fixture(scope="module")
def mailkeep(subject: Server | Dovecot) -> Server:
    """The server under test, with an account for each exchange. One process makes them all, and hashes one password:
    by the command line this would take a minute.
    """
    if isinstance(subject, Dovecot):
        pytest.skip("compares Mailkeep with Dovecot")
    credentials = make_credentials(Secret(PASSWORD))
    store = Store.open(subject.data)
    try:
        for exchange in (*IMAP, *POP3):
            store.directory.add(user_of(exchange), credentials=credentials)
    finally:
        store.close()
    return subject


def _bytes(command: str, user: str, saved: dict[str, int]) -> bytes:
    """A step's command as it goes over the wire."""
    command = command.replace("<user>", user).replace("<password>", PASSWORD).replace("⏎", "\r\n")
    command = re.sub(r"<([a-z]+)>", lambda match: str(saved[match[1]]), command)
    head, at, name = command.rpartition("@")
    if at and name in MESSAGES and "APPEND" in head.upper():
        return head.encode() + b"{%d+}\r\n" % len(MESSAGES[name]) + MESSAGES[name]
    return command.encode()


class Imaps:
    """The connections of one exchange with one server, each opened by the first command on it."""

    def __init__(self, port: int, user: str, exchange: Exchange, stack: ExitStack) -> None:
        self._port, self._user, self._raw, self._stack = port, user, exchange.raw, stack
        self._open: dict[str, Imap] = {}
        self._saved: dict[str, int] = {}

    def client(self, who: str) -> Imap:
        if who not in self._open:
            if not self._raw and not self._open:
                fill(self._port, self._user)
            self._open[who] = client = self._stack.enter_context(Imap(self._port))
            if not self._raw:
                client.ask(f"LOGIN {self._user} {PASSWORD}".encode())
        return self._open[who]

    def run(self, packet: list[Step]) -> Iterator[list[str]]:
        """The meaning of the answers to one packet."""
        client = self.client(packet[0].who)
        verb, _, rest = packet[0].command.partition(" ")
        if verb == "wait":
            yield meaning(client.wait(rest.encode()))
        elif verb == "save":
            self._saved[rest] = client.modseq
            yield []
        else:
            self._saved["uidvalidity"] = client.uidvalidity
            commands = [_bytes(step.command, self._user, self._saved) for step in packet]
            for tag, responses in client.answers(*commands):
                yield meaning(responses, tag)


def fill(port: int, user: str, *more: bytes) -> None:
    """`box`, with its messages. Asked for its mod-sequence first: from then on Dovecot counts them."""
    commands = [f"LOGIN {user} {PASSWORD}".encode(), b"CREATE box", b"STATUS box (HIGHESTMODSEQ)"]
    for name, flags, date in BOX:
        data = MESSAGES[name]
        commands.append(f'APPEND box ({flags}) "{date}" {{{len(data)}+}}\r\n'.encode() + data)
    with Imap(port) as client:
        for command in (*commands, *more, b"LOGOUT"):
            client.ask(command)


class Pop3s:
    """The connections of one POP3 exchange; mail is put into INBOX by IMAP before."""

    def __init__(self, ports: tuple[int, int], user: str, exchange: Exchange, stack: ExitStack) -> None:
        imap_port, self._port = ports
        self._user, self._raw, self._stack = user, exchange.raw, stack
        self._open: dict[str, Pop3] = {}
        self._ids: list[bytes] = []
        fill(imap_port, user, b"SELECT box", b"COPY 1:* INBOX")

    def run(self, packet: list[Step]) -> Iterator[list[str]]:
        who = packet[0].who
        if who not in self._open:
            self._open[who] = client = self._stack.enter_context(Pop3(self._port))
            if not self._raw:
                login = [f"USER {self._user}".encode(), f"PASS {PASSWORD}".encode()]
                assert all(lines[0].startswith(b"+OK") for lines in client.answers(*login))
        commands = [_bytes(step.command, self._user, {}) for step in packet]
        for command, lines in zip(commands, self._open[who].answers(*commands), strict=True):
            yield self._meaning(command.upper().split(), lines)

    def _meaning(self, command: list[bytes], lines: list[bytes]) -> list[str]:
        """Texts go, numbers and codes stay; a unique id is told by when it was first seen."""
        status, *rest = lines
        match = re.match(rb"(\+OK|-ERR|\+)(?: (\[[^\]]*\]))?(?: (\d+) (\S+))?", status)
        assert match, status
        verb = command[0] if command else b""
        shown = [match[1]]
        if match[2] and match[1] == b"-ERR":
            shown.append(match[2])
        if match[3] and match[1] == b"+OK" and (verb == b"STAT" or (verb in (b"LIST", b"UIDL") and len(command) > 1)):
            shown += [match[3], self._id(match[4]) if verb == b"UIDL" else match[4]]
        if verb == b"UIDL":
            rest = [b" ".join((number, self._id(name))) for number, name in (line.split() for line in rest)]
        if verb == b"CAPA":
            rest = []
        return [line.decode("latin-1") for line in (b" ".join(shown), *rest)]

    def _id(self, name: bytes) -> bytes:
        if name not in self._ids:
            self._ids.append(name)
        return b"id%d" % self._ids.index(name)


def differences(step: Step, theirs: list[str], ours: list[str]) -> list[str]:
    """Where the two answers differ in another way than the step's notes say."""
    only = {
        "dovecot": sorted((Counter(theirs) - Counter(ours)).elements()),
        "mailkeep": sorted((Counter(ours) - Counter(theirs)).elements()),
    }
    wrong = []
    for who, lines in only.items():
        if lines != sorted(step.notes[who]):
            wrong.append(f"  only {who}: {lines}, noted: {step.notes[who]}")
    if any(only.values()) != bool(step.notes["because"]):
        wrong.append("  a difference without a reason, or a reason without a difference")
    return wrong


def compare(exchange: Exchange, theirs: Imaps | Pop3s, ours: Imaps | Pop3s) -> None:
    wrong = []
    for packet in exchange.packets():
        answers = zip(packet, theirs.run(packet), ours.run(packet), strict=True)
        for step, their_lines, our_lines in answers:
            if found := differences(step, their_lines, our_lines):
                wrong += [f"{step.who}> {step.command}", *found]
    assert not wrong, "\n".join(["", *wrong])


@pytest.mark.parametrize("exchange", IMAP, ids=[exchange.name for exchange in IMAP])
def test_imap(exchange: Exchange, mailkeep: Server, dovecot: Dovecot) -> None:
    user = user_of(exchange)
    with ExitStack() as stack:
        compare(
            exchange,
            Imaps(dovecot.imap, user, exchange, stack),
            Imaps(mailkeep.port("imap"), user, exchange, stack),
        )


@pytest.mark.parametrize("exchange", POP3, ids=[exchange.name for exchange in POP3])
def test_pop3(exchange: Exchange, mailkeep: Server, dovecot: Dovecot) -> None:
    user = user_of(exchange)
    with ExitStack() as stack:
        compare(
            exchange,
            Pop3s((dovecot.imap, dovecot.pop3), user, exchange, stack),
            Pop3s((mailkeep.port("imap"), mailkeep.port("pop3")), user, exchange, stack),
        )
