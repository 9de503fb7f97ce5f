"""The IMAP session itself: states, log-in, pipelining, IDLE, limits, the end."""

from base64 import b64encode

import pytest

from mailkeep.serve import imap
from tests.serve.imap_talk import PASSWORD, USER, Desk, message, on_desk


@on_desk
async def test_the_greeting_tells_capabilities_and_a_log_in_tells_them_again(desk: Desk) -> None:
    talk = desk.talk()
    assert talk.greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 IMAP4rev2 ")
    assert b" AUTH=SCRAM-SHA-256" in talk.greeting
    assert b"LOGINDISABLED" not in talk.greeting
    await talk.ok(f'LOGIN "{USER}" "{PASSWORD}"')
    assert b"[CAPABILITY " in talk.tagged
    assert b"AUTH=" not in talk.tagged
    (line,) = await talk.ok("CAPABILITY")
    wanted = (
        b"IDLE NAMESPACE UIDPLUS MOVE UNSELECT ENABLE ID CHILDREN SASL-IR LITERAL+ ESEARCH SEARCHRES LIST-EXTENDED "
        b"LIST-STATUS STATUS=SIZE SPECIAL-USE CREATE-SPECIAL-USE CONDSTORE QRESYNC UTF8=ACCEPT BINARY"
    )
    assert set(wanted.split()) <= set(line.split())
    assert b"APPENDLIMIT=67108864" in line


@on_desk
async def test_no_log_in_on_an_open_line_that_is_not_loopback(desk: Desk) -> None:
    talk = desk.talk(peer="192.0.2.7")
    assert b"LOGINDISABLED" in talk.greeting
    assert b"AUTH=" not in talk.greeting
    await talk.no(f'LOGIN {USER} "{PASSWORD}"')
    assert b"[PRIVACYREQUIRED]" in talk.tagged
    await talk.no("AUTHENTICATE PLAIN AHgAeQ==")
    assert b"[PRIVACYREQUIRED]" in talk.tagged


@on_desk
async def test_wrong_password_and_unknown_user_sound_alike(desk: Desk) -> None:
    talk = desk.talk()
    await talk.no(f'LOGIN {USER} "wrong"')
    wrong = talk.tagged.split(b" ", 1)[1]
    assert b"[AUTHENTICATIONFAILED]" in wrong
    other = desk.talk()
    await other.no('LOGIN nobody@example.org "wrong"')
    assert other.tagged.split(b" ", 1)[1] == wrong


@on_desk
async def test_authenticate_with_and_without_an_initial_response(desk: Desk) -> None:
    plain = b64encode(f"\0{USER}\0{PASSWORD}".encode())
    talk = desk.talk()
    await talk.ok(b"AUTHENTICATE PLAIN " + plain)
    talk = desk.talk()
    talk.send(b"a AUTHENTICATE PLAIN\r\n")
    assert await talk.until(b"+") == b"+ \r\n"
    talk.send(plain + b"\r\nb NOOP\r\n")
    assert b"a OK [CAPABILITY" in await talk.until(b"b OK")
    talk = desk.talk()
    talk.send(b"a AUTHENTICATE LOGIN\r\n" + b64encode(USER.encode()) + b"\r\n" + b64encode(PASSWORD.encode()) + b"\r\n")
    assert b"a OK" in await talk.until(b"a ")


@on_desk
async def test_authenticate_can_be_given_up_or_be_nonsense(desk: Desk) -> None:
    talk = desk.talk()
    talk.send(b"a AUTHENTICATE PLAIN\r\n*\r\n")
    assert b"a BAD" in await talk.until(b"a ")
    talk.send(b"b AUTHENTICATE PLAIN\r\nnot base64!\r\n")
    assert b"b BAD" in await talk.until(b"b ")
    await talk.no("AUTHENTICATE X-UNKNOWN")
    await talk.ok("NOOP")


@on_desk
async def test_each_state_refuses_what_belongs_to_another(desk: Desk) -> None:
    talk = desk.talk()
    await talk.bad("SELECT INBOX")
    await talk.bad("FETCH 1 FLAGS")
    user = await desk.user()
    await user.bad("FETCH 1 FLAGS")
    await user.bad(f'LOGIN {USER} "{PASSWORD}"')
    await user.ok("SELECT INBOX")
    await user.ok("CHECK")
    await user.no("SELECT nowhere")
    assert b"[NONEXISTENT]" in user.tagged
    await user.bad("FETCH 1 FLAGS")  # a SELECT that fails leaves nothing selected


@on_desk
async def test_logout_says_bye_first(desk: Desk) -> None:
    talk = await desk.user()
    talk.send(b"z LOGOUT\r\nafter NOOP\r\n")
    said = await talk.settle()
    assert said.index(b"* BYE") < said.index(b"z OK")
    assert b"after" not in said
    assert talk.transport.closed


@on_desk
async def test_id_in_all_its_forms(desk: Desk) -> None:
    talk = desk.talk()
    for text in ("ID NIL", 'ID ("name" "x" "version" NIL)', "ID ()"):
        (line,) = await talk.ok(text)
        assert line.startswith(b'* ID ("name" "Mailkeep"')


@on_desk
async def test_enable_tells_what_it_knows(desk: Desk) -> None:
    talk = await desk.user()
    assert await talk.ok("ENABLE X-NOTHING CONDSTORE") == [b"* ENABLED CONDSTORE"]
    assert await talk.ok("ENABLE QRESYNC IMAP4rev2 UTF8=ACCEPT") == [b"* ENABLED QRESYNC IMAP4rev2 UTF8=ACCEPT"]
    assert await talk.ok("ENABLE QRESYNC") == [b"* ENABLED"]


@on_desk
async def test_pipelined_commands_are_answered_in_order_and_in_one_send(desk: Desk) -> None:
    await desk.fill(3)
    talk = await desk.user("INBOX")
    await talk.settle()
    talk.transport.sends.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imap, "SLICE_S", 60.0)  # on a busy machine its time could be over in between
        talk.send(b"a NOOP\r\nb UID FETCH 1 (FLAGS)\r\nc FETCH 1:* UID\r\nd NOOP\r\n")
    assert len(talk.transport.sends) == 1
    said = talk.heard()
    order = [said.index(mark) for mark in (b"a OK", b"b OK", b"c OK", b"d OK")]
    assert order == sorted(order)


@on_desk
async def test_a_long_pipeline_gives_way_to_others(desk: Desk) -> None:
    talk = await desk.user()
    talk.send(b"".join(b"n%d NOOP\r\n" % number for number in range(5000)))
    said = talk.heard()
    assert b"n4999 OK" not in said  # it did not hold the loop for all of them
    assert b"n4999 OK" in await talk.until(b"n4999 ")


@on_desk
async def test_input_is_paused_while_a_command_runs_and_too_much_waits(desk: Desk) -> None:
    await desk.fill(1)
    talk = await desk.user("INBOX")
    talk.send(b"a STORE 1 +FLAGS (\\Seen)\r\n" + b"".join(b"n%d NOOP\r\n" % number for number in range(20_000)))
    assert not talk.transport.reading
    await talk.until(b"n19999 ")
    assert talk.transport.reading


@on_desk
async def test_idle_without_a_mailbox_and_commands_behind_done(desk: Desk) -> None:
    talk = await desk.user()
    talk.send(b"a IDLE\r\n")
    assert talk.heard() == b"+ idling\r\n"
    talk.send(b"DONE\r\nb NOOP\r\nc CAPABILITY\r\n")
    said = await talk.until(b"c OK")
    assert said.startswith(b"a OK IDLE completed\r\nb OK")


@on_desk
async def test_idle_hears_at_once_what_another_does(desk: Desk) -> None:
    await desk.fill(2)
    idle = await desk.user("INBOX")
    other = await desk.user("INBOX")
    idle.send(b"a IDLE\r\n")
    idle.heard()
    await other.append(message(9))
    assert b"* 3 EXISTS\r\n" in await idle.settle()
    await other.ok("STORE 1 +FLAGS (\\Deleted)")
    assert b"* 1 FETCH (FLAGS (\\Recent \\Deleted" in await idle.settle()
    await other.ok("EXPUNGE")
    assert b"* 1 EXPUNGE\r\n" in await idle.settle()
    idle.send(b"done\r\n")
    assert b"a OK" in await idle.settle()


@on_desk
async def test_anything_but_done_ends_idle_badly(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    talk.send(b"a IDLE\r\nb NOOP\r\n")
    assert b"a BAD" in await talk.settle()
    await talk.ok("NOOP")


@on_desk
async def test_many_bad_commands_in_a_row_end_the_session(desk: Desk) -> None:
    talk = desk.talk()
    for _ in range(19):
        await talk.bad("HELO example.org")
    await talk.ok("NOOP")
    for number in range(20):
        talk.send(b"x%d GET / HTTP/1.1\r\n" % number)
    said = await talk.settle()
    assert b"* BYE" in said
    assert talk.conn.closing


@on_desk
async def test_timeouts_and_shutdown_say_bye(desk: Desk) -> None:
    talk = await desk.user("INBOX")
    talk.send(b"i IDLE\r\n")
    talk.conn.shutdown()
    assert b"* BYE Server is stopping\r\n" in await talk.settle()
    assert talk.transport.closed
    talk = desk.talk()
    talk.conn._session.timed_out()  # type: ignore[union-attr]  # what the wheel calls
    assert b"* BYE" in await talk.settle()
    assert talk.transport.closed


@on_desk
async def test_a_peer_that_sends_no_more_gets_its_answers(desk: Desk) -> None:
    await desk.fill(1)
    talk = await desk.user("INBOX")
    talk.send(b"a STORE 1 +FLAGS (\\Seen)\r\nb NOOP\r\n")
    talk.conn.eof_received()
    said = await talk.settle()
    while not talk.transport.closed:
        said += await talk.settle()
    assert b"b OK" in said


@on_desk
async def test_too_many_sessions_of_one_user(desk: Desk) -> None:
    talks = [await desk.user() for _ in range(100)]
    talk = desk.talk()
    await talk.no(f'LOGIN {USER} "{PASSWORD}"')
    assert b"[UNAVAILABLE]" in talk.tagged or b"[LIMIT]" in talk.tagged
    await talks[0].hang_up()
    await talk.ok(f'LOGIN {USER} "{PASSWORD}"')
