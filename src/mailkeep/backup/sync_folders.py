"""The folders of both sides brought into pairs: renamed, made, and those of which one side is gone found out.

Knows one connection, the names (`names`) and the rows of pairs; of messages it looks only at some, to tell a renamed
folder again. What a folder that one side deleted comes to is decided by its messages: see `sync`.

The hard idea is that a name says nothing by itself. Our mailbox is known by its id, theirs by its MAILBOXID (RFC 8474)
or, with care, by its UIDVALIDITY; the pair's row remembers how both were called when they last agreed. So whoever has
another name now was renamed, and a pair without one half lost it.
"""

import asyncio
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from mailkeep.backup.books import read_cursor
from mailkeep.backup.imap_remote import ImapConnection, RemoteMailbox
from mailkeep.backup.merge import Pair
from mailkeep.backup.names import Ours, Placed, given_use, local_names, special_uses, target_names, target_of
from mailkeep.backup.plan import Folder as Told
from mailkeep.backup.plan import find_renamed
from mailkeep.backup.recognise import sample
from mailkeep.backup.sync_books import Folder, SyncBooks
from mailkeep.backup.sync_ledger import SyncReport
from mailkeep.errors import LimitReached, MailboxExists, MailboxMissing, NotAllowed, RemoteBusy, RemoteError
from mailkeep.mail.ids import MailboxId
from mailkeep.mail.mailbox_name import INBOX
from mailkeep.mail.numset import NumSet
from mailkeep.mail.selection import Selection
from mailkeep.store.mailboxes import DEFAULT_MAILBOXES, Mailbox
from mailkeep.store.remotes import RemoteBox
from mailkeep.wire import imap_command as command

VIEWS: Final = frozenset(("\\All", "\\Important", "\\Flagged"))  # they show what lies elsewhere
RENAMES_MAX: Final = 1000  # in one run, before it is given up as endless
_DEFAULTS: Final = frozenset(name for name, _ in DEFAULT_MAILBOXES) - {INBOX}


@dataclass(slots=True)
class Tree:
    """See the module. One per round; `align` gives the pairs."""

    books: SyncBooks
    connection: ImapConnection
    report: SyncReport
    selection: Selection
    into: str | None = None
    dry: bool = False
    listed: dict[str, RemoteMailbox] = field(default_factory=dict)
    local: dict[str, str] = field(default_factory=dict)  # their name → ours, as it would be given today
    plain: dict[str, str] = field(default_factory=dict)  # … without `into`
    uses: dict[str, str] = field(default_factory=dict)
    ours: dict[int, Mailbox] = field(default_factory=dict)
    boxes: list[RemoteBox] = field(default_factory=list)
    done: int = 0  # changes made

    async def align(self) -> list[Folder]:
        """All pairs that are meant. Raises RemoteError and the like."""
        await self._load()
        for _ in range(RENAMES_MAX):
            if not (await self._follow_renames() or await self._rename_there()) or self.dry:
                break
            self.done += 1
            await self._load()
        folders = []
        for box in self.boxes:
            folder = await self._pair(box)
            if folder is not None:
                folders.append(folder)
        folders += await self._meet()
        return folders

    async def _load(self) -> None:
        connection = self.connection
        listed = await connection.list_mailboxes(status=True)
        self.listed = {str(each.name): each for each in listed}
        self.plain = local_names(listed, prefix=connection.prefix)
        self.local = local_names(listed, prefix=connection.prefix, into=self.into)
        self.uses = special_uses(listed, connection.prefix)
        self.boxes, mailboxes = await asyncio.to_thread(lambda: (self.books.boxes(), self.books.account.mailboxes()))
        root = f"{self.into}/" if self.into else ""
        self.ours = {box.id: box for box in mailboxes if box.name.startswith(root)}

    # ---- what is meant

    def _meant(self, name: str) -> bool:
        """Whether a folder of theirs takes part."""
        folder = self.listed[name]
        skipped = {each.casefold() for each in self.connection.quirks.skip_folders}
        plain = self.plain[name]
        if not folder.selectable or given_use(folder) in VIEWS or plain.casefold() in skipped:
            return False
        use = self.uses.get(name)
        return self._chosen(plain, [use] if use else [])

    def _chosen(self, name: str, uses: Sequence[str]) -> bool:
        if self.selection.takes_mailbox(name, uses):
            return True
        if name not in self.report.left_out:
            self.report.left_out.append(name)
        return False

    def _stripped(self, name: str) -> str:
        """Our name as it is without `into`."""
        if not self.into:
            return name
        rest = name.removeprefix(f"{self.into}/")
        return INBOX if rest == "Inbox" else rest

    def _separator(self) -> str | None:
        found = (each.separator for each in self.listed.values() if each.separator is not None)
        return self.connection.separator or next(found, None)

    def _places(self, *, without: int | None = None) -> dict[str, Placed]:
        """Our name (stripped) → where it goes there. `without`: a pair whose present name there does not count."""
        known = {
            self._stripped(self.ours[box.mailbox].name): box.name
            for box in self.boxes
            if box.mailbox in self.ours and box.name in self.listed and box.id != without
        }
        target = target_of(self.connection.quirks, separator=self._separator(), prefix=self.connection.prefix)
        mine = [Ours(self._stripped(box.name), box.special_use) for box in self.ours.values()]
        return target_names(mine, list(self.listed.values()), target, known=known)

    # ---- renamed there

    def _told(self, folder: RemoteMailbox) -> Told:
        said = folder.status or {}
        identity = said.get("MAILBOXID")
        return Told(
            str(folder.name), said.get("UIDVALIDITY", 0), said.get("UIDNEXT", 0), str(identity) if identity else None
        )

    async def _follow_renames(self) -> bool:
        """One of them; True: there was one."""
        names = {box.name for box in self.boxes}
        missing = [box for box in self.boxes if box.name not in self.listed and box.uidvalidity]
        fresh = [self._told(each) for name, each in self.listed.items() if name not in names and each.selectable]
        if not missing or not fresh:
            return False
        by_name = {box.name: box for box in missing}
        places = self._places()
        for box in missing:  # one that we renamed ourselves, and died before it was written down
            here = self.ours.get(box.mailbox or 0)
            goal = places.get(self._stripped(here.name)) if here else None
            if here and goal and any(told.name == goal.name and told.uidvalidity == box.uidvalidity for told in fresh):
                await self._renamed(box, goal.name)
                return True
        told_of_ours = [
            Told(box.name, box.uidvalidity, box.uidnext, read_cursor(box.cursor).identity) for box in missing
        ]
        for renamed in sorted(find_renamed(told_of_ours, fresh), key=lambda each: each.old):
            box = by_name[renamed.old]
            if renamed.sure or await self._is_same(box, renamed.new):
                await self._renamed(box, renamed.new)
                return True
        return False

    async def _renamed(self, box: RemoteBox, new: str) -> None:
        """Their folder has this name now: ours follows, whatever it was called."""
        here = self.ours.get(box.mailbox or 0)
        if here is None:
            await self._write(self.books.rename_pair, box, new, agreed=read_cursor(box.cursor).agreed or "")
            return
        goal = self.local[new]
        taken = {each.name for each in self.ours.values()}
        self.report.actions.append(f"{box.name} is called {new} on the server")
        if goal == here.name or goal in taken or here.name == INBOX:
            await self._write(self.books.rename_pair, box, new, agreed=here.name)
            return
        try:
            await self._write(self.books.rename_pair, box, new, agreed=goal, here=(here.name, goal))
        except (MailboxExists, MailboxMissing, NotAllowed) as error:
            self.report.note(f"{here.name} cannot be renamed to {goal}: {error.text}")
            await self._write(self.books.rename_pair, box, new, agreed=here.name)

    async def _write(self, work: object, *args: object, **named: object) -> None:
        assert callable(work)
        if not self.dry:
            await asyncio.to_thread(work, *args, **named)

    async def _is_same(self, box: RemoteBox, name: str) -> bool:
        """Whether messages of the same UIDs are the same by date and size, some looked at."""
        account = self.books.account
        uids = array("I", (await asyncio.to_thread(account.remote_uids, box.id)).uids)
        looked_at = sample(uids)
        by_origin = {self.books.origin(box, uid): uid for uid in looked_at}
        ours: dict[int, tuple[int, int]] = {}
        for origin, place in account.find_origins(list(by_origin)).items():
            for _, date, size in account.fetch(place.mailbox, [place.uid], ("uid", "internaldate", "size")):
                ours[by_origin[origin]] = (date, size)
        if not ours:
            return True  # nothing is known of it, so nothing can be mistaken
        met = 0
        with suppress(RemoteError):
            await self.connection.select(name)
            async for part in self.connection.facts(NumSet.of(ours)):
                for facts in part:
                    date, size = ours[facts.uid]
                    if facts.internaldate != date or (self.connection.quirks.trust_size and facts.size != size):
                        return False
                    met += 1
        return met * 2 > len(ours)

    # ---- renamed here

    async def _rename_there(self) -> bool:
        """One of them, with what lies below it; True: there was one."""
        for box in sorted(self.boxes, key=lambda each: each.name):
            here = self.ours.get(box.mailbox or 0)
            agreed = read_cursor(box.cursor).agreed
            if here is None or agreed is None or agreed == here.name or box.name not in self.listed:
                continue
            goal = self._places(without=box.id)[self._stripped(here.name)].name
            if self.dry:
                self.report.actions.append(f"rename {box.name} to {goal} on the server")
                continue
            if goal != box.name and not await self._ask_rename(box, goal):
                goal = box.name
            await self._note_rename(box, goal, agreed, here.name)
            return True
        return False

    async def _ask_rename(self, box: RemoteBox, goal: str) -> bool:
        if goal in self.listed or box.name.upper() == INBOX:
            self.report.note(f"{box.name} keeps its name on the server: {goal} is taken there")
            return False
        reply = await self.connection.start(command.Rename(box.name, goal))
        if not reply.ok:
            self.report.note(f"{box.name} keeps its name on the server: {reply.status.text[:200]}")
            return False
        self.report.actions.append(f"{box.name} renamed to {goal} on the server")
        if self.listed[box.name].subscribed:
            await self.connection.start(command.Subscribe(goal))
            await self.connection.start(command.Unsubscribe(box.name))
        return True

    async def _note_rename(self, box: RemoteBox, goal: str, agreed: str, name: str) -> None:
        """The row of the folder, and those of all below it, whose names changed along."""
        separator = self.listed[box.name].separator
        below = box.name + separator if separator else None
        for other in self.boxes:
            if other.id == box.id:
                await asyncio.to_thread(self.books.rename_pair, box, goal, agreed=name)
            elif below and other.name.startswith(below) and goal != box.name:
                was = read_cursor(other.cursor).agreed or ""
                moved = name + was.removeprefix(agreed) if was.startswith(f"{agreed}/") else was
                fresh = goal + other.name[len(box.name) :]
                await asyncio.to_thread(self.books.rename_pair, other, fresh, agreed=moved)

    # ---- pairs that are known

    async def _pair(self, box: RemoteBox) -> Folder | None:
        here, there = self.ours.get(box.mailbox or 0), self.listed.get(box.name)
        if there is not None and not there.selectable:
            there = None
        name = self.plain[box.name] if there is not None else self._stripped(here.name) if here else None
        if there is not None and not self._meant(box.name):
            return None
        if there is None and name is not None and not self._chosen(name, here.special_use if here else ()):
            return None
        if there is None and not await self._is_gone(box):
            return None
        if here is None and there is None:
            await self._write(self.books.drop_pair, box)
            return None
        return self._folder(box, here, there)

    def _folder(self, box: RemoteBox, here: Mailbox | None, there: RemoteMailbox | None) -> Folder:
        ledger = self.report.folder(box.name)
        ledger.mailbox, ledger.error, ledger.settled = here.name if here else None, None, False
        ledger.missing.clear()
        ledger.listed.clear()
        cursor = read_cursor(box.cursor)
        identity = ((there.status if there else None) or {}).get("MAILBOXID")
        cursor.identity = str(identity) if identity else cursor.identity
        return Folder(box, here, there, ledger, Pair(box.id, int(here.id) if here else 0), cursor)

    async def _is_gone(self, box: RemoteBox) -> bool:
        """Whether a folder that is not listed is not there either."""
        if not any(name.upper() == INBOX for name in self.listed):
            self.report.folder(box.name).error = "the server lists no INBOX, so nothing is concluded from its list"
            return False
        try:
            await self.connection.select(box.name)
        except RemoteBusy:
            raise
        except RemoteError:
            return True
        self.report.folder(box.name).error = "the server does not list this folder any more, but it is there"
        return False

    # ---- pairs that are new

    async def _meet(self) -> list[Folder]:
        paired_here = {box.mailbox for box in self.boxes}
        paired_there = {box.name for box in self.boxes}
        places = self._places()
        made = []
        for here in sorted(self.ours.values(), key=lambda each: each.name):
            placed = places[self._stripped(here.name)]
            if here.id in paired_here or set(here.special_use) & VIEWS:
                continue
            if not self._chosen(self._stripped(here.name), here.special_use):
                continue
            there = self.listed.get(placed.name)
            if there is not None and there.selectable and placed.name not in paired_there:
                if not self._meant(placed.name):
                    continue
            elif here.name in _DEFAULTS and here.uidnext == 1:
                continue  # each account has it, and it was never used: nobody misses it there
            else:
                there = await self._create_there(here, placed)
            if there is not None:
                paired_there.add(placed.name)
                paired_here.add(here.id)
                made += await self._made(there, here)
        for name, there in self.listed.items():
            if name not in paired_there and self._meant(name):
                made += await self._made(there, await self._create_here(there, paired_here))
        return made

    async def _made(self, there: RemoteMailbox, here: Mailbox | None) -> list[Folder]:
        name = str(there.name)
        if self.dry:
            ledger = self.report.folder(name)
            ledger.mailbox = here.name if here else self.local.get(name)
            ledger.counts["fetched"] += (there.status or {}).get("MESSAGES", 0)
            ledger.counts["uploaded"] += here.messages if here else 0
            return []
        if here is None:
            return []
        status = there.status or {}
        identity = status.get("MAILBOXID")
        box = await asyncio.to_thread(
            self.books.put_pair, name, here, status.get("UIDVALIDITY", 0), str(identity) if identity else None
        )
        self.done += 1
        return [self._folder(box, here, there)]

    async def _create_there(self, here: Mailbox, placed: Placed) -> RemoteMailbox | None:
        self.report.actions.append(f"{placed.name} made on the server")
        made = RemoteMailbox(placed.name, b"", self._separator(), frozenset(), None, False, True, None)
        if self.dry:
            return made
        connection = self.connection
        use = placed.special_use
        uses = (use,) if use and "CREATE-SPECIAL-USE" in connection.capabilities else ()
        reply = await connection.start(command.Create(placed.name, uses))
        if not reply.ok and uses:
            reply = await connection.start(command.Create(placed.name))
        if not reply.ok and reply.code != "ALREADYEXISTS":
            self.report.actions.pop()
            if here.messages or placed.name not in self.listed:
                text = f"the server does not make the folder: {reply.status.text[:200]}"
                ledger = self.report.folder(placed.name)
                ledger.mailbox, ledger.error = here.name, text
            return None
        if here.subscribed:
            await connection.start(command.Subscribe(placed.name))
        return made

    async def _create_here(self, there: RemoteMailbox, paired: set[MailboxId | None]) -> Mailbox | None:
        name = self.local[str(there.name)]
        self.report.actions.append(f"{name} made here")
        return None if self.dry else await asyncio.to_thread(self._make_mailbox, there, name, paired)

    def _make_mailbox(self, there: RemoteMailbox, wanted: str, paired: set[MailboxId | None]) -> Mailbox | None:
        with self.books.account.transaction() as transaction:
            boxes = {box.name: box for box in transaction.mailboxes()}
            name, number = wanted, 2
            while name in boxes and boxes[name].id in paired:
                name, number = f"{wanted} ({number})", number + 1
            if name in boxes:
                paired.add(boxes[name].id)
                return boxes[name]
            taken = {use for box in boxes.values() for use in box.special_use}
            use = self.uses.get(str(there.name)) if not self.into else None
            try:
                made = transaction.create_mailbox(
                    name, special_use=[use] if use and use not in taken else [], subscribe=there.subscribed
                )
            except (NotAllowed, LimitReached, MailboxExists) as error:
                self.report.folder(str(there.name)).error = f"there can be no mailbox for it here: {error.text}"
                return None
        paired.add(made.id)
        return made
