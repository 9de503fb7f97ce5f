"""Random work on Mailkeep and on Dovecot: what two clients come to believe is the same on both.

Each client believes only what it is told and replays it (`Belief`). Commands come in bursts in which the clients do not
catch up with each other, so most run against a view that is behind. Messages are chosen by UID; where a command wants a
sequence number, each client uses its own. After a burst both clients say NOOP, and then they, and both servers, must
agree on every UID and flag, and on any question asked about them.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mailkeep.secret import Secret
from mailkeep.serve.auth import make_credentials
from mailkeep.store import Store
from tests import messages
from tests.dovecot import Dovecot
from tests.server import Server
from tests.system.talk import Imap, meaning, numbers, tokens

PASSWORD = "secret"
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "\\Draft", "\\Deleted", "one", "Two", "$three")
DEFAULTS = {"INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"}
MAIL = messages.bulk(24, seed=9)
DATES = [f"{day:02}-{month}-2026" for month in ("Jan", "Feb") for day in (1, 2, 15, 28)]
_DATA = re.compile(rb"\* (\d|VANISHED)")
# While these run, no removal may be told: it would change what their sequence numbers mean (RFC 9051 section 7.5.1).
BY_NUMBER = (b"FETCH", b"STORE", b"SEARCH")


class Belief:
    """One client: its connection, and the UID and flags of each message in order, as far as it was told."""

    def __init__(self, port: int, user: str, *, qresync: bool) -> None:
        self.imap = Imap(port)
        self.rows: list[tuple[int | None, frozenset[str] | None]] = []
        self.imap.ask(f"LOGIN {user} {PASSWORD}".encode())
        if qresync:
            self.imap.ask(b"ENABLE QRESYNC")

    def do(self, *commands: bytes) -> list[list[str]]:
        """Run commands in one packet, believe what is told, and ask for the UIDs of what is new."""
        meanings = []
        silent = {uid for command in commands for uid in self._silenced(command)}
        for command, (tag, responses) in zip(commands, self.imap.answers(*commands), strict=True):
            if len(commands) == 1 and command.split()[0] in BY_NUMBER:
                assert not any(b" EXPUNGE" in line[:30] or line.startswith(b"* VANISHED ") for line in responses), (
                    f"a removal told during {command!r}: {responses}"
                )
            self._hear(responses)
            meanings.append(meaning(responses, tag))
        self.rows = [(uid, None if uid in silent else flags) for uid, flags in self.rows]
        new = [at for at, (uid, _) in enumerate(self.rows, 1) if uid is None]
        if new:
            ((_, responses),) = self.imap.answers(b"FETCH %d:%d (UID FLAGS)" % (new[0], new[-1]))
            self._hear(responses)
        return meanings

    def _silenced(self, command: bytes) -> list[int | None]:
        """The UIDs whose flags this client will not be told, since it said .SILENT."""
        words = command.split()
        if b".SILENT" not in command or b"STORE" not in words:
            return []
        named = words[words.index(b"STORE") + 1].decode()
        return list(numbers(named)) if words[0] == b"UID" else [self.rows[int(named) - 1][0]]

    def _hear(self, responses: Iterable[bytes]) -> None:
        for response in responses:
            match tokens(response[2:]) if _DATA.match(response) else []:
                case [number, "EXISTS"]:
                    assert int(number) >= len(self.rows), f"{response!r} with {len(self.rows)} known"
                    self.rows += [(None, None)] * (int(number) - len(self.rows))
                case [number, "EXPUNGE"]:
                    assert 1 <= int(number) <= len(self.rows), f"{response!r} with {len(self.rows)} known"
                    del self.rows[int(number) - 1]
                case ["VANISHED", str(known)]:
                    for uid in numbers(known):
                        self._vanish(uid)
                case [number, "FETCH", items]:
                    self._fetched(int(number), dict(zip(items[::2], items[1::2], strict=True)))

    def _vanish(self, uid: int) -> None:
        """One that was never fetched is one of those that are not known yet."""
        known = [row[0] for row in self.rows]
        del self.rows[known.index(uid if uid in known else None)]

    def _fetched(self, number: int, items: dict[str, object]) -> None:
        assert 1 <= number <= len(self.rows), f"FETCH {number} with {len(self.rows)} known"
        uid, flags = self.rows[number - 1]
        if "UID" in items:
            told = int(str(items["UID"]))
            assert uid in (None, told), f"message {number} had UID {uid}, has {told} now"
            uid = told
        if "FLAGS" in items:
            assert isinstance(items["FLAGS"], list)
            flags = frozenset(map(str.lower, items["FLAGS"])) - {"\\recent"}  # each keeps the first spelling it met
        self.rows[number - 1] = (uid, flags)

    def number(self, uid: int) -> int | None:
        """Where this client has a UID."""
        return next((at for at, row in enumerate(self.rows, 1) if row[0] == uid), None)


@dataclass(slots=True)
class Side:
    """Two clients of one server."""

    name: str
    clients: list[Belief]

    def believed(self) -> list[tuple[int | None, frozenset[str] | None]]:
        """What both believe, once they have caught up; and the server, asked straight out, says the same."""
        for client in self.clients:
            client.do(b"NOOP")
        beliefs = [list(client.rows) for client in self.clients]
        for client in self.clients:
            client.do(b"UID FETCH 1:* (FLAGS)")
        asked = list(self.clients[0].rows)
        for number, belief in enumerate([*beliefs, self.clients[1].rows]):
            # None: flags that the client set by .SILENT, so that nobody told it
            filled = [(row[0], told[1] if row[1] is None else row[1]) for row, told in zip(belief, asked, strict=False)]
            agree = len(belief) == len(asked) and filled == asked
            assert agree, f"{self.name}, client {number % 2}: believed is not what is there\n{_apart(belief, asked)}"
        return asked


def _apart(left: list[object], right: list[object]) -> str:
    return "\n".join(f"  {one}  |  {two}" for one, two in zip(left, right, strict=False) if one != two) or (
        f"  {len(left)} and {len(right)} messages"
    )


class Work:
    """Random commands. UIDs are of the last common belief, and may be gone by now."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.uids: list[int] = []

    def some(self) -> str:
        """A UID set: some that are there, perhaps one that is not."""
        picked = self.rng.sample(self.uids, min(len(self.uids), self.rng.randint(1, 4)))
        return ",".join(map(str, picked or [99999]))

    def flags(self) -> str:
        return " ".join(self.rng.sample(FLAGS, self.rng.randint(1, 3)))

    def burst(self) -> Iterator[tuple[int, list[str], int | None]]:
        """Which client, its commands in one packet, and the UID whose number stands for `#`."""
        for _ in range(self.rng.randint(1, 5)):
            uid = self.rng.choice(self.uids) if self.uids else None
            yield self.rng.randrange(2), self._commands(), uid

    def _commands(self) -> list[str]:
        silent = self.rng.choice(("", ".SILENT"))
        mode = self.rng.choice(("+", "-", "+", ""))
        match self.rng.randrange(12):
            case 0 | 1:
                return [f"STORE # {mode}FLAGS{silent} ({self.flags()})"]
            case 2:
                return ["NOOP", f"UID STORE {self.some()} {mode}FLAGS{silent} ({self.flags()})"]
            case 3 | 4:
                return [f"APPEND box ({self.flags()}) @{self.rng.randrange(len(MAIL))}"]
            case 5:
                return ["NOOP", "EXPUNGE"]
            case 6:
                return ["NOOP", f"UID STORE {self.some()} +FLAGS.SILENT (\\Deleted)", "EXPUNGE"]
            case 7:
                return ["NOOP", f"UID EXPUNGE {self.some()}"]
            case 8:
                return ["NOOP", f"UID COPY {self.some()} {self.rng.choice(('box', 'other'))}"]
            case 9:
                return ["NOOP", f"UID MOVE {self.some()} {self.rng.choice(('box', 'other', 'other'))}"]
            case 10:
                return [self.rng.choice(("FETCH # (FLAGS)", "FETCH # (BODY[TEXT]<0.10>)", "FETCH # (UID ENVELOPE)"))]
            case _:
                return [
                    self.rng.choice(("NOOP", "CHECK", "SEARCH UNSEEN", "UID SEARCH DELETED", "UID FETCH 1:* FLAGS"))
                ]

    def key(self, depth: int = 3) -> str:
        """A search key."""
        rng = self.rng
        kind = rng.randrange(12 if depth else 8)
        if kind == 0:
            return rng.choice(("SEEN", "UNSEEN", "DELETED", "UNDELETED", "FLAGGED", "UNANSWERED", "DRAFT", "ALL"))
        if kind == 1:
            return f"{rng.choice(('KEYWORD', 'UNKEYWORD'))} {rng.choice(('one', 'two', '$THREE', 'none'))}"
        if kind == 2:
            return rng.choice((f"UID {self.some()}", "1:*", "*", "UID 5:*", "UID *:3"))
        if kind == 3:
            return f"{rng.choice(('LARGER', 'SMALLER'))} {rng.choice((0, 700, 1500, 3000, 9000))}"
        if kind == 4:
            return f"{rng.choice(('BEFORE', 'ON', 'SINCE', 'SENTBEFORE', 'SENTON', 'SENTSINCE'))} {rng.choice(DATES)}"
        if kind == 5:
            return f"{rng.choice(('SUBJECT', 'TEXT', 'BODY'))} {rng.choice(messages.WORDS)[: rng.randint(1, 9)]}"
        if kind == 6:
            return f"{rng.choice(('FROM', 'TO', 'CC'))} {rng.choice(('ann', 'example.net', 'user@', 'Hana', 'zola'))}"
        if kind == 7:
            return rng.choice(
                ('HEADER In-Reply-To ""', "HEADER Content-Type mixed", 'HEADER DKIM-Signature "d=example"')
            )
        if kind in (8, 9):
            return f"NOT {self.key(depth - 1)}"
        if kind == 10:
            return f"OR {self.key(depth - 1)} {self.key(depth - 1)}"
        return f"({' '.join(self.key(depth - 1) for _ in range(rng.randint(1, 3)))})"

    def question(self) -> str:
        """Something whose answer depends on the mailbox alone."""
        match self.rng.randrange(6):
            case 0 | 1:
                return f"UID SEARCH {self.key()}"
            case 2:
                returns = " ".join(self.rng.sample(("MIN", "MAX", "COUNT", "ALL"), self.rng.randint(1, 4)))
                return f"SEARCH RETURN ({returns}) {self.key()}"
            case 3:
                return f"STATUS {self.rng.choice(('box', 'other'))} (MESSAGES UNSEEN UIDNEXT SIZE)"
            case 4:
                return f"UID FETCH {self.some()} (ENVELOPE BODYSTRUCTURE RFC822.SIZE)"
            case _:
                return f"UID FETCH {self.some()} (BODY.PEEK[1] BODY.PEEK[HEADER.FIELDS (SUBJECT DATE)])"


def _bytes(command: str, number: int | None) -> bytes:
    head, at, mail = command.partition("@")
    if at and head.startswith("APPEND"):
        data = MAIL[int(mail)]
        date = DATES[int(mail) % len(DATES)]
        return f'{head}"{date} 10:00:00 +0000" {{{len(data)}+}}\r\n'.encode() + data
    return command.replace("#", str(number)).encode()


def run_burst(sides: list[Side], work: Work, story: list[str]) -> None:
    for who, commands, uid in work.burst():
        clients = [side.clients[who] for side in sides]
        found = [client.number(uid) if uid is not None else None for client in clients]
        if None in found and any("#" in command for command in commands):
            continue  # one of the clients knows already that it is gone
        story.append(f"{who}> {' & '.join(commands)} (# = UID {uid})")
        for side, client, number in zip(sides, clients, found, strict=True):
            packet = [_bytes(command, number) for command in commands]
            # Dovecot may begin a command before the one in front of it is done, even EXPUNGE after STORE.
            for part in [packet] if side.name == "Mailkeep" else [[command] for command in packet]:
                client.do(*part)


def test_two_sessions_on_one_mailbox(
    subject: Server | Dovecot, dovecot: Dovecot, rng: random.Random, full: bool
) -> None:
    for attempt in range(20 if full else 2):
        user = f"random-{attempt}-{rng.getrandbits(32)}@example.org"
        ports = {"Dovecot": dovecot.imap, "Mailkeep": _account(subject, user)}
        qresync = rng.random() < 0.5
        sides = [Side(name, [Belief(port, user, qresync=q) for q in (False, qresync)]) for name, port in ports.items()]
        work, story = Work(rng), []
        for side in sides:
            side.clients[0].do(b"CREATE box", b"CREATE other", b"STATUS box (HIGHESTMODSEQ)")
            side.clients[0].do(*(_bytes(f"APPEND box () @{number}", None) for number in range(8)))
            for client in side.clients:
                client.do(b"SELECT box")
        try:
            for _ in range(60 if full else 15):
                theirs, ours = (side.believed() for side in sides)
                assert ours == theirs, f"the servers do not agree\n{_apart(theirs, ours)}"
                work.uids = [uid for uid, _ in theirs if uid is not None]
                for question in (work.question(), work.question()):
                    story.append(f"0> {question}")
                    (said,), (answered,) = (side.clients[0].do(question.encode()) for side in sides)
                    assert answered == said, f"{question}\n  Dovecot:  {said}\n  Mailkeep: {answered}"
                run_burst(sides, work, story)
        except AssertionError as error:
            error.add_note("\n".join(["", f"{user}, after", *story[-25:]]))
            raise
        finally:
            for side in sides:
                for client in side.clients:
                    client.imap.close()


def _account(subject: Server | Dovecot, user: str) -> int:
    """The IMAP port of a server on which the user has an account."""
    if isinstance(subject, Dovecot):
        return subject.imap
    store = Store.open(subject.data)
    try:
        store.directory.add(user, credentials=make_credentials(Secret(PASSWORD)))
    finally:
        store.close()
    return subject.port("imap")


def test_names_of_mailboxes(subject: Server | Dovecot, dovecot: Dovecot, rng: random.Random, full: bool) -> None:
    """CREATE, DELETE and RENAME at random, and LIST with random patterns. Parents are made before their children:
    where they are not, servers may differ (see the exchanges).
    """
    user = f"names-{rng.getrandbits(32)}@example.org"
    with Imap(dovecot.imap) as theirs, Imap(_account(subject, user)) as ours:
        for client in (theirs, ours):
            client.ask(f"LOGIN {user} {PASSWORD}".encode())
        known: set[str] = set()
        for _ in range(600 if full else 60):
            command = _naming(rng, known)
            pattern = "".join(rng.choice(("*", "%", "/", "a", "b", "&2D3eAA-", "I")) for _ in range(rng.randint(1, 4)))
            for asked in (command, 'LIST "" *', f'LIST "" "{pattern}"', f'LIST "a/" "{pattern}"'):
                said, answered = (
                    [line for tag, responses in client.answers(asked.encode()) for line in meaning(responses, tag)]
                    for client in (theirs, ours)
                )
                assert answered == said, f"{command}; {asked}\n  Dovecot:  {said}\n  Mailkeep: {answered}\n{known}"
                if asked == 'LIST "" *':
                    known = {line.split('"')[3] for line in said if "LIST" in line} - DEFAULTS


def _naming(rng: random.Random, known: set[str]) -> str:
    parents = ["", *(f"{name}/" for name in known if name.count("/") < 3)]
    leaves = [name for name in sorted(known) if not any(other.startswith(name + "/") for other in known)]
    new = rng.choice(sorted(parents)) + rng.choice(("a", "b", "ab", "A", "&2D3eAA-", "a&-b", "x y"))
    match rng.randrange(6):
        case 0 if leaves:
            return f'DELETE "{rng.choice(leaves)}"'
        case 1 | 2 if known:
            old = rng.choice(sorted(known))
            return f'RENAME "{old}" "{new}"' if not new.startswith(old + "/") else "NOOP"
        case _:
            return f'CREATE "{new}"'
