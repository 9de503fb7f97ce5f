"""SMTPUTF8 from end to end: an address, a header and a trace in UTF-8 (RFC 6531, RFC 6532)."""

import smtplib
from pathlib import Path

from mailkeep.serve.lmtp import lmtp_session
from mailkeep.store.store import Store
from tests.serve.door import Door, credentials

USER = "jörg@bücher.example"
MESSAGE = "From: Chloé <chloé@example.net>\r\nSubject: Grüße\r\n\r\nhei\r\n".encode()


def test_mail_to_an_address_in_utf_8(tmp_path: Path) -> None:
    door = Door(tmp_path / "data")
    store = Store.open(door.root)
    store.directory.add(USER, credentials=credentials())
    store.close()

    def client(host: str, port: int) -> None:
        with smtplib.LMTP(host, port) as lmtp:
            lmtp.ehlo()
            assert not lmtp.sendmail("chloé@example.net", [USER], MESSAGE, mail_options=["SMTPUTF8"])

    door.run(lmtp_session, client)
    (message,) = door.mailbox(user=USER)
    assert message.endswith(MESSAGE)
    assert message.startswith(f"Return-Path: <chloé@example.net>\r\nDelivered-To: {USER}\r\nReceived: from ".encode())
    assert b" with UTF8LMTP;" in message
