"""The merge by itself: two sides as plain dicts, changed at will, come together; and the table of conflicts by rows."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.backup.merge import (
    Held,
    Key,
    Pair,
    Place,
    Verdict,
    advance,
    is_mass,
    judge,
    merge,
    merge_flags,
    survey,
)
from mailkeep.mail.flags import Flags

NAMES = ("\\Seen", "\\Flagged", "\\Deleted", "Work")
flags = st.frozensets(st.sampled_from(NAMES))
NONE: Flags = frozenset()
SEEN: Flags = frozenset({"\\Seen"})
DELETED: Flags = frozenset({"\\Deleted"})


# ---- flags


@given(flags, flags, flags)
def test_each_flag_follows_who_changed_it(base: Flags, ours: Flags, theirs: Flags) -> None:
    merged = merge_flags(base, ours, theirs)
    for name in NAMES:
        before = name in base
        changed = {name in side for side in (ours, theirs)} - {before}
        assert (name in merged) is (changed.pop() if changed else before)


@given(flags, flags, flags)
def test_a_merge_is_the_same_from_both_sides_and_ends_there(base: Flags, ours: Flags, theirs: Flags) -> None:
    merged = merge_flags(base, ours, theirs)
    assert merged == merge_flags(base, theirs, ours)
    assert merge_flags(advance(base, merged, merged), merged, merged) == merged == advance(base, merged, merged)


@given(flags, flags, flags, flags)
def test_half_a_merge_loses_no_wish(base: Flags, ours: Flags, theirs: Flags, kept: Flags) -> None:
    """A server that takes some of the flags only: what it did not take stays a wish of ours."""
    merged = merge_flags(base, ours, theirs)
    actual = theirs | (merged & kept)
    again = merge_flags(advance(base, merged, actual), merged, actual)
    assert merged - actual <= again | (base - ours)


# ---- the table


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "moved", "verdict"),
    [
        (SEEN, SEEN, NONE, False, Verdict.FLAGS),
        (SEEN, SEEN, SEEN, True, Verdict.MOVE_THERE),
        (SEEN, SEEN, None, False, Verdict.EXPUNGE_HERE),
        (SEEN, NONE, None, False, Verdict.APPEND),
        (SEEN, SEEN, None, True, Verdict.APPEND),
        (SEEN, SEEN | DELETED, None, False, Verdict.EXPUNGE_HERE),
        (SEEN, None, SEEN, False, Verdict.EXPUNGE_THERE),
        (SEEN, None, NONE, False, Verdict.FETCH),
        (SEEN, None, SEEN | DELETED, False, Verdict.EXPUNGE_THERE),
        (SEEN, None, None, False, Verdict.FORGET),
    ],
)
def test_the_table_of_conflicts(
    base: Flags, ours: Flags | None, theirs: Flags | None, moved: bool, verdict: Verdict
) -> None:
    assert judge(base, ours, theirs, moved=moved) is verdict


@pytest.mark.parametrize(
    ("deletions", "before", "mass"), [(50, 50, False), (51, 51, True), (51, 102, False), (60, 100, True), (0, 0, False)]
)
def test_what_counts_as_an_accident(deletions: int, before: int, mass: bool) -> None:
    assert is_mass(deletions, before) is mass


# ---- two sides


@dataclass
class World:
    """Two folders on each side. A message is its number; a link is (folder, UID there)."""

    theirs: dict[int, dict[int, tuple[int, Flags]]] = field(default_factory=lambda: {1: {}, 2: {}})
    ours: dict[int, dict[int, tuple[int, Flags, Key | None]]] = field(default_factory=lambda: {1: {}, 2: {}})
    base: dict[int, dict[int, Flags]] = field(default_factory=lambda: {1: {}, 2: {}})
    uid: int = 0

    def next(self) -> int:
        self.uid += 1
        return self.uid

    def pairs(self) -> list[Pair]:
        return [
            Pair(
                number,
                number,
                dict(self.base[number]),
                {uid: each[1] for uid, each in self.theirs[number].items()},
                {uid: Held(each[1], self._link(each[2])) for uid, each in self.ours[number].items()},
            )
            for number in (1, 2)
        ]

    def _link(self, link: Key | None) -> Key | None:
        return link if link is not None and link[1] in self.base[link[0]] else None

    def arrive(self) -> bool:
        """Newcomers, as content tells: linked, moved or copied."""
        found = survey(self.pairs())
        taken: set[Place] = set()
        for pair, uids in found.newcomers.items():
            for uid in uids:
                number, names = self.theirs[pair][uid]
                homeless = [(pair, each) for each in found.homeless.get(pair, ())]
                for place in [*homeless, *found.orphans]:
                    mailbox, ours = place
                    if place not in taken and self.ours[mailbox][ours][0] == number:
                        taken.add(place)
                        self._meet(pair, uid, place)
                        break
                else:
                    self.ours[pair][self.next()] = (number, names, (pair, uid))
                    self.base[pair][uid] = names
        return bool(found.newcomers)

    def _meet(self, pair: int, uid: int, place: Place) -> None:
        number, names, link = self.ours[place[0]].pop(place[1])
        link = self._link(link)
        known = self.base[link[0]][link[1]] if link else advance(NONE, names, self.theirs[pair][uid][1])
        self.ours[pair][self.next()] = (number, names, (pair, uid))
        self.base[pair][uid] = known
        if link and link[1] not in self.theirs[link[0]]:
            del self.base[link[0]][link[1]]

    def step(self) -> bool:
        """One round."""
        arrived = self.arrive()
        plan = merge(self.pairs())
        for pair, uids in plan.fetches.items():
            for uid in uids:
                del self.base[pair][uid]
        for pair, uploads in plan.uploads.items():
            for upload in uploads:
                number, names, _ = self.ours[pair][upload.place[1]]
                self.put(pair, number, names, upload.place)
                if upload.link:
                    self.base[upload.link[0]].pop(upload.link[1], None)
        for (source, target), moves in plan.moves_there.items():
            for uid, place in moves:
                number, names = self.theirs[source].pop(uid)
                known = self.base[source].pop(uid)
                self.put(target, number, names, place, known)
        for pair, changes in plan.flags.items():
            for change in changes:
                uid = change.key[1]
                number, names = self.theirs[pair][uid]
                self.theirs[pair][uid] = (number, (names | change.add_there) - change.remove_there)
                number, names, link = self.ours[pair][change.place[1]]
                self.ours[pair][change.place[1]] = (number, (names | change.add_here) - change.remove_here, link)
                self.base[pair][uid] = change.agreed
        for pair, gone in plan.expunges_here.items():
            for each in gone:
                del self.ours[each.place[0]][each.place[1]]
                del self.base[pair][each.key[1]]
        for pair, uids in plan.expunges_there.items():
            for uid in uids:
                del self.theirs[pair][uid]
                del self.base[pair][uid]
        for pair, uids in plan.forgets.items():
            for uid in uids:
                del self.base[pair][uid]
        return arrived or bool(plan)

    def put(self, pair: int, number: int, names: Flags, place: Place, known: Flags = NONE) -> None:
        uid = self.next()
        self.theirs[pair][uid] = (number, names)
        self.base[pair][uid] = known
        self.ours[pair][place[1]] = (number, self.ours[pair][place[1]][1], (pair, uid))

    def contents(self) -> tuple[dict[int, list[tuple[int, list[str]]]], ...]:
        """Both sides, comparable."""
        return (
            {each: sorted((n, sorted(f)) for n, f, _ in side.values()) for each, side in self.ours.items()},
            {each: sorted((n, sorted(f)) for n, f in side.values()) for each, side in self.theirs.items()},
        )

    def numbers(self) -> set[int]:
        return {each[0] for side in self.ours.values() for each in side.values()} | {
            each[0] for side in self.theirs.values() for each in side.values()
        }


@dataclass
class Deeds:
    """Who did what to which message since both were the same."""

    removed: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))
    changed: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))


def _act(world: World, deeds: Deeds, data: st.DataObject) -> None:
    side = data.draw(st.integers(0, 1))
    folder = data.draw(st.sampled_from((1, 2)))
    here = world.ours[folder] if side == 0 else world.theirs[folder]
    deed = data.draw(st.sampled_from(("add", "remove", "flag", "move", "move")))
    if deed == "add" or not here:
        if side == 0:
            world.ours[folder][world.next()] = (world.next(), data.draw(flags), None)
        else:
            world.theirs[folder][world.next()] = (world.next(), data.draw(flags))
        return
    uid = data.draw(st.sampled_from(sorted(here)))
    number = here[uid][0]
    if deed == "remove":
        del here[uid]
        deeds.removed[side].add(number)
        return
    deeds.changed[side].add(number)
    if side == 0:
        _, names, link = world.ours[folder].pop(uid)
        goal, names = (3 - folder, names) if deed == "move" else (folder, data.draw(flags))
        world.ours[goal][uid if deed == "flag" else world.next()] = (number, names, link)
    else:
        _, names = world.theirs[folder].pop(uid)
        goal, names = (3 - folder, names) if deed == "move" else (folder, data.draw(flags))
        world.theirs[goal][uid if deed == "flag" else world.next()] = (number, names)


@given(st.data())
def test_both_sides_come_together_and_nothing_is_lost(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(0, 6))):
        world.theirs[data.draw(st.sampled_from((1, 2)))][world.next()] = (world.next(), data.draw(flags))
    for _ in range(data.draw(st.integers(1, 3))):
        rounds = 0
        while world.step():
            rounds += 1
            assert rounds < 5, "a few rounds are enough"
        ours, theirs = world.contents()
        assert ours == theirs
        assert not world.step(), "once more does nothing"
        before, deeds = world.numbers(), Deeds()
        for _ in range(data.draw(st.integers(0, 8))):
            _act(world, deeds, data)
        wanted = before | world.numbers()
        while world.step():
            pass
        present = world.numbers()
        for number in wanted - present:
            assert number in deeds.removed[0] | deeds.removed[1], "nobody removed it"
        for side in (0, 1):
            only_removed = deeds.removed[side] - deeds.changed[0] - deeds.changed[1]
            assert not only_removed & present, "removed on one side, and nobody did anything to it on the other"
        counted = [number for folder in world.contents()[0].values() for number, _ in folder]
        assert len(counted) == len(set(counted)), "nothing is there twice"
