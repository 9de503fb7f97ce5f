"""mutt, driven by keys on a terminal of its own: read, flag, copy, delete, over IMAP."""

import os
import pty
import re
import select
import subprocess
import time
from collections import Counter
from pathlib import Path

from tests import messages
from tests.programs import find_program
from tests.system.login import HOST, Login, same

RC = """
set folder = "imap://{host}:{port}/"
set imap_user = "{user}"
set imap_pass = "{password}"
set imap_authenticators = "login"
set spoolfile = "+INBOX"
set ssl_starttls = no
set ssl_force_tls = no
set mbox_type = mbox
set header_cache = ""
set confirmappend = no
set confirmcreate = no
set delete = yes
set move = no
set quit = yes
set wait_key = no
set mail_check = 1000
set auto_tag = no
set sort = mailbox-order
unset mark_old
set copy = no
"""


def mutt(login: Login, root: Path, keys: str, mailbox: str = "INBOX") -> str:
    """Open a mailbox, type the keys, leave; returns what was on the screen."""
    (root / "muttrc").write_text(
        RC.format(host=HOST, port=login.ports["imap"], user=login.user, password=login.password)
    )
    main, side = pty.openpty()
    command = [
        find_program("mutt"),
        "-n",
        "-F",
        str(root / "muttrc"),
        "-f",
        f"+{mailbox}",
        "-e",
        f'push "{keys}<quit>"',
    ]
    process = subprocess.Popen(
        command,
        stdin=side, stdout=side, stderr=side, cwd=root,
        env={**os.environ, "HOME": str(root), "TERM": "vt100", "LC_ALL": "C.UTF-8", "LINES": "24", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(side)
    screen, deadline = b"", time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([main], [], [], 1)
            if not ready:
                continue
            try:
                chunk = os.read(main, 65536)
            except OSError:  # EIO: mutt has closed the terminal
                break
            if not chunk:
                break
            screen += chunk
        code = process.wait(timeout=max(1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"mutt does not end: {screen[-2000:]!r}") from None
    finally:
        os.close(main)
    assert code == 0, screen[-2000:]
    return screen.decode(errors="replace")


def test_mutt_reads_flags_copies_and_deletes(login: Login, tmp_path: Path) -> None:
    sent = [*(messages.numbered(n) for n in range(4)), *messages.bulk(4, seed=8)]
    login.append("INBOX", sent)
    login.create("Work")
    out = tmp_path / "out.mbox"
    mutt(login, tmp_path, f"<tag-pattern>~A<enter><tag-prefix><copy-message><kill-line>{out}<enter>")
    mutt(login, tmp_path, "<first-entry><flag-message>")
    mutt(login, tmp_path, "<first-entry><next-entry><copy-message><kill-line>=Work<enter>")
    mutt(login, tmp_path, "<first-entry><next-entry><next-entry><delete-message>")
    same(login.bodies(), Counter(sent[:2] + sent[3:]))
    same(login.bodies("Work"), Counter(sent[1:2]))
    assert "\\Flagged" in login.read()[0].flags
    text = messages.crlf(out.read_bytes())
    saved = Counter(
        re.sub(rb"^(?:Status|Content-Length|Lines): \w+\r\n", b"", one, flags=re.M) for one in split_mbox(text)
    )
    same(saved, Counter(sent))


def split_mbox(text: bytes) -> list[bytes]:
    """The messages of an mbox that mutt wrote: a From_ line before each, one blank line behind."""
    found = re.split(rb"(?m)^From \S+ +\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\r\n", text)
    return [one.removesuffix(b"\r\n") for one in found if one]


def test_mutt_batch_sends_a_copy_to_sent(login: Login, tmp_path: Path) -> None:
    """Batch mode proper: no terminal at all; the copy of what was sent goes up by APPEND."""
    (tmp_path / "muttrc").write_text(
        RC.format(host=HOST, port=login.ports["imap"], user=login.user, password=login.password)
        + 'set sendmail = "/bin/true"\nset copy = yes\nset record = "+Sent"\nset from = "ann@example.org"\n'
    )
    done = subprocess.run(
        [find_program("mutt"), "-n", "-F", str(tmp_path / "muttrc"), "-s", "from a batch", "bob@example.org"],
        input=b"hello from a batch\n",
        env={**os.environ, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (copy,) = login.read("Sent")
    assert b"Subject: from a batch\r\n" in copy.data and copy.data.endswith(b"hello from a batch\r\n")
    assert "\\Seen" in copy.flags
