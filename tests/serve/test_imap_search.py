"""SEARCH: every key, both answers, `$`, numbers and UIDs."""

from tests.serve.imap_talk import Desk, Talk, message, on_desk


async def _found(talk: Talk, text: str) -> list[int]:
    lines = await talk.ok(f"SEARCH {text}")
    (line,) = [line for line in lines if line.startswith(b"* SEARCH")]
    return [int(number) for number in line.split()[2:]]


@on_desk
async def test_keys_that_memory_answers(desk: Desk) -> None:
    await desk.fill(2, flags=["\\Seen"])
    await desk.fill(2, flags=["\\Flagged", "$Label"], first=3)
    await desk.fill(1, flags=["\\Deleted", "\\Answered", "\\Draft"], first=5)
    talk = await desk.user("INBOX")
    for text, found in (
        ("ALL", [1, 2, 3, 4, 5]),
        ("SEEN", [1, 2]),
        ("UNSEEN", [3, 4, 5]),
        ("FLAGGED KEYWORD $label", [3, 4]),
        ("UNKEYWORD $Label", [1, 2, 5]),
        ("KEYWORD $Unheard", []),
        ("OR SEEN DELETED", [1, 2, 5]),
        ("OR SEEN OR DELETED FLAGGED", [1, 2, 3, 4, 5]),
        ("NOT (SEEN)", [3, 4, 5]),
        ("ANSWERED DRAFT", [5]),
        ("UNANSWERED UNDRAFT UNFLAGGED UNDELETED", [1, 2]),
        ("2:4 UNSEEN", [3, 4]),
        ("UID 4:* NOT 5", [4]),
        ("OR 1 UID 5", [1, 5]),
        ("NEW", [3, 4, 5]),
        ("OLD", []),
        ("RECENT SEEN", [1, 2]),
        ("UID 70:80", []),
    ):
        assert await _found(talk, text) == found, text
    await talk.bad("SEARCH 6")
    await talk.bad("SEARCH")
    assert await talk.ok("UID SEARCH DELETED") == [b"* SEARCH 5"]


@on_desk
async def test_keys_that_the_store_answers(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    await talk.append(message(1, subject="Alpha", body="needle in hay\r\n"), flags='"01-Feb-2026 00:00:00 +0000" ')
    await talk.append(message(2, subject="Beta", body="x" * 500 + "\r\n"), flags='"03-Feb-2026 00:00:00 +0000" ')
    await talk.append(
        b"From: =?utf-8?B?R8O8bnRlcg==?= <g@example.org>\r\nTo: b@example.org\r\nCc: c@example.org\r\n"
        b"Date: Tue, 10 Feb 2026 23:59:00 -0800\r\nX-Odd: yes\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        + "Übermut\r\n".encode(),
        flags='"20-Feb-2026 00:00:00 +0000" ',
    )
    for text, found in (
        ("SUBJECT alph", [1]),
        ("FROM bob@", [1, 2]),
        ("FROM {7+}\r\nGünter", [3]),
        ("TO b@example.org", [3]),
        ("CC c@", [3]),
        ("BCC x", []),
        ("BODY NEEDLE", [1]),
        ("TEXT {8+}\r\nübermut", [3]),
        ("NOT TEXT needle", [2, 3]),
        ("OR SUBJECT beta BODY needle", [1, 2]),
        ("HEADER X-Odd yes", [3]),
        ('HEADER X-Odd ""', [3]),
        ("LARGER 400", [2]),
        ("SMALLER 400", [1, 3]),
        ("SINCE 3-Feb-2026", [2, 3]),
        ("BEFORE 3-Feb-2026", [1]),
        ("ON 3-Feb-2026", [2]),
        ("SENTON 10-Feb-2026", [3]),
        ("SENTBEFORE 10-Feb-2026", [1, 2]),
        ("SENTSINCE 3-Feb-2026", [3]),
        ("UNSEEN SUBJECT beta 1:2", [2]),
        ("SAVEDSINCE 1-Jan-2020", [1, 2, 3]),
    ):
        assert await _found(talk, text) == found, text
    assert await _found(talk, "CHARSET ISO-8859-1 TEXT needle") == [1]
    await talk.no("SEARCH CHARSET X-NONE TEXT x")
    assert b"[BADCHARSET" in talk.tagged


@on_desk
async def test_esearch(desk: Desk) -> None:
    await desk.fill(5)
    talk = await desk.user("INBOX")
    await talk.ok("STORE 2,3,5 +FLAGS.SILENT (\\Seen)")
    lines = await talk.ok("SEARCH RETURN (MIN MAX COUNT ALL) SEEN")
    assert lines == [b'* ESEARCH (TAG "t4") MIN 2 MAX 5 ALL 2:3,5 COUNT 3']
    assert await talk.ok("UID SEARCH RETURN () SEEN") == [b'* ESEARCH (TAG "t5") UID ALL 2:3,5']
    assert await talk.ok("SEARCH RETURN (MIN MAX) FLAGGED") == [b'* ESEARCH (TAG "t6")']
    assert await talk.ok("SEARCH RETURN (COUNT) FLAGGED") == [b'* ESEARCH (TAG "t7") COUNT 0']


@on_desk
async def test_the_saved_result(desk: Desk) -> None:
    await desk.fill(6)
    talk = await desk.user("INBOX")
    assert await talk.ok("SEARCH RETURN (SAVE) 2:4") == []
    assert [line.split()[1] for line in await talk.ok("FETCH $ UID")] == [b"2", b"3", b"4"]
    assert [line.split()[1] for line in await talk.ok("UID FETCH $ FLAGS")] == [b"2", b"3", b"4"]
    assert await _found(talk, "$ NOT 3") == [2, 4]
    assert await _found(talk, "UID $") == [2, 3, 4]
    await talk.ok("STORE $ +FLAGS.SILENT (\\Deleted)")
    await talk.ok("UID EXPUNGE 3")
    assert [line.split()[1] for line in await talk.ok("FETCH $ UID")] == [b"2", b"3"]
    await talk.ok("COPY $ Sent")
    assert b"[COPYUID" in talk.tagged
    await talk.ok("SEARCH RETURN (SAVE MIN) ALL")
    assert len(await talk.ok("FETCH $ UID")) == 1
    await talk.ok("SELECT INBOX")
    assert await talk.ok("FETCH $ UID") == []
    assert await talk.ok("SEARCH RETURN (COUNT SAVE) UNDELETED") == [b'* ESEARCH (TAG "t16") COUNT 3']


@on_desk
async def test_a_search_shows_nothing_that_the_client_was_not_told_of(desk: Desk) -> None:
    await desk.fill(2)
    talk = await desk.user("INBOX")
    other = await desk.user("INBOX")
    await other.append(message(3))
    lines = await talk.ok("SEARCH ALL SUBJECT hello")
    assert lines[0] == b"* SEARCH 1 2"
    assert b"* 3 EXISTS" in lines
    assert b"* SEARCH 1 2 3" in await talk.ok("SEARCH SUBJECT hello")


@on_desk
async def test_flag_searches_of_many_rows(desk: Desk) -> None:
    uids = await desk.fill(2500)
    talk = await desk.user("INBOX")
    await talk.ok("STORE 1:* +FLAGS.SILENT (\\Seen)")
    await talk.ok("STORE 100:200 -FLAGS.SILENT (\\Seen)")
    assert await talk.ok("UID SEARCH UNSEEN") == [b"* SEARCH " + b" ".join(b"%d" % uid for uid in uids[99:200])]
    every = b" ".join(b"%d" % number for number in range(1, 2501))
    assert await talk.ok("SEARCH ALL") == [b"* SEARCH " + every]
    (line,) = await talk.ok("SEARCH MODSEQ 1")
    assert line.startswith(b"* SEARCH %b (MODSEQ " % every)
    await talk.ok("SEARCH RETURN (SAVE) SEEN")
    assert len(await talk.ok("FETCH $ FLAGS")) == 2399
