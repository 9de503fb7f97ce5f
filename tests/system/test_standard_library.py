"""imaplib and poplib, the strangers that every Python has: plain text, STARTTLS and implicit TLS."""

import hashlib
import imaplib
import poplib
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from tests import messages
from tests.system.login import HOST, Login, ok, same, sample


def test_imaplib_lives_on_it(login: Login) -> None:
    sent = sample(20)
    login.append("INBOX", sent)
    same(login.bodies(), Counter(sent))
    login.create("Work", "Work/2026")
    with login.imap("INBOX") as client:
        assert ok(client.search(None, "SUBJECT", '"Message"', "ALL")) is not None
        ok(client.store("1:5", "+FLAGS", "(\\Flagged $Later)"))
        flagged = ok(client.search(None, "FLAGGED", "KEYWORD", "$Later"))[0].split()
        assert flagged == [b"1", b"2", b"3", b"4", b"5"]
        ok(client.copy("1:3", "Work/2026"))
        ok(client.uid("MOVE", "4:5", "Work"))
        ok(client.store("1", "+FLAGS", "(\\Deleted)"))
        assert ok(client.expunge())[-1] == b"1"
    same(login.bodies("Work/2026"), Counter(sent[:3]))
    same(login.bodies("Work"), Counter(sent[3:5]))
    same(login.bodies("INBOX"), Counter(sent[1:3] + sent[5:]))
    assert all({"\\Flagged", "$Later"} <= message.flags for message in login.read("Work"))


def test_mailboxes_are_made_renamed_and_removed(login: Login) -> None:
    login.create("A", "A/B", "Entw&APw-rfe")
    with login.imap() as client:
        ok(client.rename("A", "C"))
        ok(client.delete("Entw&APw-rfe"))
        assert client.create("C")[0] == "NO"
        assert client.select("A")[0] == "NO"
    names = login.mailboxes()
    assert {"INBOX", "C", "C/B", "Drafts", "Sent", "Junk", "Trash", "Archive"} <= names
    assert not {"A", "A/B", "Entw&APw-rfe"} & names


def test_many_sessions_see_one_mailbox(login: Login) -> None:
    with login.imap("INBOX") as one, login.imap("INBOX") as two:
        for number in range(3):
            login.deliver(messages.numbered(number))
        ok(one.noop())
        ok(two.noop())
        assert ok(one.search(None, "ALL"))[0] == ok(two.search(None, "ALL"))[0] == b"1 2 3"
        ok(one.store("2", "+FLAGS", "(\\Deleted)"))
        ok(one.expunge())
        # What the other has expunged may not be told during FETCH; NOOP is where it is.
        ok(two.noop())
        assert ok(two.search(None, "ALL"))[0] == b"1 2"


def test_poplib_lives_on_it(login: Login) -> None:
    sent = sample(10)
    login.append("INBOX", sent)
    with login.pop3() as client:
        count, size = client.stat()
        assert (count, size) == (len(sent), sum(map(len, sent)))
        ids = [line.split()[1] for line in client.uidl()[1]]
        assert len(set(ids)) == len(sent)
        for number, data in enumerate(sent, 1):
            got = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
            assert got == data, (number, got[:200], data[:200])
        head = sent[-1].partition(b"\r\n\r\n")[0]
        assert b"\r\n".join(client.top(len(sent), 0)[1]).startswith(head)
        client.dele(1)
        client.dele(2)
        client.rset()
        client.dele(3)
        client.quit()
    same(login.bodies(), Counter(sent[:2] + sent[3:]))
    with login.pop3() as client:
        assert [line.split()[1] for line in client.uidl()[1]] == ids[:2] + ids[3:]
    assert all("\\Seen" not in message.flags for message in login.read())


def test_a_connection_that_breaks_deletes_nothing(login: Login) -> None:
    login.append("INBOX", [messages.numbered(1)])
    with login.pop3() as client:
        client.dele(1)
    assert len(login.read()) == 1


def open_context() -> ssl.SSLContext:
    """The server's certificate is its own; what is tested is the encryption."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def tls_clients(login: Login) -> dict[str, Callable[[], bytes]]:
    """Every way to the first message under TLS; each returns its bytes."""

    def imap(client: imaplib.IMAP4) -> bytes:
        with client:
            client.login(login.user, login.password)
            ok(client.select())
            return bytes(ok(client.fetch("1", "(BODY.PEEK[])"))[0][1])

    def pop3(client: poplib.POP3) -> bytes:
        client.user(login.user)
        client.pass_(login.password)
        data = b"\r\n".join(client.retr(1)[1]) + b"\r\n"
        client.quit()
        return data

    def imap_starttls() -> bytes:
        client = imaplib.IMAP4(HOST, login.ports["imap"], timeout=30)
        client.starttls(open_context())
        return imap(client)

    def pop3_stls() -> bytes:
        client = poplib.POP3(HOST, login.ports["pop3"], timeout=30)
        client.stls(open_context())
        return pop3(client)

    return {
        "starttls": imap_starttls,
        "stls": pop3_stls,
        "imaps": lambda: imap(imaplib.IMAP4_SSL(HOST, login.ports["imaps"], ssl_context=open_context(), timeout=30)),
        "pop3s": lambda: pop3(poplib.POP3_SSL(HOST, login.ports["pop3s"], context=open_context(), timeout=30)),
    }


@pytest.mark.parametrize("way", ["starttls", "stls", "imaps", "pop3s"])
def test_tls(login: Login, way: str) -> None:
    data = messages.bulk(30, seed=9)[17] + (b"z" * 76 + b"\r\n") * 4000
    login.append("INBOX", [data])
    got = tls_clients(login)[way]()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
@pytest.mark.parametrize("binding", [False, True])
def test_scram(login: Login, mechanism: str, binding: bool) -> None:
    import scramp

    with imaplib.IMAP4(HOST, login.ports["imap"], timeout=30) as client:
        client.starttls(open_context())
        name = mechanism + ("-PLUS" if binding else "")
        # RFC 5929, section 4.1: the hash of the server's certificate.
        certificate = client.sock.getpeercert(binary_form=True)
        channel = ("tls-server-end-point", hashlib.sha256(certificate).digest()) if binding else None
        talk = scramp.ScramClient([name], login.user, login.password, channel_binding=channel)
        steps = iter([lambda _: talk.get_client_first(), partial(_second, talk), partial(_third, talk)])
        ok(client.authenticate(name, lambda data: next(steps)(data.decode()).encode()))
        assert client.state == "AUTH"


def _second(talk, data: str) -> str:  # type: ignore[no-untyped-def]
    talk.set_server_first(data)
    return talk.get_client_final()


def _third(talk, data: str) -> str:  # type: ignore[no-untyped-def]
    """The server proves itself in a last challenge, answered by nothing."""
    talk.set_server_final(data)
    return ""


def test_a_wrong_password_is_refused(login: Login) -> None:
    with imaplib.IMAP4(HOST, login.ports["imap"], timeout=60) as client:
        with pytest.raises(imaplib.IMAP4.error):
            client.login(login.user, "wrong")
        client.login(login.user, login.password)
