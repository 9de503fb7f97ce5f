"""Every ugly message goes in by every door and comes out by every door with the same bytes; structures against Dovecot.

In: LMTP (DATA, or BDAT for what DATA cannot carry), APPEND, `mailkeep import`. Out: IMAP BODY.PEEK[] and POP3 RETR.
"""

import imaplib
import poplib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import messages
from tests.server import Server, run_command
from tests.structure_compare import compare_structures
from tests.system.lmtp import Lmtp
from tests.system.login import Login, Message, ok, same

DIFFERENCES = Path(__file__).resolve().parents[2] / "docs" / "structure-differences.md"
TRACE = re.compile(rb"\A(?:(?:Return-Path|Delivered-To|Received):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+")


@pytest.fixture(scope="module")
def mail() -> list[tuple[str, bytes]]:
    return messages.corpus()


@pytest.fixture
def long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """poplib gives up on lines over 2,048 bytes; real mail has them."""
    monkeypatch.setattr(poplib, "_MAXLINE", 1 << 26)


def retrieved(login: Login) -> list[bytes]:
    """Everything by POP3, in order, as it came over the wire."""
    with login.pop3() as client:
        count, _ = client.stat()
        got = [b"".join(line + b"\r\n" for line in client.retr(number)[1]) for number in range(1, count + 1)]
        client.quit()
    return got


def check_pop3(login: Login, stored: list[Message]) -> None:
    """POP3 ends every message with an end of line, which is all that it may add."""
    for message, got in zip(stored, retrieved(login), strict=True):
        ending = b"" if message.data.endswith(b"\r\n") else b"\r\n"
        assert got == message.data + ending, (got[:200], message.data[:200])


@pytest.mark.usefixtures("long_lines")
def test_by_append(login: Login, mail: list[tuple[str, bytes]]) -> None:
    login.append("INBOX", [data for _, data in mail])
    stored = login.read()
    for (name, data), message in zip(mail, stored, strict=True):
        assert message.data == data, f"{name} came out changed: {message.data[:200]!r}"
    check_pop3(login, stored)


@pytest.mark.usefixtures("long_lines")
def test_by_lmtp(login: Login, mail: list[tuple[str, bytes]]) -> None:
    with Lmtp(login.ports["lmtp"]) as session:
        for name, data in mail:
            code, text = session.deliver(login.user, data)
            assert code == 250, (name, code, text)
    stored = login.read()
    for (name, data), message in zip(mail, stored, strict=True):
        assert message.data.endswith(data), f"{name} came out changed"
        trace = message.data[: len(message.data) - len(data)]
        assert TRACE.fullmatch(trace), f"{name}: not trace fields: {trace!r}"
        assert trace.startswith(b"Return-Path: <sender@example.net>\r\n"), trace
    check_pop3(login, stored)


def test_by_import(subject: Server, login: Login, mail: list[tuple[str, bytes]], tmp_path: Path) -> None:
    """Files, one a message, while the server runs; a second import brings nothing twice."""
    folder = tmp_path / "files"
    folder.mkdir()
    # A file with nothing in it is no message; `import` says so and goes on.
    mail = [(name, data) for name, data in mail if data.strip()]
    for number, (_, data) in enumerate(mail):
        (folder / f"{number:04}.eml").write_bytes(data)
    command = ("import", str(folder), "--user", login.user, "--into", "Imported", "--data", str(subject.data))
    for _ in range(2):
        run_command(*command)
        names = [name for name in login.mailboxes() if name.startswith("Imported")]
        same(sum((login.bodies(name) for name in names), Counter()), Counter(data for _, data in mail))


def test_what_a_door_may_not_carry_is_refused_in_words(login: Login) -> None:
    """NUL: not in an IMAP literal (RFC 9051, section 4.3), not in DATA (RFC 5321); BDAT with BINARYMIME carries it."""
    data = b"Subject: nul\r\n\r\na\0b\r\n"
    with login.imap() as client, pytest.raises(imaplib.IMAP4.error, match=r"(?i)nul"):
        ok(client.append("INBOX", None, None, data))
    assert login.read() == []
    with Lmtp(login.ports["lmtp"]) as session:
        session.begin([login.user], " BODY=8BITMIME")
        code, text = session.data(data)[0]
        if code == 250:  # a server may carry it, but then must carry it whole
            assert login.read()[0].data.endswith(data)
        else:
            assert 500 <= code < 600 and text
        assert "BINARYMIME" in session.extensions
        session.begin([login.user], " BODY=BINARYMIME")
        assert session.chunk(data)[0][0] == 250
    assert login.read()[-1].data.endswith(data)


def test_lone_line_ends_stay_in_lmtp(login: Login) -> None:
    """Only CRLF . CRLF ends DATA: a lone LF or CR is neither an end nor an error, and stays as it is."""
    data = b"Subject: x\r\n\r\none\n.\ntwo\r.\rthree\r\n.\nfour\n.\r\nfive\r\n"
    with Lmtp(login.ports["lmtp"]) as session:
        assert session.begin([login.user])[0][0] == 250
        ((code, _),) = session.data(data)
        assert session.ask(b"NOOP")[0] == 250, "the session is out of step: something inside was taken for the end"
    stored = login.read()
    assert len(stored) == (1 if code == 250 else 0)
    assert not stored or stored[0].data.endswith(data)


def structures(login: Login, mail: list[tuple[str, bytes]]) -> list[bytes]:
    """ENVELOPE and BODYSTRUCTURE of each message, as the server sends them."""
    login.append("INBOX", [data for _, data in mail])
    with login.imap("INBOX", readonly=True) as client:
        answer = ok(client.fetch("1:*", "(ENVELOPE BODYSTRUCTURE)"))
    joined: list[bytes] = []
    for item in answer:
        # A literal inside the answer splits it into pieces: (up to the literal, literal), …, rest.
        piece = item[0] + b"\r\n" + item[1] if isinstance(item, tuple) else item
        if re.match(rb"\d+ \(", piece):
            joined.append(piece.partition(b" ")[2])
        else:
            joined[-1] += piece
    return joined


def test_structures_agree_with_dovecot(new_login: Callable[[], Login], dovecot, mail: list[tuple[str, bytes]]) -> None:  # type: ignore[no-untyped-def]
    ours = structures(new_login(), mail)
    login = Login("structures@example.org", dovecot.password, {"imap": dovecot.imap})
    theirs = structures(login, mail)
    assert len(ours) == len(theirs) == len(mail)
    different = {
        name: lines
        for (name, _), mine, other in zip(mail, ours, theirs, strict=True)
        if (lines := compare_structures(mine, other))
    }
    if shared := {name for name, _ in messages.shared_corpus() or ()}:
        # The share is asked of real mail; our own is made of what servers do not agree on.
        agree = len(shared) - len(shared & different.keys())
        print(f"{agree} of {len(shared)} structures agree with Dovecot's")
        assert agree >= 0.97 * len(shared), "\n".join(f"{name}: {lines[:3]}" for name, lines in different.items())
    text = DIFFERENCES.read_text()
    unexplained = [name for name in different if name not in text]
    assert not unexplained, f"not in {DIFFERENCES.name}: {unexplained}"
