"""`python -m mailkeep.testing`: the servers and the proxy as processes, as others run them."""

import contextlib
import imaplib
import mailbox
import poplib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.messages import numbered


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[list[int]]:
    """The process while it runs; the ports that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mailkeep.testing", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", line)]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_server_with_mail_from_a_file_behind_a_proxy(tmp_path: Path) -> None:
    with contextlib.closing(mailbox.mbox(str(tmp_path / "box"))) as box:
        box.add(numbered(77).replace(b"\r\n", b"\n"))
    options = ["--messages", "3", "--mbox", str(tmp_path / "box"), "--password", "other", "--ill", "2:empty"]
    settings = ["--set", "folder_cap=3", "--set", 'pop.uidl="missing"', "--break", "NOOP:1:before"]
    with running("gmail", *options, *settings) as (imap, pop), running("proxy", "--to", f"127.0.0.1:{imap}") as (port,):
        client = imaplib.IMAP4("127.0.0.1", port)
        client.login("ann@example.org", "other")
        assert client.select("INBOX")[1] == [b"3"]
        found = client.fetch("1:3", "(BODY.PEEK[])")[1]
        assert [part[1] for part in found if isinstance(part, tuple)][-1] == numbered(77)
        assert b'1 (BODY[] "")' in found
        with pytest.raises(imaplib.IMAP4.abort):
            client.noop()
        client.shutdown()
        maildrop = poplib.POP3("127.0.0.1", pop)
        maildrop.user("ann@example.org")
        maildrop.pass_("other")
        with pytest.raises(poplib.error_proto):
            maildrop.uidl()
        maildrop.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gmail", "--set", "colour=blue"], "no fault 'colour'"),
        (["gmail", "--break", "FETCH"], "is not REGEX:NTH:before|middle|after"),
        (["gmail", "--ill", "99:nil"], "with the UID of a message"),
        (["hotmail"], "No such command 'hotmail'"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mailkeep.testing", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and said in " ".join(done.stderr.split())
