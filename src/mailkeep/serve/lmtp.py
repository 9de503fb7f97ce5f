"""The LMTP door (RFC 2033): mail comes in, and each recipient gets an answer of its own.

Knows the order of commands, the answers, and when something is too much; the codec cuts the bytes, `delivery` finds and
fills the mailboxes. A message is staged while it arrives, so that nothing but its last bytes is waited for; its 250 is
written after the commit. While a delivery runs, later commands of the same client wait in the codec.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Final, assert_never

from mailkeep import log
from mailkeep.delivery.deliver import check_room, deliver
from mailkeep.delivery.route import Recipient, Routes
from mailkeep.errors import (
    AccountMissing,
    AccountReadOnly,
    LimitReached,
    MailboxMissing,
    MailkeepError,
    NotAllowed,
    OverQuota,
    PeerLimitError,
    StoreFull,
)
from mailkeep.serve.services import Services
from mailkeep.serve.transport import Connection
from mailkeep.store.staging import Staging
from mailkeep.wire import smtp
from mailkeep.wire.smtp import Reply

_log = log.get("lmtp")

INLINE_MAX: Final = 64 * 1024  # larger messages are hashed and rendered in a thread
BUFFERED_MAX: Final = 256 * 1024  # what waits in the codec before we stop reading
BUDGET: Final = 64  # commands before other sessions get their turn (0.3 ms rule)
RCPT_COST: Final = 8  # it asks the directory

_OK: Final = Reply(250, "2.0.0", "Ok").encode()
_SENDER_OK: Final = Reply(250, "2.1.0", "Sender ok").encode()
_RECIPIENT_OK: Final = Reply(250, "2.1.5", "Recipient ok").encode()
_DELIVERED: Final = Reply(250, "2.0.0", "Saved").encode()
_GO_AHEAD: Final = Reply(354, "", "End data with <CR><LF>.<CR><LF>").encode()
_BAD_ORDER: Final = Reply(503, "5.5.1", "Bad sequence of commands").encode()
_NO_RECIPIENTS: Final = Reply(503, "5.5.1", "No valid recipients").encode()
_TOO_BIG: Final = Reply(552, "5.3.4", "Message too big").encode()
_INTERNAL: Final = Reply(451, "4.3.0", "Internal error, try again later").encode()


def reply_for(error: MailkeepError) -> Reply:
    """This door's table: an error's code for a sending server."""
    match error:
        case AccountMissing():
            return Reply(550, "5.1.1", error.text)
        case AccountReadOnly():
            return Reply(550, "5.2.1", error.text)  # RFC 3463 section 3.3: not accepting messages
        case OverQuota():
            return Reply(452, "4.2.2", error.text) if error.temporary else Reply(552, "5.2.2", error.text)
        case StoreFull():
            return Reply(452, "4.3.1", error.text)
        case PeerLimitError():
            return Reply(552, "5.3.4", error.text)
        case LimitReached():
            return Reply(452, "4.2.0", error.text)
        case MailboxMissing() | NotAllowed():
            return Reply(451, "4.2.0", error.text)
        case _:  # read-only, busy, corrupt: the sender keeps the message and tries again
            return Reply(451, "4.3.0", error.text)


def lmtp_session(conn: Connection, services: Services) -> "LmtpSession":
    return LmtpSession(conn, services)


class LmtpSession:
    """One connection. `_mail` … `_staging` are the transaction; `_reset` ends it."""

    __slots__ = (
        "_binary",
        "_busy",
        "_chunked",
        "_codec",
        "_conn",
        "_ended",
        "_errors",
        "_failure",
        "_held",
        "_hello",
        "_last_chunk",
        "_mail",
        "_received",
        "_recipients",
        "_routes",
        "_services",
        "_staging",
        "_stopping",
        "_task",
    )

    def __init__(self, conn: Connection, services: Services) -> None:
        self._conn = conn
        self._services = services
        self._routes = Routes(
            services.store.directory,
            services.local_domains | {"localhost", services.hostname.lower()},
            services.postmaster,
        )
        self._codec = smtp.SmtpServer()
        self._hello = ""
        self._busy = False
        self._held = False
        self._ended = False
        self._stopping = False
        self._errors = 0
        self._task: asyncio.Task[None] | None = None
        self._staging: Staging | None = None
        self._mail: smtp.Mail | None = None
        self._recipients: list[Recipient] = []
        self._failure: MailkeepError | None = None
        self._reset()
        conn.set_timeout(services.limits.lmtp_timeout_s)
        conn.write(Reply(220, "", f"{services.hostname} LMTP Mailkeep ready").encode())

    # --- what the connection calls ---

    def data_received(self, data: bytes) -> None:
        self._codec.receive(data)
        if not self._busy:
            self._pump()
        elif self._codec.buffered > BUFFERED_MAX and not self._held:
            self._held = True
            self._conn.pause_reading()

    def eof_received(self) -> None:
        self._ended = True
        if not self._busy:
            self._conn.close()

    def connection_lost(self, error: Exception | None) -> None:
        # A running delivery goes on: the message may be on disk already, only its sender will not know.
        self._discard()

    def timed_out(self) -> None:
        if not self._busy:
            self._conn.write(Reply(421, "4.4.2", "Idle for too long").encode())
            self._conn.close()

    def shutdown(self) -> None:
        self._stopping = True
        if not self._busy:
            self._conn.write(Reply(421, "4.3.2", "Server is stopping").encode())
            self._conn.close()

    # --- the loop ---

    def _pump(self) -> None:
        """Handle events until there are none, one must wait, or it is others' turn."""
        conn, budget = self._conn, BUDGET
        while not self._busy and not conn.closing:
            if budget <= 0 or not conn.writable:
                self._start(self._yield())
                return
            event = self._codec.next_event()
            if event is None:
                break
            budget -= RCPT_COST if isinstance(event, smtp.Rcpt) else 1
            try:
                self._handle(event)
            except MailkeepError as error:
                conn.write(reply_for(error).encode())
            except Exception as error:
                _log.exception("command failed", error, peer=conn.peer)
                conn.write(_INTERNAL)
        if self._ended and not self._busy:
            conn.close()

    async def _yield(self) -> None:
        await self._conn.drain()
        await asyncio.sleep(0)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        """Run what must wait; commands stay in the codec meanwhile."""
        self._busy = True
        self._task = asyncio.get_running_loop().create_task(self._run(work))

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:
            _log.exception("delivery failed", error, peer=self._conn.peer)
            self._goodbye(Reply(421, "4.3.0", "Internal error, try again later"))
        self._busy = False
        self._task = None
        if self._held:
            self._held = False
            self._conn.resume_reading()
        if self._stopping:
            self.shutdown()
        else:
            self._pump()

    def _goodbye(self, reply: Reply) -> None:
        """For a peer that broke the rules, and may still be sending."""
        self._conn.write(reply.encode())
        self._conn.close(linger=True)

    # --- commands ---

    def _handle(self, event: smtp.Event) -> None:
        if not isinstance(event, smtp.Bad):
            self._errors = 0
        match event:
            case smtp.Content():
                self._content(event)
            case smtp.Mail():
                self._mail_from(event)
            case smtp.Rcpt():
                self._rcpt_to(event)
            case smtp.Data():
                self._data()
            case smtp.Chunk():
                self._chunk(event)
            case smtp.Hello():
                self._greet(event)
            case smtp.Rset():
                self._reset()
                self._conn.write(_OK)
            case smtp.Noop():
                self._conn.write(_OK)
            case smtp.Vrfy():
                self._conn.write(Reply(252, "2.0.0", "Send it and see").encode())
            case smtp.Help():
                self._conn.write(Reply(214, "2.0.0", "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT").encode())
            case smtp.StartTls():
                self._start_tls()
            case smtp.Auth():
                self._conn.write(Reply(502, "5.5.1", "Command not implemented").encode())
            case smtp.Quit():
                self._reset()
                self._conn.write(Reply(221, "2.0.0", "Bye").encode())
                self._conn.close()
            case smtp.Bad():
                self._bad(event)
            case smtp.Line():
                raise AssertionError("no line was asked for")
            case _:
                assert_never(event)

    def _bad(self, event: smtp.Bad) -> None:
        self._errors += 1
        if self._errors > self._services.limits.protocol_errors_max:
            self._goodbye(Reply(421, "4.7.0", "Too many errors"))
        else:
            self._conn.write(event.reply.encode())

    def _greet(self, event: smtp.Hello) -> None:
        if event.verb != "LHLO":
            # RFC 2033 section 4.1: HELO and EHLO must not be answered with a success.
            self._conn.write(Reply(500, "5.5.1", "This is LMTP: say LHLO").encode())
            return
        self._reset()
        self._hello = event.domain
        lines = [
            self._services.hostname,
            "PIPELINING",
            f"SIZE {self._services.limits.message_size_max}",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "BINARYMIME",
            "ENHANCEDSTATUSCODES",
        ]
        if self._conn.can_start_tls:
            lines.append("STARTTLS")
        self._conn.write(Reply(250, "", tuple(lines)).encode())

    def _start_tls(self) -> None:
        if not self._conn.can_start_tls:
            self._conn.write(Reply(502, "5.5.1", "TLS is not available").encode())
        elif self._codec.buffered:
            self._goodbye(Reply(421, "5.5.1", "Nothing may follow STARTTLS before the handshake"))
        else:
            self._conn.write(Reply(220, "2.0.0", "Ready to start TLS").encode())
            self._conn.start_tls()
            self._reset()
            self._hello = ""  # RFC 3207 section 4.2: what was said before is forgotten

    def _mail_from(self, event: smtp.Mail) -> None:
        if not self._hello or self._mail is not None:
            self._conn.write(_BAD_ORDER)
        elif event.size is not None and event.size > self._services.limits.message_size_max:
            self._conn.write(_TOO_BIG)
        else:
            self._mail = event
            self._binary = event.body == "BINARYMIME"
            self._conn.write(_SENDER_OK)

    def _rcpt_to(self, event: smtp.Rcpt) -> None:
        if self._mail is None or self._chunked:
            self._conn.write(_BAD_ORDER)
            return
        if not self._mail.smtputf8 and not event.address.isascii():
            self._conn.write(Reply(553, "5.6.7", "Such an address needs SMTPUTF8").encode())
            return
        if len(self._recipients) >= self._services.limits.recipients_max:
            self._conn.write(Reply(452, "4.5.3", "Too many recipients").encode())
            return
        recipient = self._routes.find(event.local, event.domain)
        check_room(self._services.store, recipient, self._mail.size)
        self._recipients.append(recipient)
        self._conn.write(_RECIPIENT_OK)

    def _data(self) -> None:
        if self._mail is None or self._chunked or self._binary:
            # BINARYMIME needs BDAT, and BDAT does not mix with DATA (RFC 3030 sections 2 and 3).
            self._conn.write(_BAD_ORDER)
        elif not self._recipients:
            self._conn.write(_NO_RECIPIENTS)
        else:
            self._staging = self._services.store.stage()
            self._codec.expect_data()
            self._conn.write(_GO_AHEAD)

    def _chunk(self, event: smtp.Chunk) -> None:
        """BDAT. Its bytes come whatever we think of it; what is wrong is said after them."""
        self._last_chunk = event.last
        if self._mail is None or not self._recipients:
            self._failure = None
            self._discard()
            return
        self._chunked = True
        if self._staging is None and self._failure is None:
            try:
                self._staging = self._services.store.stage()
            except MailkeepError as error:
                self._failure = error

    # --- the message ---

    def _content(self, event: smtp.Content) -> None:
        self._received += len(event.data)
        size_max = self._services.limits.message_size_max
        if self._received > size_max and self._failure is None:
            self._fail(PeerLimitError("Message too big"))
        if self._staging is not None and event.data:
            try:
                self._staging.write(event.data)
            except MailkeepError as error:
                self._fail(error)
        if event.end:
            if self._chunked or self._mail is None or not self._recipients:
                self._chunk_ended()
            else:
                self._finish()
        elif self._received > 2 * size_max + (1 << 20):
            # Still sending: a mail server would have believed SIZE. Nobody needs to read the rest.
            self._goodbye(Reply(552, "5.3.4", "Message too big"))

    def _chunk_ended(self) -> None:
        if self._mail is None or not self._recipients:
            self._received = 0
            self._conn.write(_BAD_ORDER if self._mail is None else _NO_RECIPIENTS)
        elif self._last_chunk:
            self._finish()
        elif self._failure is not None:
            self._conn.write(reply_for(self._failure).encode())
        else:
            self._conn.write(Reply(250, "2.0.0", f"{self._received} octets received").encode())

    def _fail(self, error: MailkeepError) -> None:
        self._failure = error
        if self._staging is not None:
            self._staging.discard()
            self._staging = None

    def _finish(self) -> None:
        """The message is complete: deliver it, or say to each recipient why not."""
        staging, self._staging = self._staging, None
        recipients, failure = self._recipients, self._failure
        if staging is None or failure is not None:
            assert failure is not None
            self._conn.write(reply_for(failure).encode() * len(recipients))
            self._reset()
            return
        now = int(time.time())
        header = self._trace_header(now)
        self._reset()
        self._start(self._deliver(staging, recipients, header=header, now=now))

    async def _deliver(self, staging: Staging, recipients: list[Recipient], *, header: bytes, now: int) -> None:
        services = self._services
        try:
            staging.prepend(header)
            if staging.size > INLINE_MAX:
                staged = await services.offload.read(staging.finish)
            else:
                staged = staging.finish()
        except MailkeepError as error:
            staging.discard()
            self._conn.write(reply_for(error).encode() * len(recipients))
            return
        results = await deliver(staged, recipients, store=services.store, offload=services.offload, internaldate=now)
        staged.close()  # not when one of them broke off: the others may be writing it, and let it go by themselves
        self._conn.write(b"".join(_DELIVERED if result is None else reply_for(result).encode() for result in results))
        for recipient, result in zip(recipients, results, strict=True):
            if result is not None:
                _log.warning("not delivered", user=recipient.account.name, reason=type(result).__name__)

    def _trace_header(self, now: int) -> bytes:
        """What goes on top (RFC 5321 section 4.4).

        Delivered-To only for a single recipient: with several, the others' names, blind copies among them, would be
        shown, or the message would have to be stored once for each.
        """
        assert self._mail is not None
        conn, services = self._conn, self._services
        protocol = ("UTF8LMTP" if self._mail.smtputf8 else "LMTP") + ("S" if conn.is_tls else "")
        tls = f"\r\n\t(using {conn.tls_version()})" if conn.is_tls else ""
        peer = f"[{conn.peer}]" if ":" not in conn.peer else f"[IPv6:{conn.peer}]"
        origin = "local socket" if conn.peer == "local" else peer
        lines = [
            f"Received: from {self._hello} ({origin}){tls}\r\n\tby {services.hostname} with {protocol};"
            f"\r\n\t{date_time(now)}\r\n"
        ]
        if len(self._recipients) == 1:
            lines.insert(0, f"Delivered-To: {self._recipients[0].address}\r\n")
        return b"Return-Path: <" + self._mail.sender + b">\r\n" + "".join(lines).encode()

    # --- the transaction's end ---

    def _reset(self) -> None:
        self._discard()
        self._mail = None
        self._recipients = []
        self._failure = None
        self._received = 0
        self._chunked = False
        self._last_chunk = False
        self._binary = False

    def _discard(self) -> None:
        if self._staging is not None:
            self._staging.discard()
            self._staging = None


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_time(seconds: int) -> str:
    """date-time of RFC 5322 section 3.3, in UTC. Not strftime: its names follow the locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday} {_MONTHS[t.tm_mon - 1]} {t.tm_year}"
        f" {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
    )
