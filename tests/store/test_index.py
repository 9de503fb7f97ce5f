"""A mailbox in memory: what an effect or a catch-up makes of it, and what its watchers are told."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from mailkeep.store.index import BATCHES_MAX, Catchup, Effect, MailboxIndex, Snapshot, without


def make(uids: list[int]) -> MailboxIndex:
    count = len(uids)
    return MailboxIndex(
        1,
        Snapshot(
            10,
            77,
            (uids[-1] if uids else 0) + 1,
            10,
            array("I", uids),
            array("I", [1] * count),
            array("Q", [5] * count),
        ),
    )


def test_arrivals_extend_in_place_and_removals_replace() -> None:
    index = make([1, 2, 3])
    uids = index.uids
    index.apply([Effect(1, 11, "me", uids=(4,), flags=(2,), modseqs=(11,))], last=11)
    assert index.uids is uids and uids.tolist() == [1, 2, 3, 4]
    index.apply([Effect(1, 12, None, removed=array("I", [2, 3]))], last=12)
    assert index.uids.tolist() == [1, 4] and uids.tolist() == [1, 2, 3, 4], "a session's snapshot stays"
    assert index.flags.tolist() == [1, 2] and index.modseqs.tolist() == [5, 11]
    assert (index.uidnext, index.highestmodseq, index.synced) == (5, 12, 12)
    first, second = index.since(0) or []
    assert (list(first.added), first.by, list(second.removed), second.by) == ([4], "me", [2, 3], None)
    assert index.since(1) == [second] and index.since(2) == []


def test_an_effect_is_applied_once_whatever_way_it_comes() -> None:
    index = make([1])
    effect = Effect(1, 11, None, uids=(2,), flags=(1,), modseqs=(11,))
    index.catch_up(Catchup(11, 3, 11, [(2, 1, 11)], [], [], gone=False))
    assert not index.apply([effect], last=11)
    assert index.uids.tolist() == [1, 2] and index.version == 1


def test_a_burst_of_arrivals_is_one_batch_for_each_who_asked() -> None:
    index = make([])
    effects = [
        Effect(1, 11 + n, by, uids=(n + 1,), flags=(1,), modseqs=(11 + n,))
        for n, by in enumerate([None, None, "me", None])
    ]
    index.apply(effects, last=14)
    assert [(list(batch.added), batch.by) for batch in index.since(0) or []] == [
        ([1, 2], None),
        ([3], "me"),
        ([4], None),
    ]


def test_batches_of_long_ago_are_not_known() -> None:
    index = make([])
    for n in range(BATCHES_MAX + 10):
        index.apply([Effect(1, 11 + n, None, uids=(n + 1,), flags=(1,), modseqs=(11 + n,))], last=11 + n)
    assert index.since(9) is None
    assert len(index.since(10) or []) == BATCHES_MAX


def test_watchers_end_on_their_own_and_hear_of_a_mailbox_that_goes() -> None:
    index, heard = make([1]), []
    first = index.watch(lambda: heard.append("first"))
    second = index.watch(lambda: heard.append("second"))
    index.tell()
    first()
    first()
    index.apply([Effect(1, 11, None, gone=True)], last=11)
    index.tell()
    second()
    assert heard == ["first", "second", "second"] and index.deleted and not index.watched


@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)))
def test_without_is_the_difference(uids: set[int], removed: set[int]) -> None:
    column = array("I", sorted(uids))
    [left] = without(column, sorted(removed), column)
    assert left.tolist() == sorted(uids - removed)


@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60), min_size=1))
def test_flags_reach_exactly_the_uids_named(uids: set[int], changed: set[int]) -> None:
    index = make(sorted(uids))
    order = sorted(changed)
    effect = Effect(1, 11, None, changed=array("I", order), changed_flags=array("I", [uid + 100 for uid in order]))
    index.apply([effect], last=11)
    assert index.flags.tolist() == [uid + 100 if uid in changed else 1 for uid in sorted(uids)]
    assert index.modseqs.tolist() == [11 if uid in changed else 5 for uid in sorted(uids)]


def test_many_scattered_flags_are_written_in_steps() -> None:
    index = make(list(range(1, 3001)))
    effect = Effect(1, 11, None, changed=array("I", range(1, 3001, 2)), changed_flags=array("I", [9]) * 1500)
    steps = sum(1 for _ in index.applying([effect], last=11))
    assert steps > 1
    assert index.flags.tolist() == [9, 1] * 1500 and index.modseqs.tolist() == [11, 5] * 1500
    assert index.version == 1 and index.synced == 11


def test_a_catch_up_between_two_steps_wins() -> None:
    index = make(list(range(1, 3001)))
    changed = range(1, 3001, 2)
    effect = Effect(1, 11, None, changed=array("I", changed), changed_flags=array("I", [9]) * 1500)
    applying = index.applying([effect], last=11)
    next(applying)
    later = [(uid, 7, 12) for uid in changed]
    index.catch_up(Catchup(12, 3001, 12, [], later, [], gone=False))
    assert list(applying) is not None
    assert index.flags.tolist() == [7, 1] * 1500 and index.modseqs.tolist() == [12, 5] * 1500
    assert (index.synced, index.version) == (12, 1)
