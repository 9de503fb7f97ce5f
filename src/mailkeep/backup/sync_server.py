"""Their side of a two-way run: what a folder has, and how messages are put there, moved, flagged and removed.

Knows one connection and the commands; decides nothing and writes nothing here. Each change tells what the server says
that it did, no more: who calls it writes down that, and the next look finds the rest.

The hard idea is to touch only what was looked at. With CONDSTORE a STORE names the modseq of the look, and who was
changed since is left out (RFC 7162 section 3.1.3). Nothing is expunged but by UID EXPUNGE (RFC 4315), or, without it,
where all that is marked \\Deleted in the folder is ours to remove.
"""

import asyncio
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from mailkeep.backup.imap_remote import Appended, ImapConnection, Selected
from mailkeep.backup.merge import FlagChange
from mailkeep.backup.plan import cap_of
from mailkeep.backup.sync_books import Folder, SyncBooks
from mailkeep.errors import ProtocolError, RemoteBusy, RemoteError
from mailkeep.mail.flags import DELETED, Flags
from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_answer as answer
from mailkeep.wire import imap_command as command

CHUNK: Final = 300  # UIDs of one command: the worst of them fits into any server's line
ALL: Final = NumSet(((1, 0xFFFF_FFFF),))


async def look(connection: ImapConnection, books: SyncBooks, folder: Folder) -> None:
    """Select the folder and learn all its UIDs and flags. Raises RemoteError where it cannot be changed, or be seen."""
    selected = await connection.select(folder.name, writable=True)
    if selected.read_only:
        raise RemoteError("the server does not let this folder be changed")
    if selected.uidvalidity == 0:
        raise RemoteError("the server gives the folder no UIDVALIDITY, so nothing in it can be told again")
    if selected.uidvalidity != folder.box.uidvalidity:
        folder.box = await asyncio.to_thread(books.begin, folder.box, selected.uidvalidity)
    elif 0 < selected.uidnext < folder.box.uidnext:
        raise RemoteError(
            "the server counts UIDs from a lower one again, so one may be another message now; "
            "`mailkeep pull` finds out, then this goes on"
        )
    folder.permanent = selected.permanentflags
    folder.custom = connection.quirks.custom_keywords
    await asyncio.to_thread(books.load_base, folder)
    uids = await _uids(connection, selected)
    await _flags(connection, books, folder, uids, selected)
    _beyond_cap(connection, folder, uids)
    folder.modseq = selected.highestmodseq or 0
    folder.uidnext = selected.uidnext


async def _uids(connection: ImapConnection, selected: Selected) -> "array[int]":
    uids = await connection.uids()
    if len(uids) < selected.exists:
        # Somebody expunged between the two commands, or the server does not show all: then nothing is concluded.
        again = await connection.select(selected.name, writable=True)
        uids = await connection.uids()
        if len(uids) < again.exists or again.uidvalidity != selected.uidvalidity:
            raise RemoteError("the server does not list all messages of the folder")
    return uids


async def _flags(
    connection: ImapConnection, books: SyncBooks, folder: Folder, uids: "array[int]", selected: Selected
) -> None:
    """Flags of all; of those that we know, only what changed, where the server can say that."""
    known, theirs = folder.known, folder.pair.theirs
    theirs.clear()
    since = folder.box.modseq if connection.has("CONDSTORE") and selected.highestmodseq else 0
    found: dict[int, Flags] = {}
    if uids:
        numbers = ALL if since else NumSet.of(uids)
        found = await _list(connection, books, folder, numbers, since=since or None)
    unknown = [uid for uid in uids if uid not in found and uid not in known]
    if unknown and since:
        found |= await _list(connection, books, folder, NumSet.of(unknown), since=None)
    for uid in uids:
        flags = found.get(uid)
        if flags is None:
            flags = known.get(uid) if since else None
        if flags is not None:  # else it went away while we looked
            theirs[uid] = flags


async def _list(
    connection: ImapConnection, books: SyncBooks, folder: Folder, numbers: NumSet, *, since: int | None
) -> dict[int, Flags]:
    found: dict[int, Flags] = {}
    shared: dict[frozenset[str], Flags] = {}
    async for part in connection.listing(numbers, changed_since=since):
        for uid, index in zip(part.uids, part.flags, strict=True):
            names = part.flagsets[index]
            flags = shared.get(names)
            if flags is None:
                flags = shared[names] = folder.shared(books.spelled(names))
            found[uid] = flags
    return found


def _beyond_cap(connection: ImapConnection, folder: Folder, uids: "array[int]") -> None:
    """What a provider does not show because a folder is too long for it is there all the same."""
    cap = cap_of(len(uids), connection.quirks.folder_cap)
    if cap is not None and len(uids) >= cap:
        oldest = uids[0]
        folder.pair.theirs.update({uid: flags for uid, flags in folder.pair.base.items() if uid < oldest})


# ---- changing


def _chunks(uids: Sequence[int]) -> Iterator[list[int]]:
    ordered = sorted(uids)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


async def _select(connection: ImapConnection, folder: Folder) -> None:
    """Select it, if it is not selected. Raises RemoteError when its UIDs mean something else now."""
    selected = connection.selected
    if selected is None or selected.name != folder.name or selected.read_only:
        selected = await connection.select(folder.name, writable=True)
    if selected.uidvalidity != folder.box.uidvalidity:
        raise RemoteBusy("the server has made the folder anew meanwhile")


class Flagging:
    """The STOREs of one folder: what became of each message."""

    def __init__(self, connection: ImapConnection, books: SyncBooks, folder: Folder) -> None:
        self._connection = connection
        self._books = books
        self._folder = folder
        self.actual: dict[int, Flags] = {}  # as the server says after it
        self.modified: set[int] = set()  # changed since we looked, so left alone

    async def run(self, changes: Sequence[FlagChange]) -> None:
        """Additions, then removals; who was left alone in the first is in the second too."""
        await _select(self._connection, self._folder)
        added: set[int] = set()
        for mode in ("+", "-"):
            groups: dict[tuple[Flags, bool], list[int]] = {}
            for change in changes:
                uid = change.key[1]
                flags = change.add_there if mode == "+" else change.remove_there
                if flags and uid not in self.modified:
                    groups.setdefault((flags, uid in added), []).append(uid)
            for (flags, again), uids in groups.items():
                for part in _chunks(uids):
                    await self._store(part, mode, flags, guarded=not again)
            added = {change.key[1] for change in changes if change.add_there}

    async def _store(self, uids: list[int], mode: str, flags: Flags, *, guarded: bool) -> None:
        folder = self._folder
        since = folder.modseq if guarded and folder.modseq and self._connection.has("CONDSTORE") else None
        asked = command.Store(True, NumSet.of(uids), "+" if mode == "+" else "-", False, tuple(sorted(flags)), since)
        reply = await self._connection.start(asked)
        for each in reply.answers:
            if isinstance(each, answer.Fetched) and each.uid is not None and each.flags is not None:
                self.actual[each.uid] = folder.shared(self._books.spelled(each.flags))
        self.modified |= _modified(reply.status)
        if not reply.ok and reply.code not in ("MODIFIED", "EXPUNGEISSUED"):
            raise RemoteError(f"the server does not change flags: {reply.status.text[:200]}", code=reply.code)


def _modified(status: answer.Status) -> set[int]:
    code = status.code
    if code is not None and code.name == "MODIFIED" and isinstance(code.value, NumSet):
        return set(code.value)
    return set()


async def expunge(connection: ImapConnection, folder: Folder, uids: Sequence[int]) -> tuple[list[int], list[int]]:
    """(removed, only marked) of those that were not changed since we looked."""
    await _select(connection, folder)
    since = folder.modseq if folder.modseq and connection.has("CONDSTORE") else None
    removed, marked = [], []
    for part in _chunks(uids):
        asked = command.Store(True, NumSet.of(part), "+", True, (DELETED,), since)
        reply = await connection.start(asked)
        if not reply.ok and reply.code not in ("MODIFIED", "EXPUNGEISSUED"):
            raise RemoteError(f"the server does not let messages be removed: {reply.status.text[:200]}")
        left = _modified(reply.status)
        due = [uid for uid in part if uid not in left]
        if not due:
            continue
        if connection.has("UIDPLUS") or connection.has("IMAP4REV2"):
            await connection.run(command.Expunge(NumSet.of(due)))
            removed += due
        else:
            marked += due
    if marked and set(await _deleted(connection)) <= set(marked):
        await connection.run(command.Expunge())
        removed, marked = marked, []
    return removed, marked


async def _deleted(connection: ImapConnection) -> list[int]:
    """UIDs of all that is marked \\Deleted in the selected mailbox."""
    reply = await connection.run(command.Search(True, command.SearchKey("DELETED")))
    found: list[int] = []
    for each in reply.answers:
        if isinstance(each, answer.Found) and each.numbers is not None:
            found += each.numbers
    return found


async def move(
    connection: ImapConnection, source: Folder, target: Folder, uids: Sequence[int]
) -> tuple[dict[int, int], bool]:
    """Old UID → new UID, as far as the server says, and whether the old ones are still there (no MOVE: copied only)."""
    await _select(connection, source)
    moves = connection.has("MOVE") or connection.has("IMAP4REV2")
    placed: dict[int, int] = {}
    for part in _chunks(uids):
        numbers = NumSet.of(part)
        asked = command.Move(True, numbers, target.name) if moves else command.Copy(True, numbers, target.name)
        reply = await connection.run(asked)
        for each in (*reply.answers, reply.status):
            code = each.code if isinstance(each, answer.Status) else None
            if code is not None and code.name == "COPYUID" and isinstance(code.value, tuple):
                uidvalidity, old, new = code.value
                if uidvalidity == target.box.uidvalidity and len(old) == len(new):
                    placed |= dict(zip(old, new, strict=True))
    return placed, not moves


async def append(
    connection: ImapConnection, folder: Folder, data: bytes, *, flags: Flags, internaldate: int
) -> "asyncio.Future[Appended]":
    """As `ImapConnection.append`: returns when it is on its way."""
    return await connection.append(folder.name, data, flags=sorted(flags), internaldate=internaldate)


async def is_untouched(connection: ImapConnection, folder: Folder, messages: int) -> bool:
    """Whether a folder that is about to be deleted is as we saw it: nothing came since, and so many are left."""
    reply = await connection.run(command.Status(folder.name, ("MESSAGES", "UIDNEXT", "UIDVALIDITY")))
    for each in reply.answers:
        if isinstance(each, answer.MailboxStatus):
            items = each.items
            return (
                items.get("UIDVALIDITY") == folder.box.uidvalidity
                and items.get("UIDNEXT") == folder.uidnext
                and items.get("MESSAGES") == messages
            )
    raise ProtocolError("the server does not answer STATUS")
