"""kill -9 at random moments under load: what was acknowledged stays, UIDs are never used twice, the store verifies.

Each thread works through one kind of operation on messages of its own, in mailboxes that all share. The server is
killed when a random number of operations has been acknowledged, while others are under way. Then the store is
verified, the server started again, and every message compared with the ledger.
"""

import imaplib
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server import Server, run_command
from tests.system.lmtp import Lmtp
from tests.system.login import HOST, ok
from tests.system.torture.ledger import INBOX, WORK, Ledger, State, message

USER, PASSWORD = "torture@example.org", "secret"
ROUNDS_SHORT, ROUNDS_FULL = 3, 200
# After so many rounds the store is begun anew: reading a larger one would take the time, not the kills.
ROUNDS_A_STORE = 20
# What a killed server does to a client.
BROKEN = (OSError, imaplib.IMAP4.abort, EOFError, ConnectionError)


class Worker:
    """One client: its operations, until the connection breaks."""

    def __init__(self, server: Server, ledger: Ledger, name: str) -> None:
        self.server, self.ledger, self.name = server, ledger, name
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=name)

    def _run(self) -> None:
        work: Callable[[], Iterator[None]] = getattr(self, self.name.split("-")[1])
        try:
            for _ in work():
                pass
        except BROKEN:
            pass
        except BaseException as error:
            self.error = error

    def tokens(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"{self.name}.{number}"

    @contextmanager
    def imap(self) -> Iterator[imaplib.IMAP4]:
        client = imaplib.IMAP4(HOST, self.server.port("imap"), timeout=60)
        try:
            client.login(USER, PASSWORD)
            ok(client.select(INBOX))
            yield client
        finally:
            client.shutdown()

    def add(self, client: imaplib.IMAP4, token: str) -> str:
        """APPEND, acknowledged, with its UID."""
        self.ledger.begin(token, "add")
        (answer,) = ok(client.append(INBOX, None, None, message(token)))
        self.ledger.done(token)
        found = re.search(rb"\[APPENDUID (\d+) (\d+)\]", answer)
        assert found, answer
        self.ledger.place(INBOX, int(found[2]), token)
        return found[2].decode()

    def lmtp(self) -> Iterator[None]:
        with Lmtp(self.server.port("lmtp")) as session:
            for token in self.tokens():
                self.ledger.begin(token, "add")
                code, text = session.deliver(USER, message(token))
                assert code == 250, (code, text)
                self.ledger.done(token)
                yield

    def append(self) -> Iterator[None]:
        with self.imap() as client:
            for token in self.tokens():
                self.add(client, token)
                yield

    def copy(self) -> Iterator[None]:
        with self.imap() as client:
            for token in self.tokens():
                uid = self.add(client, token)
                self.ledger.begin(token, "copy")
                ok(client.uid("COPY", uid, WORK))
                self.ledger.done(token)
                self.copied(client, token)
                yield

    def move(self) -> Iterator[None]:
        with self.imap() as client:
            for token in self.tokens():
                uid = self.add(client, token)
                self.ledger.begin(token, "move")
                ok(client.uid("MOVE", uid, WORK))
                self.ledger.done(token)
                self.copied(client, token)
                yield

    def copied(self, client: imaplib.IMAP4, token: str) -> None:
        """COPYUID names the UID at the target, in the tagged answer to COPY and in an untagged one to MOVE."""
        (code,) = client.response("COPYUID")[1]
        assert code, "no COPYUID"
        self.ledger.place(WORK, int(code.split()[2]), token)

    def store(self) -> Iterator[None]:
        with self.imap() as client:
            for token in self.tokens():
                uid = self.add(client, token)
                self.ledger.begin(token, "flag")
                ok(client.uid("STORE", uid, "+FLAGS", "(\\Flagged)"))
                self.ledger.done(token)
                yield

    def expunge(self) -> Iterator[None]:
        with self.imap() as client:
            for token in self.tokens():
                uid = self.add(client, token)
                ok(client.uid("STORE", uid, "+FLAGS", "(\\Deleted)"))
                self.ledger.begin(token, "expunge")
                ok(client.uid("EXPUNGE", uid))
                self.ledger.done(token)
                yield


def look(server: Server, ledger: Ledger) -> dict[str, State]:
    """Every message that is there, by token; its bytes, its UID and the mailbox's UIDVALIDITY checked on the way."""
    found: dict[str, State] = {}
    with imaplib.IMAP4(HOST, server.port("imap"), timeout=60) as client:
        client.login(USER, PASSWORD)
        for mailbox in (INBOX, WORK):
            ok(client.select(mailbox, readonly=True))
            (validity,) = client.response("UIDVALIDITY")[1]
            assert ledger.uidvalidity.setdefault(mailbox, int(validity)) == int(validity), "UIDVALIDITY has changed"
            for item in ok(client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])")):
                if not isinstance(item, tuple):
                    continue
                token = re.search(rb"^X-Token: (\S+)\r$", item[1], flags=re.MULTILINE)[1].decode()
                uid = int(re.search(rb"UID (\d+)", item[0])[1])
                assert item[1].endswith(message(token)), f"the bytes of {token} have changed"
                ledger.place(mailbox, uid, token)
                before = found.get(token, State())
                assert mailbox not in before.places, f"{token} is in {mailbox} twice"
                found[token] = State(before.places | {mailbox}, before.flagged or b"\\Flagged" in item[0])
    return found


def kill_round(server: Server, ledger: Ledger, number: int, rng: random.Random) -> None:
    """Load, kill, and wait for the clients to notice."""
    kinds = ["lmtp", "lmtp", "append", "copy", "move", "store", "expunge"]
    workers = [Worker(server, ledger, f"{number}{chr(97 + index)}-{kind}") for index, kind in enumerate(kinds)]
    goal = ledger.acknowledged + rng.randint(1, 200)
    for worker in workers:
        worker.thread.start()
    with ledger.changed:
        reached = ledger.changed.wait_for(
            lambda: ledger.acknowledged >= goal or any(w.error for w in workers), timeout=60
        )
        # The moment of the last acknowledgement is not random: let a random part of the next ones begin.
        ledger.changed.wait_for(lambda: False, timeout=rng.random() * 0.02)
    server.kill(wait=bool(rng.randrange(2)))
    for worker in workers:
        worker.thread.join(timeout=60)
        assert not worker.thread.is_alive(), f"{worker.name} hangs"
    for worker in workers:
        if worker.error:
            raise AssertionError(f"{worker.name}: {worker.error!r}\n{server.log()[-3000:]}") from worker.error
    assert reached, (
        f"only {ledger.acknowledged} of {goal} operations were acknowledged in a minute\n{server.log()[-3000:]}"
    )


def test_what_was_acknowledged_survives_kill(tmp_path: Path, rng: random.Random, full: bool) -> None:
    rounds = ROUNDS_FULL if full else ROUNDS_SHORT
    acknowledged = 0
    for first in range(0, rounds, ROUNDS_A_STORE):
        data = tmp_path / f"store{first}"
        ledger = Ledger()
        server = Server(data, users={USER: PASSWORD}, doors=("imap", "lmtp"))
        server.start()
        with imaplib.IMAP4(HOST, server.port("imap"), timeout=60) as client:
            client.login(USER, PASSWORD)
            ok(client.create(WORK))
        for number in range(first, min(first + ROUNDS_A_STORE, rounds)):
            print(f"round {number}, {ledger.acknowledged} acknowledged in this store", flush=True)
            kill_round(server, ledger, number, rng)
            # With the server down and, every other time, with it running.
            if number % 2:
                verify(data)
            server.start()
            wrong = ledger.settle(look(server, ledger))
            assert not wrong, f"round {number}: " + "\n".join(wrong[:20])
            if not number % 2:
                verify(data)
        assert server.stop() == 0
        verify(data)
        acknowledged += ledger.acknowledged
    print(f"{rounds} kills, {acknowledged} acknowledged operations, all as promised")


def verify(data: Path) -> None:
    done = run_command("verify", "--data", str(data), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_kill_while_starting_harms_nothing(tmp_path: Path, rng: random.Random, full: bool) -> None:
    """Recovery itself may be interrupted."""
    data, ledger = tmp_path / "store", Ledger()
    server = Server(data, users={USER: PASSWORD}, doors=("imap", "lmtp")).start()
    with imaplib.IMAP4(HOST, server.port("imap"), timeout=60) as client:
        client.login(USER, PASSWORD)
        ok(client.create(WORK))
    kill_round(server, ledger, 0, rng)
    for _ in range(10 if full else 2):
        server.start()
        with socket.create_connection((HOST, server.port("imap")), timeout=30):
            server.kill()
    server.start()
    wrong = ledger.settle(look(server, ledger))
    assert not wrong, "\n".join(wrong[:20])
    server.stop()
    verify(data)
