"""What is to be done about a folder, as pure decisions: every way, and the walk over two lists of UIDs."""

import random
from array import array

import pytest

from mailkeep.backup.plan import (
    SMALL,
    TURN,
    Abilities,
    Folder,
    Kept,
    Renamed,
    Said,
    Way,
    beyond_cap,
    cap_of,
    choose,
    compare,
    find_renamed,
    newest_first,
    turn,
)

FULL = Abilities(qresync=True, condstore=True)
NONE = Abilities()


def said(uidvalidity: int = 7, uidnext: int = 11, messages: int = 10, modseq: int | None = 99) -> Said:
    return Said(uidvalidity, uidnext, messages, modseq)


def kept(modseq: int = 99, *, complete: bool = True, due: bool = False, messages: int = 10) -> Kept:
    return Kept(7, 11, messages, modseq, complete=complete, due=due)


@pytest.mark.parametrize(
    ("server", "ours", "can", "way"),
    [
        (said(), None, FULL, Way.FIRST),
        (said(), Kept(0, 0, 0), FULL, Way.FIRST),
        (said(), kept(), FULL, Way.SKIP),
        (said(modseq=100), kept(), FULL, Way.QRESYNC),
        (said(modseq=100), kept(), Abilities(condstore=True), Way.CONDSTORE),
        (said(uidnext=12, messages=11), kept(), FULL, Way.QRESYNC),
        (said(messages=9), kept(), FULL, Way.QRESYNC),
        (said(messages=9), kept(), NONE, Way.SWEEP),
        (said(modseq=None), kept(0), NONE, Way.SWEEP),  # nothing came or went, but who knows of flags
        (said(modseq=None, messages=0), kept(0, messages=0), NONE, Way.SKIP),
        (said(), kept(complete=False), FULL, Way.QRESYNC),
        (said(), kept(due=True), FULL, Way.QRESYNC),
        (said(uidvalidity=8), kept(), FULL, Way.RECOGNISE),
        (Said(None, None, None), kept(), FULL, Way.QRESYNC),  # a STATUS that failed tells nothing
    ],
)
def test_the_cheapest_sure_way_is_taken(server: Said, ours: Kept | None, can: Abilities, way: Way) -> None:
    assert choose(server, ours, can) is way


def test_what_status_does_not_say_is_not_taken_for_zero() -> None:
    assert Said.of_status({"MESSAGES": 0, "UIDNEXT": 0, "UIDVALIDITY": 5, "HIGHESTMODSEQ": 0}) == Said(5, None, 0, None)
    assert Said.of_status(None) == Said(None, None, None, None)


def test_comparing_lists_is_set_arithmetic(rng: random.Random) -> None:
    for _ in range(300):
        span = rng.randrange(1, 60)
        theirs = {uid for uid in range(1, span) if rng.random() < 0.6}
        ours = {uid for uid in range(1, span) if rng.random() < 0.6}
        gone = {uid for uid in ours if rng.random() < 0.3}
        rows = sorted(ours)
        found = compare(array("I", sorted(theirs)), array("I", rows), [9 if uid in gone else 0 for uid in rows])
        assert list(found.fresh) == sorted(theirs - ours)
        assert list(found.vanished) == sorted(ours - theirs - gone)
        assert list(found.returned) == sorted(gone & theirs)


def test_the_newest_window_comes_first_and_none_twice() -> None:
    uids = list(range(1, 1001))
    order = newest_first(uids, 300)
    assert list(order[:300]) == list(range(701, 1001))
    assert sorted(order) == uids
    assert list(newest_first([], 300)) == []


def test_a_large_mailbox_has_its_flags_looked_at_by_turns() -> None:
    uids = array("I", range(10, 10 + TURN * 2 + 1234))
    seen: list[int] = []
    after = 0
    for _ in range(3):
        part, after = turn(uids, after)
        seen += part
        assert len(part) <= TURN
    assert sorted(seen) == list(uids)
    assert after == 0, "the next turn begins anew"
    small = array("I", range(SMALL))
    assert turn(small, 77) == (small, 0)


def test_turns_go_on_when_the_message_they_ended_with_is_gone() -> None:
    uids = array("I", range(1, 3 * TURN))
    _, after = turn(uids, 0)
    uids.remove(after)
    part, _ = turn(uids, after)
    assert part[-1] == after - 1


def test_what_a_provider_does_not_show_has_not_vanished() -> None:
    listed = array("I", range(101, 201))
    vanished = array("I", [5, 50, 150])
    assert list(beyond_cap(listed, vanished, 100)) == [5, 50]
    assert list(beyond_cap(listed, vanished, 1000)) == []
    assert list(beyond_cap(listed, vanished, None)) == []


def test_a_limit_that_nobody_tells_is_a_round_number() -> None:
    assert [cap_of(exists, None) for exists in (999, 1000, 1001, 5000, 10_000)] == [None, 1000, None, 5000, 10_000]
    assert cap_of(1000, 10_000) == 10_000


def test_a_renamed_folder_is_told_by_its_identity() -> None:
    old = Folder("A", 7, 11, "F1")
    assert find_renamed([old], [Folder("B", 9, 3, "F1"), Folder("C", 7, 11, "F2")]) == [Renamed("A", "B", sure=True)]
    assert find_renamed([old], [Folder("C", 7, 11, "F2")]) == []


def test_without_one_an_equal_uidvalidity_is_a_hint_if_there_is_only_one() -> None:
    old = Folder("A", 7, 11)
    assert find_renamed([old], [Folder("B", 7, 12)]) == [Renamed("A", "B", sure=False)]
    assert find_renamed([old], [Folder("B", 7, 10)]) == [], "UIDs do not go back"
    assert find_renamed([old], [Folder("B", 7, 12), Folder("C", 7, 12)]) == []
    assert find_renamed([old, Folder("Z", 7, 3)], [Folder("B", 7, 12)]) == []
    assert find_renamed([Folder("A", 0, 0)], [Folder("B", 0, 0)]) == []
