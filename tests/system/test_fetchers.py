"""getmail6 and fetchmail: take mail away over POP3 and IMAP, into a Maildir, and over LMTP into another account."""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import messages
from tests.programs import find_program
from tests.system.login import HOST, Login, same, sample

GETMAIL = """
[retriever]
type = Simple{kind}Retriever
server = {host}
port = {port}
username = {user}
password = {password}
{extra}

[destination]
type = Maildir
path = {root}/mail/

[options]
delete = {delete}
read_all = {read_all}
delivered_to = false
received = false
verbose = 1
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of somebody who is not root: getmail delivers nothing as root."""
    root = Path(tempfile.mkdtemp(prefix="fetcher-"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(root, nobody.pw_uid, nobody.pw_gid)
    yield root
    shutil.rmtree(root)


def run(command: list[str], root: Path, accepted: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, "HOME": str(root), "LC_ALL": "C.UTF-8"},
        user=root.owner(),
        group=root.group(),
        extra_groups=[] if os.geteuid() == 0 else None,
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode in accepted, output[-3000:]
    return output


def getmail(login: Login, kind: str, root: Path, *, delete: bool, read_all: bool = True) -> Counter[bytes]:
    """Run getmail once; returns what lies in its Maildir."""
    for part in ("cur", "new", "tmp"):
        (root / "mail" / part).mkdir(parents=True, exist_ok=True)
    for directory in (root / "mail", *(root / "mail").iterdir()):
        shutil.chown(directory, root.owner())
    (root / "rc").write_text(
        GETMAIL.format(
            kind=kind, host=HOST, port=login.ports[kind.lower()], user=login.user, password=login.password, root=root,
            delete=delete, read_all=read_all, extra='mailboxes = ("INBOX",)' if kind == "IMAP" else "",
        )
    )  # fmt: skip
    shutil.chown(root / "rc", root.owner())
    run([find_program("getmail"), "--getmaildir", str(root), "--rcfile", str(root / "rc")], root)
    return Counter(messages.crlf(path.read_bytes()) for path in (root / "mail" / "new").iterdir())


def ordinary() -> list[bytes]:
    """getmail parses and writes again what it gets, so ugly mail comes out changed by itself, whatever the server."""
    return [*(messages.numbered(n) for n in range(10)), *messages.bulk(30, seed=4)]


@pytest.mark.parametrize("kind", ["POP3", "IMAP"])
def test_getmail_takes_it_all(login: Login, place: Path, kind: str) -> None:
    sent = ordinary()
    login.append("INBOX", sent)
    got = getmail(login, kind, place, delete=False)
    # getmail puts Return-Path on top on its own account.
    same(Counter(map(without_return_path, got.elements())), Counter(map(without_return_path, sent)))
    assert len(login.read()) == len(sent)
    login.append("INBOX", [messages.numbered(99)])
    # It knows by UIDL, or by UID, what it has already.
    assert sum(getmail(login, kind, place, delete=True, read_all=False).values()) == len(sent) + 1
    assert login.read() == []


def without_return_path(data: bytes) -> bytes:
    """Without what getmail adds to what it fetched."""
    data = data.replace(b"X-getmail-retrieved-from-mailbox: INBOX\r\n", b"", 1)
    return re.sub(rb"\AReturn-Path: [^\r\n]*\r\n", b"", data)


@pytest.mark.parametrize("protocol", ["pop3", "imap"])
def test_fetchmail_carries_mail_to_another_account(new_login: Callable[[], Login], place: Path, protocol: str) -> None:
    origin, target = new_login(), new_login()
    sent = [data for data in sample(30) if b"\r\n.\r\n" not in data and eight_bit_clean(data)]
    origin.append("INBOX", sent)
    (place / "rc").write_text(
        f"set invisible\npoll {HOST} protocol {protocol} service {origin.ports[protocol]} auth password\n"
        f'  user "{origin.user}" password "{origin.password}" is "{target.user}" here\n'
        f'  smtphost {HOST}/{target.ports["lmtp"]} lmtp smtpname "{target.user}"\n'
        "  fetchall no rewrite no mimedecode pass8bits sslproto ''\n"
    )
    (place / "rc").chmod(0o600)
    shutil.chown(place / "rc", place.owner())
    output = run(
        [find_program("fetchmail"), "-f", str(place / "rc"), "--nobounce", "--pidfile", str(place / "pid")],
        place,
    )
    arrived = target.read()
    assert len(arrived) == len(sent), output[-3000:]
    same(Counter(untraced(message.data) for message in arrived), Counter(map(untraced, sent)))
    assert origin.read() == []


def eight_bit_clean(data: bytes) -> bool:
    return b"\0" not in data


def untraced(data: bytes) -> bytes:
    """Without Return-Path, Delivered-To and Received fields at the top, which a delivery puts there."""
    return re.sub(rb"\A(?:(?:Return-Path|Delivered-To|Received):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+", b"", data)
