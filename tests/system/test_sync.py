"""mbsync and offlineimap: a whole account down to Maildir, changes on both sides, and all of it back up."""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import messages
from tests.programs import find_program
from tests.syncers import mbsync, offlineimap
from tests.system.login import HOST, Login, ok, same, sample


class Syncer:
    """One synchronising client with a Maildir of its own."""

    def __init__(self, name: str, login: Login, root: Path) -> None:
        self.root = root
        self.mail = root / "mail"
        self.mail.mkdir(parents=True)
        (root / "state").mkdir()
        at = {"host": HOST, "port": login.ports["imap"], "user": login.user, "password": login.password, "root": root}
        text = {
            "mbsync": mbsync("Patterns *", "Create Both", "Remove None", "Expunge Both", **at),
            "offlineimap": offlineimap("maxconnections = 2", ui="basic", general="fsync = false\n", **at),
        }[name]
        (root / "config").write_text(text)
        program = find_program(name)
        options = {"mbsync": ["-c", str(root / "config"), "-a"], "offlineimap": ["-o", "-c", str(root / "config")]}
        self._command = [program, *options[name]]

    def run(self) -> None:
        done = subprocess.run(
            self._command,
            env={**os.environ, "HOME": str(self.root), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=180,
        )
        output = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0 and "ERROR" not in output, output[-3000:]

    def files(self, mailbox: str) -> list[Path]:
        return sorted(path for part in ("cur", "new") for path in (self.mail / mailbox / part).iterdir())

    def bodies(self, mailbox: str) -> Counter[bytes]:
        """The Maildir's messages with the wire's line ends; without the header that mbsync adds to its uploads."""
        return Counter(plain(messages.crlf(path.read_bytes())) for path in self.files(mailbox))

    def find(self, mailbox: str, data: bytes) -> Path:
        return next(path for path in self.files(mailbox) if plain(messages.crlf(path.read_bytes())) == data)

    def flag(self, path: Path, flags: str) -> None:
        """As a Maildir reader marks a message: by its file's name."""
        path.rename(path.parent.parent / "cur" / (path.name.partition(":2,")[0] + ":2," + flags))

    def add(self, mailbox: str, data: bytes, name: str, flags: str = "") -> None:
        (self.mail / mailbox / "cur" / f"{name}.local:2,{flags}").write_bytes(data.replace(b"\r\n", b"\n"))


def plain(data: bytes) -> bytes:
    return re.sub(rb"(?m)^X-(?:TUID|OfflineIMAP): [^\r\n]*\r\n", b"", data, count=1)


@pytest.fixture(params=["mbsync", "offlineimap"])
def client_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def syncer(client_name: str, login: Login, tmp_path: Path) -> Callable[[str], Syncer]:
    return lambda name: Syncer(client_name, login, tmp_path / name)


@pytest.fixture
def sent(login: Login, client_name: str) -> dict[str, list[bytes]]:
    """Mail on the server in several mailboxes, one with a name beyond ASCII.

    offlineimap parses and writes again what it carries, and fails on ugly mail by itself; it gets ordinary mail.
    """
    all_mail = sample(60) if client_name == "mbsync" else messages.bulk(60, seed=6)
    placed = {
        "INBOX": all_mail[::2],
        "Archive": all_mail[1::2],
        "Work/2026": messages.bulk(8, 3),
        "&ZeVnLIqe-": [all_mail[0]],
    }
    login.create("Work", "Work/2026", "&ZeVnLIqe-")
    for mailbox, data in placed.items():
        login.append(mailbox, data)
    return placed


def test_a_whole_account_comes_down(
    syncer: Callable[[str], Syncer], login: Login, sent: dict[str, list[bytes]]
) -> None:
    client = syncer("one")
    client.run()
    for mailbox, data in sent.items():
        same(client.bodies(mailbox), Counter(data))
    for name in ("Drafts", "Sent", "Junk", "Trash"):
        assert client.files(name) == []
    # A second run finds nothing to do and changes nothing on either side.
    before = login.read()
    client.run()
    same(client.bodies("INBOX"), Counter(sent["INBOX"]))
    assert login.read() == before


def test_flags_and_deletions_go_both_ways(
    syncer: Callable[[str], Syncer], login: Login, sent: dict[str, list[bytes]]
) -> None:
    client = syncer("one")
    client.run()
    inbox = sent["INBOX"]
    client.flag(client.find("INBOX", inbox[0]), "FS")
    client.find("INBOX", inbox[1]).unlink()
    with login.imap("INBOX") as imap:
        ok(imap.uid("STORE", "3", "+FLAGS", "(\\Seen \\Answered)"))
        ok(imap.uid("STORE", "4", "+FLAGS", "(\\Deleted)"))
        ok(imap.expunge())
    login.append("INBOX", [messages.numbered(77)])
    client.run()
    there = {message.data: message for message in login.read()}
    assert {"\\Flagged", "\\Seen"} <= there[inbox[0]].flags
    assert {"\\Answered", "\\Seen"} <= there[inbox[2]].flags
    wanted = Counter([inbox[0], inbox[2], *inbox[4:], messages.numbered(77)])
    same(Counter(there.keys()), wanted)
    same(client.bodies("INBOX"), wanted)
    assert set(client.find("INBOX", inbox[2]).name.partition(":2,")[2]) >= {"R", "S"}


def test_local_mail_goes_up_and_reaches_another_client(
    syncer: Callable[[str], Syncer], login: Login, sent: dict[str, list[bytes]]
) -> None:
    one, two = syncer("one"), syncer("two")
    one.run()
    new = messages.bulk(25, seed=99)
    for number, data in enumerate(new):
        one.add("Archive", data, str(number), "S")
    one.run()
    up = login.read("Archive")
    same(Counter(plain(message.data) for message in up), Counter(sent["Archive"] + new))
    assert sum("\\Seen" in message.flags for message in up) == len(new)
    two.run()
    same(two.bodies("Archive"), Counter(sent["Archive"] + new))
    assert login.read("Archive") == up
