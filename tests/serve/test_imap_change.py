"""STORE, EXPUNGE, COPY, MOVE, and CONDSTORE and QRESYNC around them."""

from tests.serve.imap_talk import Desk, on_desk


@on_desk
async def test_store_in_its_three_modes(desk: Desk) -> None:
    await desk.fill(3, flags=["\\Seen"])
    talk = await desk.user()
    await talk.ok("EXAMINE INBOX")
    await talk.ok("SELECT INBOX")
    await talk.ok("UNSELECT")
    await talk.ok("SELECT INBOX")
    assert await talk.ok("STORE 1:2 +FLAGS (\\Flagged)") == [
        b"* 1 FETCH (FLAGS (\\Flagged \\Seen))",
        b"* 2 FETCH (FLAGS (\\Flagged \\Seen))",
    ]
    assert await talk.ok("STORE 1 -FLAGS \\Seen") == [b"* 1 FETCH (FLAGS (\\Flagged))"]
    assert await talk.ok("STORE 1 FLAGS ()") == [b"* 1 FETCH (FLAGS ())"]
    assert await talk.ok("STORE 1 FLAGS.SILENT (\\Draft)") == []
    assert await talk.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS (\\Draft))"]
    # unchanged ones are told as well (RFC 9051 section 6.4.6)
    assert await talk.ok("UID STORE 1 +FLAGS (\\Draft)") == [b"* 1 FETCH (UID 1 FLAGS (\\Draft))"]
    await talk.bad("STORE 1 +FLAGS (\\Recent)")
    await talk.bad("STORE 1 +FLAGS (\\Unknown)")
    assert await talk.ok("UID STORE 99 +FLAGS (\\Seen)") == []


@on_desk
async def test_a_new_keyword_is_announced_first(desk: Desk) -> None:
    await desk.fill(1)
    talk = await desk.user("INBOX")
    lines = await talk.ok("STORE 1 +FLAGS ($Later)")
    assert lines[0] == b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Later)"
    assert lines[-1] == b"* 1 FETCH (FLAGS (\\Recent $Later))"
    assert await talk.ok("SEARCH KEYWORD $LATER") == [b"* SEARCH 1"]


@on_desk
async def test_a_read_only_mailbox_stays_as_it_is(desk: Desk) -> None:
    await desk.fill(1, flags=["\\Deleted"])
    talk = await desk.user()
    await talk.ok("EXAMINE INBOX")
    for text in ("STORE 1 +FLAGS (\\Seen)", "EXPUNGE", "UID EXPUNGE 1", "MOVE 1 Sent"):
        await talk.no(text)
        assert b"[READ-ONLY]" in talk.tagged
    await talk.ok("COPY 1 Sent")
    await talk.ok("CLOSE")
    assert b"* 1 EXISTS" in await talk.ok("SELECT INBOX")


@on_desk
async def test_expunge_and_uid_expunge(desk: Desk) -> None:
    await desk.fill(11)
    talk = await desk.user("INBOX")
    await talk.ok("STORE 3,4,7,11 +FLAGS.SILENT (\\Deleted)")
    assert await talk.ok("UID EXPUNGE 4:5") == [b"* 4 EXPUNGE"]
    lines = await talk.ok("EXPUNGE")
    belief = list(range(1, 11))
    for line in lines:
        del belief[int(line.split()[1]) - 1]
    uids = [uid for uid in range(1, 12) if uid not in (3, 4, 7, 11)]
    assert len(belief) == len(uids)
    assert [int(line.split(b"UID ")[1].rstrip(b")")) for line in await talk.ok("FETCH 1:* UID")] == uids
    assert await talk.ok("EXPUNGE") == []


@on_desk
async def test_pipelined_store_and_expunge_keep_their_order(desk: Desk) -> None:
    await desk.fill(5)
    talk = await desk.user("INBOX")
    talk.send(
        b"a STORE 2 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\nc STORE 2 +FLAGS.SILENT (\\Deleted)\r\nd EXPUNGE\r\n"
        b"e UID FETCH 1:* UID\r\n"
    )
    said = await talk.until(b"e ")
    assert said.index(b"* 2 EXPUNGE") < said.index(b"b OK") < said.index(b"c OK") < said.rindex(b"* 2 EXPUNGE")
    assert [line for line in said.split(b"\r\n") if b"FETCH (UID" in line] == [
        b"* 1 FETCH (UID 1)", b"* 2 FETCH (UID 4)", b"* 3 FETCH (UID 5)",
    ]  # fmt: skip


@on_desk
async def test_copy_and_move(desk: Desk) -> None:
    await desk.fill(4, flags=["\\Seen"])
    talk = await desk.user("INBOX")
    await talk.ok("COPY 2:3 Archive")
    assert b"[COPYUID " in talk.tagged
    assert talk.tagged.split(b"]")[0].endswith(b" 2:3 1:2")
    lines = await talk.ok("MOVE 1,4 Archive")
    assert lines[0].startswith(b"* OK [COPYUID ")
    assert lines[0].split(b"]")[0].endswith(b" 1,4 3:4")
    assert lines[1:] == [b"* 4 EXPUNGE", b"* 1 EXPUNGE"]
    assert b"COPYUID" not in talk.tagged
    await talk.no("COPY 1 nowhere")
    assert b"[TRYCREATE]" in talk.tagged
    await talk.no("MOVE 1 nowhere")
    assert b"[TRYCREATE]" in talk.tagged
    assert b"* 4 EXISTS" in await talk.ok("SELECT Archive")
    lines = await talk.ok("FETCH 1:* FLAGS")
    assert all(b"\\Seen" in line for line in lines)


@on_desk
async def test_moving_to_the_same_mailbox_gives_new_uids(desk: Desk) -> None:
    await desk.fill(3)
    talk = await desk.user("INBOX")
    lines = await talk.ok("MOVE 1:2 INBOX")
    assert lines[0].split(b"]")[0].endswith(b" 1:2 4:5")
    assert lines[1:4] == [b"* 2 EXPUNGE", b"* 1 EXPUNGE", b"* 3 EXISTS"]
    assert [line.split(b"UID ")[1] for line in await talk.ok("FETCH 1:* UID")] == [b"3)", b"4)", b"5)"]


@on_desk
async def test_copying_into_the_selected_mailbox_is_told(desk: Desk) -> None:
    await desk.fill(2)
    talk = await desk.user("INBOX")
    assert b"* 4 EXISTS" in await talk.ok("COPY 1:2 INBOX")
    assert len(await talk.ok("UID FETCH 3:4 FLAGS")) == 2


@on_desk
async def test_copy_and_move_of_what_is_gone_is_ok(desk: Desk) -> None:
    await desk.fill(3)
    slow = await desk.user("INBOX")
    quick = await desk.user("INBOX")
    await quick.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    await quick.ok("EXPUNGE")
    await slow.ok("COPY 2 Sent")  # by number: the client still counts three
    await slow.ok("UID MOVE 2 Sent")
    await slow.ok("UID COPY 2,77 Sent")
    assert b"* STATUS Sent (MESSAGES 0)" in await slow.ok("STATUS Sent (MESSAGES)")


@on_desk
async def test_move_of_a_uid_that_the_session_has_not_seen_yet(desk: Desk) -> None:
    await desk.fill(1)
    talk = await desk.user("INBOX")
    (uid,) = await desk.fill(1, first=2)
    lines = await talk.ok(f"UID MOVE {uid} Sent")
    assert any(line.startswith(b"* OK [COPYUID ") for line in lines)
    assert b"* STATUS Sent (MESSAGES 1)" in await talk.ok("STATUS Sent (MESSAGES)")


@on_desk
async def test_condstore(desk: Desk) -> None:
    await desk.fill(3)
    talk = await desk.user()
    lines = await talk.ok("SELECT INBOX (CONDSTORE)")
    (base,) = [int(line.split(b"HIGHESTMODSEQ ")[1].split(b"]")[0]) for line in lines if b"HIGHESTMODSEQ" in line]
    (line,) = await talk.ok("STORE 1 +FLAGS (\\Seen)")
    modseq = int(line.split(b"MODSEQ (")[1].split(b")")[0])
    assert modseq > base
    # .SILENT still tells the mod-sequence (RFC 7162 section 3.1.3)
    (line,) = await talk.ok(f"UID STORE 1 (UNCHANGEDSINCE {modseq}) +FLAGS.SILENT (\\Flagged)")
    assert line.startswith(b"* 1 FETCH (UID 1 MODSEQ (")
    lines = await talk.ok(f"STORE 1,2 (UNCHANGEDSINCE {modseq}) +FLAGS (\\Draft)")
    assert b"[MODIFIED 1]" in talk.tagged
    assert [line.split()[1] for line in lines] == [b"2"]
    lines = await talk.ok(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq})")
    assert [line.split()[1] for line in lines] == [b"1", b"2"]
    assert all(b"MODSEQ (" in line for line in lines)
    (line,) = await talk.ok(f"SEARCH MODSEQ {modseq}")
    assert line.startswith(b"* SEARCH 1 2 (MODSEQ ")
    other = await desk.user("INBOX")
    await other.ok("STORE 3 +FLAGS (\\Seen)")
    (line,) = await talk.ok("NOOP")
    assert b"MODSEQ (" in line


@on_desk
async def test_qresync_tells_what_happened_meanwhile(desk: Desk) -> None:
    await desk.fill(10)
    away = await desk.user(enable="QRESYNC")
    lines = await away.ok("SELECT INBOX")
    text = b"\n".join(lines)
    validity = int(text.split(b"UIDVALIDITY ")[1].split(b"]")[0])
    modseq = int(text.split(b"HIGHESTMODSEQ ")[1].split(b"]")[0])
    await away.ok("UNSELECT")
    other = await desk.user("INBOX")
    await other.ok("STORE 2,5:6 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    await other.ok("UID STORE 9 +FLAGS (\\Flagged)")
    await desk.fill(1, first=11)
    lines = await away.ok(f"SELECT INBOX (QRESYNC ({validity} {modseq}))")
    assert b"* VANISHED (EARLIER) 2,5:6" in lines
    changed = [line for line in lines if b"FETCH" in line]
    assert [line.split(b"UID ")[1].split()[0] for line in changed] == [b"9", b"11"]
    assert all(b"MODSEQ (" in line for line in changed)
    # only of the UIDs that the client says it knows
    lines = await away.ok(f"SELECT INBOX (QRESYNC ({validity} {modseq} 1:5))")
    assert b"* VANISHED (EARLIER) 2,5" in lines
    assert not [line for line in lines if b"FETCH" in line]
    # a sample of numbers that still fit: nothing vanished below
    lines = await away.ok(f"SELECT INBOX (QRESYNC ({validity} {modseq} 1:10 (1,2 1,3)))")
    assert b"* VANISHED (EARLIER) 5:6" in lines
    # another UIDVALIDITY: as if not asked
    lines = await away.ok(f"SELECT INBOX (QRESYNC ({validity + 1} {modseq}))")
    assert not [line for line in lines if b"VANISHED" in line]
    lines = await away.ok(f"UID FETCH 1:6 (FLAGS) (CHANGEDSINCE {modseq} VANISHED)")
    assert lines[0] == b"* VANISHED (EARLIER) 2,5:6"
    await other.bad(f"UID FETCH 1:6 (FLAGS) (CHANGEDSINCE {modseq} VANISHED)")
    await other.bad(f"SELECT INBOX (QRESYNC ({validity} {modseq}))")


@on_desk
async def test_qresync_says_vanished_instead_of_expunge(desk: Desk) -> None:
    await desk.fill(6)
    talk = await desk.user("INBOX", enable="QRESYNC")
    await talk.ok("STORE 2,4:5 +FLAGS.SILENT (\\Deleted)")
    assert await talk.ok("EXPUNGE") == [b"* VANISHED 2,4:5"]
    assert b"[HIGHESTMODSEQ " in talk.tagged
    lines = await talk.ok("MOVE 1 Sent")
    assert lines[1:] == [b"* VANISHED 1"]
    assert b"[HIGHESTMODSEQ " in talk.tagged
    (line,) = await talk.ok("FETCH 1 FLAGS")
    assert b"UID 3 " in line
    await talk.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await talk.ok("CLOSE")
    assert b"HIGHESTMODSEQ" not in talk.tagged
