"""The POP3 door (RFC 1939): INBOX as a list that does not change while somebody reads it.

At log-in the live messages of INBOX are written down: numbers, UIDs, sizes. Everything after that speaks of this list,
whatever other doors do meanwhile; messages expunged elsewhere can still be read, for the store keeps them. DELE only
marks; QUIT removes all marked ones in one transaction, or none. Many may read, one may delete: the first DELE takes a
lock on the account, which also holds between processes.

UIDLs are UIDVALIDITY and UID, which the store never gives twice. Downloads set no \\Seen.

Deliberate: a message with raw UTF-8 in its header is sent as it is without UTF8 too. RFC 6856 section 2.1 would have
an -ERR there, and with it every client that lacks the extension stuck on its first piece of spam.
"""

import asyncio
import contextlib
from array import array
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from typing import Final, assert_never

from mailkeep import __version__, log
from mailkeep.errors import (
    AccountMissing,
    AccountReadOnly,
    BadCredentials,
    ConfigError,
    LoginThrottled,
    MailkeepError,
    MessageMissing,
    NotAllowed,
    ProtocolError,
    StoreBusy,
    StoreCorrupt,
    TlsRequired,
)
from mailkeep.mail.ids import EmailId
from mailkeep.secret import Secret
from mailkeep.serve.auth import Exchange, Success
from mailkeep.serve.services import Services
from mailkeep.serve.transport import Connection
from mailkeep.store.account import Account, AccountInfo
from mailkeep.store.offload import Offload
from mailkeep.store.transaction import Transaction
from mailkeep.wire import pop3
from mailkeep.wire.pop3 import Command, err, ok

_log = log.get("pop3")

INLINE_MAX: Final = 64 * 1024  # a message up to this is one read and one write; larger ones go in slices of it
ROWS: Final = 256  # rows of a listing, or of the list at log-in, between two turns of the loop
BUFFERED_MAX: Final = 64 * 1024  # what waits in the codec before we stop reading
BUDGET: Final = 64  # commands, or a few slices, before other sessions get their turn (0.3 ms rule)
SLICE_COST: Final = 16
AHEAD: Final = 16  # small messages read with the one that is asked for, when a client takes one after the other
AHEAD_SIZE: Final = 64 * 1024  # of them together, since a session that stops there keeps them

_NO_SUCH: Final = err("No such message")


def err_for(error: MailkeepError) -> bytes:
    """This door's table (codes of RFC 2449 section 8.1, RFC 3206)."""
    match error:
        case BadCredentials():
            return err(error.text, "AUTH")
        case TlsRequired():
            return err(error.text, "SYS/PERM")
        case LoginThrottled():
            return err(error.text, "SYS/TEMP")
        case AccountReadOnly():
            return err(error.text, "SYS/PERM")
        case ProtocolError() | NotAllowed() | ConfigError():
            return err(error.text)
        case MessageMissing():
            return err("The message is gone")
        case StoreCorrupt() | AccountMissing():
            return err(error.text, "SYS/PERM")
        case _:
            return err(error.text, "SYS/TEMP")


def pop3_session(conn: Connection, services: Services) -> "Pop3Session":
    return Pop3Session(conn, services)


class Maildrop:
    """INBOX as it was at log-in. Numbers count from 1; positions in the arrays from 0."""

    __slots__ = (
        "_ahead",
        "_following",
        "_lock",
        "account",
        "deleted",
        "emails",
        "locked",
        "mailbox_id",
        "sizes",
        "uidls",
        "uids",
        "uidvalidity",
    )

    def __init__(self, account: Account, mailbox_id: int, uidvalidity: int) -> None:
        self.account = account
        self.mailbox_id = mailbox_id
        self.uidvalidity = uidvalidity
        self.uids: array[int] = array("I")
        self.emails: array[int] = array("Q")
        self.sizes: array[int] = array("Q")
        self.uidls: dict[int, str] = {}  # by UID: those that clients know from where the message was before
        self.deleted: set[int] = set()  # positions
        self.locked = False
        self._lock = contextlib.ExitStack()
        self._ahead: dict[int, bytes] = {}  # position → message, read with one before it
        self._following = 0  # the position after the last one asked for

    @classmethod
    async def open(cls, account: Account, offload: Offload) -> "Maildrop":
        inbox = account.mailbox("INBOX")
        drop = cls(account, inbox.id, inbox.uidvalidity)
        index = await offload.index(account, inbox.id)
        uids = index.uids[:]
        account.release(index)
        for start in range(0, len(uids), ROWS):
            if start:
                await asyncio.sleep(0)
            for uid, email, size in account.fetch(inbox.id, uids[start : start + ROWS], ("uid", "email", "size")):
                drop.uids.append(uid)
                drop.emails.append(email)
                drop.sizes.append(size)
            if some := uids[start : start + ROWS]:
                drop.uidls.update(account.uidls(inbox.id, some[0], some[-1]))
        return drop

    def position(self, number: int) -> int:
        """Raises MessageMissing for a number that is not there or is marked as deleted."""
        if not 1 <= number <= len(self.uids) or number - 1 in self.deleted:
            raise MessageMissing("No such message")
        return number - 1

    def live(self) -> tuple[int, int]:
        """(messages, octets) without the deleted ones."""
        return len(self.uids) - len(self.deleted), sum(self.sizes) - sum(self.sizes[p] for p in self.deleted)

    def uidl(self, position: int) -> str:
        uid = self.uids[position]
        return self.uidls.get(uid) or f"{self.uidvalidity:08x}{uid:08x}"

    def message(self, position: int) -> bytes:
        """A small message. One look-up and one read bring those that follow, too, if the client goes through the list.

        Raises MessageMissing, StoreCorrupt.
        """
        found = self._ahead.pop(position, None)
        if found is None:
            stop = self._stop_ahead(position) if position == self._following else position + 1
            first, *later = self.account.read_many([(email, 0, None) for email in self.emails[position:stop]])
            if not isinstance(first, bytes):
                raise first
            found = first
            self._ahead = {at: data for at, data in enumerate(later, position + 1) if isinstance(data, bytes)}
        self._following = position + 1
        return found

    def _stop_ahead(self, position: int) -> int:
        """Up to where small messages follow this one."""
        room = AHEAD_SIZE
        for at, size in enumerate(self.sizes[position + 1 : position + AHEAD], position + 1):
            room -= size
            if room < 0:
                return at
        return min(position + AHEAD, len(self.sizes))

    def take_lock(self) -> None:
        """Raises StoreBusy when another session, here or in another process, deletes."""
        if not self.locked:
            self._lock.enter_context(self.account.pop_lock())
            self.locked = True

    def drop_lock(self) -> None:
        self._lock.close()
        self.locked = False

    def expunge(self, transaction: Transaction) -> None:
        uids = sorted(self.uids[position] for position in self.deleted)
        transaction.expunge(self.mailbox_id, uids, only_deleted=False)


class Pop3Session:
    """One connection: AUTHORIZATION until `_drop` is there, then TRANSACTION; QUIT is UPDATE."""

    __slots__ = (
        "_account",
        "_busy",
        "_codec",
        "_conn",
        "_drop",
        "_ended",
        "_errors",
        "_exchange",
        "_held",
        "_producer",
        "_quitting",
        "_services",
        "_stopping",
        "_task",
        "_user",
        "_utf8",
    )

    def __init__(self, conn: Connection, services: Services) -> None:
        self._conn = conn
        self._services = services
        self._codec = pop3.Pop3Server()
        self._account: AccountInfo | None = None
        self._drop: Maildrop | None = None
        self._exchange: Exchange | None = None
        self._producer: Iterator[bytes] | None = None  # the rest of a multi-line response
        self._user: str | None = None
        self._utf8 = False
        self._busy = False
        self._held = False
        self._ended = False
        self._quitting = False
        self._stopping = False
        self._errors = 0
        self._task: asyncio.Task[None] | None = None
        conn.set_timeout(services.limits.login_timeout_s)
        conn.write(ok(f"{services.hostname} POP3 Mailkeep ready"))

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
        # Without QUIT nothing is deleted (RFC 1939 section 6). A commit that runs already goes on.
        if self._task is not None and not self._quitting:
            self._task.cancel()
        self._producer = None
        if self._drop is not None and not self._quitting:
            self._drop.drop_lock()
        if self._account is not None:
            self._services.auth.leave(self._account)
            self._account = None

    def timed_out(self) -> None:
        # RFC 1939 section 3: closed without UPDATE, and without a word that could be taken for an answer.
        if not self._busy:
            self._conn.close()

    def shutdown(self) -> None:
        self._stopping = True
        if not self._busy:
            self._conn.write(err("Server is stopping", "SYS/TEMP"))
            self._conn.close()

    # --- the loop ---

    def _pump(self) -> None:
        """Handle events until there are none, one must wait, or it is others' turn."""
        conn, codec, budget = self._conn, self._codec, BUDGET
        while not self._busy and not conn.closing:
            if budget <= 0 or not conn.writable:
                self._start(self._yield())
                return
            if self._producer is not None:
                budget -= SLICE_COST
                self._produce()
                continue
            event = codec.next_event()
            if event is None:
                break
            budget -= 1
            try:
                self._handle(event)
            except MailkeepError as error:
                conn.write(err_for(error))
            except Exception as error:
                _log.exception("command failed", error, peer=conn.peer)
                conn.write(err("Internal error", "SYS/TEMP"))
        if self._ended and not self._busy:
            conn.close()

    def _produce(self) -> None:
        """One more slice of a multi-line response."""
        assert self._producer is not None
        try:
            self._conn.write(next(self._producer))
        except StopIteration:
            self._producer = None
        except Exception as error:
            # In the middle of a message there is no way to say -ERR: only a cut line tells that it is not whole.
            _log.exception("response broke off", error, peer=self._conn.peer)
            self._producer = None
            self._conn.abort()

    async def _yield(self) -> None:
        await self._conn.drain()
        await asyncio.sleep(0)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._busy = True
        self._task = asyncio.get_running_loop().create_task(self._run(work))

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except MailkeepError as error:
            self._conn.write(err_for(error))
        except Exception as error:
            _log.exception("command failed", error, peer=self._conn.peer)
            self._conn.write(err("Internal error", "SYS/TEMP"))
        self._busy = False
        self._task = None
        if self._held:
            self._held = False
            self._conn.resume_reading()
        if self._stopping and self._producer is None:
            self.shutdown()
        else:
            self._pump()

    def _goodbye(self, reply: bytes) -> None:
        """For a peer that broke the rules, and may still be sending."""
        self._conn.write(reply)
        self._conn.close(linger=True)

    # --- commands ---

    def _handle(self, event: pop3.Event) -> None:
        match event:
            case Command():
                self._errors = 0
                handlers = self._AUTHORIZATION if self._drop is None else self._TRANSACTION
                handler = handlers.get(event.verb)
                if handler is None:
                    self._conn.write(err("Not now"))
                else:
                    handler(self, event)
            case pop3.Line():
                self._sasl_line(event.data)
            case pop3.Bad():
                self._exchange = None
                self._errors += 1
                if self._errors > self._services.limits.protocol_errors_max:
                    self._goodbye(err("Too many errors"))
                else:
                    self._conn.write(err(event.text))
            case _:
                assert_never(event)

    # --- any state ---

    def _capa(self, command: Command) -> None:
        conn, auth = self._conn, self._services.auth
        lines = ["TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE NEVER", "UTF8 USER", "LANG"]
        if self._drop is None:
            mechanisms = auth.mechanisms(conn)
            if mechanisms:
                lines += ["USER", "SASL " + " ".join(mechanisms)]
            if conn.can_start_tls:
                lines.append("STLS")
        lines.append(f"IMPLEMENTATION Mailkeep-{__version__}")
        conn.write(pop3.multi_line("Capabilities", lines))

    def _lang(self, command: Command) -> None:
        """LANG (RFC 6856 section 3): English is all there is."""
        wanted = command.text.strip().lower()
        if not wanted:
            self._conn.write(pop3.multi_line("Languages", ["en English"]))
        elif wanted in {b"*", b"en"}:
            self._conn.write(ok("en Language is English"))
        else:
            self._conn.write(err("No such language"))

    def _quit(self, command: Command) -> None:
        drop = self._drop
        if drop is None or not drop.deleted:
            self._conn.write(ok("Bye"))
            self._conn.close()
        else:
            self._quitting = True
            self._start(self._update(drop))

    async def _update(self, drop: Maildrop) -> None:
        """UPDATE: all or nothing. When it fails the client hears so, and finds everything again next time."""
        try:
            if drop.account.info.read_only:  # since a moment ago
                raise AccountReadOnly
            await self._services.offload.write(drop.account, drop.expunge)
            self._conn.write(ok("Bye"))
        except MailkeepError as error:
            _log.warning("update failed", user=drop.account.info.name, reason=type(error).__name__)
            self._conn.write(err("Nothing was deleted: " + error.text, "SYS/TEMP" if error.temporary else "SYS/PERM"))
        finally:
            drop.drop_lock()
            self._conn.close()

    # --- AUTHORIZATION ---

    def _user_command(self, command: Command) -> None:
        if not self._services.auth.secure(self._conn):
            raise TlsRequired("Log-in needs TLS here: say STLS")
        try:
            self._user = command.text.decode()
        except UnicodeDecodeError:
            raise ProtocolError("Name is not UTF-8") from None
        self._conn.write(ok("Password?"))

    def _pass(self, command: Command) -> None:
        user, self._user = self._user, None
        if user is None:
            raise ProtocolError("USER first")
        self._start(self._log_in(user, Secret(command.text)))

    async def _log_in(self, user: str, password: Secret) -> None:
        await self._logged_in(await self._services.auth.password(user, password, self._conn))

    async def _logged_in(self, account: AccountInfo) -> None:
        services = self._services
        services.auth.enter(account)
        self._account = account
        try:
            drop = await Maildrop.open(services.store.account(account.id), services.offload)
        except BaseException:
            # connection_lost may have left already
            if self._account is not None:
                services.auth.leave(account)
                self._account = None
            raise
        self._drop = drop
        self._conn.set_timeout(services.limits.pop3_timeout_s)
        messages, octets = drop.live()
        self._conn.write(ok(f"{messages} messages ({octets} octets)"))
        _log.info("login", user=account.name, peer=self._conn.peer, tls=self._conn.is_tls)

    def _auth(self, command: Command) -> None:
        if not command.text.strip():  # not in RFC 5034, but old Outlooks ask so what there is
            self._conn.write(pop3.multi_line("Mechanisms", self._services.auth.mechanisms(self._conn)))
            return
        mechanism, initial = pop3.parse_auth(command.text)
        self._exchange = self._services.auth.exchange(mechanism, self._conn)
        self._start(self._sasl_step(initial))

    def _sasl_line(self, line: bytes) -> None:
        if line == b"*":
            self._exchange = None
            raise ProtocolError("Authentication cancelled")
        try:
            response = pop3.decode_response(line)
        except ProtocolError:
            self._exchange = None
            raise
        self._start(self._sasl_step(response))

    async def _sasl_step(self, response: bytes | None) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        result = await exchange.step(response)
        if isinstance(result, Success):
            await self._logged_in(result.account)
        else:
            self._exchange = exchange
            self._codec.expect_line()
            self._conn.write(b"+ " + b64encode(result.data) + b"\r\n")

    def _stls(self, command: Command) -> None:
        if not self._conn.can_start_tls:
            raise NotAllowed("TLS is not available")
        if self._utf8:
            raise NotAllowed("STLS after UTF8 is not allowed")
        if self._codec.buffered:
            self._goodbye(err("Nothing may follow STLS before the handshake"))
            return
        self._conn.write(ok("Begin TLS"))
        self._conn.start_tls()
        self._user = None

    def _utf8_command(self, command: Command) -> None:
        self._utf8 = True
        self._conn.write(ok("UTF8 enabled"))

    # --- TRANSACTION ---

    def _open_drop(self) -> Maildrop:
        assert self._drop is not None
        return self._drop

    def _stat(self, command: Command) -> None:
        messages, octets = self._open_drop().live()
        self._conn.write(ok(f"{messages} {octets}"))

    def _noop(self, command: Command) -> None:
        self._conn.write(ok())

    def _list(self, command: Command) -> None:
        drop = self._open_drop()
        if command.numbers:
            position = drop.position(command.numbers[0])
            self._conn.write(ok(f"{position + 1} {drop.sizes[position]}"))
        else:
            messages, octets = drop.live()
            self._producer = _listing(drop, f"{messages} messages ({octets} octets)", lambda p: str(drop.sizes[p]))

    def _uidl(self, command: Command) -> None:
        drop = self._open_drop()
        if command.numbers:
            position = drop.position(command.numbers[0])
            self._conn.write(ok(f"{position + 1} {drop.uidl(position)}"))
        else:
            self._producer = _listing(drop, "Unique ids", drop.uidl)

    def _retr(self, command: Command) -> None:
        drop = self._open_drop()
        position = drop.position(command.numbers[0])
        size = drop.sizes[position]
        if size <= INLINE_MAX:
            self._conn.write_all((b"+OK %d octets\r\n" % size, *pop3.stuffed(drop.message(position))))
        else:
            email = EmailId(drop.emails[position])
            # Read before anything is promised: afterwards there is no way to say -ERR.
            first = drop.account.read(email, 0, INLINE_MAX)
            self._producer = _message(drop.account, email, size, first=first)

    def _top(self, command: Command) -> None:
        drop = self._open_drop()
        position = drop.position(command.numbers[0])
        rows = drop.account.fetch(drop.mailbox_id, [drop.uids[position]], ("uid", "email", "header_size"))
        if not rows:
            raise MessageMissing("The message is gone")
        _, email, header_size = rows[0]
        header = drop.account.read(email, 0, header_size)
        self._producer = _top(drop.account, email, drop.sizes[position], header=header, lines=command.numbers[1])

    def _dele(self, command: Command) -> None:
        drop = self._open_drop()
        position = drop.position(command.numbers[0])
        if drop.account.info.read_only:
            raise AccountReadOnly
        try:
            drop.take_lock()
        except StoreBusy:
            self._conn.write(err("Another session is deleting", "IN-USE"))
            return
        drop.deleted.add(position)
        self._conn.write(ok("Deleted at QUIT"))

    def _rset(self, command: Command) -> None:
        drop = self._open_drop()
        drop.deleted.clear()
        drop.drop_lock()
        self._conn.write(ok())

    _Handler = Callable[["Pop3Session", Command], None]
    _ANYTIME: Final[dict[str, _Handler]] = {"CAPA": _capa, "LANG": _lang, "QUIT": _quit}
    _AUTHORIZATION: Final[dict[str, _Handler]] = {
        **_ANYTIME,
        "USER": _user_command,
        "PASS": _pass,
        "AUTH": _auth,
        "STLS": _stls,
        "UTF8": _utf8_command,
    }
    _TRANSACTION: Final[dict[str, _Handler]] = {
        **_ANYTIME,
        "STAT": _stat,
        "LIST": _list,
        "UIDL": _uidl,
        "RETR": _retr,
        "TOP": _top,
        "DELE": _dele,
        "RSET": _rset,
        "NOOP": _noop,
    }


def _listing(drop: Maildrop, text: str, value: Callable[[int], str]) -> Iterator[bytes]:
    yield ok(text)
    total = len(drop.uids)
    for start in range(0, total, ROWS):
        positions = range(start, min(start + ROWS, total))
        yield "".join(f"{p + 1} {value(p)}\r\n" for p in positions if p not in drop.deleted).encode()
    yield b".\r\n"


def _message(account: Account, email: EmailId, size: int, *, first: bytes) -> Iterator[bytes]:
    stuffer = pop3.Stuffer()
    yield b"+OK %d octets\r\n" % size + stuffer.add(first)
    for start in range(len(first), size, INLINE_MAX):
        yield stuffer.add(account.read(email, start, INLINE_MAX))
    yield stuffer.end()


def _top(account: Account, email: EmailId, size: int, *, header: bytes, lines: int) -> Iterator[bytes]:
    """The header and so many lines of the body."""
    stuffer = pop3.Stuffer()
    yield ok("Top of message") + stuffer.add(header)
    start = len(header)
    while lines and start < size:
        data = account.read(email, start, min(INLINE_MAX, size - start))
        start += len(data)
        found = data.count(b"\n")
        if found >= lines:
            end = 0
            for _ in range(lines):
                end = data.index(b"\n", end) + 1
            data, found = data[:end], lines
        lines -= found
        yield stuffer.add(data)
    yield stuffer.end()
