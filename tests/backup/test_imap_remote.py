"""Another IMAP server, read and written: a real Dovecot, our own server, and scripted ones where those are too good."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from mailkeep.backup.imap_remote import Appended, Facts, ImapConnection, Pool, RemoteMailbox
from mailkeep.backup.pace import Limits, Pace
from mailkeep.backup.quirks import Quirks
from mailkeep.errors import ProtocolError, RemoteError, Unreachable, Untrusted
from mailkeep.mail.numset import NumSet
from mailkeep.testing import Break, Faulty, Proxy
from mailkeep.wire import imap_command as command
from tests.backup.connecting import HOST, Bodies, connect, run, settings
from tests.dovecot import Dovecot
from tests.messages import corpus, numbered
from tests.programs import free_ports
from tests.server import Server


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("ours")
    users = {f"{name}@example.org": "secret" for name in ("all", "sync", "append", "idle")}
    with Server(root / "data", users=users, doors=("imap", "imaps")) as server:
        yield server


class Peer:
    """A good server, whichever."""

    def __init__(self, port: int, password: str, prefix: str) -> None:
        self.port, self.password, self._prefix = port, password, prefix

    async def connect(self, user: str, **changes: Any) -> ImapConnection:
        name = f"{self._prefix}{user}@example.org"
        return await connect(self.port, user=name, password=self.password, **changes)


@pytest.fixture(params=["dovecot", "ours"])
def peer(request: pytest.FixtureRequest) -> Peer:
    if request.param == "ours":
        return Peer(request.getfixturevalue("ours").port("imap"), "secret", "")
    dovecot: Dovecot = request.getfixturevalue("dovecot")
    return Peer(dovecot.imap, dovecot.password, "c-")


async def put(connection: ImapConnection, mail: list[bytes], mailbox: str = "INBOX", **options: Any) -> list[int]:
    futures = [await connection.append(mailbox, data, **options) for data in mail]
    uids = []
    for future in futures:
        appended = await future
        assert appended.uid is not None
        uids.append(appended.uid)
    return uids


async def facts_of(connection: ImapConnection, uids: NumSet, **options: Any) -> list[Facts]:
    return [one async for part in connection.facts(uids, **options) for one in part]


def by_name(listed: list[RemoteMailbox]) -> dict[str, RemoteMailbox]:
    found = {each.name: each for each in listed}
    assert len(found) == len(listed)
    return found


def test_all_that_is_there(peer: Peer, tmp_path: Path) -> None:
    """Names, facts and bytes of every ugly message that we have, put there by ourselves."""
    mail = [data for _, data in corpus() if b"\0" not in data and len(data) < 2_000_000]

    async def work() -> None:
        connection = await peer.connect("all")
        name = "Bücher & mehr/日本語 🦊"
        await connection.run(command.Create(name))
        date = 1_700_000_000
        uids = await put(connection, mail, name, flags=("\\Seen", "$Forwarded"), internaldate=date)
        listed = by_name(await connection.list_mailboxes(status=True))
        box = listed[name]
        assert (box.selectable, box.separator) == (True, "/")
        assert box.status is not None
        assert (box.status["MESSAGES"], box.status["UIDNEXT"]) == (len(mail), max(uids) + 1)
        assert listed["Sent"].special_use == "\\Sent"
        assert listed["INBOX"].status is not None
        selected = await connection.select(name)
        assert selected.read_only
        assert selected.uidvalidity == box.status["UIDVALIDITY"]
        assert (selected.exists, selected.uidnext) == (len(mail), max(uids) + 1)
        assert list(await connection.uids()) == uids
        facts = await facts_of(connection, NumSet.of(uids), envelope=True)
        assert [one.uid for one in facts] == uids
        assert {one.flags for one in facts} == {frozenset(("\\Seen", "$Forwarded"))}
        assert {one.internaldate for one in facts} == {date}
        assert [one.size for one in facts] == [len(data) for data in mail]
        assert all("ENVELOPE" in one.values for one in facts)
        got = await Bodies().fetch(connection, uids, tmp_path)
        assert got.problems == {}
        assert [got.data[uid] for uid in uids] == mail
        await connection.logout()

    run(work)


def test_what_changed_since(peer: Peer) -> None:
    async def work() -> None:
        connection = await peer.connect("sync")
        uids = await put(connection, [numbered(n) for n in range(30)])
        assert connection.has("QRESYNC")
        before = await connection.select("INBOX")
        assert before.highestmodseq is not None
        assert before.vanished is None
        other = await peer.connect("sync")
        await other.select("INBOX", writable=True)
        some = NumSet.of(uids[:3])
        await other.run(command.Store(True, some, "+", False, ("\\Flagged",)))
        await other.run(command.Store(True, NumSet.of(uids[5:8]), "+", True, ("\\Deleted",)))
        await other.run(command.Expunge())
        await connection.unselect()
        now = await connection.select("INBOX", since=(before.uidvalidity, before.highestmodseq, NumSet.of(uids)))
        assert now.vanished is not None
        assert [uid for uid in uids if uid in now.vanished] == uids[5:8]
        assert {uid: flags for uid, flags, _ in now.changed} == dict.fromkeys(uids[:3], frozenset(("\\Flagged",)))
        assert now.exists == 27
        changed = await facts_of(connection, NumSet(((1, now.uidnext),)), changed_since=before.highestmodseq)
        assert [one.uid for one in changed] == uids[:3]
        assert list(await connection.uids()) == uids[:5] + uids[8:]
        parts = [part async for part in connection.listing(NumSet(((1, now.uidnext),)))]
        assert [uid for part in parts for uid in part.uids] == uids[:5] + uids[8:]
        flagged = [part.flagsets[index] for part in parts for index in part.flags]
        assert flagged[:4] == [frozenset(("\\Flagged",))] * 3 + [frozenset()]
        stale = await connection.select("INBOX", since=(before.uidvalidity + 7, before.highestmodseq, None))
        assert not stale.changed
        for each in (connection, other):
            await each.logout()

    run(work)


def test_idle_hears_of_news_and_of_their_lack(peer: Peer) -> None:
    async def work() -> None:
        connection, other = await peer.connect("idle"), await peer.connect("idle")
        await connection.select("INBOX")
        waiting = asyncio.ensure_future(connection.idle(50))
        await put(other, [numbered(1)])
        assert await waiting
        await connection.run(command.Noop())
        assert not await connection.idle(0.05)
        assert not await connection.idle(0)
        assert connection.alive
        await connection.logout()
        await other.logout()

    run(work)


def test_notify_hears_of_other_mailboxes(dovecot: Dovecot) -> None:
    async def work() -> None:
        peer = Peer(dovecot.imap, dovecot.password, "c-")
        connection, other = await peer.connect("notify"), await peer.connect("notify")
        await connection.select("INBOX")
        assert await connection.notify()
        while await connection.idle(0.05):  # how all mailboxes are now
            pass
        waiting = asyncio.ensure_future(connection.idle(50))
        await put(other, [numbered(1)], "Archive")
        assert await waiting
        assert connection.alive
        for each in (connection, other):
            await each.logout()

    run(work)


def test_appends_of_all_sizes(peer: Peer, tmp_path: Path) -> None:
    large = numbered(5, size=6_000_000)
    mail = [numbered(n, size=n * 900) for n in range(150)] + [large, b"x", numbered(6)]

    async def work() -> None:
        connection = await peer.connect("append")
        uids = await put(connection, mail)
        pieces = await (await connection.append("INBOX", [large[:100], large[100:]]))
        assert pieces.uid is not None
        await connection.select("INBOX")
        got = await Bodies().fetch(connection, [*uids, pieces.uid], tmp_path)
        assert [got.data[uid] for uid in uids] == mail
        assert got.data[pieces.uid] == large
        refused = await connection.append("No such mailbox", numbered(7, size=100_000))
        after = await connection.append("INBOX", numbered(8))
        with pytest.raises(RemoteError) as caught:
            await refused
        assert caught.value.code == "TRYCREATE"
        assert (await after).uid
        await connection.logout()

    run(work)


@pytest.mark.parametrize("literals", ["LITERAL+", "LITERAL-", ""])
def test_appends_whose_literals_wait_and_those_that_do_not(literals: str) -> None:
    with Faulty() as server:
        kept = tuple(name for name in server.faults.capabilities if not name.startswith("LITERAL"))
        server.change(capabilities=(*kept, literals) if literals else kept, append_max=50_000)
        mail = [numbered(n, size=n * 500) for n in range(40)]

        async def work() -> None:
            connection = await connect(server.port)
            futures = [await connection.append("INBOX", data) for data in (*mail, numbered(99, size=60_000))]
            assert [(await future).uid for future in futures[:-1]] == list(range(1, 41))
            with pytest.raises(RemoteError):
                await futures[-1]
            later = await (await connection.append("INBOX", numbered(100)))
            assert later.uid == 41
            await connection.logout()

        run(work)
        assert [message.data for message in server.mailboxes["INBOX"].messages.values()] == [*mail, numbered(100)]


def test_appends_on_a_line_that_is_cut_all_learn_of_it() -> None:
    with Faulty(breaks=(Break(rb"APPEND", nth=5),)) as server:

        async def work() -> None:
            connection = await connect(server.port)
            futures = [await connection.append("INBOX", numbered(n, size=5000)) for n in range(30)]
            ended = await asyncio.gather(*futures, return_exceptions=True)
            # A reset may overtake the answers to the first four.
            assert all(isinstance(each, Unreachable) for each in ended[4:])
            assert all(isinstance(each, Appended | Unreachable) for each in ended[:4])

        run(work)


# --- TLS and compression against a real server ---


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dovecot, int, str]]:
    """A Dovecot with STARTTLS, a TLS port and COMPRESS; its authority's file."""
    root = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    authority.cert_pem.write_to_path(str(root / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(root / "key.pem"))
    (root / "cert.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    port = free_ports(1)[0]
    extra = f"""
ssl = yes
ssl_cert = <{root}/cert.pem
ssl_key = <{root}/key.pem
disable_plaintext_auth = yes
mail_plugins = zlib
protocol imap {{
  mail_plugins = zlib imap_zlib
}}
service imap-login {{
  inet_listener imaps {{
    port = {port}
    ssl = yes
  }}
}}
"""
    with Dovecot(extra=extra) as dovecot:
        yield dovecot, port, str(root / "ca.pem")


@pytest.mark.parametrize("tls", ["tls", "starttls"])
@pytest.mark.parametrize("compress", [False, True])
def test_tls_and_compression(secured: tuple[Dovecot, int, str], tls: str, compress: bool, tmp_path: Path) -> None:
    dovecot, imaps, ca = secured
    port = imaps if tls == "tls" else dovecot.imap
    mail = [numbered(n, size=20_000) for n in range(200)]

    async def work() -> None:
        user = f"{tls}{compress}"
        options: dict[str, Any] = {"tls": tls, "ca": ca, "user": user, "compress": compress}
        connection = await connect(port, **options)
        assert connection.compressed is compress
        uids = await put(connection, mail)
        await connection.select("INBOX")
        before = connection.bytes_in
        got = await Bodies().fetch(connection, uids, tmp_path)
        assert [got.data[uid] for uid in uids] == mail
        moved = connection.bytes_in - before
        assert moved < 1_000_000 if compress else moved > 4_000_000
        await connection.logout()
        with pytest.raises(Untrusted):
            await connect(port, **{**options, "ca": None})

    run(work)


def test_our_own_server_over_starttls(ours: Server) -> None:
    """Its certificate is of its own making, so it is trusted by that file alone."""

    async def work() -> None:
        with pytest.raises(Untrusted, match="certificate"):
            await connect(ours.port("imaps"), tls="tls", user="all@example.org")

    run(work)


# --- servers that are not so good ---


def test_names_where_list_has_no_extensions() -> None:
    with Faulty("domino") as server:
        server.create("Müll\\unten")

        async def work() -> None:
            connection = await connect(server.port)
            listed = by_name(await connection.list_mailboxes(status=True))
            assert listed["Müll\\unten"].separator == "\\"
            assert set(listed) == set(server.mailboxes)
            assert all(each.status is not None and each.subscribed for each in listed.values())
            await connection.logout()

        run(work)


def test_a_server_that_hangs_up_on_many_commands_is_asked_one_by_one() -> None:
    kept = ("IMAP4rev1", "AUTH=PLAIN")
    with Faulty(pipeline_max=4, capabilities=kept) as server:
        for n in range(20):
            server.create(f"box{n}")

        async def work() -> None:
            connection = await connect(server.port)
            listed = by_name(await connection.list_mailboxes(status=True))
            assert all(each.status for each in listed.values())
            assert server.connections == 2
            again = await connect(server.port)
            again.pace = Pace(Limits(), connection.pace.dump())
            assert again.pace.pipeline(connection.clock.now()) == 1
            for each in (connection, again):
                await each.logout()

        run(work)


def test_gmail_as_it_lists_itself() -> None:
    with Faulty("gmail") as server:
        server.mailboxes["INBOX"].add(numbered(1))

        async def work() -> None:
            connection = await connect(server.port)
            listed = by_name(await connection.list_mailboxes(status=True))
            assert not listed["[Gmail]"].selectable
            assert listed["[Gmail]"].status is None
            assert listed["[Gmail]/Alle Nachrichten"].special_use == "\\All"
            await connection.select("[Gmail]/Alle Nachrichten")
            items = ("X-GM-MSGID", "X-GM-THRID", "X-GM-LABELS")
            (one,) = await facts_of(connection, NumSet(((1, 9),)), items=items)
            assert set(one.values) == set(items)
            assert one.values["X-GM-LABELS"] == ("\\Inbox",)
            await connection.logout()

        run(work)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_search_that_leaves_some_out_is_not_believed(trusted: bool) -> None:
    with Faulty(search_drops=7) as server:
        uids = [server.mailboxes["INBOX"].add(numbered(n)).uid for n in range(100)]

        async def work() -> None:
            connection = await connect(server.port, quirks=Quirks(trust_search=trusted))
            assert len(await connection.uids()) == 0  # nothing is selected
            await connection.select("INBOX")
            assert list(await connection.uids()) == uids
            await connection.logout()

        run(work)


@pytest.mark.parametrize("kind", ["gmail", "exchange", "yahoo", "icloud", "domino"])
def test_every_kind_gives_all_its_mail(kind: str, tmp_path: Path) -> None:
    from mailkeep.backup.quirks import quirks_for
    from mailkeep.backup.settings import Token
    from mailkeep.secret import Secret

    with Faulty(kind, busy=(), breaks=(), login_unavailable=0, not_connected=0, uidvalidity_lasts=None) as server:
        mail = {server.mailboxes["INBOX"].add(numbered(n)).uid: numbered(n) for n in range(150)}

        async def work() -> None:
            provider = {"exchange": "o365"}.get(kind, kind)
            quirks = quirks_for(settings(server.port, provider=provider))
            options: dict[str, Any] = {"provider": provider, "quirks": quirks}
            try:
                connection = await connect(server.port, **options)
            except RemoteError:
                connection = await connect(server.port, secret=Token(Secret("token")), **options)
            await connection.select("INBOX")
            assert list(await connection.uids()) == list(mail)
            got = await Bodies().fetch(connection, list(mail), tmp_path)
            assert got.data == mail
            await connection.logout()

        run(work)


def test_without_idle_it_asks_now_and_then() -> None:
    with Faulty(capabilities=("IMAP4rev1", "AUTH=PLAIN")) as server:

        async def work() -> None:
            connection = await connect(server.port)
            await connection.select("INBOX")
            server.mailboxes["INBOX"].add(numbered(1))
            assert await connection.idle(600)
            await connection.logout()

        run(work)


def test_a_server_that_ends_idle_itself() -> None:
    with Faulty(bye_on_idle=True) as server:

        async def work() -> None:
            connection = await connect(server.port)
            await connection.select("INBOX")
            with pytest.raises(Unreachable):
                await connection.idle(20)

        run(work)


def test_answers_that_would_fill_the_memory_are_refused() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* PREAUTH [CAPABILITY IMAP4rev1 ESEARCH] hi\r\n")
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                tag = line.split()[0]
                if b"EXAMINE" in line:
                    writer.write(b"* 3 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 9] x\r\n")
                if b"SEARCH" in line:
                    writer.write(b'* ESEARCH (TAG "%b") UID ALL 1:4294967295\r\n' % tag)
                writer.write(tag + b" OK\r\n")
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(script, HOST, 0)
        try:
            connection = await connect(server.sockets[0].getsockname()[1])
            await connection.select("INBOX")
            with pytest.raises(ProtocolError, match="more messages than there are"):
                await connection.uids()
            connection.abort()
        finally:
            server.close()

    run(work)


def peered(answers: dict[bytes, bytes], work: Callable[[ImapConnection], Awaitable[None]]) -> None:
    """A server that has one answer for each command."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* PREAUTH [CAPABILITY IMAP4rev1 CONDSTORE] hi\r\n")
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                for word, told in answers.items():
                    if word in line:
                        for _ in range(1 if len(told) < 1 << 20 else 1000):
                            writer.write(told)
                            await writer.drain()
                writer.write(line.split()[0] + b" OK\r\n")
        writer.close()

    async def both() -> None:
        server = await asyncio.start_server(script, HOST, 0)
        try:
            connection = await connect(server.sockets[0].getsockname()[1])
            await work(connection)
            connection.abort()
        finally:
            server.close()

    run(both)


def test_numbers_that_cannot_be_are_as_if_not_said() -> None:
    told = b"* OK [UIDVALIDITY 4294967296] x\r\n* OK [UIDNEXT 9999999999999999999] x\r\n"
    told += b"* OK [HIGHESTMODSEQ 9223372036854775808] x\r\n* OK [UIDVALIDITY -1] x\r\n"
    status = b"* STATUS INBOX (UIDVALIDITY 9999999999999999999 UIDNEXT 4294967297"
    status += b" HIGHESTMODSEQ 9999999999999999999)\r\n"

    async def work(connection: ImapConnection) -> None:
        selected = await connection.select("INBOX")
        assert (selected.uidvalidity, selected.uidnext, selected.highestmodseq) == (0, 0, None)
        (box,) = await connection.list_mailboxes(status=True)
        assert box.status == {}

    peered({b"EXAMINE": told, b"STATUS": status, b"LIST": b'* LIST () "/" INBOX\r\n'}, work)


def test_what_nobody_asked_for_is_not_gathered() -> None:
    body = b"* 1 FETCH (UID 1 FLAGS () BODY[] {1048576}\r\n%b)\r\n" % bytes(1 << 20)
    other = b'* LIST () "/" %b\r\n' % (b"x" * 7000) * 200

    async def listing(connection: ImapConnection) -> None:
        seen = 0
        async for part in connection.facts(NumSet(((1, 9),))):
            seen += len(part)
            assert len(part) < 100  # a slice ends by its octets too
        assert seen == 1000

    async def gathered(connection: ImapConnection) -> None:
        with pytest.raises(ProtocolError, match="without end"):
            await connection.run(command.Noop())

    peered({b"FETCH": body}, listing)
    peered({b"NOOP": other}, gathered)


def test_a_long_listing_comes_in_slices_and_waits_for_the_reader() -> None:
    count = 30_000

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n")
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                if b"FETCH" in line:
                    flags = (b"", b"\\Seen", b"\\Seen $Label1")
                    lines = [
                        b"* %d FETCH (UID %d FLAGS (%b))\r\n" % (n, n * 2, flags[n % 3]) for n in range(1, count + 1)
                    ]
                    writer.write(b"".join(lines))
                writer.write(line.split()[0] + b" OK done\r\n")
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(script, HOST, 0)
        try:
            connection = await connect(server.sockets[0].getsockname()[1])
            seen: list[int] = []
            async for part in connection.listing(NumSet(((1, 1 << 31),))):
                assert len(part.uids) == len(part.flags) == len(part.modseqs) <= 5000
                assert len(part.flagsets) == 3
                seen += part.uids
            assert seen == list(range(2, count * 2 + 1, 2))
            connection.abort()
        finally:
            server.close()

    run(work)


# --- several connections ---


def test_a_long_line_gets_more_connections(tmp_path: Path) -> None:
    with Faulty() as server, Proxy((HOST, server.port), delay_ms=12) as proxy:
        mail = {server.mailboxes["INBOX"].add(data).uid: data for data in map(numbered, range(3300))}

        async def work() -> None:
            pace = Pace(Limits(connections=3, depth=1))

            async def open_one() -> ImapConnection:
                connection = await connect(proxy.port)
                connection.pace = pace
                return connection

            async with Pool(open_one, pace) as pool:
                assert pool.size == 1
                async with pool.connection() as connection:
                    assert connection.compressed
                    await connection.select("INBOX")
                    assert pool.size == 3
                    got = await Bodies().fetch(connection, list(mail), tmp_path)
                    assert got.data == mail
                assert proxy.connections == 3

        run(work)


def test_a_server_that_allows_fewer_connections_gets_fewer(tmp_path: Path) -> None:
    with Faulty(connections_max=1) as server, Proxy((HOST, server.port), delay_ms=12) as proxy:
        mail = {server.mailboxes["INBOX"].add(data).uid: data for data in map(numbered, range(1300))}

        async def work() -> None:
            pace = Pace()
            async with Pool(lambda: connect(proxy.port), pace) as pool, pool.connection() as connection:
                await connection.select("INBOX")
                got = await Bodies().fetch(connection, list(mail), tmp_path)
                assert got.data == mail
            assert pace.connections < 4

        run(work)


def test_a_pool_replaces_what_is_broken() -> None:
    with Faulty() as server:

        async def work() -> None:
            async with Pool(lambda: connect(server.port), Pace(Limits(connections=1))) as pool:
                async with pool.connection() as first:
                    first.abort()
                async with pool.connection() as second:
                    assert second.alive
                waiting = []
                async with pool.connection():
                    waiting.append(asyncio.ensure_future(pool._get()))
                    await asyncio.sleep(0)
                    assert not waiting[0].done()
                assert (await waiting[0]) is second
                await pool._put(second)

        run(work)
        assert server.connections == 2


def test_a_context_of_tls_is_never_one_that_does_not_check() -> None:
    from mailkeep.backup.stream import _context

    made = _context(None)
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version >= ssl.TLSVersion.TLSv1_2
