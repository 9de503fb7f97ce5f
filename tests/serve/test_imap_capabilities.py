"""What CAPABILITY names can be used: one example for each name, and no name without an example."""

import pytest

from tests.serve.imap_talk import Desk, Talk, message, on_desk

# Name → commands in their order; of each, a part that its answer must have (the tagged line included).
EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "IMAP4rev1": [("SELECT INBOX", "* 1 RECENT")],
    "IMAP4rev2": [("ENABLE IMAP4rev2", "* ENABLED IMAP4rev2"), ("SELECT INBOX", '* LIST () "/" INBOX')],
    "LITERAL+": [("STATUS {5+}\r\nINBOX (MESSAGES)", "(MESSAGES 1)")],
    "SASL-IR": [],  # before log-in only: test_imap.py has one
    "ID": [("ID NIL", '* ID ("name" "Mailkeep"')],
    "ENABLE": [("ENABLE CONDSTORE", "* ENABLED CONDSTORE")],
    "IDLE": [],  # no answer until DONE: test_imap.py has one
    "NAMESPACE": [("NAMESPACE", '* NAMESPACE (("" "/")) NIL NIL')],
    "UIDPLUS": [
        ("SELECT INBOX", "OK"),
        ("COPY 1 Archive", "[COPYUID "),
        ("STORE 1 +FLAGS.SILENT (\\Deleted)", "OK"),
        ("UID EXPUNGE 1", "* 1 EXPUNGE"),
    ],
    "MOVE": [("SELECT INBOX", "OK"), ("UID MOVE 1 Archive", "* 1 EXPUNGE")],
    "UNSELECT": [("SELECT INBOX", "OK"), ("UNSELECT", "OK"), ("FETCH 1 FLAGS", "BAD")],
    "CHILDREN": [("CREATE a/b", "OK"), ('LIST "" a', "\\HasChildren"), ('LIST "" a/b', "\\HasNoChildren")],
    "ESEARCH": [("SELECT INBOX", "OK"), ("SEARCH RETURN (COUNT MAX) ALL", ") MAX 1 COUNT 1")],
    "SEARCHRES": [("SELECT INBOX", "OK"), ("SEARCH RETURN (SAVE) ALL", "OK"), ("FETCH $ UID", "* 1 FETCH (UID 1)")],
    "LIST-EXTENDED": [('LIST (SUBSCRIBED) "" ("IN%" Sent) RETURN (CHILDREN)', "\\Subscribed")],
    "LIST-STATUS": [('LIST "" INBOX RETURN (STATUS (MESSAGES))', "* STATUS INBOX (MESSAGES 1)")],
    "STATUS=SIZE": [("STATUS INBOX (SIZE)", f"(SIZE {len(message())})")],
    "SPECIAL-USE": [('LIST (SPECIAL-USE) "" *', "\\Sent")],
    "CREATE-SPECIAL-USE": [("CREATE Box (USE (\\Junk))", "OK"), ('LIST "" Box', "\\Junk")],
    "CONDSTORE": [("SELECT INBOX (CONDSTORE)", "[HIGHESTMODSEQ "), ("FETCH 1 MODSEQ", "MODSEQ (")],
    "QRESYNC": [
        ("ENABLE QRESYNC", "* ENABLED QRESYNC"),
        ("SELECT INBOX", "OK"),
        ("STORE 1 +FLAGS.SILENT (\\Deleted)", "OK"),
        ("EXPUNGE", "* VANISHED 1"),
    ],
    "UTF8=ACCEPT": [("ENABLE UTF8=ACCEPT", "* ENABLED UTF8=ACCEPT"), ('CREATE "ü"', "OK"), ('LIST "" ü', "ü")],
    "BINARY": [("SELECT INBOX", "OK"), ("FETCH 1 BINARY.SIZE[1]", "BINARY.SIZE[1] 11")],
    "OBJECTID": [
        ("STATUS INBOX (MAILBOXID)", "(MAILBOXID (F"),
        ("SELECT INBOX", "[MAILBOXID (F"),
        ("FETCH 1 (EMAILID THREADID)", "EMAILID (M"),
    ],
    "SAVEDATE": [
        ("SELECT INBOX", "OK"),
        ("FETCH 1 SAVEDATE", 'SAVEDATE "'),
        ("SEARCH SAVEDATESUPPORTED SAVEDSINCE 1-Jan-2020", "* SEARCH 1"),
    ],
    "PREVIEW": [("SELECT INBOX", "OK"), ("FETCH 1 PREVIEW (LAZY)", 'PREVIEW "Hi there.')],
    "APPENDLIMIT=67108864": [("STATUS INBOX (APPENDLIMIT)", "(APPENDLIMIT 67108864)")],
}  # fmt: skip


async def _answer(talk: Talk, command: str) -> str:
    _, lines = await talk.command(command)
    return b"\r\n".join([*lines, talk.tagged]).decode()


@on_desk
async def test_every_capability_has_an_example(desk: Desk) -> None:
    talk = await desk.user()
    (line,) = await talk.ok("CAPABILITY")
    assert {name.decode() for name in line.split()[2:]} == set(EXAMPLES)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example])
def test_capability(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    @on_desk
    async def scenario(desk: Desk) -> None:
        await desk.fill(1)
        talk = await desk.user()
        for command, wanted in EXAMPLES[name]:
            assert wanted in await _answer(talk, command), command

    scenario(tmp_path_factory.mktemp("capability"))


@on_desk
async def test_a_mailbox_keeps_its_object_id_when_it_is_renamed(desk: Desk) -> None:
    """RFC 8474 section 4.1."""
    talk = await desk.user()
    await talk.ok("CREATE before")
    (before,) = await talk.ok("STATUS before (MAILBOXID)")
    await talk.ok("RENAME before after")
    (after,) = await talk.ok("STATUS after (MAILBOXID)")
    assert after.partition(b"(")[2] == before.partition(b"(")[2]


@on_desk
async def test_a_copy_has_the_same_email_id(desk: Desk) -> None:
    """RFC 8474 section 5.1."""
    await desk.fill(2)
    talk = await desk.user("INBOX")
    one, two = (line.partition(b"EMAILID")[2] for line in await talk.ok("FETCH 1:2 EMAILID"))
    assert one != two
    await talk.ok("COPY 1 Archive")
    await talk.ok("SELECT Archive")
    (copy,) = await talk.ok("FETCH 1 EMAILID")
    assert copy.partition(b"EMAILID")[2] == one


@on_desk
async def test_search_by_object_id(desk: Desk) -> None:
    """RFC 8474 section 6."""
    await desk.fill(3)
    talk = await desk.user("INBOX")
    (line,) = await talk.ok("FETCH 2 (EMAILID THREADID)")
    email, thread = (line.partition(key + b" (")[2].partition(b")")[0].decode() for key in (b"EMAILID", b"THREADID"))
    assert await talk.ok(f"SEARCH EMAILID {email}") == [b"* SEARCH 2"]
    assert b" 2" in (await talk.ok(f"SEARCH THREADID {thread}"))[0]
    assert await talk.ok(f"SEARCH NOT EMAILID {email}") == [b"* SEARCH 1 3"]
    assert await talk.ok(f"SEARCH EMAILID {thread}") == [b"* SEARCH"]
