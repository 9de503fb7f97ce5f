"""Into an IMAP server: certificates, STARTTLS, mechanisms, refusals; one log-in and no more."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme

from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Token
from mailkeep.errors import (
    BadCredentials,
    MailkeepError,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    TlsRequired,
    Unreachable,
    Untrusted,
)
from mailkeep.secret import Secret
from mailkeep.testing import Faulty
from tests.backup.connecting import HOST, connect, run, tls_context


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    return tls_context(authority)


def into(port: int, **connecting: Any) -> frozenset[str]:
    """Log in and out; the capabilities."""
    told: list[frozenset[str]] = []

    async def work() -> None:
        connection = await connect(port, **connecting)
        told.append(connection.capabilities)
        await connection.logout()

    run(work)
    return told[0]


def refused(error: type[MailkeepError], match: str, port: int, **connecting: Any) -> MailkeepError:
    with pytest.raises(error, match=match) as caught:
        into(port, **connecting)
    assert type(caught.value) is error
    assert "secret" not in caught.value.text
    return caught.value


@pytest.mark.parametrize("tls", ["tls", "starttls"])
def test_over_tls(tls: str, context: ssl.SSLContext, ca: str) -> None:
    with Faulty(**{tls: context}) as server:
        assert "IDLE" in into(server.port, tls=tls, ca=ca)
        refused(Untrusted, "certificate of 127.0.0.1 does not hold", server.port, tls=tls)
        assert len(server.commands(rb"AUTHENTICATE|LOGIN")) == 1


def test_a_server_without_starttls_gets_no_password() -> None:
    with Faulty() as server:
        refused(Untrusted, "does not offer STARTTLS", server.port, tls="starttls")
        assert not server.commands(rb"AUTHENTICATE|LOGIN")


def test_a_wrong_password_is_tried_once() -> None:
    with Faulty() as server:
        quirks = Quirks(password_help="Make an app password at https://example.org/app")
        refused(BadCredentials, r"refused the log-in of ann@example\.org: .*\. Make an app", server.port, password="x",
                quirks=quirks)  # fmt: skip
        assert len(server.commands(rb"AUTHENTICATE|LOGIN")) == 1


def test_a_server_that_cannot_check_passwords_now_is_no_refusal() -> None:
    with Faulty(login_unavailable=1) as server:
        refused(RemoteBusy, "UNAVAILABLE", server.port)
        into(server.port)


def test_tokens(context: ssl.SSLContext, ca: str) -> None:
    with Faulty(password_login=False, tls=context) as server:
        into(server.port, secret=Token(Secret("token")), tls="tls", ca=ca)
        assert server.commands(rb"AUTHENTICATE (OAUTHBEARER|XOAUTH2)")
        refused(BadCredentials, "refused the log-in", server.port, secret=Token(Secret("old")), tls="tls", ca=ca)
        assert len(server.commands(rb"AUTHENTICATE")) == 2


def test_a_server_that_takes_tokens_and_does_not_say_so() -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n"
    heard = told(BadCredentials, "no", greeting, b"%t NO no\r\n", secret=Token(Secret("token")))
    assert b"AUTHENTICATE XOAUTH2" in heard[0]


def test_a_secret_is_asked_for_when_it_is_needed() -> None:
    asked = []

    async def secret() -> Token:
        asked.append(1)
        return Token(Secret("token"))

    with Faulty() as server:
        into(server.port, secret=secret)
        assert asked == [1]


def test_capabilities_are_asked_for_again_after_the_log_in() -> None:
    with Faulty("gmail") as server:
        assert {"X-GM-EXT-1", "COMPRESS=DEFLATE"} <= into(server.port)
    with Faulty(capabilities=("IMAP4rev1", "AUTH=PLAIN"), tells_capabilities=False) as server:
        assert into(server.port) == {"IMAP4REV1", "AUTH=PLAIN"}


@pytest.mark.parametrize("kind", ["gmail", "exchange", "yahoo", "icloud", "domino", "plain"])
def test_every_kind_lets_us_in(kind: str) -> None:
    with Faulty(kind, login_unavailable=0, not_connected=0) as server:
        try:
            into(server.port)
        except RemoteError:  # tokens only
            into(server.port, secret=Token(Secret("token")))


def test_a_server_that_bears_one_command_at_a_time_is_found_out() -> None:
    with Faulty(pipeline_max=1) as server:
        into(server.port)
        assert server.connections == 2


# --- servers of a few lines ---

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def scripted(script: Script, work: Callable[[int], Awaitable[None]]) -> None:
    async def both() -> None:
        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await script(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(guarded, HOST, 0)
        try:
            await work(server.sockets[0].getsockname()[1])
        finally:
            server.close()

    run(both)


def lines(*steps: bytes) -> tuple[Script, list[bytes]]:
    """A server that says the first step, and each next one after a line; `%t` is the line's tag."""
    heard: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(steps[0])
        for step in steps[1:]:
            heard.append(await reader.readuntil(b"\r\n"))
            writer.write(step.replace(b"%t", heard[-1].split(b" ")[0]))
        await reader.read()

    return script, heard


def told(error: type[MailkeepError], match: str, *steps: bytes, **connecting: Any) -> list[bytes]:
    script, heard = lines(*steps)

    async def work(port: int) -> None:
        with pytest.raises(error, match=match) as caught:
            await connect(port, **connecting)
        assert type(caught.value) is error

    scripted(script, work)
    return heard


HELLO = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n"


@pytest.mark.parametrize(
    "echo",
    [
        b"%t BAD unknown command: LOGIN ann@example.org secret\r\n",
        b"%t NO AGFubkBleGFtcGxlLm9yZwBzZWNyZXQ= is wrong\r\n",
        b"* BYE what is LOGIN ann@example.org secret?\r\n",
        b"%t NO [UNAVAILABLE] not now, c2VjcmV0\r\n",
    ],
)
def test_a_password_that_a_server_repeats_is_not_shown(echo: bytes) -> None:
    plain = b"* OK [CAPABILITY IMAP4rev1] hi\r\n"
    script, _ = lines(plain, echo)

    async def work(port: int) -> None:
        with pytest.raises(MailkeepError, match="…") as caught:
            await connect(port)
        for secret in ("secret", "c2VjcmV0", "AGFub"):
            assert secret not in str(caught.value) + caught.value.text

    scripted(script, work)


def test_bad_said_to_a_password_is_no_word_about_the_mechanism() -> None:
    heard = told(BadCredentials, "Invalid credentials", HELLO, b"%t BAD Invalid credentials\r\n", b"%t OK\r\n")
    assert len(heard) == 1


def test_who_is_locked_out_waits_long() -> None:
    script, _ = lines(HELLO, b"%t NO [UNAVAILABLE] Too many failed login attempts, try again later\r\n")

    async def work(port: int) -> None:
        with pytest.raises(RemoteBusy) as caught:
            await connect(port)
        assert (caught.value.retry_after_s or 0) >= 3600

    scripted(script, work)


def test_a_server_that_asks_on_for_ever_is_left() -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n"
    told(ProtocolError, "asks on", greeting, b"+ \r\n", b"+ more\r\n" * 1000)


def test_greetings_that_turn_us_away() -> None:
    told(Unreachable, "does not let us in: go away", b"* BYE go away\r\n")
    told(RemoteBusy, "Too many connections", b"* BYE Too many connections from your address\r\n")
    told(ProtocolError, ".", b"220 smtp.example.org ESMTP\r\n")
    told(
        Unreachable, "cut the connection|closed", b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n* BYE\r\n", b""
    )
    told(Unreachable, r"does not answer \(0 s\)", b"", timeout_s=0.05)


def test_preauth_cannot_keep_us_from_tls() -> None:
    told(Untrusted, "TLS cannot begin", b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n", tls="starttls")


def test_words_slipped_in_behind_starttls() -> None:
    heard = told(
        ProtocolError,
        "more than one answer before TLS",
        b"* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] hi\r\n",
        b"%t OK go\r\n* OK [ALERT] believe me\r\n",
        tls="starttls",
    )
    assert len(heard) == 1


def test_a_mechanism_that_is_not_known_is_followed_by_the_next() -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 AUTH=CRAM-MD5 AUTH=PLAIN SASL-IR] hi\r\n"
    unknown = b"%t NO Unsupported authentication mechanism\r\n"
    heard = told(BadCredentials, "no such user", greeting, unknown, b"%t NO no such user\r\n")
    assert len(heard) == 2
    assert heard[0].split()[2] != heard[1].split()[2]


def test_a_refusal_is_not_followed_by_another_mechanism() -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 AUTH=PLAIN SASL-IR] hi\r\n"
    assert len(told(BadCredentials, "wrong", greeting, b"%t NO [AUTHENTICATIONFAILED] wrong\r\n", b"")) == 1


def test_logindisabled_is_obeyed() -> None:
    told(RemoteError, "takes no password", b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hi\r\n", b"")


def test_an_ok_without_the_servers_proof_is_not_believed() -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 SASL-IR] hi\r\n"
    told(Untrusted, "did not prove", greeting, b"%t OK welcome\r\n", b"")


def test_a_challenge_that_makes_no_sense_cancels() -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 SASL-IR] hi\r\n"
    heard = told(ProtocolError, ".", greeting, b"+ bm9uc2Vuc2U=\r\n", b"A1 BAD cancelled\r\n", b"")
    assert heard[1] == b"*\r\n"


def test_no_password_over_an_open_line_to_another_machine() -> None:
    async def work() -> None:
        from mailkeep.backup import imap_login
        from tests.backup.connecting import settings

        class Stream:
            host, tls, loopback = "mail.example.org", False, False

        class Link:
            host, stream = "mail.example.org", Stream()

        with pytest.raises(TlsRequired, match="open line"):
            await imap_login._log_in(Link(), settings(143), Token(Secret("token")))  # type: ignore[arg-type]

    run(work)
