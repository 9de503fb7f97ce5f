"""curl over IMAP and POP3: list, upload, download, search, flag, delete."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests import messages
from tests.programs import find_program
from tests.system.login import HOST, Login, same, sample


class Curl:
    """Runs curl against one account."""

    def __init__(self, login: Login) -> None:
        self._program = find_program("curl")
        self._login = login

    def __call__(self, door: str, path: str, *options: str) -> bytes:
        secure = ["--insecure"] if door.endswith("s") else []
        done = subprocess.run(
            [
                self._program, "--silent", "--show-error", "--max-time", "60", *secure,
                "--user", f"{self._login.user}:{self._login.password}",
                f"{door}://{HOST}:{self._login.ports[door]}/{path}", *options,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture
def curl(login: Login) -> Curl:
    return Curl(login)


def test_imap_up_and_down(curl: Curl, login: Login, tmp_path: Path) -> None:
    sent = sample(10)
    for data in sent:
        (tmp_path / "message").write_bytes(data)
        curl("imap", "INBOX", "--upload-file", str(tmp_path / "message"))
    same(login.bodies(), Counter(sent))
    assert "\\Seen" in login.read()[0].flags, "curl uploads what it sends as seen"
    for message in login.read():
        assert curl("imap", f"INBOX;UID={message.uid}") == message.data


def test_imap_sections_lists_and_commands(curl: Curl, login: Login) -> None:
    login.append("INBOX", [messages.numbered(n) for n in range(5)])
    login.create("Work")
    assert b" Work" in curl("imap", "") or b'"Work"' in curl("imap", "")
    assert curl("imap", "INBOX;UID=2;SECTION=TEXT").startswith(b"This is message 1.")
    assert curl("imap", "INBOX?SUBJECT%20%22Message%203%22").split()[-1] == b"4"
    curl("imap", "INBOX", "--request", "STORE 2 +FLAGS (\\Deleted)")
    curl("imap", "INBOX", "--request", "EXPUNGE")
    curl("imap", "INBOX", "--request", "COPY 1:2 Work")
    same(login.bodies(), Counter(messages.numbered(n) for n in (0, 2, 3, 4)))
    same(login.bodies("Work"), Counter(messages.numbered(n) for n in (0, 2)))


@pytest.mark.parametrize("door", ["pop3", "pop3s"])
def test_pop3(curl: Curl, login: Login, door: str) -> None:
    sent = sample(5)
    login.append("INBOX", sent)
    listed = [line.split() for line in curl(door, "").splitlines()]
    assert [int(size) for _, size in listed] == [len(data) for data in sent]
    for number, data in enumerate(sent, 1):
        assert curl(door, str(number)) == data, number
    curl(door, "3", "--request", "DELE", "--list-only")
    same(login.bodies(), Counter(sent[:2] + sent[3:]))


def test_imaps(curl: Curl, login: Login) -> None:
    data = messages.numbered(1, size=500_000)
    login.append("INBOX", [data])
    assert curl("imaps", "INBOX;UID=1") == data
