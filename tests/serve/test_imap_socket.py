"""IMAP over a real socket, with the standard library's client as the stranger."""

import asyncio
import imaplib
import time
from pathlib import Path

from mailkeep.serve.imap import imap_session
from mailkeep.serve.transport import Hub, Listener, bind_socket
from tests.serve.imap_talk import PASSWORD, USER, Desk, desk, message


def _work(port: int) -> None:
    """What a program does that synchronises both ways; runs in a thread of its own."""
    client = imaplib.IMAP4("127.0.0.1", port)
    client.login(USER, PASSWORD)
    assert client.select()[1] == [b"0"]
    for number in range(1, 31):
        when = imaplib.Time2Internaldate(time.gmtime(1_770_000_000 + number))
        assert client.append("INBOX", "(\\Flagged)", when, message(number))[0] == "OK"
    assert client.noop()[0] == "OK"
    _, found = client.uid("SEARCH", "FLAGGED")
    assert len(found[0].split()) == 30
    _, data = client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")
    assert [part[1] for part in data if isinstance(part, tuple)] == [message(number) for number in range(1, 31)]
    client.uid("STORE", "1:10", "+FLAGS", "(\\Deleted)")
    _, gone = client.expunge()
    assert len(gone) == 10
    client.uid("COPY", "11:15", "Archive")
    client.select("Archive", readonly=True)
    _, data = client.fetch("1:*", "(BODY[HEADER.FIELDS (SUBJECT)])")
    assert sum(isinstance(part, tuple) for part in data) == 5
    assert client.close()[0] == "OK"
    assert client.logout()[0] == "BYE"


def test_imaplib_does_its_work(tmp_path: Path) -> None:
    async def scenario(opened: Desk) -> None:
        hub = Hub()
        listener = Listener(
            "imap", bind_socket("127.0.0.1:0"), lambda conn: imap_session(conn, opened.services), hub=hub
        )
        await listener.start()
        try:
            await asyncio.to_thread(_work, int(listener.address().rpartition(":")[2]))
        finally:
            listener.close()
            await hub.shutdown(1.0)

    async def run() -> None:
        async with desk(tmp_path) as opened:
            await scenario(opened)

    asyncio.run(run())
