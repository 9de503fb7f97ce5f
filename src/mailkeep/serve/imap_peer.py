"""The client at the other end, as this server knows it: who logged in, what is enabled, what is selected.

Commands are functions of a Peer and a command. They return a Reply at once, or a generator of response pieces that
ends in one, or a coroutine that does; which of the three decides whether the event loop turns meanwhile. A Peer knows
how to write and what the state is, never how commands are scheduled: that is `imap`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from mailkeep import log
from mailkeep.errors import MailboxMissing, MailkeepError, NotAllowed
from mailkeep.mail.mailbox_name import check_name
from mailkeep.serve.imap_reply import Reply
from mailkeep.serve.imap_view import Enabled, View
from mailkeep.serve.services import Services
from mailkeep.serve.transport import Connection
from mailkeep.store import Account, AccountInfo, Mailbox
from mailkeep.wire.imap_command import MessageSet, Saved
from mailkeep.wire.imap_server import ImapServer

_log = log.get("imap")

Steps = Generator[bytes, None, Reply]
Result = Reply | Steps | Coroutine[Any, Any, Reply]


class Peer:
    """State of one IMAP session. Touched on the event loop only."""

    __slots__ = (
        "_background",
        "_unwatch",
        "account_open",
        "appended_to",
        "closed",
        "conn",
        "crowded",
        "enabled",
        "flush",
        "in_literal",
        "info",
        "line",
        "moved",
        "out",
        "saved",
        "services",
        "stream",
        "tag",
        "view",
        "wire",
    )

    def __init__(self, conn: Connection, services: Services, wire: ImapServer) -> None:
        self.conn = conn
        self.services = services
        self.wire = wire
        self.enabled = Enabled()
        self.info: AccountInfo | None = None
        self.account_open: Account | None = None
        self.view: View | None = None
        self.saved: tuple[int, ...] = ()  # `$`: UIDs (RFC 5182)
        self.appended_to = ""  # the mailbox of the last APPEND that succeeded
        self.tag = b""  # of the command that runs
        self.out: list[bytes] = []
        self.in_literal = False  # the last bytes written are inside a literal: no response may start here
        self.closed = False
        self.crowded = 0  # above 0: others want the loop as well
        self._unwatch: Callable[[], None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        # Set by the session that owns this peer.
        self.line: Callable[[], Awaitable[bytes]]  # the next line, raw (AUTHENTICATE)
        self.stream: Callable[[Generator[bytes, None, Any]], Awaitable[Any]]  # write pieces, give way between them
        self.moved: Callable[[], None]  # the selected mailbox has news
        self.flush: Callable[[], None]  # hand what is written to the connection

    def write(self, data: bytes) -> None:
        """Queue untagged data; all that one read of the socket causes leaves together."""
        self.out.append(data)

    @property
    def account(self) -> Account:
        """The account; commands that come here have logged in."""
        assert self.account_open is not None
        return self.account_open

    @property
    def selected(self) -> View:
        """The view; commands that come here have a mailbox selected."""
        assert self.view is not None
        return self.view

    @property
    def read_only(self) -> bool:
        """Whether nothing may be changed in the selected mailbox: opened so, or the account may only be read."""
        return self.selected.read_only or self.account.info.read_only

    # --- selection ---
    def select(self, view: View) -> None:
        """Enter the selected state."""
        assert self.view is None
        self.view = view
        self._unwatch = view.index.watch(self.moved)

    def unselect(self) -> None:
        """Leave the selected state. Messages first told to this session are not \\Recent for the next one."""
        view = self.view
        if view is None:
            return
        self.view = None
        self.saved = ()
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        index = view.index
        if view.recent and not view.read_only and not index.deleted:
            self.spawn(self._claim(index.mailbox_id))
        self.account.release(index)

    async def _claim(self, mailbox_id: int) -> None:
        await self.services.offload.write(
            self.account, lambda transaction: transaction.claim_recent(mailbox_id), durable=False
        )

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something whose outcome the client does not wait for."""

        async def run() -> None:
            try:
                await work
            except MailkeepError as error:
                _log.warning("background work failed", reason=error.text)
            except RuntimeError:  # the writer has been closed: the server stops, and nobody is left to care
                _log.debug("background work dropped")

        task = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- sets ---
    def spans(self, messages: MessageSet, *, uid: bool) -> list[tuple[int, int]]:
        """Positions in the view that a command's set names; `$` always means UIDs (RFC 5182 section 2.1)."""
        view = self.selected
        if isinstance(messages, Saved):
            return view.spans_of(self.saved)
        return view.spans(messages, uid=uid)

    def numbers(self, uids: list[int], *, uid: bool) -> list[int]:
        """UIDs as this command counts: as they are, or as sequence numbers."""
        if uid:
            return uids
        view = self.selected
        return [at + 1 for value in uids if (at := view.position(value)) is not None]

    # --- mailboxes ---
    def mailbox_name(self, name: str) -> str:
        """The name as the store has it. Raises MailboxMissing for what can be no name."""
        try:
            return check_name(name)
        except NotAllowed:
            raise MailboxMissing("No such mailbox") from None

    def mailbox(self, name: str) -> Mailbox:
        """The mailbox of that name. Raises MailboxMissing."""
        return self.account.mailbox(self.mailbox_name(name))
