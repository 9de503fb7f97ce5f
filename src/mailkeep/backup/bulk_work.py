"""What a row of a bulk file does: makes the remotes and accounts that it names, then pulls, pushes, or both.

A server into an account here is a pull; an account here to a server a push; a server to a server a migration, by way
of an account here. Everything that one command a row would do is done the same way, so a row may be run by hand later.

The one care is the secret: it is sealed in the store as soon as it is read (or stays a command), and neither it nor the
file that it came from is in a result.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.backup.bulk import Place, Result, Row, State, Task
from mailkeep.backup.context import Context
from mailkeep.backup.discover import Found
from mailkeep.backup.ledger import RemoteReport
from mailkeep.backup.migrate import Migration, migrate
from mailkeep.backup.pull import pull
from mailkeep.backup.push import push
from mailkeep.backup.push_ledger import PushReport
from mailkeep.backup.quirks import provider_of_host
from mailkeep.backup.seal import Kept, seal
from mailkeep.backup.settings import Remote, Settings, add_remote, find_remote, is_loopback, of_row, pack
from mailkeep.errors import BadCredentials, MailkeepError, NotAllowed, UsageError
from mailkeep.jobs.progress import Progress
from mailkeep.mail.mailbox_name import check_name
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account, AccountInfo
from mailkeep.store.store import Store

SECRET_FILE_MAX: Final = 8192
ACCOUNT: Final = "account:"
REMOTE: Final = "remote:"
HERE: Final = "this store"  # the provider of rows between accounts here and … nobody: it is never a bottleneck

Find = Callable[[str], Awaitable[Found]]


@dataclass(slots=True)
class Worker:
    """Runs rows over one store. `find` looks for the servers of an address; `progress` is made for each row."""

    store: Store
    find: Find
    stop: asyncio.Event
    selection: Selection | None = None
    progress: Callable[[Row], Progress] = field(default=lambda row: Progress())
    _refused: set[str] = field(default_factory=set)  # log-ins that were, in this run: not to be tried in another row

    def task_of(self, row: Row) -> Task:
        """What a row occupies, as far as it can be told before it runs."""
        hosts = [self._host(place) for place in (row.source, row.target)]
        providers = tuple(_provider(host) for host in hosts if host) or (HERE,)
        alone = {
            name
            for place in (row.source, row.target)
            if self._host(place)
            for name in (place.identity(), _login(place))
        }
        return Task(row, providers, frozenset(alone))

    def _host(self, place: Place) -> str:
        """The other server's name; of an address not looked up yet, its domain; "" for an account here."""
        if place.host:
            return place.host
        if not place.name or place.name.startswith(ACCOUNT):
            return ""
        known = self.store.remotes.find(place.name.removeprefix(REMOTE))
        if known is not None:
            return of_row(known).settings.host
        return place.name.rpartition("@")[2] if place.has_secret else ""

    async def __call__(self, task: Task) -> Result:
        """Never raises for what a server, a remote or a row does wrong."""
        row, begun = task.row, time.monotonic()
        result = Result(row.id, row.line, str(row.source), str(row.target) or str(row.source), "failed")
        try:
            if row.problem is not None:
                raise UsageError(row.problem)
            result = await self._run(row, result)
        except MailkeepError as error:
            result = replace(result, error=error.text, temporary=error.temporary)
        return replace(
            result,
            seconds=round(time.monotonic() - begun, 1),
            finished=datetime.now().astimezone().isoformat(timespec="seconds"),
        )

    async def _run(self, row: Row, result: Result) -> Result:
        into = _checked(row.into)
        for place in (row.source, row.target):
            if _login(place) in self._refused:
                raise BadCredentials(f"the log-in of {place} was refused in another row; it was not tried again")
        to_server = self._is_server(row.target)
        account = None if to_server else row.target.name.removeprefix(ACCOUNT)
        source = await self._source(row.source, account)
        async with self._stopping() as stop:
            if not to_server:
                if isinstance(source, Account):
                    raise UsageError("both sides are accounts here; copy between them with a mail client")
                report = await pull(self._context(row, stop, into), source)
                self._note(row.source, report.failure)
                return _pulled(result, report)
            # Never into the account that the source is pulled into: a message here has one origin.
            target = await self._remote(row.target, "")
            if isinstance(source, Account):
                pushed = await push(self._context(row, stop, into), source, target)
                self._note(row.target, pushed.failure)
                return _pushed(result, pushed)
            if target.account == source.account:
                raise UsageError(f"{target.name} and {source.name} have one account here; give each its own")
            done = await migrate(self._context(row, stop, into), source, target)
            self._note(row.source, done.pulled.failure)
            self._note(row.target, done.pushed.failure)
            return _migrated(result, done)

    def _note(self, place: Place, failure: MailkeepError | None) -> None:
        if isinstance(failure, BadCredentials):
            self._refused.add(_login(place))

    @contextlib.asynccontextmanager
    async def _stopping(self) -> AsyncIterator[asyncio.Event]:
        """A stop of the row's own, set with that of all: a row that stops itself does not stop the others."""
        own = asyncio.Event()

        async def follow() -> None:
            await self.stop.wait()
            own.set()

        following = asyncio.ensure_future(follow())
        try:
            yield own
        finally:
            following.cancel()

    def _context(self, row: Row, stop: asyncio.Event, into: str | None) -> Context:
        return Context(self.store, selection=self.selection, into=into, progress=self.progress(row), stop=stop)

    # ---- who is meant

    def _is_server(self, place: Place) -> bool:
        """Whether a side is another server: it has a host or a secret, or a remote here has its name."""
        if place.name.startswith(ACCOUNT):
            return False
        if place.host or place.has_secret or place.name.startswith(REMOTE):
            return True
        return bool(place.name) and self.store.remotes.find(place.name) is not None

    async def _source(self, place: Place, account: str | None) -> Remote | Account:
        if not self._is_server(place):
            name = place.name.removeprefix(ACCOUNT)
            info = self.store.directory.find(name)
            if info is None:
                raise UsageError(f"there is neither a remote nor an account {name}, and no source_host or password")
            return self.store.account(info.id)
        remote = await self._remote(place, account or "")
        if account:
            wanted = self.store.directory.find(account)
            kept = self.store.directory.find_id(remote.account)
            if kept is not None and (wanted is None or wanted.id != kept.id):
                raise UsageError(f"the mail of {remote.name} is kept in the account {kept.name}, not in {account}")
        return remote

    async def _remote(self, place: Place, account: str) -> Remote:
        """The remote of a side, made or given its new secret if need be. `account`: where its mail is to be kept."""
        name = place.name.removeprefix(REMOTE)
        row = self.store.remotes.find(name)
        if row is None and not place.host and not place.has_secret:
            return find_remote(self.store, name)  # whose error names the near ones
        if row is not None and not place.host and not place.has_secret:
            return of_row(row)
        before = None if row is None else of_row(row).settings
        settings = await self._settings(place, before)
        if before is not None and (before.host.lower(), before.user) != (settings.host.lower(), settings.user):
            raise UsageError(f"there is a remote {name} already, at {before.host}; give this one another name")
        settings, kept = await asyncio.to_thread(_with_secret, settings, place)
        sealed = None if kept is None else seal(self.store.root, name, kept)
        if row is None:
            if kept is None and settings.secret != "command":
                raise UsageError(f"{name} has no password, no password_command and no password_file")
            info = self._archive(account or name)
            return add_remote(self.store, name, info.id, settings, sealed=sealed)
        if kept is not None or settings.secret == "command":
            self.store.remotes.update(row.id, settings=pack(settings), secret=sealed)
        else:
            self.store.remotes.update(row.id, settings=pack(settings))
        return find_remote(self.store, name)

    async def _settings(self, place: Place, before: Settings | None) -> Settings:
        if place.host:
            if place.tls == "none" and not is_loopback(place.host):
                raise UsageError("tls none is for this very machine only; use tls or starttls")
            owner = provider_of_host(place.host)
            fresh = {
                "protocol": place.protocol,
                "host": place.host,
                "port": place.port,
                "user": place.user,
                "tls": place.tls,
                "provider": owner.id if owner is not None else None,
                "ca": place.ca,
            }
            return Settings(**fresh) if before is None else msgspec.structs.replace(before, **fresh)  # type: ignore[arg-type]  # a table of fields
        if before is not None:
            return before
        found = await self.find(place.name)
        first = found.endpoints[0]
        if not found.certain:
            raise UsageError(f"{found.how} names {first.host}, which nobody vouches for; if it is right, give the host")
        return Settings(
            protocol=first.protocol,
            host=first.host,
            port=first.port,
            user=place.user or first.user,
            tls=first.tls,
            provider=found.provider.id if found.provider is not None else None,
            ca=place.ca,
        )

    def _archive(self, name: str) -> AccountInfo:
        """The account that mail goes to; made read-only, as `remote add` makes it, where there is none."""
        info = self.store.directory.find(name)
        return info if info is not None else self.store.directory.add(name, access="read")


def _login(place: Place) -> str:
    """Who logs in where, whatever the row calls it; of an account here nobody does."""
    return f"{place.host.lower()}\0{place.user}" if place.host else place.name.removeprefix(REMOTE)


def _provider(host: str) -> str:
    owner = provider_of_host(host)
    return owner.id if owner is not None else host.lower()


def _checked(into: str | None) -> str | None:
    try:
        return None if into is None else check_name(into)
    except NotAllowed as error:
        raise UsageError(f"into: {error.text}") from None


def _with_secret(settings: Settings, place: Place) -> tuple[Settings, Kept | None]:
    """In a thread: the settings that say where the secret is, and what is to be sealed of it."""
    if place.command:
        return msgspec.structs.replace(settings, secret="command", command=place.command), None
    if place.password is None and not place.file:
        return settings, None
    text = place.password.reveal() if place.password is not None else _first_line(Path(place.file or ""))
    return msgspec.structs.replace(settings, secret="sealed", command=None), Kept(password=text)


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            line = file.readline(SECRET_FILE_MAX).rstrip(b"\r\n")
        text = line.decode()
    except OSError as error:
        raise UsageError(f"the password file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError("the password file is not UTF-8") from None
    if not text:
        raise UsageError("the password file is empty")
    return text


def _pulled(result: Result, report: RemoteReport) -> Result:
    problem = report.error or report.stopped
    missing = ", ".join(f"{count} {reason}" for reason, count in report.reasons().items() if reason != "filtered")
    errors = [f"{folder.name}: {folder.error}" for folder in report.folders if folder.error is not None]
    return replace(
        result,
        state=_state(report),
        server=report.total("server"),
        kept=report.total("kept"),
        copied=report.total("fetched"),
        bytes=report.total("bytes"),
        error=problem or missing or "; ".join(errors[:3]),
        temporary=report.failure is not None and report.failure.temporary,
    )


def _pushed(result: Result, report: PushReport) -> Result:
    missing = ", ".join(f"{count} {reason}" for reason, count in report.counted("missing").items())
    return replace(
        result,
        state=_state(report),
        server=report.total("chosen"),
        kept=report.total("there"),
        copied=report.total("copied"),
        bytes=report.total("copied_bytes"),
        error=report.error or report.stopped or missing,
    )


def _migrated(result: Result, done: Migration) -> Result:
    """Done when both halves are; the numbers are those of the second."""
    first, second = _pulled(result, done.pulled), _pushed(result, done.pushed)
    worse = first if first.state != "done" else second
    return replace(second, state=worse.state, error=worse.error, temporary=first.temporary)


def _state(report: RemoteReport | PushReport) -> State:
    if report.stopped is not None:
        return "stopped"
    if report.error is not None:
        return "failed"
    return "done" if report.equal else "incomplete"
