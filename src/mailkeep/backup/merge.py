"""What to do so that two sides that were the same once become the same again. Pure: it decides, others carry it out.

Knows three states of each folder: *base*, what both sides last agreed on; *theirs*, what the server has; *ours*, what
lies here. Knows no store, no connection and no names. A message of ours is tied to one of theirs by a link that goes
along when it moves here, so a move needs no guessing; what is new on both sides was matched by content before this.

The hard idea is that a deletion is never seen, only an absence. So an absence counts as a deletion only where the base
says that the message was there; whatever changed since the base on the other side beats it, and then a copy is made
instead. What was never agreed on is new, and new things are only ever added. Cut at any point and asked again, this
answers with what is still left to do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mailkeep.mail.flags import DELETED, Flags

Key = tuple[int, int]  # (pair, UID there)
Place = tuple[int, int]  # (our mailbox, our UID)

_NO_WISH_TO_KEEP: Final = frozenset((DELETED,))  # a mark for deletion is no change that saves from deletion


# --- flags


def merge_flags(base: Flags, ours: Flags, theirs: Flags) -> Flags:
    """Flag by flag: where the sides differ, one of them changed it, and that one is followed."""
    return (ours & theirs) | ((ours ^ theirs) - base)


def advance(base: Flags, ours: Flags, theirs: Flags) -> Flags:
    """The new base: the sides' word where they agree, the old one where they (still) do not."""
    return (ours & theirs) | ((ours ^ theirs) & base)


def is_changed(base: Flags, now: Flags) -> bool:
    """Whether somebody did something to a message that says that it is wanted."""
    return bool((base ^ now) - _NO_WISH_TO_KEEP)


# --- one message: the table of conflicts


class Verdict(Enum):
    """What becomes of a message that both sides once had."""

    FLAGS = "merge flags"
    MOVE_THERE = "move it there"
    APPEND = "put it there again"  # deleted there, changed or moved here
    EXPUNGE_HERE = "remove it here"
    FETCH = "bring it here again"  # deleted here, changed there
    EXPUNGE_THERE = "remove it there"
    FORGET = "gone on both sides"


def judge(base: Flags, ours: Flags | None, theirs: Flags | None, *, moved: bool = False) -> Verdict:
    """None: that side has it no more. `moved`: ours lies in another mailbox than its folder's."""
    if ours is not None and theirs is not None:
        return Verdict.MOVE_THERE if moved else Verdict.FLAGS
    if ours is not None:
        return Verdict.APPEND if moved or is_changed(base, ours) else Verdict.EXPUNGE_HERE
    if theirs is not None:
        return Verdict.FETCH if is_changed(base, theirs) else Verdict.EXPUNGE_THERE
    return Verdict.FORGET


# --- all messages


@dataclass(frozen=True, slots=True)
class Held:
    """A live message of ours. `link` None: the server never had it, as far as we know.

    `was`: the pair that it was of before that folder was numbered anew, so that its link means nothing now.
    """

    flags: Flags
    link: Key | None = None
    was: int | None = None


@dataclass(slots=True)
class Pair:
    """A folder there and its mailbox here. By UID, there (`base`, `theirs`) or here (`ours`).

    A side that has the folder no more has no messages: `mailbox` 0 or `theirs` {} then.
    """

    id: int
    mailbox: int
    base: dict[int, Flags] = field(default_factory=dict)
    theirs: dict[int, Flags] = field(default_factory=dict)
    ours: dict[int, Held] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlagChange:
    """What merging the flags of one message means for each side. `agreed`: the base, once all of it is done."""

    key: Key
    place: Place
    add_here: Flags
    remove_here: Flags
    add_there: Flags
    remove_there: Flags
    agreed: Flags


@dataclass(frozen=True, slots=True)
class Gone:
    """One of ours that is to be removed, and the one there that it was."""

    place: Place
    key: Key


@dataclass(frozen=True, slots=True)
class Upload:
    """One of ours that is to be put into its mailbox's folder. `link`: what it was there before."""

    place: Place
    link: Key | None = None


@dataclass(slots=True)
class Plan:
    """What is left to do, by pair. New messages of theirs are not in it: see `survey`."""

    uploads: dict[int, list[Upload]] = field(default_factory=dict)
    moves_there: dict[tuple[int, int], list[tuple[int, Place]]] = field(default_factory=dict)  # from, to → (UID, ours)
    flags: dict[int, list[FlagChange]] = field(default_factory=dict)
    fetches: dict[int, list[int]] = field(default_factory=dict)  # deleted here, changed there
    expunges_here: dict[int, list[Gone]] = field(default_factory=dict)  # by the pair of the link
    expunges_there: dict[int, list[int]] = field(default_factory=dict)
    forgets: dict[int, list[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(
            (
                self.uploads,
                self.moves_there,
                self.flags,
                self.fetches,
                self.expunges_here,
                self.expunges_there,
                self.forgets,
            )
        )

    def pairs(self) -> set[int]:
        """Those that something is left to do for."""
        found = {each for pair in self.moves_there for each in pair}
        for part in (self.uploads, self.flags, self.fetches, self.expunges_here, self.expunges_there, self.forgets):
            found.update(part)
        return found


@dataclass(slots=True)
class Survey:
    """What must be told by content before anything is decided.

    `newcomers`: UIDs there that nobody knows. `homeless`: ours that the folder of their mailbox lacks, by pair.
    `orphans`: ours whose counterpart is where it was no more. A newcomer that is one of the homeless of its own folder
    is it (an upload or a move whose answer was lost, or the same mail from elsewhere); one that is an orphan was moved.
    """

    newcomers: dict[int, list[int]] = field(default_factory=dict)
    homeless: dict[int, list[int]] = field(default_factory=dict)  # our UIDs
    orphans: list[Place] = field(default_factory=list)
    strays: dict[int, list[Place]] = field(default_factory=dict)


def survey(pairs: Iterable[Pair]) -> Survey:
    """See `Survey`. Links into pairs that are not among them are left alone."""
    by_id = {pair.id: pair for pair in pairs}
    found = Survey()
    for pair in by_id.values():
        fresh = sorted(pair.theirs.keys() - pair.base.keys())
        if fresh:
            found.newcomers[pair.id] = fresh
        for uid, held in pair.ours.items():
            link = held.link
            if link is not None and link[0] not in by_id:
                continue
            if link is None or link[0] != pair.id:
                found.homeless.setdefault(pair.id, []).append(uid)
            if link is not None and link[1] not in by_id[link[0]].theirs:
                found.orphans.append((pair.mailbox, uid))
            if link is None and held.was == pair.id:
                found.orphans.append((pair.mailbox, uid))
            elif link is None and held.was is not None:
                found.strays.setdefault(held.was, []).append((pair.mailbox, uid))
    return found


def merge(pairs: Iterable[Pair], *, elsewhere: frozenset[Key] = frozenset()) -> Plan:
    """All that is to be done on both sides. `elsewhere`: what we have, but in a mailbox that is not looked at now."""
    by_id = {pair.id: pair for pair in pairs}
    plan = Plan()
    held_keys = set(elsewhere)
    for pair in by_id.values():
        for uid, held in pair.ours.items():
            if held.link is not None:
                held_keys.add(held.link)
            if held.link is None or held.link[0] in by_id:
                _one_of_ours(plan, by_id, pair, uid, held)
    for pair in by_id.values():
        for uid, base in pair.base.items():
            if (pair.id, uid) in held_keys:
                continue
            verdict = judge(base, None, pair.theirs.get(uid))
            part = {
                Verdict.FETCH: plan.fetches,
                Verdict.EXPUNGE_THERE: plan.expunges_there,
                Verdict.FORGET: plan.forgets,
            }[verdict]
            part.setdefault(pair.id, []).append(uid)
    return plan


def _one_of_ours(plan: Plan, by_id: Mapping[int, Pair], pair: Pair, uid: int, held: Held) -> None:
    place = (pair.mailbox, uid)
    if held.link is None:
        plan.uploads.setdefault(pair.id, []).append(Upload(place))
        return
    home, there = held.link
    base = by_id[home].base.get(there, held.flags)
    theirs = by_id[home].theirs.get(there)
    verdict = judge(base, held.flags, theirs, moved=home != pair.id)
    if verdict is Verdict.APPEND:
        plan.uploads.setdefault(pair.id, []).append(Upload(place, held.link))
    elif verdict is Verdict.EXPUNGE_HERE:
        plan.expunges_here.setdefault(home, []).append(Gone(place, held.link))
    elif verdict is Verdict.MOVE_THERE:
        plan.moves_there.setdefault((home, pair.id), []).append((there, place))
    else:
        assert theirs is not None
        change = change_flags(held.link, place, base=base, ours=held.flags, theirs=theirs)
        if change is not None:
            plan.flags.setdefault(pair.id, []).append(change)


def change_flags(key: Key, place: Place, *, base: Flags, ours: Flags, theirs: Flags) -> FlagChange | None:
    """None: both sides and the base are the same already."""
    merged = merge_flags(base, ours, theirs)
    if merged == ours == theirs == base:
        return None
    return FlagChange(key, place, merged - ours, ours - merged, merged - theirs, theirs - merged, merged)


# --- against accidents

MASS: Final = 50  # deletions of one folder in one run, up to which nobody is asked


def is_mass(deletions: int, before: int) -> bool:
    """Whether so many deletions, of so many messages, may well be a fault and not a wish."""
    return deletions > MASS and deletions * 2 > before
