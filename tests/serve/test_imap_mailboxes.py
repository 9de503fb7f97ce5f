"""LIST in all its forms, CREATE, DELETE, RENAME, SUBSCRIBE, STATUS, NAMESPACE, SELECT."""

from mailkeep.mail.mailbox_name import encode_utf7
from mailkeep.serve.imap_list import list_lines, lsub_lines
from mailkeep.store import Mailbox
from mailkeep.wire.imap_command import List
from tests.serve.imap_talk import Desk, message, on_desk

DEFAULTS = [
    b'* LIST (\\HasNoChildren) "/" INBOX',
    b'* LIST (\\HasNoChildren \\Archive) "/" Archive',
    b'* LIST (\\HasNoChildren \\Drafts) "/" Drafts',
    b'* LIST (\\HasNoChildren \\Junk) "/" Junk',
    b'* LIST (\\HasNoChildren \\Sent) "/" Sent',
    b'* LIST (\\HasNoChildren \\Trash) "/" Trash',
]


def _mailbox(name: str, *special_use: str) -> Mailbox:
    return Mailbox(1, name, 1, 1, 1, 0, 0, 0, 0, special_use, False, 1)  # type: ignore[arg-type]


def _listed(command: List, names: list[str], subscribed: set[str]) -> dict[str, tuple[set[str], tuple[str, ...]]]:
    lines = list_lines(command, {name: _mailbox(name) for name in names}, subscribed)
    return {line.name: (set(line.attributes), line.childinfo) for line in lines if line is not None}


# The tree of RFC 5258 section 5.
FRUIT = ["INBOX", "Fruit", "Fruit/Apple", "Fruit/Banana", "Tofu", "Vegetable", "Vegetable/Broccoli", "Vegetable/Corn"]
FRUIT_SUBSCRIBED = {"INBOX", "Fruit/Banana", "Fruit/Peach", "Vegetable", "Vegetable/Broccoli"}


def test_list_subscribed_as_in_rfc_5258() -> None:
    command = List("LIST", "", ("*",), True, frozenset({"SUBSCRIBED"}))
    listed = _listed(command, FRUIT, FRUIT_SUBSCRIBED)
    assert set(listed) == FRUIT_SUBSCRIBED
    assert all("\\Subscribed" in attributes for attributes, _ in listed.values())
    assert "\\NonExistent" in listed["Fruit/Peach"][0]
    assert "\\NonExistent" not in listed["Fruit/Banana"][0]


def test_list_children_as_in_rfc_5258() -> None:
    listed = _listed(List("LIST", "", ("%",), True, frozenset(), frozenset({"CHILDREN"})), FRUIT, set())
    assert {name: "\\HasChildren" in attributes for name, (attributes, _) in listed.items()} == {
        "INBOX": False, "Fruit": True, "Tofu": False, "Vegetable": True,
    }  # fmt: skip


def test_recursivematch_as_in_rfc_5258() -> None:
    command = List("LIST", "", ("%",), True, frozenset({"SUBSCRIBED", "RECURSIVEMATCH"}))
    listed = _listed(command, FRUIT, FRUIT_SUBSCRIBED)
    assert {name: childinfo for name, (_, childinfo) in listed.items()} == {
        "INBOX": (), "Fruit": ("SUBSCRIBED",), "Vegetable": ("SUBSCRIBED",),
    }  # fmt: skip
    assert "\\Subscribed" not in listed["Fruit"][0]
    assert "\\Subscribed" in listed["Vegetable"][0]
    # A parent is told once only: not when the child that asks for it is told itself.
    everything = List("LIST", "", ("*",), True, frozenset({"SUBSCRIBED", "RECURSIVEMATCH"}))
    assert "Fruit" not in _listed(everything, FRUIT, FRUIT_SUBSCRIBED)


def test_a_level_without_a_mailbox_is_listed_and_cannot_be_selected() -> None:
    listed = _listed(List("LIST", "", ("%",)), ["INBOX", "a/b/c"], set())
    assert listed["a"][0] == {"\\NonExistent", "\\Noselect", "\\HasChildren"}


def test_lsub_names_a_parent_that_is_not_subscribed() -> None:
    lines = {line.name: line.attributes for line in lsub_lines(List("LSUB", "", ("%",)), {"foo/bar", "INBOX"}) if line}
    assert lines == {"INBOX": (), "foo": ("\\Noselect",)}
    lines = {line.name: line.attributes for line in lsub_lines(List("LSUB", "", ("*",)), {"foo/bar", "INBOX"}) if line}
    assert lines == {"INBOX": (), "foo/bar": ()}


@on_desk
async def test_the_default_mailboxes_are_there_and_subscribed(desk: Desk) -> None:
    talk = await desk.user()
    assert await talk.ok('LIST "" *') == DEFAULTS
    assert [line.rpartition(b" ")[2] for line in await talk.ok('LSUB "" *')] == [
        line.rpartition(b" ")[2] for line in DEFAULTS
    ]
    assert await talk.ok('LIST (SPECIAL-USE) "" "*"') == DEFAULTS[1:]
    assert await talk.ok('LIST "" inbox') == DEFAULTS[:1]


@on_desk
async def test_list_of_nothing_tells_the_separator(desk: Desk) -> None:
    talk = await desk.user()
    assert await talk.ok('LIST "" ""') == [b'* LIST (\\Noselect) "/" ""']
    assert await talk.ok("NAMESPACE") == [b'* NAMESPACE (("" "/")) NIL NIL']


@on_desk
async def test_list_with_status(desk: Desk) -> None:
    await desk.fill(2)
    talk = await desk.user()
    lines = await talk.ok('LIST "" (INBOX S%) RETURN (STATUS (MESSAGES UNSEEN UIDNEXT SIZE) SUBSCRIBED)')
    size = 2 * len(message(1))
    assert lines == [
        b'* LIST (\\HasNoChildren \\Subscribed) "/" INBOX',
        b"* STATUS INBOX (MESSAGES 2 UNSEEN 2 UIDNEXT 3 SIZE %d)" % size,
        b'* LIST (\\HasNoChildren \\Sent \\Subscribed) "/" Sent',
        b"* STATUS Sent (MESSAGES 0 UNSEEN 0 UIDNEXT 1 SIZE 0)",
    ]


@on_desk
async def test_create_subscribe_delete(desk: Desk) -> None:
    talk = await desk.user()
    await talk.ok("CREATE a/b/")
    assert b"[MAILBOXID (F" in talk.tagged
    await talk.no("CREATE a/b")
    assert b"[ALREADYEXISTS]" in talk.tagged
    await talk.no("CREATE inbox")
    assert b'* LSUB () "/" a/b' in await talk.ok('LSUB "" *')
    await talk.ok("UNSUBSCRIBE a/b")
    assert b'* LSUB () "/" a/b' not in await talk.ok('LSUB "" *')
    await talk.ok("SUBSCRIBE not/there")
    assert b'* LIST (\\NonExistent \\Noselect \\HasNoChildren \\Subscribed) "/" not/there' in await talk.ok(
        'LIST (SUBSCRIBED) "" *'
    )
    await talk.ok("DELETE a/b")
    await talk.no("DELETE a/b")
    assert b"[NONEXISTENT]" in talk.tagged
    await talk.no("DELETE INBOX")
    assert b"[CANNOT]" in talk.tagged
    await talk.no("CREATE a//b")


@on_desk
async def test_create_with_a_special_use(desk: Desk) -> None:
    talk = await desk.user()
    await talk.ok("CREATE MySent (USE (\\Sent))")
    assert b'* LIST (\\HasNoChildren \\Sent) "/" MySent' in await talk.ok('LIST "" *')
    await talk.no("CREATE Everything (USE (\\All))")
    assert b"[USEATTR]" in talk.tagged


@on_desk
async def test_names_in_every_script(desk: Desk) -> None:
    talk = await desk.user()
    for name in ("R&D", "Entwürfe", "台北/日本語", "📥 mail", "a b"):
        wire = encode_utf7(name)
        await talk.ok(b'CREATE "%b"' % wire)
        assert any(line.endswith((b" " + wire, b' "%b"' % wire)) for line in await talk.ok('LIST "" *')), name
        await talk.ok(b'SELECT "%b"' % wire)
    await talk.ok("UNSELECT")
    await talk.no('CREATE "&bad"')
    modern = await desk.user(enable="IMAP4rev2")
    assert any("台北/日本語".encode() in line for line in await modern.ok('LIST "" *'))
    await modern.ok('SELECT "Entwürfe"')
    lines = await modern.ok('CREATE "Cafe\u0301"')
    assert lines == ['* LIST (\\Subscribed) "/" "Caf\u00e9" ("OLDNAME" ("Cafe\u0301"))'.encode()]


@on_desk
async def test_rename_takes_children_along(desk: Desk) -> None:
    talk = await desk.user()
    await talk.ok("CREATE a/b/c")
    await talk.append(message(), "a/b/c")
    await talk.ok("RENAME a x/y")
    names = {line.rpartition(b" ")[2] for line in await talk.ok('LIST "" *')}
    assert {b"x", b"x/y", b"x/y/b", b"x/y/b/c"} <= names
    assert not any(name.startswith(b"a") for name in names)
    assert b"* 1 EXISTS" in await talk.ok("SELECT x/y/b/c")
    await talk.no("RENAME nothing n")
    assert b"[NONEXISTENT]" in talk.tagged
    await talk.no("RENAME x Sent")
    assert b"[ALREADYEXISTS]" in talk.tagged


@on_desk
async def test_rename_of_inbox_moves_its_mail_and_leaves_inbox(desk: Desk) -> None:
    await desk.fill(2)
    watcher = await desk.user("INBOX")
    talk = await desk.user()
    await talk.ok("CREATE INBOX/child")
    await talk.ok("RENAME INBOX old")
    assert b"* STATUS old (MESSAGES 2)" in await talk.ok("STATUS old (MESSAGES)")
    assert b"* STATUS INBOX (MESSAGES 0)" in await talk.ok("STATUS INBOX (MESSAGES)")
    assert sum(line.endswith(b"EXPUNGE") for line in await watcher.ok("NOOP")) == 2
    assert b"INBOX/child" in b"".join(await talk.ok('LIST "" *'))


@on_desk
async def test_select_tells_all_that_it_must(desk: Desk) -> None:
    await desk.fill(2, flags=["\\Seen"])
    await desk.fill(1, flags=["$Forwarded"], first=3)
    talk = await desk.user()
    lines = await talk.ok("SELECT INBOX")
    assert talk.tagged.split(b" ", 1)[1].startswith(b"OK [READ-WRITE]")
    assert lines[0] == b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded)"
    assert lines[1].startswith(b"* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded \\*)]")
    assert b"* 3 EXISTS" in lines
    assert b"* 3 RECENT" in lines
    text = b"\n".join(lines)
    for part in (b"[UNSEEN 3]", b"[UIDVALIDITY ", b"[UIDNEXT 4]", b"[HIGHESTMODSEQ ", b"[MAILBOXID (F"):
        assert part in text
    again = await talk.ok("EXAMINE INBOX")
    assert again[0].startswith(b"* OK [CLOSED]")
    assert b"* 0 RECENT" in again
    assert b"[READ-ONLY]" in talk.tagged
    assert b"[PERMANENTFLAGS ()]" in b"".join(again)


@on_desk
async def test_rev2_has_no_recent_and_names_what_it_selected(desk: Desk) -> None:
    await desk.fill(1)
    talk = await desk.user(enable="IMAP4rev2")
    lines = await talk.ok("SELECT INBOX")
    assert b'* LIST () "/" INBOX' in lines
    assert not any(b"RECENT" in line or b"UNSEEN" in line for line in lines)
    assert await talk.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS ())"]
    old = await desk.user("INBOX")
    assert await old.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS (\\Recent))"]


@on_desk
async def test_recent_belongs_to_the_first_session(desk: Desk) -> None:
    await desk.fill(2)
    first = await desk.user("INBOX")
    assert await first.ok("SEARCH RECENT") == [b"* SEARCH 1 2"]
    second = await desk.user("INBOX")
    assert await second.ok("SEARCH RECENT") == [b"* SEARCH"]
    assert await second.ok("SEARCH OLD") == [b"* SEARCH 1 2"]
    assert await first.ok("SEARCH NEW") == [b"* SEARCH 1 2"]


@on_desk
async def test_a_mailbox_that_another_deletes_ends_the_session(desk: Desk) -> None:
    owner = await desk.user()
    await owner.ok("CREATE doomed")
    idle = await desk.user("doomed")
    idle.send(b"i IDLE\r\n")
    await owner.ok("DELETE doomed")
    assert b"* BYE" in await idle.settle()
    assert idle.transport.closed


@on_desk
async def test_deleting_the_own_selected_mailbox_closes_it(desk: Desk) -> None:
    talk = await desk.user()
    await talk.ok("CREATE doomed")
    await talk.ok("SELECT doomed")
    assert any(b"[CLOSED]" in line for line in await talk.ok("DELETE doomed"))
    await talk.bad("FETCH 1 FLAGS")
    await talk.ok("NOOP")


@on_desk
async def test_close_expunges_silently_and_unselect_does_not(desk: Desk) -> None:
    await desk.fill(3)
    talk = await desk.user("INBOX")
    await talk.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await talk.ok("UNSELECT")
    assert b"* 3 EXISTS" in await talk.ok("SELECT INBOX")
    assert await talk.ok("CLOSE") == []
    assert b"* 2 EXISTS" in await talk.ok("EXAMINE INBOX")
    await talk.ok("CLOSE")


@on_desk
async def test_status_in_full(desk: Desk) -> None:
    await desk.fill(2)
    talk = await desk.user()
    await talk.ok("SELECT INBOX")
    await talk.ok("STORE 1 +FLAGS (\\Deleted \\Seen)")
    (line,) = await talk.ok("STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ)")
    assert line.startswith(b"* STATUS INBOX (MESSAGES 2 RECENT 0 UIDNEXT 3 UIDVALIDITY ")
    assert b" UNSEEN 1 DELETED 1 SIZE " in line
    await talk.no("STATUS nowhere (MESSAGES)")
    assert b"[NONEXISTENT]" in talk.tagged
