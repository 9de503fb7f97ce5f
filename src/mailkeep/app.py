"""The server as a whole: sockets, processes, signals, and what runs beside the sessions.

**Processes.** The parent binds every door and says so. With one worker it serves by itself. With more it forks them:
each has its own listening socket of every TCP door (SO_REUSEPORT spreads connections over them) and all share the Unix
ones. The parent keeps every socket open, so what is in the queue of a worker that died waits for the next one, which
gets the same sockets. One more child, the keeper, does what needs a processor and no hurry: search indexes, garbage
collection, and pulls by schedule, each a process of its own; it runs at idle priority, because a thread in a serving
process would hold the interpreter's lock.

Every child watches a pipe from the parent and ends when it closes, so a parent killed with -9 leaves nobody behind.
Forking comes before the event loop, before threads and before SQLite: none of them survives a fork.

**Signals.** TERM and INT: no new connections, every session says its goodbye, then the store is closed. HUP:
certificates and the configuration file are read again; what a running server cannot change is named in the log.
"""

import asyncio
import contextlib
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailkeep import config as configuration
from mailkeep import log
from mailkeep.config import Config
from mailkeep.errors import ConfigError, MailkeepError, StoreReadOnly

if TYPE_CHECKING:
    from mailkeep.serve.services import Limits, Services
    from mailkeep.serve.transport import Connection, Hub, Session
    from mailkeep.store.store import Store

_log = log.get("app")

GOODBYE_S: Final = 10.0  # what sessions may take to end
IDLE_CLOSE_S: Final = 60.0
INDEX_BATCH: Final = 500
# Nobody searches for what came this second, and a search reads through what the index lacks: leave the processor and
# the disk to what is coming in, and index it after; but keep no account waiting for ever that always gets mail.
INDEX_QUIET_S: Final = 3.0
INDEX_LAG_MAX_S: Final = 60.0
FAILED_PAUSE_S: Final = 60.0
RESTART_S: Final = 1.0  # a worker that dies at once is not started again faster than this
# What a door says to a connection over the limit, before it closes it.
REFUSALS: Final = {
    "imap": b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
    "imaps": b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
    "pop3": b"-ERR [SYS/TEMP] Too many connections, try again later\r\n",
    "pop3s": b"-ERR [SYS/TEMP] Too many connections, try again later\r\n",
    "lmtp": b"421 4.3.2 Too many connections, try again later\r\n",
}

Sockets = list[tuple[str, socket.socket]]  # door, listening socket
Reload = Callable[[], Config]
TlsFiles = tuple[Path, Path] | None  # certificate and key


# --- before the sessions ---------------------------------------------------------------------------------------------


def prepare(config: Config) -> None:
    """The process's surroundings: file modes, descriptors, the data directory. Raises StoreReadOnly."""
    os.umask(0o077)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreReadOnly(
            f"{config.data} cannot be made: {error.strerror}; name a directory that you may write to with --data"
        ) from None


def certificate_files(config: Config) -> TlsFiles:
    """Certificate and key: the configured ones, or a self-signed pair when every door is on loopback.

    Raises ConfigError when they cannot be used, and when a door that others can reach would have none: no client could
    log in on it.
    """
    from mailkeep.serve.tls import TlsConfig, make_self_signed

    if config.tls_certificate is not None and config.tls_key is not None:
        TlsConfig(config.tls_certificate, config.tls_key)  # what is wrong with them is said now, not by each worker
        return config.tls_certificate, config.tls_key
    doors = [(door, at) for door, listen in config.listen.items() for at in listen if door != "lmtp"]
    public = [f"{door} {at}" for door, at in doors if not at.is_loopback]
    if public:
        raise ConfigError(
            f"{public[0]} can be reached from elsewhere and needs a certificate: "
            "set certificate and key under [tls] in the configuration file, or listen on 127.0.0.1"
        )
    try:
        return make_self_signed(config.data / "tls", hostname=config.hostname) if doors else None
    except OSError as error:
        raise StoreReadOnly(f"no certificate can be kept in {config.data}: {error.strerror}") from None


def bind(config: Config) -> list[Sockets]:
    """Bound, listening sockets for each worker. Raises Unreachable when an address cannot be had."""
    from mailkeep.serve.transport import bind_socket

    several = config.workers > 1
    everybody: list[Sockets] = [[] for _ in range(config.workers)]
    try:
        for door, addresses in config.listen.items():
            for address in addresses:
                first = bind_socket(str(address), reuse_port=several and address.path is None)
                everybody[0].append((door, first))
                for sockets in everybody[1:]:
                    if address.path is not None:
                        sockets.append((door, first))
                    else:  # with port 0 all workers get the port that the first one got
                        real = configuration.Address(address.host, first.getsockname()[1])
                        sockets.append((door, bind_socket(str(real), reuse_port=True)))
    except MailkeepError:
        for sockets in everybody:
            for _, sock in sockets:
                sock.close()
        raise
    return everybody


def shown_address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return str(name)


# --- one serving process ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Server:
    """Everything that one process needs to serve; built on its running loop."""

    config: Config
    sockets: Sockets
    tls_files: TlsFiles
    reload_config: Reload
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, ready: Callable[[], object]) -> None:
        """Serve until told to stop."""
        from mailkeep.serve.auth import Authenticator, load_salt_key
        from mailkeep.serve.services import Services
        from mailkeep.serve.tls import TlsConfig
        from mailkeep.serve.transport import Hub, Listener
        from mailkeep.store.offload import Offload
        from mailkeep.store.store import Store

        loop = asyncio.get_running_loop()
        config = self.config
        store = Store.open(config.data)
        offload = Offload(store, loop)
        store.listen(loop)
        tls = TlsConfig(*self.tls_files) if self.tls_files is not None else None
        auth = Authenticator(
            store, salt_key=load_salt_key(config.data / "salt.key"), sessions_per_user=config.sessions_per_user_max
        )
        services = Services(
            store=store,
            offload=offload,
            auth=auth,
            hostname=config.hostname,
            limits=limits(config),
            tls=tls,
            local_domains=config.domains,
            postmaster=config.postmaster,
            log=log.get("serve"),
        )
        hub = Hub(
            connections_max=config.connections_max,
            connections_per_peer=config.connections_per_peer_max,
            handshake_s=min(30, config.login_timeout_s),
        )
        listeners = [
            Listener(
                door,
                sock,
                session_factory(door, services),
                hub=hub,
                tls=tls,
                implicit_tls=door in ("imaps", "pop3s"),
                refusal=REFUSALS[door],
            )
            for door, sock in self.sockets
        ]
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload, services, hub)
        for listener in listeners:
            await listener.start()
        housekeeping = loop.create_task(_close_idle(store))
        # What lives from here to the end is looked at by no collection; what sessions make mostly dies by count.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        # A thread that computes (argon2's caller, rendering, a commit) gives the lock back to the loop ten times sooner
        # than Python's 5 ms: the loop's worst stall beside a STORE of 50,000 falls from 10 ms to 2.
        sys.setswitchinterval(0.0005)
        ready()
        await self._stopping.wait()
        _log.info("stopping", connections=len(hub.connections))
        for listener in listeners:
            listener.close()
        await hub.shutdown(GOODBYE_S)
        housekeeping.cancel()
        await offload.close()
        auth.close()
        store.close()

    def _stop(self) -> None:
        if self._stopping.is_set():  # asked twice: somebody is in a hurry; what was acknowledged is on disk
            os._exit(0)
        self._stopping.set()

    def stop(self) -> None:
        self._stopping.set()

    def _reload(self, services: "Services", hub: "Hub") -> None:
        try:
            config = self.reload_config()
            if services.tls is not None:
                services.tls.reload()
        except MailkeepError as error:
            _log.error("reload failed, all stays as it was", reason=error.text)
            return
        log.configure(level=config.log_level, form=config.log_format)
        services.limits = limits(config)
        services.local_domains = config.domains
        services.postmaster = config.postmaster
        hub.connections_max = config.connections_max
        hub.connections_per_peer = config.connections_per_peer_max
        fixed = ("data", "hostname", "workers", "listen", "tls_certificate", "tls_key", "sessions_per_user_max")
        waiting = [name for name in fixed if getattr(config, name) != getattr(self.config, name)]
        _log.info("reloaded", needs_restart=", ".join(waiting) or None)


def limits(config: Config) -> "Limits":
    from mailkeep.serve.services import Limits

    return Limits(
        message_size_max=config.message_size_max,
        recipients_max=config.lmtp_recipients_max,
        login_timeout_s=config.login_timeout_s,
        imap_timeout_s=config.idle_timeout_s,
        pop3_timeout_s=config.pop3_timeout_s,
        lmtp_timeout_s=config.lmtp_timeout_s,
    )


def session_factory(door: str, services: "Services") -> "Callable[[Connection], Session]":
    """The door's own module is imported here, so that a server without POP3 has none in memory."""
    if door in ("imap", "imaps"):
        from mailkeep.serve.imap import imap_session

        return lambda connection: imap_session(connection, services)
    if door in ("pop3", "pop3s"):
        from mailkeep.serve.pop3 import pop3_session

        return lambda connection: pop3_session(connection, services)
    from mailkeep.serve.lmtp import lmtp_session

    return lambda connection: lmtp_session(connection, services)


async def _close_idle(store: "Store") -> None:
    while True:
        await asyncio.sleep(IDLE_CLOSE_S)
        try:
            store.close_idle()
        except MailkeepError as error:
            _log.warning("idle accounts were not closed", reason=error.text)


def serve(
    config: Config, everybody: Sequence[Sockets], tls_files: TlsFiles, *, reload: Reload, ready: Callable[[], None]
) -> int:
    """Serve until a signal says stop; the exit code. `ready` is called once every door answers."""
    reader, writer = os.pipe()  # nobody writes: it closes with the last process that holds `writer`, the parent
    if len(everybody) > 1:
        return _Supervisor(config, everybody, tls_files, reload, reader, writer).run(ready)
    keeper = _fork(lambda: keep(config, reader), writer)
    os.close(reader)
    try:
        _run(lambda: Server(config, everybody[0], tls_files, reload), ready)
    finally:
        os.close(writer)
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.kill(keeper, signal.SIGTERM)  # whatever it does may be cut off anywhere
            os.waitpid(keeper, 0)
    return 0


def _run(server_of: Callable[[], Server], ready: Callable[[], object], lifeline: int | None = None) -> None:
    """Run a Server on a new loop. `lifeline`: the pipe whose closing means that the parent is gone."""
    import uvloop

    async def main() -> None:
        server = server_of()
        if lifeline is not None:
            asyncio.get_running_loop().add_reader(lifeline, server.stop)
        await server.run(ready)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _fork(work: Callable[[], object], writer: int) -> int:
    """Fork a child that does `work` and ends; its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.close(writer)
        # The parent reads Ctrl-C and tells everybody; a child that obeyed it too would hurry (see Server._stop).
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        work()
        code = 0
    except MailkeepError as error:
        _log.error("cannot serve", reason=error.text)
        code = 1
    except BaseException as error:  # the outermost loop of a process
        _log.exception("process failed", error)
    finally:
        os._exit(code)  # not through the parent's frames, nor its exit handlers


# --- several serving processes ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Supervisor:
    """The parent of the workers: starts them, starts them again, hands signals on. It has no loop and no threads."""

    config: Config
    everybody: Sequence[Sockets]
    tls_files: TlsFiles
    reload_config: Reload
    reader: int
    writer: int
    slots: dict[int, int] = field(default_factory=dict)  # pid → which worker; -1 is the keeper
    started: dict[int, float] = field(default_factory=dict)

    def run(self, ready: Callable[[], None]) -> int:
        watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        told_reader, told = os.pipe()
        for slot in (-1, *range(len(self.everybody))):
            self._start(slot, told)
        if not self._all_ready(told_reader):
            self._stop()
            return 69
        ready()
        while True:
            number = signal.sigwait(watched)
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
                return 0
            if number == signal.SIGHUP:
                self._signal(signal.SIGHUP)
            else:
                for slot in self._reap():
                    _log.error("a process ended by itself, starting another", worker=slot)
                    time.sleep(max(0.0, self.started[slot] + RESTART_S - time.monotonic()))
                    self._start(slot, told)

    def _start(self, slot: int, told: int) -> None:
        self.started[slot] = time.monotonic()
        self.slots[_fork(lambda: self._work(slot, told), self.writer)] = slot

    def _work(self, slot: int, told: int) -> None:
        if slot < 0:
            keep(self.config, self.reader)
            return
        mine = self.everybody[slot]
        for sockets in self.everybody:
            for door, sock in sockets:
                if (door, sock) not in mine:
                    sock.close()
        _run(
            lambda: Server(self.config, mine, self.tls_files, self.reload_config),
            lambda: os.write(told, b"."),
            self.reader,
        )

    def _all_ready(self, told_reader: int) -> bool:
        """Wait for one byte from each worker; False when one ended before."""
        heard = 0
        while heard < len(self.everybody):
            if select.select([told_reader], [], [], 0.2)[0]:
                heard += len(os.read(told_reader, 256))
            elif signal.sigpending() & {signal.SIGTERM, signal.SIGINT} or self._reap():
                return False
        return True

    def _reap(self) -> list[int]:
        """Slots whose process has ended."""
        ended = []
        while self.slots:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid in self.slots:
                ended.append(self.slots.pop(pid))
        return ended

    def _signal(self, number: int) -> None:
        for pid, slot in self.slots.items():
            if slot >= 0 or number != signal.SIGHUP:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _stop(self) -> None:
        self._signal(signal.SIGTERM)
        end = time.monotonic() + GOODBYE_S + 5
        while self.slots and time.monotonic() < end:
            self._reap()
            if self.slots:
                signal.sigtimedwait({signal.SIGCHLD}, 0.2)
        self._signal(signal.SIGKILL)
        while self.slots:
            self._reap()


# --- the keeper ------------------------------------------------------------------------------------------------------


def keep(config: Config, lifeline: int) -> None:
    """Index new mail for search, collect garbage and pull remotes as scheduled, until the parent is gone."""
    from mailkeep.backup.scheduler import Scheduler
    from mailkeep.store.store import Store

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # whoever reads the parent's output must see its end when the parent ends
    with contextlib.suppress(OSError):
        os.nice(10)
    store = Store.open(config.data)
    gc_stamp = config.data / "collected"  # its time says when; run/ is for sockets only
    seen: dict[int, tuple[int, ...]] = {}
    behind: dict[int, float] = {}
    scheduler = Scheduler(store)

    def end(_number: int, _frame: object) -> None:
        scheduler.stop()  # our own work may be cut off anywhere, but its children must not outlive us
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    pause_s = 1.0
    while not _readable(lifeline, pause_s):
        begun = time.monotonic()
        indexed = False
        try:
            scheduler.tick()
            if config.search_index:
                indexed = index_changed(
                    store, seen, lambda: _readable(lifeline, 0), quiet_s=INDEX_QUIET_S, behind=behind
                )
            if is_due(gc_stamp, config.gc_every_s):
                gc_stamp.touch()  # before: what fails is tried again tomorrow, not every second
                _collect(store, config, lambda: _readable(lifeline, 0))
        except MailkeepError as error:
            _log.warning("upkeep was put off", reason=error.text)
        except Exception as error:  # the outermost loop: one odd account must not end all upkeep
            _log.exception("upkeep failed", error)
            indexed, begun = False, begun - FAILED_PAUSE_S / 10
        # At most a tenth of its time is spent on looking where nothing is, however many accounts there are.
        pause_s = 0.0 if indexed else max(1.0, 10 * (time.monotonic() - begun))
    scheduler.stop()


def _readable(descriptor: int, timeout_s: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])


def index_changed(
    store: "Store",
    seen: dict[int, tuple[int, ...]],
    cancelled: Callable[[], bool],
    *,
    quiet_s: float = 0,
    behind: dict[int, float] | None = None,
) -> bool:
    """Index a batch of each account whose database was written to since the last look; whether there was any.

    One that was written to in the last `quiet_s` seconds waits, unless it has waited too long; `behind` remembers since
    when.

    The write-ahead log's time and size tell that for every process that writes, and cost two calls an account.
    """
    from mailkeep.store.search import index_pending

    any_changed = False
    for info in store.directory.list():
        directory = store.directory.account_path(info.id)
        stamp = _stamp(directory)  # before the work: what comes meanwhile is seen the next time
        if seen.get(info.id) == stamp:
            continue
        if quiet_s and behind is not None:
            waited_s = time.monotonic() - behind.setdefault(info.id, time.monotonic())
            if time.time() - max(stamp[::2], default=0) / 1e9 < quiet_s and waited_s < INDEX_LAG_MAX_S:
                continue
        if cancelled():
            break
        any_changed = True
        try:
            done = index_pending(directory, INDEX_BATCH, cancelled=cancelled) == 0
        except MailkeepError as error:  # until its next change; search reads through what is not indexed
            _log.warning("not indexed", account=info.name, reason=error.text)
            done = True
        if done:
            seen[info.id] = stamp
            if behind is not None:
                behind.pop(info.id, None)
    return any_changed


def _stamp(directory: Path) -> tuple[int, ...]:
    found: list[int] = []
    for name in ("mail.db", "mail.db-wal"):
        with contextlib.suppress(OSError):
            info = (directory / name).stat()
            found += [info.st_mtime_ns, info.st_size]
    return tuple(found)


def is_due(stamp: Path, every_s: int) -> bool:
    if every_s <= 0:
        return False
    try:
        return time.time() - stamp.stat().st_mtime > every_s
    except OSError:  # never yet: count from now on, the first minutes of a server are not the time
        with contextlib.suppress(OSError):
            stamp.touch()
        return False


def _collect(store: "Store", config: Config, cancelled: Callable[[], bool]) -> None:
    from mailkeep.store.collect import collect

    report = collect(store, grace_s=config.gc_grace_s, retention_s=config.retention_s, cancelled=cancelled)
    _log.info("collected garbage", report=str(report))
