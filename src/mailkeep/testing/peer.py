"""What a scripted server knows of one IMAP client: who it is, what it enabled, what it was told of its mailbox.

The commands (`folders.py`, `selected.py`) get this and nothing else. Its own knowledge is how numbers are told: a
sequence number is a place in what this client was told of, whatever the mailbox holds by now.
"""

import asyncio
import base64
from collections.abc import Iterable
from dataclasses import dataclass

from mailkeep.mail.numset import NumSet
from mailkeep.testing.faults import Faults
from mailkeep.testing.line import Closed, Line
from mailkeep.testing.mailboxes import Mailbox, Message
from mailkeep.testing.reply import Refused
from mailkeep.testing.state import State
from mailkeep.wire import imap_command as commands
from mailkeep.wire import imap_response as say
from mailkeep.wire import imap_server as wire


@dataclass(slots=True)
class View:
    """The selected mailbox, as this client was told of it."""

    box: Mailbox
    read_only: bool
    uids: list[int]
    told: dict[int, int]  # UID → modseq of what it was told


class Peer:
    """One client."""

    def __init__(self, server: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.account = server.account
        self.line = Line(server, reader, writer)
        self.write = self.line.write
        limits = wire.Limits(append_max=server.faults.append_max or 256 * 1024 * 1024)
        self.wire = wire.ImapServer(limits)
        self.user: str | None = None
        self.view: View | None = None
        self.enabled: set[str] = set()
        self.saved: tuple[int, ...] = ()
        self.gm_items: tuple[str, ...] = ()  # X-GM-… taken out of the FETCH at hand
        self.xlist = False  # the LIST at hand is an XLIST
        self._seen_modseq = 0
        self.tls = server.tls is not None

    @property
    def faults(self) -> Faults:
        return self.server.faults

    @property
    def capabilities(self) -> tuple[str, ...]:
        faults = self.server.faults
        names: tuple[str, ...] = faults.capabilities
        if self.user is not None and faults.capabilities_after_login is not None:
            names = faults.capabilities_after_login
        if self.server.starttls is not None and not self.tls:
            names = (*names, "STARTTLS")
        return tuple(name for name in names if not (name == "COMPRESS=DEFLATE" and self.line.compressed))

    def has(self, name: str) -> bool:
        return name in self.capabilities

    @property
    def utf8(self) -> bool:
        return "UTF8=ACCEPT" in self.enabled

    @property
    def selected(self) -> View:
        if self.view is None:
            raise Refused("BAD", "No mailbox is selected")
        return self.view

    def create_label(self, name: str) -> Mailbox:
        """A label that was not there."""
        return self.account.create(name)

    async def bye(self, text: str) -> None:
        """`* BYE`, and the end."""
        await self.write(say.untagged("BYE", text))
        await self.line.flush()
        raise Closed

    async def news(self, *, expunges: bool = True) -> None:
        """Tell what has changed in the selected mailbox (RFC 9051 section 7)."""
        view = self.view
        if view is None or self._seen_modseq == self.account.modseq:
            return
        self._seen_modseq = self.account.modseq if expunges else 0
        now = {message.uid: message for message in view.box.visible(self.server.faults.folder_cap)}
        if expunges:
            await self._tell_gone(view, now)
        fresh = [uid for uid in now if uid not in view.told]
        for uid in fresh:
            view.uids.append(uid)
            view.told[uid] = now[uid].modseq
        if fresh:
            await self.write(say.exists(len(view.uids)) + say.recent(0))
        for seq, uid in enumerate(view.uids, 1):
            message = now.get(uid)
            if message is not None and view.told[uid] < message.modseq:
                view.told[uid] = message.modseq
                await self.write(say.fetch_line(seq, self.flag_parts(message)))

    async def _tell_gone(self, view: View, now: dict[int, Message]) -> None:
        gone = [uid for uid in view.uids if uid not in now]
        if not gone:
            return
        if "QRESYNC" in self.enabled:
            await self.write(say.vanished(gone))
        else:
            for seq in range(len(view.uids), 0, -1):
                if view.uids[seq - 1] not in now:
                    await self.write(say.expunge(seq))
        view.uids = [uid for uid in view.uids if uid in now]
        for uid in gone:
            del view.told[uid]

    def flag_parts(self, message: Message) -> list[bytes]:
        """What an untagged FETCH about flags tells."""
        parts = [b"FLAGS " + say.flags_list(sorted(message.flags))]
        if self.enabled & {"CONDSTORE", "QRESYNC"}:
            parts = [b"UID %d" % message.uid, *parts, b"MODSEQ (%d)" % message.modseq]
        return parts

    def messages(self, numbers: NumSet | commands.Saved, *, uid: bool) -> list[tuple[int, Message]]:
        """(sequence number, message) of a set, in order; those that are gone are left out."""
        view = self.selected
        if not isinstance(numbers, NumSet):
            wanted = NumSet.of(self.saved)
            uid = True
        else:
            largest = (view.uids[-1] if view.uids else 0) if uid else len(view.uids)
            wanted = numbers.resolve(largest)
        found: Iterable[int]
        if uid:
            spans = wanted.slices(view.uids)
            found = [at for start, stop in spans for at in range(start, stop)]
        else:
            if wanted.ranges and wanted.ranges[-1][1] > len(view.uids):
                raise Refused("BAD", "Bad sequence number")
            found = [number - 1 for number in wanted]
        there = view.box.messages
        return [(at + 1, there[view.uids[at]]) for at in found if view.uids[at] in there]

    async def ask(self, challenge: bytes) -> bytes:
        """One step of a SASL exchange."""
        await self.write(say.continuation(base64.b64encode(challenge)))
        self.wire.expect_line()
        while True:
            event = self.wire.next_event()
            if isinstance(event, wire.Line):
                break
            await self.line.flush()
            self.wire.receive(await self.line.read())
        if event.data == b"*":
            raise Refused("BAD", "Cancelled")
        try:
            return base64.b64decode(event.data, validate=True)
        except ValueError:
            raise Refused("BAD", "Bad base64") from None
