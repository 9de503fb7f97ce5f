"""FETCH and APPEND: every item, sections, partials, BINARY, implicit \\Seen, big messages, back-pressure."""

import pytest

from mailkeep.mail.structure import render
from tests.messages import corpus
from tests.serve.imap_talk import Desk, Talk, message, on_desk

INNER_HEADER = b'Subject: inner\r\nTo: b@example.org\r\nContent-Type: multipart/alternative; boundary="y"\r\n\r\n'
NESTED = (
    b"From: a@example.org\r\nSubject: outer\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="x"\r\n\r\npreamble\r\n'
    b"--x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"caf=C3=A9\r\n"
    b"--x\r\nContent-Type: message/rfc822\r\n\r\n"
    + INNER_HEADER
    + b"--y\r\n\r\nplain inside\r\n--y\r\nContent-Type: text/html\r\n\r\n<p>html inside</p>\r\n--y--\r\n"
    b"--x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAw==\r\n"
    b"--x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: x-strange\r\n\r\n???\r\n"
    b"--x--\r\n"
)


def body(line: bytes, label: bytes) -> bytes | None:
    """The value of one section in a FETCH line; None for NIL."""
    _, found, rest = line.partition(label + b" ")
    assert found, (label, line)
    if rest.startswith(b"NIL"):
        return None
    size, _, data = rest.lstrip(b"~")[1:].partition(b"}\r\n")
    return data[: int(size)]


async def _one(desk: Desk, data: bytes) -> Talk:
    talk = await desk.user("INBOX")
    await talk.append(data)
    return talk


@on_desk
async def test_the_simple_items(desk: Desk) -> None:
    data = message(1)
    talk = await desk.user("INBOX")
    await talk.append(data, flags='(\\Flagged $Label) "20-Jan-2026 10:00:00 +0100" ')
    assert b"[APPENDUID " in talk.tagged
    (line,) = await talk.ok("FETCH 1 ALL")
    rendered = render(data)
    assert line == (
        b'* 1 FETCH (FLAGS (\\Recent \\Flagged $Label) INTERNALDATE "20-Jan-2026 09:00:00 +0000" RFC822.SIZE %d'
        b" ENVELOPE %b)" % (len(data), rendered.envelope)
    )
    (line,) = await talk.ok("UID FETCH 1 (BODYSTRUCTURE BODY MODSEQ EMAILID THREADID SAVEDATE PREVIEW)")
    assert b"BODYSTRUCTURE " + rendered.bodystructure in line
    assert b"BODY " + rendered.body + b" " in line
    for part in (b"UID 1 ", b"MODSEQ (", b"EMAILID (M", b"THREADID (T", b'SAVEDATE "', b'PREVIEW "Hi there.'):
        assert part in line


@on_desk
async def test_sections(desk: Desk) -> None:
    talk = await _one(desk, NESTED)
    header, _, text = NESTED.partition(b"\r\n\r\n")
    wanted = {
        b"": NESTED,
        b"HEADER": header + b"\r\n\r\n",
        b"TEXT": text,
        b"1": b"caf=C3=A9",
        b"1.MIME": b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
        b"2.HEADER": INNER_HEADER,
        b"2.1": b"plain inside",
        b"2.2": b"<p>html inside</p>",
        b"2.2.MIME": b"Content-Type: text/html\r\n\r\n",
        b"3": b"AAECAw==",
        b"HEADER.FIELDS (SUBJECT to)": b"Subject: outer\r\n\r\n",
        b"2.HEADER.FIELDS (to)": b"To: b@example.org\r\n\r\n",
        b"HEADER.FIELDS.NOT (From Content-Type MIME-Version)": b"Subject: outer\r\n\r\n",
    }
    for section, value in wanted.items():
        (line,) = await talk.ok(b"FETCH 1 BODY.PEEK[%b]" % section)
        assert body(line, b"BODY[%b]" % section) == value, section
    (line,) = await talk.ok(b"FETCH 1 (%b)" % b" ".join(b"BODY.PEEK[%b]" % section for section in wanted))
    for section, value in wanted.items():
        assert body(line, b"BODY[%b]" % section) == value, section
    for section in (b"9", b"1.2", b"2.7.1", b"1.HEADER"):
        (line,) = await talk.ok(b"FETCH 1 BODY.PEEK[%b]" % section)
        assert line == b'* 1 FETCH (BODY[%b] "")' % section


@on_desk
async def test_header_sets_are_the_same_cut_and_remembered(desk: Desk) -> None:
    await desk.fill(3)
    talk = await desk.user("INBOX")
    first = await talk.ok("FETCH 1:* BODY.PEEK[HEADER.FIELDS (Date FROM)]")
    for _ in range(3):
        await talk.settle()
        assert await talk.ok("FETCH 1:* BODY.PEEK[HEADER.FIELDS (Date FROM)]") == first
    assert body(first[0], b"BODY[HEADER.FIELDS (Date FROM)]") == (
        b"From: Bob <bob@example.net>\r\nDate: Mon, 02 Feb 2026 10:00:01 +0000\r\n\r\n"
    )


@on_desk
async def test_partials(desk: Desk) -> None:
    data = message(1)
    talk = await _one(desk, data)
    for first, count in ((0, 10), (5, 3), (len(data) - 2, 10), (len(data), 5), (10**9, 1), (0, 10**9)):
        (line,) = await talk.ok(f"FETCH 1 BODY.PEEK[]<{first}.{count}>")
        assert body(line, b"BODY[]<%d>" % first) == data[first : first + count]
    (line,) = await talk.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (From)]<6.3>")
    assert body(line, b"BODY[HEADER.FIELDS (From)]<6>") == b"Bob"


@on_desk
async def test_the_old_names(desk: Desk) -> None:
    data = message(1)
    talk = await _one(desk, data)
    (line,) = await talk.ok("FETCH 1 RFC822.HEADER")
    assert body(line, b"RFC822.HEADER") == data[: data.index(b"\r\n\r\n") + 4]
    assert b"\\Seen" not in b"".join(await talk.ok("FETCH 1 FLAGS"))
    (line,) = await talk.ok("FETCH 1 (RFC822.TEXT)")
    assert body(line, b"RFC822.TEXT") == b"Hi there.\r\n"
    assert b"FLAGS (\\Recent \\Seen)" in line
    (line,) = await talk.ok("FETCH 1 RFC822")
    assert body(line, b"RFC822") == data
    assert b"FLAGS" not in line


@on_desk
async def test_binary(desk: Desk) -> None:
    talk = await _one(desk, NESTED)
    (line,) = await talk.ok("FETCH 1 (BINARY.PEEK[1] BINARY.SIZE[1] BINARY.PEEK[3] BINARY.SIZE[3])")
    assert body(line, b"BINARY[1]") == "café".encode()
    assert b"BINARY.SIZE[1] 5" in line
    assert b"BINARY[3] ~{4}\r\n\x00\x01\x02\x03" in line
    assert b"BINARY.SIZE[3] 4" in line
    (line,) = await talk.ok("FETCH 1 BINARY.PEEK[3]<1.2>")
    assert body(line, b"BINARY[3]<1>") == b"\x01\x02"
    await talk.no("FETCH 1 BINARY.PEEK[4]")
    assert b"[UNKNOWN-CTE]" in talk.tagged
    assert await talk.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS (\\Recent))"]


@on_desk
async def test_reading_marks_seen_in_the_same_response_and_once(desk: Desk) -> None:
    await desk.fill(3)
    await desk.fill(1, flags=["\\Seen"], first=4)
    talk = await desk.user("INBOX")
    lines = await talk.ok("FETCH 2:4 BODY[TEXT]")
    assert [b"FLAGS (\\Recent \\Seen)" in line for line in lines] == [True, True, False]
    assert [line.split()[1] for line in lines] == [b"2", b"3", b"4"]
    again = await talk.ok("FETCH 2 BODY[TEXT]")
    assert b"FLAGS" not in again[0]
    assert await talk.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS (\\Recent))"]
    reader = await desk.user()
    await reader.ok("EXAMINE INBOX")
    (line,) = await reader.ok("FETCH 1 BODY[]")
    assert b"FLAGS" not in line
    assert await reader.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS ())"]
    (line,) = await talk.ok("FETCH 1 (MODSEQ BODY[HEADER.FIELDS (Subject)])")
    assert b"FLAGS (\\Recent \\Seen)" in line


@on_desk
async def test_a_big_message_flows_and_is_exact(desk: Desk) -> None:
    data = message(1, body="0123456789abcdef" * 60_000 + "\r\n")
    talk = await _one(desk, data)
    await talk.append(message(2))
    one, two = await talk.ok("FETCH 1:2 (UID BODY.PEEK[] BODY.PEEK[TEXT])")
    assert body(one, b"BODY[]") == data
    assert one.endswith(b")")
    assert body(two, b"BODY[]") == message(2)
    (line,) = await talk.ok("FETCH 1 BODY[]<100000.500000>")
    assert body(line, b"BODY[]<100000>") == data[100_000:600_000]


@on_desk
async def test_a_reader_that_does_not_read_stops_the_producer(desk: Desk) -> None:
    data = message(1, body="x" * 2_000_000)
    talk = await _one(desk, data)
    talk.conn.pause_writing()
    talk.send(b"a FETCH 1 BODY.PEEK[]\r\n")
    sent = await talk.settle()
    assert len(sent) < 1_000_000
    talk.conn.resume_writing()
    sent += await talk.until(b"a OK")
    assert data in sent


@on_desk
async def test_sets_at_and_past_the_edges(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    assert await talk.ok("FETCH 1:* FLAGS") == []
    assert await talk.ok("UID FETCH 1:* FLAGS") == []
    assert await talk.ok("UID FETCH 9:* FLAGS") == []
    await desk.fill(2)
    assert b"* 2 EXISTS" in await talk.ok("NOOP")
    assert await talk.ok("UID FETCH 9:* FLAGS") == [b"* 2 FETCH (UID 2 FLAGS (\\Recent))"]
    assert await talk.ok("UID FETCH 7 FLAGS") == []
    await talk.bad("FETCH 3 FLAGS")
    await talk.bad("FETCH 1:3 FLAGS")
    await talk.bad("FETCH 0 FLAGS")
    assert len(await talk.ok("FETCH 2:1 UID")) == 2
    assert await talk.ok("FETCH * UID") == [b"* 2 FETCH (UID 2)"]


@on_desk
async def test_many_rows_in_every_path(desk: Desk) -> None:
    uids = await desk.fill(700)
    talk = await desk.user("INBOX")
    for items in (
        "UID",
        "(UID FLAGS)",
        "(UID RFC822.SIZE)",
        "(UID BODY.PEEK[HEADER.FIELDS (Subject)])",
        "(UID BODY[])",
    ):
        lines = [line for line in await talk.ok(f"FETCH 1:* {items}") if b"FETCH" in line]
        assert [int(line.split()[1]) for line in lines] == list(range(1, 701)), items
        assert [int(line.split(b"UID ")[1].split()[0].rstrip(b")")) for line in lines] == uids
    odd = ",".join(str(uid) for uid in uids[::2])
    lines = await talk.ok(f"UID FETCH {odd} (FLAGS RFC822.SIZE)")
    assert len(lines) == 350


@on_desk
async def test_append_refuses_before_the_message_is_sent(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    for text, code in (
        (b"APPEND nowhere {10}", b"[TRYCREATE]"),
        (b"APPEND INBOX {99999999}", b"[TOOBIG]"),
    ):
        talk.send(b"a " + text + b"\r\n")
        said = await talk.settle()
        assert said.startswith(b"a NO " + code), said
    talk.send(b"b APPEND INBOX {10}\r\n")
    assert (await talk.settle()).startswith(b"+ ")
    talk.send(b"0123456789\r\n")
    assert b"b OK [APPENDUID" in await talk.until(b"b ")
    talk.send(b"c APPEND nowhere {5+}\r\nhello\r\nd NOOP\r\n")
    said = await talk.until(b"d ")
    assert said.startswith(b"c NO [TRYCREATE]")
    await talk.bad("APPEND INBOX (\\Nonsense) {5+}\r\nhello")


@on_desk
async def test_append_is_told_to_its_own_session_before_the_end(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    lines = await talk.ok(b"APPEND INBOX (\\Seen \\Recent) {5+}\r\nhello")
    assert b"* 1 EXISTS" in lines
    assert b"* 1 RECENT" in lines
    assert await talk.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS (\\Recent \\Seen))"]


@on_desk
async def test_quota_is_enforced_before_and_at_the_append(desk: Desk) -> None:
    desk.store.directory.set_quota(desk.info.name, 1000)
    talk = await desk.user("INBOX")
    talk.send(b"a APPEND INBOX {2000}\r\n")
    assert (await talk.settle()).startswith(b"a NO [OVERQUOTA]")
    await talk.append(b"x" * 900)
    await talk.no(b"APPEND INBOX {200+}\r\n" + b"x" * 200)
    assert b"[OVERQUOTA]" in talk.tagged
    await talk.no("COPY 1 Sent")
    assert b"[OVERQUOTA]" in talk.tagged


@on_desk
async def test_nul_is_refused_in_a_literal_and_kept_in_a_literal8(desk: Desk) -> None:
    data = b"Subject: x\r\n\r\na\0b\r\n"
    talk = await desk.user("INBOX")
    status, _ = await talk.command(b"APPEND INBOX {%d+}\r\n%b" % (len(data), data))
    assert status in (b"NO", b"BAD")
    assert b"NUL" in talk.tagged
    await talk.ok(b"APPEND INBOX ~{%d+}\r\n%b" % (len(data), data))
    (line,) = await talk.ok("FETCH 1 BODY.PEEK[]")
    assert body(line, b"BODY[]") == data


@on_desk
async def test_utf8_accept(desk: Desk) -> None:
    data = "From: Jos\u00e9 <jos\u00e9@example.org>\r\nSubject: \u00a1Hola!\r\n\r\nx\r\n".encode()
    talk = await _one(desk, data)
    (line,) = await talk.ok("FETCH 1 ENVELOPE")
    assert line.isascii()
    modern = await desk.user(enable="UTF8=ACCEPT")
    await modern.ok("SELECT INBOX")
    (line,) = await modern.ok("FETCH 1 ENVELOPE")
    assert "\u00a1Hola!".encode() in line
    await modern.ok(b"APPEND INBOX UTF8 (~{%d+}\r\n%b)" % (len(data), data))
    await modern.bad("SEARCH CHARSET UTF-8 SUBJECT x")


@pytest.mark.parametrize("part", range(4))
def test_the_corpus_comes_back_byte_for_byte(part: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    mails = corpus()[part::4]

    @on_desk
    async def scenario(desk: Desk) -> None:
        talk = await desk.user("INBOX")
        for _, data in mails:
            await talk.ok(b"APPEND INBOX ~{%d+}\r\n%b" % (len(data), data))
        lines = [line for line in await talk.ok("UID FETCH 1:* BODY.PEEK[]") if b"FETCH" in line]
        assert len(lines) == len(mails)
        for (name, data), line in zip(mails, lines, strict=True):
            assert body(line, b"BODY[]") == data, name
        for items in ("(ENVELOPE BODYSTRUCTURE)", "(BODY[HEADER] BODY[TEXT] BODY[1] BODY[1.MIME])", "ALL"):
            assert len([line for line in await talk.ok(f"FETCH 1:* {items}") if b"FETCH" in line]) == len(mails)

    scenario(tmp_path_factory.mktemp("corpus"))


@on_desk
async def test_a_message_that_cannot_be_read_costs_its_own_response(desk: Desk) -> None:
    await desk.fill(3, flags=["\\Seen"])
    talk = await desk.user("INBOX")
    (pack,) = (desk.account.path / "packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[data.index(b"Subject: Hello 2")] ^= 0xFF
    pack.write_bytes(data)
    for items in ("BODY[]", "(BODY[] BODY[TEXT])"):
        lines = await talk.no(f"FETCH 1:3 {items}")
        assert b"[CORRUPTION]" in talk.tagged
        assert [line.split()[1] for line in lines] == [b"1", b"3"]
    assert len(await talk.ok("FETCH 1:3 ENVELOPE")) == 3
