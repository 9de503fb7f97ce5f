"""The scripted servers, driven by imaplib and poplib as strangers: what each kind promises to do."""

import contextlib
import imaplib
import poplib
import re
import socket
import ssl
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from mailkeep.testing import Break, Busy, Faulty, Ill, PopFaults
from mailkeep.testing.kinds import KINDS
from tests.messages import numbered

HOST = "127.0.0.1"


@contextlib.contextmanager
def imap(server: Faulty, *, mailbox: str | None = "INBOX", enter: bool = True) -> Iterator[imaplib.IMAP4]:
    client = imaplib.IMAP4(HOST, server.imap_port)
    try:
        if enter:
            client.login(server.user, server.password)
            if mailbox is not None:
                assert client.select(mailbox)[0] == "OK"
        yield client
    finally:
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            client.logout()
        with contextlib.suppress(OSError):
            client.shutdown()  # which a failed log-out leaves out


@contextlib.contextmanager
def pop3(server: Faulty) -> Iterator[poplib.POP3]:
    client = poplib.POP3(HOST, server.pop3_port)
    try:
        client.user(server.user)
        client.pass_(server.password)
        yield client
    finally:
        client.close()


def filled(kind: str = "plain", count: int = 5, **changes: Any) -> Faulty:
    """A server with numbered messages in INBOX, not yet started."""
    server = Faulty(kind, **changes)
    for number in range(1, count + 1):
        server.mailboxes["INBOX"].add(numbered(number), date=1_700_000_000 + number)
    return server


def bodies(client: imaplib.IMAP4, uids: str = "1:*", item: str = "BODY.PEEK[]") -> dict[int, bytes]:
    status, data = client.uid("FETCH", uids, f"(UID {item})")
    assert status == "OK", data
    return {int(re.search(rb"UID (\d+)", part[0])[1]): part[1] for part in data if isinstance(part, tuple)}  # type: ignore[index]


def names(client: imaplib.IMAP4) -> list[bytes]:
    return [line.split(b' "', 1)[1] for line in client.list()[1] if isinstance(line, bytes)]


# --- a good server ---


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_out_its_mail_in_the_end(kind: str) -> None:
    """A client that comes again gets everything whole, whatever the provider."""
    with filled(kind) as server:
        got: dict[int, bytes] = {}
        for _ in range(6):
            with contextlib.suppress(imaplib.IMAP4.error), imap(server) as client:
                uids = [message.uid for message in server.mailboxes["INBOX"]]
                for uid in uids:
                    with contextlib.suppress(AssertionError):
                        got |= bodies(client, str(uid))
        messages = {message.uid: message.data for message in server.mailboxes["INBOX"]}
        assert set(messages.values()) <= set(got.values())


def test_mail_in_and_flags_and_out() -> None:
    with filled() as server, imap(server) as client:
        date = '"20-Jan-2026 10:00:00 +0000"'
        assert client.append("INBOX", "(\\Flagged $Forwarded)", date, numbered(9))[1] == [
            b"[APPENDUID 1600000001 6] APPEND completed"
        ]
        message = server.mailboxes["INBOX"].messages[6]
        assert (message.data, message.flags, message.mail.date) == (
            numbered(9), {"\\Flagged", "$Forwarded"}, 1_768_903_200,
        )  # fmt: skip
        client.uid("STORE", "1,3", "+FLAGS", "(\\Deleted)")
        assert client.expunge()[1] == [b"3", b"1"]
        assert bodies(client) == {2: numbered(2), 4: numbered(4), 5: numbered(5), 6: numbered(9)}
        client.uid("COPY", "2", "Archive")
        client.uid("MOVE", "4", "Archive")
        assert [m.data for m in server.mailboxes["Archive"]] == [numbered(2), numbered(4)]
        assert [m.uid for m in server.mailboxes["INBOX"]] == [2, 5, 6]
        assert client.uid("SEARCH", "FLAGGED", "SUBJECT", '"message 9"')[1] == [b"6"]
        assert client.uid("SEARCH", "OR", "UID", "2", "HEADER", "Message-ID", "<5@")[1] == [b"2 5"]


def test_mailboxes_made_renamed_subscribed_deleted() -> None:
    with Faulty() as server, imap(server) as client:
        assert client.create("Work/2026")[0] == "OK"
        assert client.create("Work")[0] == "NO"
        client.subscribe("Work/2026")
        assert client.rename("Work", "Home")[0] == "OK"
        assert {"Home", "Home/2026"} <= set(server.mailboxes)
        assert client.list('""', "Home/%")[1] == [b'(\\HasNoChildren) "/" Home/2026']
        assert client.delete("Home/2026")[0] == "OK"
        assert client.status("Home", "(MESSAGES UIDNEXT)")[1] == [b"Home (MESSAGES 0 UIDNEXT 1)"]


def raw(server: Faulty, *commands: bytes) -> bytes:
    """Commands sent in one packet, and all that is answered up to the end."""
    login = f"l LOGIN {server.user} {server.password}".encode()
    with socket.create_connection((HOST, server.imap_port), timeout=20) as line:
        line.sendall(b"".join(command + b"\r\n" for command in (login, *commands, b"z LOGOUT")))
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := line.recv(65536):
                data += piece
    return data


def test_qresync_tells_what_changed_and_what_vanished() -> None:
    server = filled()
    box = server.mailboxes["INBOX"]
    since = box.modseq
    box.set_flags(2, {"\\Seen"})
    box.remove(4)
    with server:
        head = b"s SELECT INBOX (QRESYNC (%d %d 1:5))" % (box.uidvalidity, since)
        answer = raw(server, b"e ENABLE QRESYNC", head, b"f UID FETCH 1:5 (FLAGS) (CHANGEDSINCE %d VANISHED)" % since)
    assert answer.count(b"* VANISHED (EARLIER) 4\r\n") == 2
    assert answer.count(b"* 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (%d))" % box.messages[2].modseq) == 2
    assert b"* 1 FETCH" not in answer


def test_list_status_and_esearch_and_unchangedsince() -> None:
    with filled() as server:
        answer = raw(
            server,
            b'a LIST "" (INBOX Sent) RETURN (STATUS (MESSAGES UIDNEXT HIGHESTMODSEQ) SPECIAL-USE)',
            b"b SELECT INBOX",
            b"c UID SEARCH RETURN (MIN MAX COUNT ALL) NOT SEEN",
            b"d UID STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)",
        )
    assert b"* STATUS INBOX (MESSAGES 5 UIDNEXT 6 HIGHESTMODSEQ 6)\r\n" in answer
    assert b'* LIST (\\HasNoChildren \\Sent) "/" Sent\r\n* STATUS Sent (MESSAGES 0' in answer
    assert b'* ESEARCH (TAG "c") UID MIN 1 MAX 5 ALL 1:5 COUNT 5\r\n' in answer
    assert b"d OK [MODIFIED 1]" in answer


def test_idle_hears_of_what_a_test_does() -> None:
    with filled(count=1) as server, socket.create_connection((HOST, server.imap_port), timeout=20) as line:
        stream = line.makefile("rb")
        line.sendall(f"a LOGIN {server.user} {server.password}\r\nb SELECT INBOX\r\nc IDLE\r\n".encode())
        while stream.readline() != b"+ idling\r\n":
            pass
        server.mailboxes["INBOX"].add(numbered(2))
        assert stream.readline() == b"* 2 EXISTS\r\n"
        assert stream.readline() == b"* 0 RECENT\r\n"
        server.mailboxes["INBOX"].remove(1)
        assert stream.readline() == b"* 1 EXPUNGE\r\n"
        line.sendall(b"DONE\r\nd NOOP\r\n")
        assert stream.readline().startswith(b"c OK")
        assert stream.readline().startswith(b"d OK")


def test_what_is_not_offered_is_refused() -> None:
    with filled("o365", not_connected=0, busy=()) as server:
        answer = raw(
            server,
            b"a ENABLE CONDSTORE",
            b"b SELECT INBOX (CONDSTORE)",
            b"c SELECT INBOX",
            b"d UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1)",
            b"e STATUS INBOX (HIGHESTMODSEQ)",
            b"f UID SEARCH RETURN (ALL) ALL",
            b'g LIST "" "*" RETURN (STATUS (MESSAGES))',
        )
    for tag in (b"a", b"b", b"d", b"e", b"f", b"g"):
        assert b"\r\n%b BAD " % tag in answer, tag
    assert b"HIGHESTMODSEQ" not in answer


def test_tokens_and_wrong_passwords() -> None:
    with Faulty("gmail") as server:
        with imap(server, enter=False) as client, pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            client.login(server.user, "wrong")
        with imap(server, enter=False) as client:
            text = f"user={server.user}\x01auth=Bearer {server.token}\x01\x01".encode()
            assert client.authenticate("XOAUTH2", lambda _: text)[0] == "OK"
        with imap(server, enter=False) as client, pytest.raises(imaplib.IMAP4.error):
            client.authenticate(
                "XOAUTH2", lambda data: b"" if data else b"user=ann@example.org\x01auth=Bearer x\x01\x01"
            )
        assert not any(b"secret" in line or b"wrong" in line for line in server.log)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server, and for a client that trusts it."""
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)
    return ours, theirs


def test_tls_and_starttls() -> None:
    ours, theirs = contexts()
    with filled(tls=ours) as server:
        client = imaplib.IMAP4_SSL("localhost", server.imap_port, ssl_context=theirs)
        client.login(server.user, server.password)
        assert client.select("INBOX")[1] == [b"5"]
        client.logout()
    with filled(starttls=ours) as server:
        plain = imaplib.IMAP4("localhost", server.imap_port)
        assert "STARTTLS" in plain.capabilities
        plain.starttls(ssl_context=theirs)
        assert "STARTTLS" not in plain.capabilities
        plain.login(server.user, server.password)
        assert plain.select("INBOX")[1] == [b"5"]
        plain.logout()


def test_compress() -> None:
    with filled() as server, socket.create_connection((HOST, server.imap_port), timeout=20) as line:
        stream = line.makefile("rb")
        line.sendall(f"a LOGIN {server.user} {server.password}\r\nb COMPRESS DEFLATE\r\n".encode())
        while not stream.readline().startswith(b"b OK"):
            pass
        packer, unpacker = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)
        line.sendall(packer.compress(b"c SELECT INBOX\r\n") + packer.flush(zlib.Z_SYNC_FLUSH))
        answer = b""
        while b"\r\nc OK" not in answer:
            answer += unpacker.decompress(stream.read1())
        assert b"* 5 EXISTS" in answer


# --- the line ---


def test_cut_after_so_many_octets() -> None:
    with filled(cut_after_bytes=600, cut_times=1) as server:
        with pytest.raises(imaplib.IMAP4.abort), imap(server) as client:
            bodies(client)
        with imap(server) as client:
            assert len(bodies(client)) == 5


@pytest.mark.parametrize(("when", "stored"), [("before", 0), ("middle", 0), ("after", 1)])
def test_a_break_at_append(when: Any, stored: int) -> None:
    with Faulty(breaks=(Break(rb"APPEND", when=when),)) as server:
        with pytest.raises(imaplib.IMAP4.abort), imap(server) as client:
            client.append("INBOX", "", "", numbered(1))
        assert len(server.mailboxes["INBOX"]) == stored
        with imap(server) as client:
            assert client.append("INBOX", "", "", numbered(1))[0] == "OK"


def test_a_break_in_the_middle_of_an_answer_and_one_with_a_word() -> None:
    with filled(breaks=(Break(rb"FETCH", when="middle"),)) as server:
        answer = raw(server, b"a SELECT INBOX", b"b UID FETCH 1:* BODY.PEEK[]")
        assert b"* 1 FETCH" in answer and b"\r\nb OK" not in answer
        server.change(breaks=(Break(rb"FETCH", when="middle", bye=True),))
        answer = raw(server, b"a SELECT INBOX", b"b UID FETCH 1:* BODY.PEEK[]")
        assert b"* 2 FETCH" in answer and answer.endswith(b")\r\n* BYE Server is shutting down\r\n")
        server.change(breaks=(Break(rb"NOOP", nth=2, bye=True),))
        answer = raw(server, b"a NOOP", b"b NOOP", b"c NOOP")
        assert b"\r\na OK" in answer and answer.endswith(b"* BYE Server is shutting down\r\n")


def test_busy_each_third_time() -> None:
    with filled(
        busy=(Busy(rb"FETCH", every=3, reply=b"NO [SERVERBUG] Server error - Please try again later"),)
    ) as server:
        answer = raw(server, b"s SELECT INBOX", *(b"f%d FETCH 1 UID" % n for n in range(1, 7)))
    refused = re.findall(rb"\r\n(f\d) NO \[SERVERBUG\]", answer)
    assert refused == [b"f3", b"f6"]


def test_lines_that_are_too_long_and_too_many() -> None:
    with filled(line_max=100) as server:
        long = raw(server, b"a NOOP", b"b UID FETCH " + b"1," * 60 + b"2 FLAGS")
        assert b"b BAD Command line too long\r\n* BYE" in long
        server.change(line_max=1000, pipeline_max=2)
        assert b"* BYE Too many commands at once" in raw(server, *(b"n%d NOOP" % n for n in range(20)))


# --- messages ---


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("nil", rb"\* 2 FETCH \(UID 2 BODY\[\] NIL\)"),
        ("empty", rb'\* 2 FETCH \(UID 2 BODY\[\] ""\)'),
        ("missing", rb"\* 1 FETCH .*\* 3 FETCH .*\r\nf OK"),
        ("no", rb"\* 1 FETCH .*\r\nf NO "),
        ("bad", rb"\* 1 FETCH .*\r\nf BAD "),
        ("replaced", rb"Subject: Retrieval using the IMAP4 protocol failed for the following message: 2\r\n"),
        ("hangup", rb"\* 1 FETCH .*\)\r\n\Z"),
        ("bye", rb"\* 1 FETCH .*\* BYE Internal error\r\n\Z"),
        ("short", rb"\* 2 FETCH \(UID 2 BODY\[\] \{\d+\}\r\nFrom: [^{]*\Z"),
    ],
)
def test_ill_messages(kind: Any, answer: bytes) -> None:
    server = filled(count=3)
    server.mailboxes["INBOX"].messages[2].mail.ill = Ill(kind, items=frozenset(("BODY[]",)))
    with server:
        said = raw(server, b"s SELECT INBOX", b"f UID FETCH 1:3 BODY.PEEK[]")
        assert re.search(answer, said, re.DOTALL), said
        if kind == "missing":
            assert b"* 2 FETCH" not in said
        # Only what is named is hit: the message can be had in another way.
        assert b"This is message 2." in raw(server, b"s SELECT INBOX", b"f UID FETCH 2 RFC822")
        assert b"This is message 2." in raw(
            server, b"s SELECT INBOX", b"f UID FETCH 2 (BODY.PEEK[HEADER] BODY.PEEK[TEXT])"
        )


def test_an_ill_message_that_gets_well() -> None:
    with Faulty() as server:
        server.mailboxes["INBOX"].add(numbered(1), ill=Ill("empty", times=2))
        with imap(server) as client:
            assert [bodies(client).get(1, b"") for _ in range(3)] == [b"", b"", numbered(1)]


# --- providers ---


def test_gmail_labels() -> None:
    server = filled("gmail", count=2)
    work = server.create("Arbeit")
    every = server.mailboxes["[Gmail]/Alle Nachrichten"]
    work.place(server.mailboxes["INBOX"].messages[1].mail)
    with server, imap(server) as client:
        assert b'(\\HasNoChildren \\Trash) "/" [Gmail]/Papierkorb' in client.list()[1]
        data = client.uid("FETCH", "1:2", "(X-GM-MSGID X-GM-THRID X-GM-LABELS FLAGS)")[1]
        ids = [re.search(rb"X-GM-MSGID (\d+)", line)[1] for line in data if isinstance(line, bytes)]  # type: ignore[index]
        assert [m.mail.id for m in every] == list(map(int, ids))
        assert b"X-GM-LABELS (Arbeit)" in data[0] and b"X-GM-LABELS ()" in data[1]
        client.uid("STORE", "1", "+FLAGS", "(\\Flagged)")
        assert "\\Flagged" in work.messages[1].flags, "the flags of a mail are one set under all labels"
        client.uid("STORE", "2", "+X-GM-LABELS", '("\\\\Starred" Arbeit Neu)')
        assert {box.name for box in every.messages[2].mail.places} == {
            "INBOX", "Arbeit", "Neu", "[Gmail]/Markiert", "[Gmail]/Alle Nachrichten",
        }  # fmt: skip
        # Expunged from a label it stays in All Mail; from Trash it is gone.
        client.uid("STORE", "1", "+FLAGS", "(\\Deleted)")
        client.expunge()
        assert {box.name for box in every.messages[1].mail.places} == {"Arbeit", "[Gmail]/Alle Nachrichten"}
        client.uid("COPY", "2", "[Gmail]/Papierkorb")
        assert len(every) == 1 and len(server.mailboxes["[Gmail]/Papierkorb"]) == 1
        client.select("[Gmail]/Papierkorb")
        client.uid("STORE", "1", "+FLAGS", "(\\Deleted)")
        client.expunge()
        assert len(server.mailboxes["[Gmail]/Papierkorb"]) == 0


def test_gmail_stores_the_same_mail_once() -> None:
    with Faulty("gmail") as server, imap(server) as client:
        client.create("Arbeit")
        client.append("INBOX", "", "", numbered(1))
        client.append("Arbeit", "", "", numbered(1))
        assert len(server.mailboxes["[Gmail]/Alle Nachrichten"]) == 1
        assert client.create("[Gmail]/Meins")[0] == "NO"


def test_gmail_bandwidth_is_used_up_and_comes_back() -> None:
    size = len(numbered(1))
    with filled("gmail", bytes_cap=2 * size + 10) as server:
        answer = raw(server, b"s SELECT INBOX", b"f UID FETCH 1:* BODY.PEEK[]")
        assert answer.count(b"BODY[]") == 2
        assert b"f NO [OVERQUOTA] Account exceeded" in answer and b"* BYE" in answer
        assert b"l NO [OVERQUOTA]" in raw(server)
        server.body_bytes = 0
        assert raw(server, b"s SELECT INBOX", b"f UID FETCH 1:2 BODY.PEEK[]").count(b"BODY[]") == 2


def test_microsoft_365() -> None:
    with filled("o365", count=20) as server:
        assert b"a BAD User is authenticated but not connected." in raw(server, b"a SELECT INBOX")
        answer = raw(server, b"s SELECT INBOX", *(b"f%d FETCH 1 UID" % n for n in range(8)))
        assert b"f6 BAD Request is throttled. Suggested Backoff Time: 123 milliseconds" in answer
        with imap(server) as client:
            first = client.response("UIDVALIDITY")[1]
            client.append("INBOX", "(\\Seen \\Flagged $Forwarded)", "", numbered(99))
            last = list(server.mailboxes["INBOX"])[-1]
            assert (last.data, last.flags) == (numbered(99), {"\\Seen"}), "\\Flagged is lost, keywords are not kept"
            for _ in range(3):
                client.select("INBOX")
            assert client.response("UIDVALIDITY")[1] != first
        server.mailboxes["INBOX"].add(b"X-Faulty: unreadable\r\n\r\ntext\r\n")
        server.change(busy=())
        with imap(server) as client:
            found = list(bodies(client).values())
            assert b"Retrieval using the IMAP4 protocol failed" in found[-1]


def test_yahoo_shows_the_newest_and_searches_badly() -> None:
    with filled("yahoo", count=30, folder_cap=20, busy=(), search_drops=4) as server, imap(server) as client:
        assert client.select("INBOX")[1] == [b"20"]
        assert sorted(bodies(client)) == list(range(11, 31))
        assert len(client.uid("SEARCH", "ALL")[1][0].split()) == 15
        assert client.status("INBOX", "(MESSAGES)")[1] == [b"INBOX (MESSAGES 20)"]


def test_icloud() -> None:
    with filled("icloud") as server:
        with imap(server, enter=False) as client:
            assert "CONDSTORE" not in client.capabilities
            client.login(server.user, server.password)
            assert b"CONDSTORE" in client.capability()[1][0].split()
            client.select("INBOX")
            assert bodies(client, item="RFC822") == {}
            assert bodies(client, "2") == {2: numbered(2)}
        assert server.mailboxes["INBOX"].messages[2].flags == {"\\Seen"}, "although it was a PEEK"


def test_domino() -> None:
    server = filled("domino")
    server.create("Project Notes\\2026")
    with server, imap(server) as client:
        assert b'() "\\\\" Project Notes\\2026' in client.list()[1]
        assert client.list('""', '"Project Notes\\\\%"')[1] == [b'() "\\\\" Project Notes\\2026']
        data = client.uid("FETCH", "1", "(RFC822.SIZE INTERNALDATE)")[1][0]
        assert b"RFC822.SIZE %d " % (len(numbered(1)) - 131) in data and b'INTERNALDATE "1700000001"' in data
        assert b"a BAD Unknown command" in raw(server, b"a IDLE")
        assert client.create("Entw&APw-rfe")[0] == "NO"


def test_limits_on_names_and_keywords() -> None:
    changes: dict[str, Any] = {
        "name_max": 10, "name_forbidden": "?", "depth_max": 2,
        "keywords_max": 2, "keyword_length_max": 8, "append_max": 1000,
    }  # fmt: skip
    with filled(**changes) as server, imap(server) as client:
        for name in ("MuchTooLongAName", "Wh?t", "a/b/c"):
            assert client.create(name)[0] == "NO"
        assert client.create("a/b")[0] == "OK"
        assert client.uid("STORE", "1", "+FLAGS", "(one two)")[0] == "OK"
        assert client.uid("STORE", "2", "+FLAGS", "(three)")[0] == "NO"
        assert client.uid("STORE", "2", "+FLAGS", "(muchtoolong)")[0] == "NO"
        status, data = client.append("INBOX", "", "", b"x" * 2000)
        assert status == "NO" and b"[TOOBIG]" in data[0]
        server.change(either_mail_or_folders=True)
        assert client.create("Archive/2026")[0] == "NO"


# --- POP3 ---


def test_pop3_whole_and_deleted() -> None:
    with filled() as server, pop3(server) as client:
        assert client.stat() == (5, sum(len(numbered(n)) for n in range(1, 6)))
        assert b"\r\n".join(client.retr(2)[1]) + b"\r\n" == numbered(2)
        assert len(set(client.uidl()[1])) == 5
        client.dele(2)
        client.quit()
        assert [m.uid for m in server.mailboxes["INBOX"]] == [1, 3, 4, 5]


def test_pop3_as_plain_old_servers_have_it() -> None:
    with filled("pop3") as server, pop3(server) as client:
        assert server.port == server.pop3_port
        with pytest.raises(poplib.error_proto):
            client.capa()
        with pytest.raises(poplib.error_proto):
            client.top(1, 0)
        ids = [line.split()[1] for line in client.uidl()[1]]
        assert ids[0] == ids[1] != ids[2] == ids[3]
        assert client.list()[1] == [b"%d 0" % n for n in range(1, 6)]


@pytest.mark.parametrize("uidl", ["missing", "empty", "changing", "long"])
def test_pop3_uidl(uidl: Any) -> None:
    with filled(pop=PopFaults(uidl=uidl)) as server:
        seen = []
        for _ in range(2):
            with pop3(server) as client:
                if uidl == "missing":
                    with pytest.raises(poplib.error_proto):
                        client.uidl()
                    continue
                seen.append(client.uidl()[1])
        if uidl == "changing":
            assert seen[0] != seen[1]
        elif uidl == "empty":
            assert seen[0] == [b"%d " % n for n in range(1, 6)]
        elif uidl == "long":
            assert seen[0] == seen[1] and len(seen[0][0]) > 200


def test_pop3_line_faults() -> None:
    with filled(pop=PopFaults(dot=False)) as server:
        client = poplib.POP3(HOST, server.pop3_port, timeout=20)
        client.user(server.user)
        client.pass_(server.password)
        client._putcmd("RETR 1")  # type: ignore[attr-defined]  # poplib would wait for the dot
        client._putcmd("NOOP")  # type: ignore[attr-defined]
        lines = [client.file.readline()]  # type: ignore[attr-defined]
        while lines[-1] != b"+OK\r\n":
            lines.append(client.file.readline())  # type: ignore[attr-defined]
        assert b"This is message 1.\r\n" in lines and b".\r\n" not in lines
        client.close()
        server.change(pop=PopFaults(), breaks=(Break(rb"RETR", nth=2, when="middle"),))
        with pop3(server) as client:
            client.retr(1)
            with pytest.raises((poplib.error_proto, ConnectionError)):
                client.retr(2)
        server.change(pop=PopFaults(in_use=1))
        with pytest.raises(poplib.error_proto, match="IN-USE"), pop3(server):
            pass


def test_pop3_ill_messages() -> None:
    server = filled()
    for uid, kind in ((2, "no"), (3, "empty"), (4, "short")):
        server.mailboxes["INBOX"].messages[uid].mail.ill = Ill(kind)  # type: ignore[arg-type]
    with server, pop3(server) as client:
        assert client.retr(1)[1]
        with pytest.raises(poplib.error_proto):
            client.retr(2)
        assert client.retr(3)[1] == []
        with pytest.raises((poplib.error_proto, ConnectionError)):
            client.retr(4)
