"""Pulls from a server that means harm: names, numbers, dates and flags that should be none."""

import asyncio
import contextlib
import re
from pathlib import Path

from mailkeep.backup import pull as pulling
from mailkeep.backup.ledger import RemoteReport
from mailkeep.backup.ledger_page import page
from mailkeep.backup.settings import find_remote
from mailkeep.mail.mailbox_name import check_name
from tests.backup.archive import NAME, Archive

MAIL = b"Subject: hi\r\n\r\nbody %d\r\n"
NAMES = (
    *(b"INBOX", b'"../../etc/passwd"', b'"a/../b"', b'"INBOX/.."', b'""', b'"/"', b'"//a//"', b"*", b"%", b"NIL"),
    *(b'"\x1b]0;owned\x07"', b'"\xe2\x80\xaefdp.exe"', b'"<script>alert(1)</script>"', b'"=cmd()"'),
    *(b"{7}\r\nA\r\nB\r\nC", b"{7}\r\nINBOX\0001", b"{8}\r\nx\0y\r\nz\x1b[", b'"&AAA-"', b'"&//8-"', b'"&Jjo-"'),
    b'"%b"' % (b"x" * 5000),
)
UIDS = (1, 2, 3, 4, 4294967294)
FLAGS = (rb"\Seen {5+} $ok", b'\\Weird "quo te" \x01x', b"a]b * %", b"\\Seen \\Deleted", b"x" * 3000)
SIZES = (b"-5", b"999999999999999999", b"abc", b"0", b"20")
DATES = (
    b'"31-Dec-9999 23:59:59 -9959"',
    b'"01-Jan-0001 00:00:00 +9959"',
    b'"99-Foo-2020"',
    b'"01-Jan-1900 00:00:00 +0000"',
    b'"17-Jul-1996 02:44:25 -0700"',
)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n")
    while line := await reader.readline():
        tag = line.split()[0]
        while (literal := re.search(rb"\{(\d+)\}\r\n$", line)) is not None:
            writer.write(b"+ go\r\n")
            line += await reader.readexactly(int(literal[1])) + await reader.readline()
        asked = line.upper()
        if re.search(rb" (LIST|LSUB) ", asked):
            writer.write(b"".join(b'* LIST () "/" %b\r\n' % name for name in NAMES))
        elif b"EXAMINE" in asked:
            writer.write(b"* 5 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 4294967295] x\r\n")
        elif b"SEARCH" in asked:
            writer.write(b"* SEARCH %b 0 4294967296 99999999999999999999\r\n" % b" ".join(b"%d" % uid for uid in UIDS))
        elif b"FETCH" in asked:
            for number, (uid, flags, size, date) in enumerate(zip(UIDS, FLAGS, SIZES, DATES, strict=True), 1):
                mail = MAIL % uid
                body = b" BODY[] {%d}\r\n%b" % (len(mail), mail) if b"BODY" in asked else b""
                facts = b"UID %d FLAGS (%b) INTERNALDATE %b RFC822.SIZE %b" % (uid, flags, date, size)
                writer.write(b"* %d FETCH (%b%b)\r\n" % (number, facts, body))
        writer.write(tag + b" OK done\r\n")


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await _answer(reader, writer)
    writer.close()


def test_all_that_can_be_mail_comes_and_nothing_breaks_out(tmp_path: Path) -> None:
    reports: list[RemoteReport] = []

    async def work() -> None:
        server = await asyncio.start_server(_serve, "127.0.0.1", 0)
        archive = Archive(tmp_path / "store", server.sockets[0].getsockname()[1], user="u", password="secret")
        try:
            for _ in range(2):
                reports.append(await pulling.pull(archive.context(), find_remote(archive.store, NAME)))
            boxes = [box for box in archive.account.mailboxes() if box.messages]
            assert all(check_name(box.name) and box.messages == len(UIDS) for box in boxes)
            assert len(boxes) == len(NAMES) - 4  # one is empty, three hold a NUL
            kept = archive.mailbox("INBOX")
            assert [data for data, _, _ in kept] == [MAIL % uid for uid in UIDS]
            assert all(-62_135_596_800 < date < 253_402_300_800 for _, date, _ in kept)
            assert next(flags for _, _, flags in kept) == {"\\Seen", "$ok"}
        finally:
            archive.close()
            server.close()

    asyncio.run(asyncio.wait_for(work(), 60))
    first, second = reports
    assert first.equal and second.equal, (first.error, second.error)
    assert second.total("fetched") == 0
    assert "<script" not in page(reports, made=1)
    assert not list(tmp_path.rglob("passwd*"))
