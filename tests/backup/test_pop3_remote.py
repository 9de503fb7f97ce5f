"""Logging in to a POP3 server: what is sent where, and what is made of a refusal. The server is a script."""

import asyncio
import base64
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from mailkeep.backup import pop3_remote, stream
from mailkeep.backup.pop3_remote import Pop3Connection, open_pop3
from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Password, Settings, Token
from mailkeep.errors import (
    BadCredentials,
    LoginError,
    MailkeepError,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    TlsRequired,
    Unreachable,
    Untrusted,
)
from mailkeep.secret import Secret
from tests.backup.connecting import tls_context
from tests.server import Server

PASSWORD = Password(Secret("geheim"))
TLS = object()  # an answer that begins TLS
CLOSE = object()


class Script:
    """A server that answers each line by `answers`: the first word in upper case, or the whole line."""

    def __init__(
        self, answers: dict[str, Any], *, greeting: str = "+OK ready", tls: ssl.SSLContext | None = None
    ) -> None:
        self.answers = answers
        self.greeting = greeting
        self.tls = tls
        self.heard: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Its port; afterwards every connection has ended."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await asyncio.wait_for(asyncio.gather(*self.tasks), 20)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            writer.write(self.greeting.encode() + b"\r\n")
            while line := await reader.readline():
                text = line.decode().rstrip("\r\n")
                self.heard.append(text)
                answer = self.answers.get(text, self.answers.get(text.split(" ")[0].upper(), "-ERR unknown"))
                if callable(answer):
                    answer = answer(text)
                if answer is CLOSE:
                    break
                if answer is TLS:
                    writer.write(b"+OK begin\r\n")
                    await writer.drain()
                    await writer.start_tls(self.tls)
                else:
                    writer.write(answer.encode() + b"\r\n")
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    def open(self, secret: Password | Token = PASSWORD, **given: Any) -> Pop3Connection:
        """Log in to it, and out."""

        async def main() -> Pop3Connection:
            async with self.running() as port:
                settings = Settings(
                    **{"protocol": "pop3", "host": "127.0.0.1", "port": port, "user": "ann", "tls": "none"} | given
                )
                connection = await open_pop3(settings, secret, Quirks(password_help="make an app password"))
                await connection.leave()
                return connection

        return asyncio.run(main())

    def words(self) -> list[str]:
        return [line.split(" ")[0].upper() for line in self.heard]


CAPA = "+OK\r\nTOP\r\n."
GOOD = {"CAPA": CAPA, "USER": "+OK", "PASS": "+OK", "QUIT": "+OK"}


def capabilities(*lines: str) -> str:
    return "\r\n".join(["+OK", *lines, "."])


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is not this machine, as far as the address tells."""
    monkeypatch.setattr(stream.Stream, "loopback", False)


# ---- which way


def test_user_and_password() -> None:
    script = Script(GOOD)
    script.open()
    assert script.heard == ["CAPA", "USER ann", "PASS geheim", "CAPA", "QUIT"]


def test_plain_waits_for_the_challenge() -> None:
    secret = base64.b64encode(b"\0ann\0geheim").decode()
    script = Script({"CAPA": capabilities("SASL PLAIN"), "AUTH": "+ ", secret: "+OK", "QUIT": "+OK"})
    script.open()
    assert script.heard == ["CAPA", "AUTH PLAIN", secret, "CAPA", "QUIT"]


def test_a_token_goes_by_xoauth2_though_the_server_names_no_mechanism() -> None:
    secret = base64.b64encode(b"user=ann\1auth=Bearer token\1\1").decode()
    script = Script({"CAPA": CAPA, "AUTH": "+ ", secret: "+OK", "QUIT": "+OK"})
    script.open(Token(Secret("token")))
    assert script.heard[1:3] == ["AUTH XOAUTH2", secret]


def test_a_mechanism_refused_by_name_is_followed_by_user_and_password() -> None:
    script = Script({**GOOD, "CAPA": capabilities("SASL PLAIN"), "AUTH": "-ERR not here"})
    script.open()
    assert script.words() == ["CAPA", "AUTH", "USER", "PASS", "CAPA", "QUIT"]


def test_a_server_that_does_not_prove_itself_is_left() -> None:
    """SCRAM ends with the server's own proof: a +OK without it may be anybody's."""

    class Liar(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return super().get(key, "+OK come in" if default == "-ERR unknown" else default)

    script = Script(Liar({"CAPA": capabilities("SASL SCRAM-SHA-256"), "AUTH": "+ "}))
    with pytest.raises(MailkeepError):
        script.open()
    assert not any("geheim" in line for line in script.heard)


def test_our_own_server_by_scram(tmp_path: Path) -> None:
    with Server(tmp_path / "data", users={"ann@example.org": "geheim"}, doors=("pop3",)) as server:

        async def main(password: str) -> None:
            settings = Settings(
                protocol="pop3", host=server.host, port=server.port("pop3"), user="ann@example.org", tls="none"
            )
            connection = await open_pop3(settings, Password(Secret(password)), Quirks())
            assert "PIPELINING" in connection.capabilities
            drop = await connection.drop()
            assert (drop.numbers, drop.uidls) == (range(1, 1), {})
            await connection.quit()

        asyncio.run(main("geheim"))
        with pytest.raises(BadCredentials):
            asyncio.run(main("falsch"))


# ---- an open line


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("lines", [(), ("SASL PLAIN LOGIN",)])
def test_no_password_over_an_open_line(lines: tuple[str, ...]) -> None:
    script = Script({**GOOD, "CAPA": capabilities(*lines)})
    with pytest.raises(TlsRequired):
        script.open()
    assert script.words() == ["CAPA"]


@pytest.mark.usefixtures("elsewhere")
def test_apop_shows_no_password() -> None:
    digest = hashlib.md5(b"<1.2@host>geheim").hexdigest()
    script = Script({**GOOD, "APOP": "+OK"}, greeting="+OK ready <1.2@host>")
    script.open()
    assert script.heard == ["CAPA", f"APOP ann {digest}", "CAPA", "QUIT"]


# ---- TLS


def test_stls(authority: trustme.CA, ca: str) -> None:
    script = Script({**GOOD, "STLS": TLS}, tls=tls_context(authority))
    script.open(tls="starttls", ca=ca)
    assert script.words() == ["CAPA", "STLS", "CAPA", "USER", "PASS", "CAPA", "QUIT"]


def test_stls_refused_or_stripped_sends_nothing(ca: str) -> None:
    script = Script({**GOOD, "STLS": "-ERR no TLS"})
    with pytest.raises(TlsRequired, match="nothing was sent"):
        script.open(tls="starttls", ca=ca)
    assert script.words() == ["CAPA", "STLS"]


def test_a_bad_certificate_sends_nothing(authority: trustme.CA, ca: str) -> None:
    script = Script({**GOOD, "STLS": TLS}, tls=tls_context(authority, "other.example.org"))
    with pytest.raises(Untrusted):
        script.open(tls="starttls", ca=ca)
    assert script.words() == ["CAPA", "STLS"]


def test_words_slipped_in_before_tls(authority: trustme.CA, ca: str) -> None:
    script = Script({**GOOD, "STLS": "+OK begin\r\n+OK I am the server"}, tls=tls_context(authority))
    with pytest.raises(ProtocolError):
        script.open(tls="starttls", ca=ca)
    assert script.words() == ["CAPA", "STLS"]


# ---- refusals


REFUSALS = {
    "-ERR no": BadCredentials,
    "-ERR [AUTH] PASS": BadCredentials,
    "-ERR [IN-USE] locked": RemoteBusy,
    "-ERR [LOGIN-DELAY] wait": RemoteBusy,
    "-ERR [SYS/TEMP] later": RemoteBusy,
    "-ERR [SYS/PERM] your account is suspended": RemoteError,
    "-ERR maildrop already locked": RemoteBusy,
    "-ERR Too many connections": RemoteBusy,
}


@pytest.mark.parametrize("reply", REFUSALS)
@pytest.mark.parametrize("at", ["PASS", "AUTH"])
def test_refused_once_is_refused(reply: str, at: str) -> None:
    secret = base64.b64encode(b"\0ann\0geheim").decode()
    answers = {**GOOD, "PASS": reply}
    if at == "AUTH":
        answers = {**GOOD, "CAPA": capabilities("SASL PLAIN"), "AUTH": "+ ", secret: reply}
    script = Script(answers)
    with pytest.raises(MailkeepError) as caught:
        script.open()
    assert type(caught.value) is REFUSALS[reply]
    assert "geheim" not in caught.value.text
    if isinstance(caught.value, LoginError):
        assert caught.value.text.endswith("make an app password")
    assert sum(line in ("PASS geheim", secret) for line in script.heard) == 1


def test_a_password_that_the_server_repeats_is_not_shown() -> None:
    for reply in ("-ERR unknown command PASS geheim", "-ERR [SYS/TEMP] geheim? try later"):
        with pytest.raises(MailkeepError, match="…") as caught:
            Script({**GOOD, "PASS": reply}).open()
        assert "geheim" not in caught.value.text + str(caught.value)


def test_a_greeting_that_is_a_refusal() -> None:
    with pytest.raises(RemoteBusy, match="too busy"):
        Script({}, greeting="-ERR too busy").open()


@pytest.mark.parametrize("at", ["CAPA", "USER", "PASS"])
def test_cut(at: str) -> None:
    with pytest.raises(Unreachable):
        Script({**GOOD, at: CLOSE}).open()


def test_what_is_no_pop3() -> None:
    with pytest.raises(ProtocolError):
        Script({}, greeting="* OK IMAP4rev1 ready").open()


# ---- listings


def listing(answers: dict[str, Any], check: Callable[[Pop3Connection], Any], **given: Any) -> Any:
    script = Script({**GOOD, **answers})

    async def main() -> Any:
        async with script.running() as port:
            settings = Settings(protocol="pop3", host="127.0.0.1", port=port, user="ann", tls="none")
            connection = await open_pop3(settings, PASSWORD, Quirks())
            try:
                return await check(connection)
            finally:
                connection.abort()

    return asyncio.run(main())


def test_lists_that_do_not_fit_together() -> None:
    drop = listing(
        {"STAT": "+OK 5 100", "LIST": "+OK\r\n1 10\r\njunk\r\n4 40\r\n.", "UIDL": "+OK\r\n1 a\r\n3 c\r\n."},
        lambda connection: connection.drop(),
    )
    assert list(drop.numbers) == [1, 4]
    assert drop.uidls == {1: b"a", 3: b"c"}
    assert drop.notes == ("STAT counts 5 messages, LIST 2",)


def test_no_list_and_no_uidl() -> None:
    drop = listing({"STAT": "+OK 2 100"}, lambda connection: connection.drop())
    assert (list(drop.numbers), drop.sizes, drop.uidls) == ([1, 2], {}, None)


def test_a_count_that_cannot_be() -> None:
    with pytest.raises(ProtocolError):
        listing({"STAT": "+OK 99999999999 1"}, lambda connection: connection.drop())


def test_a_listing_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pop3_remote, "LISTING_MAX", 10_000)
    with pytest.raises(ProtocolError, match="without end"):
        listing({"STAT": "+OK 1 1", "LIST": "+OK\r\n" + "1 10\r\n" * 10_000}, lambda connection: connection.drop())
