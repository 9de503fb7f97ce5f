"""APPEND: from the announced literal to the stored message (RFC 9051 section 6.3.12, RFC 6855, RFC 7889).

All that can be known beforehand is checked before the client is told to go on, so that nobody sends 60 MB to hear that
the mailbox is missing. The message flows into the store's staging; it is parsed in a thread when it is big.
"""

from functools import partial

from mailkeep.errors import AccountReadOnly, LimitReached, MailboxMissing, MailkeepError, OverQuota
from mailkeep.mail.flags import RECENT, Flags, canonical
from mailkeep.serve.imap_peer import Peer
from mailkeep.serve.imap_reply import Reply, from_error, no, ok
from mailkeep.store import Appended, Staged, Transaction
from mailkeep.wire import imap_response
from mailkeep.wire.imap_command import Append

THREAD_SIZE = 64 * 1024  # smaller messages are parsed on the loop: the hop costs more


class Incoming:
    """One APPEND under way."""

    __slots__ = ("_command", "_error", "_flags", "_name", "_peer", "_staging", "tag")

    def __init__(self, peer: Peer, tag: bytes, command: Append) -> None:
        """Raises AccountReadOnly, MailboxMissing, OverQuota, LimitReached, ProtocolError for a flag that cannot be."""
        if peer.account.info.read_only:
            raise AccountReadOnly
        self.tag = tag
        self._peer = peer
        self._command = command
        self._name = peer.mailbox_name(command.mailbox)
        # A small message for where the last one went: the transaction sees to it, and the look-ups here would cost as
        # much as parsing it does.
        known = self._name == peer.appended_to and command.size <= THREAD_SIZE
        if not known:
            peer.account.mailbox(self._name)
        # Clients copy \Recent from where they got the message; it is no flag to set, and no reason to refuse.
        self._flags = frozenset(canonical(name) for name in command.flags if name.lower() != RECENT.lower())
        if command.size > peer.services.limits.message_size_max:
            raise LimitReached("Message is too large")
        quota = None if known else peer.account.quota()
        if quota is not None and peer.account.usage().bytes + command.size > quota:
            raise OverQuota("Quota exceeded")
        self._staging = peer.services.store.stage()
        self._error: MailkeepError | None = None

    @staticmethod
    def refusal(error: MailkeepError) -> Reply:
        """The reply to an APPEND that was not begun or did not succeed."""
        if isinstance(error, MailboxMissing):
            return no(b"No such mailbox", b"TRYCREATE")
        if isinstance(error, LimitReached) and "large" in error.text:
            return no(b"Message is too large", b"TOOBIG")
        return from_error(error)

    def write(self, data: bytes) -> None:
        """More of the message. After a failure the rest is let go by; `finish` tells."""
        if self._error is None:
            try:
                self._staging.write(data)
            except MailkeepError as error:
                self._error = error
                self._staging.discard()

    def discard(self) -> None:
        """The command did not come to its end."""
        if self._error is None:
            self._staging.discard()

    async def finish(self) -> Reply:
        """All is here: store it."""
        if self._error is not None:
            return self.refusal(self._error)
        peer, staging = self._peer, self._staging
        try:
            if staging.size > THREAD_SIZE:
                staged = await peer.services.offload.read(staging.finish)
            else:
                staged = staging.finish()
            appended = await peer.services.offload.write(
                peer.account,
                partial(_append, self._name, staged, flags=self._flags, date=self._command.date),
                by=peer.view,
            )
            # Not when the client hangs up meanwhile: a thread may be writing it, and lets it go by itself.
            staged.close()
        except MailkeepError as error:
            peer.appended_to = ""
            return self.refusal(error)
        peer.appended_to = self._name
        return ok(b"APPEND completed", imap_response.appenduid(appended.uidvalidity, (appended.uid,)))


def _append(name: str, staged: Staged, transaction: Transaction, *, flags: Flags, date: int | None) -> Appended:
    return transaction.append(transaction.find(name), staged, flags=flags, internaldate=date)
