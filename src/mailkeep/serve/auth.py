"""Who is it? Passwords, SASL, and the brakes against guessing.

A password is verified once with argon2id, in a thread, one verification per user at a time; after that an HMAC of it
under a key that only this process knows answers in microseconds. The HMAC covers the stored credential too, so a
changed password is asked for again at once. An unknown user costs the same argon2 as a known one.

Guessing is slowed by address and by user: each failure doubles the delay of the next attempt, and beyond a limit there
is no attempt. A guess counts from when it begins, so that hanging up early does not help. What the cache knows is not
delayed: a stranger's failures must not lock the owner out.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import argon2
import msgspec

from mailkeep import log
from mailkeep.errors import BadCredentials, LoginThrottled, NotAllowed, ProtocolError, TlsRequired
from mailkeep.secret import Secret
from mailkeep.serve.transport import Connection, peer_key
from mailkeep.store.account import AccountInfo
from mailkeep.store.accounts import fold
from mailkeep.store.store import Store
from mailkeep.wire import sasl
from mailkeep.wire.sasl import Challenge

_log = log.get("auth")

# OWASP's setting for argon2id: 19 MiB, two passes, one lane. About 20 ms.
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Of a random password that nobody knows: what an unknown user is verified against.
_DUMMY: Final = "$argon2id$v=19$m=19456,t=2,p=1$QH64fI/RIeDFD3FIr7o8BA$kUFH1wqZy5Ga5n6BXqTds7syH42nRvXnhHptp1RsSXg"
_SCRAM_ITERATIONS: Final = 15_000  # RFC 7677 section 4 wants 4,096 at least and recommends this
_PASSWORD_MAX: Final = 1024

CACHE_ENTRIES: Final = 10_000
CACHE_S: Final = 3600.0
VERIFY_QUEUE_MAX: Final = 500  # verifications waiting; each is 20 ms of a core


def make_credentials(password: Secret) -> dict[str, bytes]:
    """What the store keeps: argon2id for passwords in clear, salted keys for SCRAM. Takes about 50 ms."""
    text = sasl.prepare(password.reveal())
    if not text or len(text) > _PASSWORD_MAX:
        raise NotAllowed(f"A password has 1 to {_PASSWORD_MAX} characters")
    credentials = {"argon2id": _HASHER.hash(text).encode()}
    for mechanism in sasl.SCRAM:
        keys = sasl.make_keys(mechanism, text, iterations=_SCRAM_ITERATIONS)
        credentials[mechanism] = msgspec.msgpack.encode((keys.salt, keys.stored_key, keys.server_key, keys.iterations))
    return credentials


@dataclass(frozen=True, slots=True)
class Success:
    """Logged in. Nothing more is to be sent but the protocol's own OK."""

    account: AccountInfo


@dataclass(slots=True)
class _Failures:
    count: float
    at: float


class Throttle:
    """Failures by key, leaking away with time; never more than `keys_max` keys, the oldest go first."""

    __slots__ = ("_failures", "_keys_max", "_leak_s", "_limit")

    def __init__(self, *, limit: int, leak_s: float, keys_max: int = 20_000) -> None:
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._limit = limit
        self._leak_s = leak_s
        self._keys_max = keys_max

    def count(self, key: str, now: float) -> float:
        entry = self._failures.get(key)
        if entry is None:
            return 0.0
        left = entry.count - (now - entry.at) / self._leak_s
        if left <= 0:
            del self._failures[key]
            return 0.0
        return left

    def full(self, key: str, now: float) -> bool:
        return self.count(key, now) >= self._limit

    def add(self, key: str, now: float, amount: float = 1.0) -> None:
        count = max(0.0, self.count(key, now) + amount)
        self._failures[key] = _Failures(count, now)
        self._failures.move_to_end(key)
        if len(self._failures) > self._keys_max:
            self._failures.popitem(last=False)


class Authenticator:
    """One per process. `clock` and `sleep` are for tests."""

    def __init__(
        self,
        store: Store,
        *,
        salt_key: bytes | None = None,
        sessions_per_user: int = 100,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        external: Callable[[Connection], str | None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._external = external
        # Made-up salts must be the same after a restart and in every worker, or they tell what is made up.
        self._salt_key = salt_key or secrets.token_bytes(32)
        self._cache_key = secrets.token_bytes(32)
        self._cache: OrderedDict[bytes, float] = OrderedDict()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="argon2")
        self._waiting = 0
        self._by_peer = Throttle(limit=30, leak_s=30.0)
        self._by_user = Throttle(limit=60, leak_s=20.0)
        self._sessions: Counter[int] = Counter()
        self._sessions_per_user = sessions_per_user

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- sessions ---

    def enter(self, account: AccountInfo) -> None:
        """Count a session of this user in this process. Raises LoginThrottled; `leave` when it ends."""
        if self._sessions[account.id] >= self._sessions_per_user:
            raise LoginThrottled("Too many sessions of this user")
        self._sessions[account.id] += 1

    def leave(self, account: AccountInfo) -> None:
        self._sessions[account.id] -= 1
        if self._sessions[account.id] <= 0:
            del self._sessions[account.id]

    # --- log-in ---

    @staticmethod
    def secure(conn: Connection) -> bool:
        """Whether a log-in may happen on it at all: TLS, or the machine's own loopback or Unix socket."""
        return conn.is_tls or conn.is_loopback

    def mechanisms(self, conn: Connection) -> tuple[str, ...]:
        """What to advertise now, strongest first; empty where TLS must come first."""
        if not self.secure(conn):
            return ()
        plus = sasl.PLUS if conn.is_tls and conn.channel_binding() else ()
        external = ("EXTERNAL",) if self._external is not None and self._external(conn) is not None else ()
        return (*external, *plus, *sasl.SCRAM, *sasl.PASSWORD)

    def exchange(self, mechanism: str, conn: Connection) -> "Exchange":
        """Begin a SASL exchange. Raises NotAllowed for an unknown mechanism, TlsRequired."""
        name = mechanism.upper()
        if not self.secure(conn):
            raise TlsRequired("Log-in needs TLS here")
        if name not in self.mechanisms(conn):
            raise NotAllowed("Unsupported authentication mechanism")
        return Exchange(self, name, conn)

    async def password(self, login: str, password: Secret, conn: Connection) -> AccountInfo:
        """Log in. Raises BadCredentials, LoginThrottled, TlsRequired."""
        if not self.secure(conn):
            raise TlsRequired("Log-in needs TLS here")
        # Nobody's, and preparing it would take its time.
        if len(login) > _PASSWORD_MAX or password.size > 4 * _PASSWORD_MAX:
            raise BadCredentials("Wrong user or password")
        try:
            login, text = sasl.prepare(login), sasl.prepare(password.reveal())
        except ProtocolError:
            raise BadCredentials("Wrong user or password") from None
        account = self._find(login)
        stored = self._stored(account)
        digest = self._digest(account, text, stored)
        if account is not None and self._cached(digest):
            return account
        async with self.attempt(login, conn):
            if not await self._verify(login, text, stored) or account is None or len(text) > _PASSWORD_MAX:
                raise BadCredentials("Wrong user or password")
        self._remember(digest)
        return account

    @contextlib.asynccontextmanager
    async def attempt(self, login: str, conn: Connection) -> AsyncIterator[None]:
        """Around what decides: wait as long as earlier failures demand, count this one unless it comes through.

        Raises LoginThrottled without trying when this address or this user has failed too often.
        """
        now = self._clock()
        peer, user = peer_key(conn.peer), login.casefold()[:256]
        if self._by_peer.full(peer, now) or self._by_user.full(user, now):
            _log.warning("login throttled", peer=conn.peer, user=login[:256])
            raise LoginThrottled("Too many failed log-ins, try again later")
        failures = max(self._by_peer.count(peer, now), self._by_user.count(user, now))
        # Counted now and given back on success: attempts that run side by side must not each see a clean slate.
        self._by_peer.add(peer, now)
        self._by_user.add(user, now)
        if failures >= 1:
            await self._sleep(min(15.0, 0.5 * 2 ** (min(failures, 10.0) - 1)))
        try:
            yield
        except BadCredentials:
            _log.info("login failed", peer=conn.peer, user=login[:256])
            raise
        except LoginThrottled:  # refused untried, for lack of room: not a guess
            self._forgive(peer, user)
            raise
        self._forgive(peer, user)

    def _forgive(self, peer: str, user: str) -> None:
        now = self._clock()
        self._by_peer.add(peer, now, -1.0)
        self._by_user.add(user, now, -1.0)

    # --- inside ---

    def _find(self, login: str) -> AccountInfo | None:
        if not login or len(login) > _PASSWORD_MAX or "\0" in login:
            return None
        return self._store.directory.find(login)

    def _stored(self, account: AccountInfo | None) -> str | None:
        if account is None:
            return None
        stored = self._store.directory.credentials(account.id).get("argon2id")
        return stored.decode() if stored else None

    def _digest(self, account: AccountInfo | None, text: str, stored: str | None) -> bytes:
        """Bound to the account and the stored credential: a change of password changes it."""
        parts = (str(account.id) if account else "", stored or "", text)
        message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.digest(self._cache_key, message, "sha256")

    def _cached(self, digest: bytes) -> bool:
        until = self._cache.get(digest)
        if until is None:
            return False
        if until < self._clock():
            del self._cache[digest]
            return False
        return True

    def _remember(self, digest: bytes) -> None:
        self._cache[digest] = self._clock() + CACHE_S
        self._cache.move_to_end(digest)
        if len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)

    async def _verify(self, login: str, text: str, stored: str | None) -> bool:
        if self._waiting >= VERIFY_QUEUE_MAX:
            raise LoginThrottled("Too many log-ins at once")
        self._waiting += 1
        try:
            async with self._one_at_a_time(login.casefold()):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, _matches, stored, text[: _PASSWORD_MAX + 1])
        finally:
            self._waiting -= 1

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self, key: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, users - 1

    def scram_keys(self, mechanism: str, login: str) -> sasl.ScramKeys:
        """The user's salted keys; for nobody, ones that look alike and never match."""
        account = self._find(login)
        if account is not None:
            stored = self._store.directory.credentials(account.id).get(mechanism)
            if stored:
                return sasl.ScramKeys(*msgspec.msgpack.decode(stored, type=tuple[bytes, bytes, bytes, int]))
        # Folded as the directory folds names: a salt that changes with the case of a name is a made-up one.
        salt = hmac.digest(self._salt_key, f"{mechanism}\0{fold(login)}".encode(), "sha256")[:16]
        size = 32 if mechanism.endswith("256") else 20
        return sasl.ScramKeys(salt, secrets.token_bytes(size), secrets.token_bytes(size), _SCRAM_ITERATIONS)

    def account_of(self, login: str) -> AccountInfo:
        """The account behind a proof. Raises BadCredentials when it went away meanwhile."""
        account = self._find(login)
        if account is None:
            raise BadCredentials("Wrong user or password")
        return account

    def external_login(self, conn: Connection) -> str | None:
        return self._external(conn) if self._external is not None else None


def _matches(stored: str | None, text: str) -> bool:
    """argon2, in a thread. A login without a credential is verified against a dummy, so that it takes as long."""
    try:
        return _HASHER.verify(stored or _DUMMY, text) and stored is not None
    except argon2.exceptions.VerificationError:
        return False
    except argon2.exceptions.InvalidHashError:
        _log.error("stored credential is broken")
        return False


class Exchange:
    """One SASL exchange. Give it the decoded responses, None when there was no initial one."""

    __slots__ = ("_auth", "_conn", "_machine")

    def __init__(self, auth: Authenticator, mechanism: str, conn: Connection) -> None:
        self._auth = auth
        self._conn = conn
        self._machine: sasl.PlainServer | sasl.LoginServer | sasl.ExternalServer | sasl.ScramServer
        if mechanism == "PLAIN":
            self._machine = sasl.PlainServer()
        elif mechanism == "LOGIN":
            self._machine = sasl.LoginServer()
        elif mechanism == "EXTERNAL":
            self._machine = sasl.ExternalServer()
        else:
            base = mechanism.removesuffix("-PLUS")
            self._machine = sasl.ScramServer(
                mechanism, conn.channel_binding(), lambda login: auth.scram_keys(base, login)
            )

    async def step(self, response: bytes | None) -> Challenge | Success:
        """Raises BadCredentials, LoginThrottled, ProtocolError (a broken message)."""
        machine = self._machine
        result: Challenge | sasl.PasswordClaim | sasl.ExternalClaim | sasl.ScramVerified
        if isinstance(machine, sasl.ScramServer) and machine.proving:
            async with self._auth.attempt(machine.login, self._conn):
                result = machine.step(response)
        else:
            result = machine.step(response)
        if isinstance(result, Challenge):
            return result
        if isinstance(result, sasl.PasswordClaim):
            return Success(await self._auth.password(result.login, Secret(result.password), self._conn))
        if isinstance(result, sasl.ExternalClaim):
            proved = self._auth.external_login(self._conn)
            if proved is None or result.login not in {"", proved}:
                raise BadCredentials("Wrong user or password")
            return Success(self._auth.account_of(proved))
        return Success(self._auth.account_of(result.login))


def load_salt_key(path: Path) -> bytes:
    """The key behind made-up salts, made at first use; 32 bytes, readable by the owner only."""
    with contextlib.suppress(FileNotFoundError):
        key = path.read_bytes()
        if len(key) == 32:
            return key
    key = secrets.token_bytes(32)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)  # of several that start together, one wins
    temporary.unlink()
    key = path.read_bytes()
    return hashlib.sha256(key).digest() if len(key) != 32 else key
