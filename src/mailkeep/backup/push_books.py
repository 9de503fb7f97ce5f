"""What a push knows of one folder: what was chosen here, and what of it went there before. Synchronous: in threads.

Knows the store and no connection. A message of ours is named by its *key*, mailbox << 32 | uid, as the store does.

The hard idea is where it is remembered that a message is there. When this account is the remote's own archive, a pushed
message is from then on the one that a pull would bring: it takes the origin of its new place, and its row among the
remote's messages says that it is kept. So nothing that was put back is ever pulled a second time. For any other remote
the rows of `remote_message` say it, each with our key as its detail. Both are only what we remember: what counts is
what the server has, and what we do not remember is known again by content.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import msgspec

from mailkeep.backup.names import GONE
from mailkeep.backup.presence import Ours, identity_of_bytes
from mailkeep.errors import MessageMissing, StoreCorrupt
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.mailboxes import Mailbox, twin_name
from mailkeep.store.remotes import RemoteBox, State, origin_of

STEP: Final = 5000  # rows read at once
KEY_BITS: Final = 32
UID_MASK: Final = 0xFFFF_FFFF


class Row(NamedTuple):
    """A message of ours that may be sent. `internaldate` in Unix seconds."""

    key: int
    email: int
    size: int
    internaldate: int
    flags: frozenset[str]

    @property
    def uid(self) -> int:
        return self.key & UID_MASK


class Link(NamedTuple):
    """One of ours is there under this UID, with these flags."""

    key: int
    uid: int
    flags: frozenset[str]


class Quiet(msgspec.Struct, omit_defaults=True):
    """How both sides stood when last all was there; while they do, there is nothing to do."""

    there: tuple[int, int, int] = (0, 0, 0)  # UIDVALIDITY, UIDNEXT, MESSAGES
    here: tuple[int, int] = (0, 0)  # HIGHESTMODSEQ of the mailbox and of its twin
    filters: str = ""
    chosen: int = 0
    size: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """A mailbox that is pushed. `twin`: where an account that hides what is gone has the rest of it."""

    mailbox: Mailbox
    twin: Mailbox | None = None

    @property
    def name(self) -> str:
        return self.mailbox.name

    @property
    def places(self) -> tuple[Mailbox, ...]:
        return (self.mailbox,) if self.twin is None else (self.mailbox, self.twin)


def list_sources(account: Account, selection: Selection) -> tuple[list[Source], list[str]]:
    """The mailboxes that the selection takes, and the names of the others."""
    boxes = account.mailboxes(hidden=True)
    hidden = {box.name: box for box in boxes if box.hidden}
    taken, left_out = [], []
    for box in boxes:
        if box.hidden:
            continue
        if selection.takes_mailbox(box.name, box.special_use):
            taken.append(Source(box, hidden.get(twin_name(box.name))))
        else:
            left_out.append(box.name)
    return taken, left_out


@dataclass(slots=True)
class PushBooks:
    """See the module. One per folder and run; its methods are called one at a time."""

    account: Account
    remote: int
    source: Source
    name: str  # as the server names it
    own: bool  # this account is the remote's archive, and the folder is the mailbox's own place there
    foreign: bool  # the remote's archive is another account: what is there is remembered by rows
    selection: Selection
    dry: bool = False  # for a plan: nothing is written
    uidvalidity: int = 0
    keys: "array[int]" = field(default_factory=lambda: array("Q"))  # what was chosen, in the order to send
    size: int = 0  # bytes of it
    gone: int = 0  # of it, what the source no longer has
    box: RemoteBox | None = None
    elsewhere: set[int] = field(default_factory=set)  # keys whose origin is another place, and stays

    # ---- what is to be pushed

    def choose(self) -> None:
        """Find what the selection takes, by UID, what is out of sight last."""
        tree = self.selection.query_tree()
        gone_sets = {each.id for each in self.account.flagsets() if GONE in each.flags}
        for box in self.source.places:
            uids = self.account.snapshot(box.id).uids if tree is None else self.account.search(box.id, tree)
            self.keys.extend([box.id << KEY_BITS | uid for uid in uids])
            for start in range(0, len(uids), STEP):
                rows = self.account.fetch(box.id, uids[start : start + STEP], ("uid", "size", "flags"))
                self.size += sum(size for _, size, _ in rows)
                self.gone += sum(flags in gone_sets for _, _, flags in rows)

    def rows(self, keys: Sequence[int]) -> list[Row]:
        """Those of the keys that are still here, in that order."""
        found: dict[int, Row] = {}
        for box in self.source.places:
            uids = sorted(key & UID_MASK for key in keys if key >> KEY_BITS == box.id)
            columns = ("uid", "email", "size", "internaldate", "flags")
            for uid, email, size, internaldate, flags in self.account.fetch(box.id, uids, columns):
                key = box.id << KEY_BITS | uid
                found[key] = Row(key, email, size, internaldate, self.account.flagset(flags).flags - {GONE})
        return [found[key] for key in keys if key in found]

    def read(self, rows: Sequence[Row]) -> list[bytes | MessageMissing | StoreCorrupt]:
        """Their bytes, or what is wrong with them."""
        return self.account.read_many([(row.email, 0, None) for row in rows])

    def candidates(self, known: Mapping[int, int], *, by_id: bool = True) -> Iterator[Ours]:
        """What the chosen messages that are not known to be there can be told by; see `presence` for `by_id`."""
        chosen = set(self.keys)
        for box in self.source.places:
            for each in self.account.recognise(box.id):
                key = box.id << KEY_BITS | each.uid
                if each.live and key in chosen and key not in known:
                    identity = identity_of_bytes(each.envelope, each.message_id, by_id=by_id)
                    yield Ours(key, identity, each.size, each.internaldate)

    # ---- what is there

    def recall(self) -> None:
        """Find what earlier runs, pushes or pulls, remembered of this folder."""
        self.box = next((box for box in self.account.remote_boxes(self.remote) if box.name == self.name), None)

    def open(self, uidvalidity: int) -> None:
        """Now that the folder is selected. What was remembered of another UIDVALIDITY is not used."""
        self.uidvalidity = uidvalidity
        box = self.box
        if self.own and box is not None and box.uidvalidity not in (0, uidvalidity):
            self.own = False  # the next pull finds out which message is which
        if self.dry or not (self.own or self.foreign):
            return
        if box is None or box.uidvalidity != uidvalidity:
            with self.account.transaction() as transaction:
                if box is not None and self.foreign:
                    transaction.drop_remote_box(box.id)
                mailbox = self.source.mailbox.id
                fresh = RemoteBox(0, self.remote, self.name, mailbox, uidvalidity)
                self.box = transaction.put_remote_box(fresh)
        if self.own:
            self._find_elsewhere()

    def _find_elsewhere(self) -> None:
        place = origin_of(self.remote, self.name, 0, 0)[:8]
        for box in self.source.places:
            for each in self.account.recognise(box.id):
                if each.origin is not None and not each.origin.startswith(place):
                    self.elsewhere.add(box.id << KEY_BITS | each.uid)

    def known(self, there: "array[int]") -> dict[int, int]:
        """Our key → UID there, for what we remember and what the server still has."""
        if self.own:
            return self._known_by_origin(there)
        if not self.foreign or self.box is None or self.box.uidvalidity != self.uidvalidity:
            return {}
        live, found, stale = set(there), {}, []
        for uid, _, _, detail in self.account.remote_rows(self.box.id):
            if uid not in live:
                stale.append(uid)
            elif detail is not None and detail.isdigit():
                found[int(detail)] = uid
        if stale and not self.dry:
            with self.account.transaction() as transaction:
                transaction.drop_remote_messages(self.box.id, stale)
        return found

    def _known_by_origin(self, there: "array[int]") -> dict[int, int]:
        found: dict[int, int] = {}
        ours = {box.id for box in self.source.places}
        for start in range(0, len(there), STEP):
            origins = {self._origin(uid): uid for uid in there[start : start + STEP]}
            for origin, place in self.account.find_origins(list(origins)).items():
                if place.live and place.mailbox in ours:
                    found[place.mailbox << KEY_BITS | place.uid] = origins[origin]
        return found

    def _origin(self, uid: int) -> bytes:
        return origin_of(self.remote, self.name, self.uidvalidity, uid)

    def _one_each(self, links: Iterable[Link]) -> list[Link]:
        """One message of ours for each there. A server that keeps one of equal messages names it for all (Gmail)."""
        first: dict[int, Link] = {}
        for link in links:
            first.setdefault(link.uid, link)
        held = self.account.find_origins([self._origin(uid) for uid in first])
        free = []
        for uid, link in first.items():
            place = held.get(self._origin(uid))
            if place is None or place.mailbox << KEY_BITS | place.uid == link.key:
                free.append(link)
        return free

    def link(self, links: Iterable[Link]) -> None:
        """Remember that these are there. One transaction."""
        links = self._one_each(links) if self.own else list(links)
        renamed: dict[int, int] = {}  # what comes into sight again has another place, and so another key
        if self.box is None or not links or not (self.own or self.foreign):
            return
        with self.account.transaction() as transaction:
            details = [None if self.own else str(link.key) for link in links]
            rows = [(link.uid, link.flags, State.KEPT, text) for link, text in zip(links, details, strict=True)]
            transaction.put_remote_messages(self.box.id, rows)
            if not self.own:
                return
            for box in self.source.places:
                here = [link for link in links if link.key >> KEY_BITS == box.id]
                moved = [
                    (link.key & UID_MASK, self._origin(link.uid)) for link in here if link.key not in self.elsewhere
                ]
                if moved:
                    transaction.set_origins(box.id, moved)
                uids = sorted(link.key & UID_MASK for link in here)
                if uids:
                    transaction.store_flags(box.id, uids, "-", frozenset({GONE}))
                if uids and box.hidden:
                    shown = transaction.show_gone(box.id, uids)
                    place = self.source.mailbox.id << KEY_BITS
                    renamed |= {box.id << KEY_BITS | uid: place | new for uid, new in shown}
        if renamed:
            self.keys = array("Q", [renamed.get(key, key) for key in self.keys])

    # ---- nothing to do

    def is_quiet(self, status: Mapping[str, int] | None) -> Quiet | None:
        """How it was when all was there, if nothing has changed on either side since."""
        if not self.foreign or self.box is None or not self.box.cursor or status is None:
            return None
        try:
            before = msgspec.json.decode(self.box.cursor, type=Quiet)
        except msgspec.MsgspecError:
            return None
        same = before.there == _numbers(status) and before.here == self._here()
        return before if same and all(before.there[:2]) and before.filters == self.selection.describe() else None

    def settle(self, status: Mapping[str, int] | None) -> None:
        """All is there: remember how both sides stand."""
        if not self.foreign or self.box is None or status is None:
            return
        quiet = Quiet(_numbers(status), self._here(), self.selection.describe(), len(self.keys), self.size, self.gone)
        with self.account.transaction() as transaction:
            self.box = transaction.put_remote_box(replace(self.box, cursor=msgspec.json.encode(quiet)))

    def _here(self) -> tuple[int, int]:
        twin = self.source.twin
        return self.source.mailbox.highestmodseq, 0 if twin is None else twin.highestmodseq


def _numbers(status: Mapping[str, int]) -> tuple[int, int, int]:
    return status.get("UIDVALIDITY", 0), status.get("UIDNEXT", 0), status.get("MESSAGES", 0)
