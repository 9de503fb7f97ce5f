"""Pace: windows grow and shrink, servers' wishes are obeyed, a day's allowance is kept, the end is foretold."""

import pytest

from mailkeep.backup.pace import (
    ATTEMPTS_MAX,
    HINT_MAX_S,
    WAIT_MAX_S,
    Limits,
    Pace,
    Patience,
    hint_s,
    is_passing,
    limits_of,
    refusal,
)
from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Settings
from mailkeep.errors import RemoteBusy, RemoteError, Unreachable

NOW = 1_769_000_400.0  # a full hour
PLAIN = Quirks()
HOUR = 3600


def test_a_window_doubles_while_all_goes_well_and_halves_in_trouble() -> None:
    pace = Pace()
    sizes = []
    for _ in range(4):
        pace.succeeded(pace.window)
        sizes.append(pace.window)
    assert sizes == [100, 200, 200, 200]
    pace.troubled(NOW)
    assert (pace.window, pace.depth) == (100, 2)
    pace.succeeded(3)  # a short last window says nothing about long ones
    assert pace.window == 100


def test_waits_double_and_a_servers_own_word_counts() -> None:
    pace = Pace()
    assert [pace.troubled(NOW) for _ in range(4)] == [1, 2, 4, 8]
    assert pace.wait_s(NOW) == 8
    assert pace.troubled(NOW, 299.961) == 299.961
    assert pace.wait_s(NOW + 100) == pytest.approx(199.961)
    assert pace.wait_s(NOW + 300) == 0
    pace.succeeded(1)
    assert pace.troubled(NOW + 400) == 1
    assert max(pace.troubled(NOW) for _ in range(30)) == 900
    assert pace.window == pace.depth == 1


def test_connections_follow_the_round_trip() -> None:
    pace = Pace()
    assert [pace.lanes(rtt) for rtt in (0.0001, 0.004, 0.006, 0.05, 1.0)] == [1, 1, 2, 4, 4]
    pace.crowded()
    assert pace.lanes(0.05) == 3
    for _ in range(9):
        pace.crowded()
    assert pace.lanes(0.05) == 1


def test_a_rate_of_messages() -> None:
    pace = Pace(Limits(msgs_per_second=4))
    assert pace.wait_s(NOW) == 0
    pace.asked(NOW, 50)
    assert pace.wait_s(NOW) == 12.5
    assert pace.wait_s(NOW + 12.5) == 0
    assert pace.finish_s(NOW + 12.5, 1000, 400) == 100


def test_an_allowance_a_day_rolls() -> None:
    pace = Pace(Limits(bytes_per_day=1000))
    pace.moved(NOW, 600)
    pace.moved(NOW + 2 * HOUR, 400)
    assert pace.left(NOW + 2 * HOUR) == 0
    assert pace.wait_s(NOW + 2 * HOUR) == 22 * HOUR  # then the first hour is a day ago
    assert pace.left(NOW + 24 * HOUR) == 600
    assert pace.wait_s(NOW + 24 * HOUR) == 0
    assert Pace().left(NOW) is None


def test_when_it_will_be_finished() -> None:
    pace = Pace(Limits(bytes_per_day=1_000_000))
    assert pace.finish_s(NOW, 500_000) == pytest.approx(0.25)
    pace.moved(NOW, 1_000_000, seconds=1.0)
    assert pace.finish_s(NOW, 500_000) == 24 * HOUR
    assert pace.finish_s(NOW, 2_500_000) == 72 * HOUR
    free = Pace()
    free.moved(NOW, 1000, seconds=1.0)
    assert free.finish_s(NOW, 5000) == 5
    free.troubled(NOW, 60)
    assert free.finish_s(NOW, 5000) == 65


def test_a_server_that_hangs_up_is_spared_for_a_week() -> None:
    pace = Pace()
    assert pace.pipeline(NOW) == 100
    pace.hung_up(NOW)
    later = Pace(None, pace.dump())
    assert later.pipeline(NOW + 6 * 86400) == 1
    assert later.pipeline(NOW + 8 * 86400) == 100


def test_what_was_learnt_is_remembered() -> None:
    pace = Pace(Limits(bytes_per_day=1000))
    pace.succeeded(50)
    pace.crowded()
    pace.moved(NOW, 300, seconds=2.0)
    pace.troubled(NOW, 500)
    again = Pace(Limits(bytes_per_day=1000), pace.dump())
    assert (again.window, again.depth, again.connections) == (pace.window, pace.depth, pace.connections)
    assert again.used(NOW) == 300
    assert again.wait_s(NOW) == 500
    assert again.dump() == pace.dump()


@pytest.mark.parametrize(
    "state", [b"", b"{", b"[]", b"7", b'{"window": "x", "used": [1]}', b'{"window": -1, "depth": 99, "used": {"a": 1}}']
)
def test_a_damaged_memory_is_none(state: bytes) -> None:
    pace = Pace(Limits(), state)
    assert 1 <= pace.window <= 50
    assert pace.depth == 3
    assert pace.used(NOW) == 0


EXCHANGE = Quirks(backoff_regex=r"Suggested Backoff Time: (\d+) milliseconds", transient=("Request is throttled",))


@pytest.mark.parametrize(
    ("quirks", "text", "seconds"),
    [
        (EXCHANGE, "Request is throttled. Suggested Backoff Time: 299961 milliseconds", 299.961),
        (PLAIN, "Request is throttled. Suggested Backoff Time: 299961 milliseconds", 299.961),
        (PLAIN, "Please try again in 5 minutes", 300.0),
        (PLAIN, "Retry after 20", 20.0),
        (PLAIN, "Suggested Backoff Time: 999999999 milliseconds", HINT_MAX_S),
        (PLAIN, "Account exceeded command or bandwidth limits. (Failure)", HINT_MAX_S),
        (PLAIN, "No such message", None),
    ],
)
def test_hints(quirks: Quirks, text: str, seconds: float | None) -> None:
    assert hint_s(text, quirks) == seconds


@pytest.mark.parametrize(
    ("code", "text", "passing"),
    [
        ("THROTTLED", "", True),
        ("UNAVAILABLE", "no backend", True),
        ("LIMIT", "Rate limit hit", True),
        (None, "UID FETCH [SERVERBUG] Server error - Please try again later", True),
        (None, "Too many simultaneous connections. (Failure)", True),
        (None, "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)", True),
        ("NONEXISTENT", "Unknown Mailbox: x", False),
        (None, "Some messages could not be FETCHed (Failure)", False),
    ],
)
def test_what_passes_by_itself(code: str | None, text: str, passing: bool) -> None:
    assert is_passing(code, text, PLAIN) is passing
    error = refusal("imap.example.org refused SELECT", code=code, text=text, quirks=PLAIN)
    assert type(error) is (RemoteBusy if passing else RemoteError)
    assert error.temporary is passing


def test_a_refusal_is_safe_to_show() -> None:
    error = refusal("host refused SELECT", code="X" * 999, text="a\x1b[31m\r\nb" + "c" * 999, quirks=PLAIN)
    assert error.text.isprintable()
    assert len(error.text) < 400


def test_the_narrower_limit_holds() -> None:
    quirks = Quirks(max_connections=3, pipeline_depth=1, msgs_per_second=4, bytes_per_day={"imap_down": 1000})
    assert limits_of(quirks) == Limits(2, 1, 4, 1000)
    mine = Settings("imap", "h", 993, "u", connections_max=1, bytes_per_day=500)
    assert limits_of(quirks, mine) == Limits(1, 1, 4, 500)
    assert limits_of(quirks, direction="imap_up") == Limits(2, 1, 4, None)
    assert limits_of(Quirks(max_connections=1)).connections == 1


def test_patience_grows_begins_anew_and_ends() -> None:
    error = RemoteBusy("later")
    patience = Patience(1.0, 0)
    assert [patience.after(error, 0) for _ in range(4)] == [1, 2, 4, 8]
    assert patience.after(error, 10) == 1, "something came meanwhile"
    assert patience.after(RemoteBusy("later", retry_after_s=60), 10) == 60
    with pytest.raises(RemoteBusy):
        patience.after(RemoteBusy("later", retry_after_s=WAIT_MAX_S + 1), 10)
    patience = Patience(1.0, 0, ATTEMPTS_MAX - 1)
    with pytest.raises(Unreachable):
        patience.after(Unreachable("away"), 0)
