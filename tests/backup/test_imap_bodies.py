"""Bodies from servers that refuse, forget, lie and hang up: each UID comes out once, with bytes or with a reason."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from mailkeep.backup.imap_bodies import READY_MAX, RunPaused, forms_for
from mailkeep.backup.imap_remote import ImapConnection
from mailkeep.backup.pace import Limits
from mailkeep.backup.quirks import Quirks
from mailkeep.errors import BadCredentials, RemoteBusy, RemoteError, StoreFull, Unreachable
from mailkeep.store.staging import Staging
from mailkeep.testing import Break, Busy, Cut, Faulty, Ill, Proxy
from tests.backup.connecting import HOST, Bodies, Time, connect, run
from tests.messages import numbered


def fill(server: Faulty, count: int, *, size: int = 300, ill: dict[int, Ill] | None = None) -> dict[int, bytes]:
    """Messages by UID; those in `ill` (by number, from 1) are ill."""
    box = server.mailboxes["INBOX"]
    return {box.add(data, ill=(ill or {}).get(n)).uid: data for n, data in numbers(count, size)}


def numbers(count: int, size: int) -> list[tuple[int, bytes]]:
    return [(n, numbered(n, size=size)) for n in range(1, count + 1)]


def fetch(
    server: Faulty | Proxy, uids: Any, tmp: Path, *, options: dict[str, Any] | None = None, **connecting: Any
) -> tuple[Bodies, ImapConnection]:
    got, made = Bodies(), []

    async def work() -> None:
        connection = await connect(server.port, **connecting)
        made.append(connection)
        await connection.select("INBOX")
        await got.fetch(connection, list(uids), tmp, **(options or {}))
        await connection.logout()

    run(work)
    return got, made[0]


def test_windows_in_the_order_given(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 700)
        newest_first = sorted(mail, reverse=True)
        got, connection = fetch(server, newest_first, tmp_path)
        assert got.data == mail
        # The first windows are of 50; within one the server's order.
        assert set(got.order[:50]) == set(newest_first[:50])
        assert got.order[:50] == sorted(newest_first[:50])
        assert connection.pace.window == 200
        body = got.all[newest_first[0]]
        assert (body.size, body.flags, body.detail) == (len(mail[body.uid]), frozenset(), None)
        assert body.internaldate is not None
        assert body.modseq is not None


def test_a_large_message_goes_into_the_staging(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 3)
        large = numbered(9, size=5_000_000)
        mail[server.mailboxes["INBOX"].add(large).uid] = large
        got, _ = fetch(server, mail, tmp_path)
        assert got.data == mail
        assert isinstance(got.all[max(mail)].data, Staging)


def test_a_message_larger_than_allowed_is_not_taken(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 5)
        uid = server.mailboxes["INBOX"].add(numbered(9, size=3_000_000)).uid
        after = server.mailboxes["INBOX"].add(numbered(10)).uid
        got, _ = fetch(server, [*mail, uid, after], tmp_path, options={"size_max": 2_000_000})
        assert got.problems == {uid: "too large"}
        assert got.data == {**mail, after: numbered(10)}


@pytest.mark.parametrize("kind", ["nil", "empty", "missing", "no", "bad"])
def test_one_ill_message_costs_only_itself(kind: Any, tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 60, ill={17: Ill(kind)})
        got, _ = fetch(server, mail, tmp_path)
        uid = sorted(mail)[16]
        assert got.problems == {uid: "failed" if kind in ("no", "bad") else "empty"}
        assert got.data == {each: data for each, data in mail.items() if each != uid}


@pytest.mark.parametrize("kind", ["nil", "missing", "no"])
@pytest.mark.parametrize("well", ["RFC822", "parts"])
def test_an_ill_message_is_had_in_other_words(kind: Any, well: str, tmp_path: Path) -> None:
    items = frozenset(("BODY[]",) if well == "RFC822" else ("BODY[]", "RFC822"))
    with Faulty() as server:
        mail = fill(server, 30, ill={4: Ill(kind, items)})
        got, _ = fetch(server, mail, tmp_path)
        assert got.data == mail
        assert got.all[sorted(mail)[3]].detail == ("fetched by parts" if well == "parts" else None)


def test_an_ill_message_that_recovers(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 30, ill={4: Ill("no", times=2), 20: Ill("nil", times=1)})
        got, _ = fetch(server, mail, tmp_path)
        assert got.data == mail


@pytest.mark.parametrize("kind", ["hangup", "bye", "short"])
def test_a_message_on_which_the_line_is_cut_does_not_stop_the_rest(kind: Any, tmp_path: Path) -> None:
    time = Time()
    with Faulty() as server:
        mail = fill(server, 90, ill={33: Ill(kind), 34: Ill(kind)})
        got, _ = fetch(server, mail, tmp_path, time=time)
        bad = sorted(mail)[32:34]
        assert got.problems == dict.fromkeys(bad, "failed")
        assert "cuts the line" in (got.all[bad[0]].detail or "")
        assert got.data == {uid: data for uid, data in mail.items() if uid not in bad}
        assert sum(time.slept) < 600


def test_a_replacement_is_not_taken_for_the_mail(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 5, ill={2: Ill("replaced")})
        uid = sorted(mail)[1]
        got, _ = fetch(server, mail, tmp_path, quirks=Quirks(reject_body_regex="using the IMAP4 protocol"))
        assert got.problems == {uid: "replaced"}


def test_a_wrong_size_is_noted_and_the_bytes_are_taken(tmp_path: Path) -> None:
    with Faulty(size_error=7) as server:
        mail = fill(server, 5)
        got, _ = fetch(server, mail, tmp_path)
        assert got.data == mail
        assert {body.detail for body in got.all.values()} == {"size differs"}


def test_what_was_expunged_meanwhile_has_vanished(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 20)
        absent = [uid + 1000 for uid in mail]
        got, _ = fetch(server, [*mail, *absent], tmp_path)
        assert got.data == mail
        assert got.problems == dict.fromkeys(absent, "vanished")
        # All of them are looked for at once, not one by one.
        assert len(server.commands(rb"FETCH")) < 6


def test_unsolicited_flags_are_not_taken_for_bodies(tmp_path: Path) -> None:
    with Faulty(
        flags_unsolicited=True, extra_spaces=True, bare_ok=True, junk_lines=(b"* junk", b"*  NO matter")
    ) as server:
        mail = fill(server, 20)
        got, _ = fetch(server, mail, tmp_path)
        assert got.data == mail


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_cut_line_is_opened_again_and_nothing_comes_twice(when: Any, tmp_path: Path) -> None:
    time = Time()
    with Faulty(breaks=(Break(rb"UID FETCH", nth=3, when=when, times=2),)) as server:
        mail = fill(server, 400)
        got, _ = fetch(server, mail, tmp_path, time=time)
        assert got.data == mail
        assert server.connections >= 2
        assert time.slept[0] <= 1


def test_a_line_that_is_cut_again_and_again_gets_there(tmp_path: Path) -> None:
    time = Time()
    with Faulty(cut_after_bytes=3000) as server:
        mail = fill(server, 60)
        got, _ = fetch(server, mail, tmp_path, time=time)
        assert got.data == mail
        assert sum(time.slept) < 60


def test_a_used_up_allowance_ends_the_run_at_once(tmp_path: Path) -> None:
    time = Time()
    with Faulty("gmail", bytes_cap=5000) as server:
        mail = fill(server, 60)
        with pytest.raises(RunPaused, match="go on in 60 min"):
            fetch(server, mail, tmp_path, time=time)
        assert sum(time.slept) <= 1


def test_cuts_at_any_byte(tmp_path: Path) -> None:
    with Faulty() as server, Proxy((HOST, server.port)) as proxy:
        mail = fill(server, 120, size=2000)
        large = numbered(999, size=2_500_000)
        mail[server.mailboxes["INBOX"].add(large).uid] = large
        cuts = [Cut(after=after, times=1) for after in (2500, 5000, 100_001, 200_000, 1_500_000)]
        for cut in cuts:
            proxy.cuts = (cut,)
            got, _ = fetch(proxy, mail, tmp_path)
            assert got.data == mail
        assert proxy.cut_count == 5


def test_whatever_happens_each_message_comes_once_and_whole(rng: random.Random, tmp_path: Path, full: bool) -> None:
    """Ill messages, cuts, refusals and odd manners, all at once and by chance."""
    kinds: tuple[Any, ...] = ("nil", "empty", "missing", "no", "bad", "hangup", "bye", "short")
    forms = (frozenset(("BODY[]",)), frozenset(("BODY[]", "RFC822")), Ill("no").items)
    for _ in range(60 if full else 4):
        count = rng.randrange(30, 300)
        ill = {
            n: Ill(rng.choice(kinds), rng.choice(forms), rng.choice((None, 1, 2)))
            for n in rng.sample(range(1, count + 1), rng.randrange(6))
        }
        busy = (Busy(rb"UID FETCH", every=rng.randrange(2, 9), times=rng.randrange(4)),)
        with Faulty(busy=busy, flags_unsolicited=rng.random() < 0.3) as server, Proxy((HOST, server.port)) as proxy:
            mail = fill(server, count, size=rng.choice((200, 5000)), ill=ill)
            cuts = tuple(Cut(after=rng.randrange(3000, 300_000), times=1) for _ in range(rng.randrange(3)))
            proxy.cuts = cuts
            uids = rng.sample(sorted(mail), count)
            absent = [10_000 + n for n in range(rng.randrange(20))]
            shown = f"{count} messages, {ill}, {busy}, {cuts}"
            limits = Limits(depth=rng.choice((1, 3)))
            got, _ = fetch(proxy, [*uids, *absent], tmp_path, limits=limits)
            assert {uid for uid, problem in got.problems.items() if problem == "vanished"} == set(absent), shown
            sick = {sorted(mail)[n - 1] for n in ill}
            assert set(got.problems) <= sick | set(absent), shown
            assert all(mail[uid] == data for uid, data in got.data.items()), shown


def test_a_line_that_is_always_cut_is_given_up_with_what_came(tmp_path: Path) -> None:
    time, got = Time(), Bodies()
    with Faulty() as server:
        mail = fill(server, 200)
        server.change(breaks=(Break(rb"UID FETCH", nth=2, times=None),))

        async def work() -> None:
            connection = await connect(server.port, time=time)
            await connection.select("INBOX")
            async for body in connection.bodies(list(mail), staging=lambda: Staging(tmp_path)):
                got.take(body)

        with pytest.raises(Unreachable, match=r"times in a row; what came is kept, the same command goes on"):
            run(work)
    assert len(got.data) == 50
    assert not got.problems
    assert len(time.slept) < 20


def test_a_refused_log_in_is_not_tried_again(tmp_path: Path) -> None:
    with Faulty(breaks=(Break(rb"UID FETCH"),)) as server:
        fill(server, 10)

        async def work() -> None:
            connection = await connect(server.port)
            await connection.select("INBOX")
            server.change(login_refused="[AUTHENTICATIONFAILED] Invalid credentials", breaks=server.faults.breaks)
            with pytest.raises(BadCredentials, match="Invalid credentials"):
                await Bodies().fetch(connection, [1, 2, 3], tmp_path)

        run(work)
        assert len(server.commands(rb"LOGIN|AUTHENTICATE")) == 2


def test_a_mailbox_that_was_made_anew_meanwhile_stops_the_run(tmp_path: Path) -> None:
    with Faulty(breaks=(Break(rb"UID FETCH"),), uidvalidity_lasts=1) as server:
        fill(server, 10)
        with pytest.raises(RemoteError, match="made INBOX anew"):
            fetch(server, [1, 2, 3], tmp_path)


def test_a_busy_server_is_given_time(tmp_path: Path) -> None:
    time = Time()
    hint = b"NO [UNAVAILABLE] Request is throttled. Suggested Backoff Time: 45000 milliseconds"
    with Faulty(busy=(Busy(rb"UID FETCH", every=2, reply=hint, times=3),)) as server:
        mail = fill(server, 300)
        got, connection = fetch(server, mail, tmp_path, time=time)
        assert got.data == mail
        assert sum(time.slept) >= 45
        assert connection.pace.window < 200 or connection.pace.depth <= 3


def test_a_server_that_is_busy_for_long_pauses_the_run(tmp_path: Path) -> None:
    hint = b"NO [THROTTLED] Suggested Backoff Time: 900000 milliseconds"
    with Faulty(busy=(Busy(rb"UID FETCH", reply=hint),)) as server:
        mail = fill(server, 10)
        with pytest.raises(RunPaused, match="go on in 15 min, what came is kept") as caught:
            fetch(server, mail, tmp_path)
        assert caught.value.retry_after_s == 900
        assert isinstance(caught.value, RemoteBusy)


def test_a_days_allowance_pauses_the_run(tmp_path: Path) -> None:
    got = Bodies()
    with Faulty() as server:
        mail = fill(server, 600, size=1000)

        async def work() -> None:
            connection = await connect(server.port, limits=Limits(bytes_per_day=200_000))
            await connection.select("INBOX")
            async for body in connection.bodies(list(mail), staging=lambda: Staging(tmp_path)):
                got.take(body)

        with pytest.raises(RunPaused, match="given what it gives in a day; go on in 24 h"):
            run(work)
        assert 100 < len(got.data) < 600


def test_a_full_disk_ends_the_run_as_itself(tmp_path: Path) -> None:
    class Full(Staging):
        def write(self, data: bytes | memoryview) -> None:
            raise StoreFull("No space left")

    with Faulty() as server:
        uid = server.mailboxes["INBOX"].add(numbered(9, size=2_000_000)).uid

        async def work() -> None:
            connection = await connect(server.port)
            await connection.select("INBOX")
            with pytest.raises(StoreFull):
                async for _ in connection.bodies([uid], staging=lambda: Full(tmp_path)):
                    pass

        run(work)
        assert server.connections == 1


def test_a_slow_consumer_holds_the_server_back(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 100, size=700_000)

        async def work() -> None:
            connection = await connect(server.port)
            await connection.select("INBOX")
            bodies = connection.bodies(list(mail), staging=lambda: Staging(tmp_path))
            got = 0
            async for _ in bodies:
                got += 1
                before = -1
                while got == 1 and before != connection.bytes_in:  # until nothing more is read
                    before = connection.bytes_in
                    for _ in range(300):
                        await asyncio.sleep(0)
                assert connection.bytes_in < READY_MAX + (8 << 20) or got > 1
            assert got == len(mail)
            await connection.logout()

        run(work)


def test_who_stops_early_leaves_nothing_running(tmp_path: Path) -> None:
    with Faulty() as server:
        mail = fill(server, 60, size=50_000)

        async def work() -> None:
            connection = await connect(server.port)
            await connection.select("INBOX")
            bodies = connection.bodies(list(mail), staging=lambda: Staging(tmp_path))
            async for _ in bodies:
                break
            await bodies.aclose()
            assert not connection.alive
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 2  # this one, and who waits for it

        run(work)


def test_lines_stay_short_for_servers_that_want_it(tmp_path: Path) -> None:
    with Faulty(line_max=1024) as server:
        mail = fill(server, 900)
        odd = sorted(mail)[::2]
        got, _ = fetch(server, odd, tmp_path, quirks=Quirks(line_max=1024))
        assert list(got.data) == odd
        assert max(map(len, server.commands(rb"FETCH"))) < 800


def test_one_after_the_other_where_pipelining_is_not_borne(tmp_path: Path) -> None:
    with Faulty(pipeline_max=1) as server:
        mail = fill(server, 300)
        got, _ = fetch(server, mail, tmp_path, limits=Limits(depth=1), quirks=Quirks(pipeline_depth=1))
        assert got.data == mail
        assert server.connections == 1


def test_rfc822_marks_as_seen_so_only_read_only_mailboxes_are_asked_so() -> None:
    assert [form[0].kind for form in forms_for("BODY.PEEK[]", read_only=True)] == ["BODY", "RFC822", "BODY"]  # type: ignore[union-attr]
    assert [form[0].kind for form in forms_for("BODY.PEEK[]", read_only=False)] == ["BODY", "BODY"]  # type: ignore[union-attr]
    assert [form[0].kind for form in forms_for("RFC822", read_only=True)] == ["RFC822", "BODY", "BODY"]  # type: ignore[union-attr]
