"""What to do about one mailbox of another server: from what it says and what we know, nothing else. Pure.

The hard idea: the cheapest answer that is still sure. Equal numbers of STATUS mean that nothing came or went, and with
an equal HIGHESTMODSEQ (RFC 7162 section 3.1) that no flag changed either: no SELECT then. Else QRESYNC, else CONDSTORE,
else all UIDs and a turn of flags. Whatever way was taken, the count of messages must come out right in the end; where
it does not, all UIDs are asked for (`counts_agree`), so that a server which resynchronises wrongly loses us nothing.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

SMALL: Final = 2000  # messages whose flags are all looked at in every run
TURN: Final = 5000  # … of a larger mailbox: so many a run, by turns
CAPS: Final = frozenset((1000, 2000, 5000, 10_000))  # to which Gmail's users may limit a folder
MASS: Final = 50  # losses at once up to which a mirror believes them
FETCH_SLICE: Final = 200  # messages of one window; newest windows first, rising within one


@dataclass(frozen=True, slots=True)
class Said:
    """What the server says of a mailbox, by STATUS or SELECT. None: it did not say."""

    uidvalidity: int | None
    uidnext: int | None
    messages: int | None
    modseq: int | None = None  # HIGHESTMODSEQ; None or 0: it keeps none

    @classmethod
    def of_status(cls, items: Mapping[str, int] | None) -> "Said":
        """From the items of a STATUS answer."""
        found = items or {}
        return cls(
            found.get("UIDVALIDITY"),
            found.get("UIDNEXT") or None,
            found.get("MESSAGES"),
            found.get("HIGHESTMODSEQ") or None,
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """What we know of it from the last run."""

    uidvalidity: int
    uidnext: int
    messages: int  # rows of messages that the server had then
    modseq: int = 0  # up to where flags are known; 0: not by modseq
    complete: bool = False  # the last run went through to its end
    due: bool = False  # some booked failure is to be tried again, or other filters are given now


class Way(Enum):
    """How to find out what changed."""

    SKIP = "unchanged"
    FIRST = "first time"
    QRESYNC = "resynchronise"  # SELECT (QRESYNC …)
    CONDSTORE = "changes since"  # all UIDs, flags by CHANGEDSINCE
    SWEEP = "flags by turns"  # all UIDs where anything came or went, and a turn of flags
    RECOGNISE = "other UIDVALIDITY"  # which messages are ours already is told by their content


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the server can do, as far as it is trusted."""

    qresync: bool = False
    condstore: bool = False


def choose(said: Said, kept: Kept | None, can: Abilities) -> Way:
    """The way to take. With what STATUS said, SKIP spares the SELECT; ask again with what SELECT said."""
    if kept is None or kept.uidvalidity == 0:
        return Way.FIRST
    if said.uidvalidity is not None and said.uidvalidity != kept.uidvalidity:
        return Way.RECOGNISE
    if kept.complete and not kept.due and unchanged(said, kept):
        if said.modseq and kept.modseq:
            return Way.SKIP if said.modseq == kept.modseq else _by_modseq(can)
        if said.messages == 0:
            return Way.SKIP
    return _by_modseq(can) if kept.modseq else Way.SWEEP


def _by_modseq(can: Abilities) -> Way:
    return Way.QRESYNC if can.qresync else Way.CONDSTORE if can.condstore else Way.SWEEP


def unchanged(said: Said, kept: Kept) -> bool:
    """Nothing came and nothing went: UIDs only rise, so an equal UIDNEXT is no arrival, and an equal count no loss."""
    return (
        said.uidvalidity == kept.uidvalidity
        and said.uidnext is not None
        and said.uidnext == kept.uidnext
        and said.messages == kept.messages
    )


def counts_agree(exists: int, rows: int) -> bool:
    """Whether what we have on our books is as many as the server has. Where not, ask it for all UIDs."""
    return exists == rows


def is_mass(losses: int, before: int) -> bool:
    """More went at once than anybody removes: a server that is ill or half moved rather shows too little."""
    return losses > MASS and losses * 2 > before


@dataclass(frozen=True, slots=True)
class Difference:
    """UIDs, rising."""

    fresh: "array[int]"  # the server's alone
    vanished: "array[int]"  # ours alone, and not yet marked gone
    returned: "array[int]"  # on the server, though ours say gone


def compare(theirs: "array[int]", ours: "array[int]", gone: Sequence[int]) -> Difference:
    """All UIDs of the server against all of ours, both rising; `gone` beside ours, 0 for what is not.

    One walk, no sets: a million UIDs stay three arrays.
    """
    fresh, vanished, returned = array("I"), array("I"), array("I")
    if theirs == ours and not any(gone):
        return Difference(fresh, vanished, returned)
    there, end = 0, len(theirs)
    for uid, since in zip(ours, gone, strict=True):
        while there < end and theirs[there] < uid:
            fresh.append(theirs[there])
            there += 1
        if there < end and theirs[there] == uid:
            there += 1
            if since:
                returned.append(uid)
        elif not since:
            vanished.append(uid)
    fresh.extend(theirs[there:])
    return Difference(fresh, vanished, returned)


def cap_of(exists: int, known: int | None) -> int | None:
    """How many messages of a folder the server shows: as it is known, or a round number that it just has.

    Gmail lets its users limit folders to a thousand messages, or two, five or ten thousand, and says it nowhere. A
    folder that has so many by chance is none the worse for it: what vanished of its oldest is marked a run later.
    """
    return known if known is not None else exists if exists in CAPS else None


def beyond_cap(listed: "array[int]", vanished: "array[int]", cap: int | None) -> "array[int]":
    """Of what seems to have vanished, what a server that shows only its `cap` newest messages just does not show."""
    if cap is None or len(listed) < cap:
        return array("I")
    oldest = listed[0]
    return array("I", [uid for uid in vanished if uid < oldest])


def newest_first(uids: Sequence[int], slice_size: int = FETCH_SLICE) -> "array[int]":
    """The order to fetch in: the newest window first, but rising within it, as servers read and clients list best."""
    ordered = array("I")
    for stop in range(len(uids), 0, -slice_size):
        ordered.extend(uids[max(stop - slice_size, 0) : stop])
    return ordered


def turn(uids: "array[int]", after: int) -> tuple["array[int]", int]:
    """Whose flags to look at in this run: (UIDs, where the next run goes on). A small one has all at once.

    `after`: the UID that the last turn ended with, 0 at the start. Turns go from the newest to the oldest.
    """
    if len(uids) <= SMALL:
        return uids, 0
    stop = len(uids)
    if after:
        low, high = 0, len(uids)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if uids[middle] < after else (low, middle)
        stop = low or len(uids)
    start = max(stop - TURN, 0)
    return uids[start:stop], uids[start] if start else 0


# --- folders of one server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder by what may tell it again under another name. `identity`: MAILBOXID (RFC 8474) or None."""

    name: str
    uidvalidity: int
    uidnext: int
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class Renamed:
    """`sure`: by an identity that the server gave; else some messages must be looked at first."""

    old: str
    new: str
    sure: bool


def find_renamed(missing: Iterable[Folder], fresh: Iterable[Folder]) -> list[Renamed]:
    """Pairs of a folder that we know and that is not listed any more, and one that is listed and that we do not know.

    An equal UIDVALIDITY is a hint only: some servers give all mailboxes the same. It must be the only one on both
    sides, and UIDs must not have gone back.
    """
    missing, fresh = list(missing), list(fresh)
    found = []
    for old in missing:
        if old.identity is not None:
            twins = [new for new in fresh if new.identity == old.identity]
            if len(twins) == 1:
                found.append(Renamed(old.name, twins[0].name, sure=True))
            continue
        same = [new for new in fresh if new.uidvalidity == old.uidvalidity and new.uidnext >= old.uidnext]
        rivals = [other for other in missing if other.uidvalidity == old.uidvalidity]
        if old.uidvalidity and len(same) == 1 and len(rivals) == 1:
            found.append(Renamed(old.name, same[0].name, sure=False))
    return found
