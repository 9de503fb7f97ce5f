"""Log-in: what succeeds, what does not, what it costs, and what guessing meets."""

import asyncio
import traceback
from pathlib import Path

import pytest
from scramp import ScramClient

from mailkeep.errors import BadCredentials, LoginThrottled, NotAllowed, ProtocolError, TlsRequired
from mailkeep.secret import Secret
from mailkeep.serve import auth as auth_module
from mailkeep.serve.auth import Authenticator, Success, Throttle, load_salt_key, make_credentials
from mailkeep.serve.transport import Connection
from mailkeep.store.store import Store
from mailkeep.wire import sasl
from mailkeep.wire.sasl import Challenge
from tests.serve.door import PASSWORD, credentials
from tests.serve.memory import connect


class Quiet:
    def __init__(self, conn: Connection) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        pass

    timed_out = shutdown = eof_received


class Clock:
    """Time that moves only when somebody sleeps or a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def store(tmp_path: Path):
    store = Store.open(tmp_path / "data")
    store.directory.add("demo", credentials=credentials())
    store.directory.add("anna@example.org", credentials=credentials())
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(store: Store, clock: Clock):
    auth = Authenticator(store, clock=clock, sleep=clock.sleep, salt_key=b"k" * 32)
    yield auth
    auth.close()


def peer(address: str = "127.0.0.1") -> Connection:
    return connect(Quiet, peer=address)[0]


def test_password(auth: Authenticator) -> None:
    async def work() -> None:
        conn = peer()
        assert (await auth.password("demo", Secret(PASSWORD), conn)).name == "demo"
        assert (await auth.password("DEMO", Secret(PASSWORD.encode()), conn)).name == "demo"
        assert (await auth.password("anna@example.org", Secret(PASSWORD), conn)).name == "anna@example.org"
        for login, password in (
            ("demo", "wrong"),
            ("demo", ""),
            ("nobody", PASSWORD),
            ("", PASSWORD),
            ("demo\0", PASSWORD),
            ("demo", "\x07"),
            ("demo", b"\xff"),
            ("demo", "x" * 5000),
        ):
            with pytest.raises(BadCredentials):
                await auth.password(login, Secret(password), conn)

    asyncio.run(work())


def test_the_second_log_in_needs_no_argon2(auth: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str | None] = []
    real = auth_module._matches

    def counting(stored: str | None, text: str) -> bool:
        calls.append(stored)
        return real(stored, text)

    monkeypatch.setattr(auth_module, "_matches", counting)

    async def work() -> None:
        for _ in range(3):
            await auth.password("demo", Secret(PASSWORD), peer())
        assert len(calls) == 1
        with pytest.raises(BadCredentials):
            await auth.password("demo", Secret("wrong"), peer())
        assert len(calls) == 2
        with pytest.raises(BadCredentials):  # an unknown user costs as much
            await auth.password("nobody", Secret("wrong"), peer())
        assert len(calls) == 3

    asyncio.run(work())


def test_a_changed_password_holds_at_once(auth: Authenticator, store: Store) -> None:
    async def work() -> None:
        await auth.password("demo", Secret(PASSWORD), peer())
        store.directory.set_credentials("demo", make_credentials(Secret("new")))
        with pytest.raises(BadCredentials):
            await auth.password("demo", Secret(PASSWORD), peer())
        await auth.password("demo", Secret("new"), peer())

    asyncio.run(work())


def test_the_cache_ends(auth: Authenticator, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        await auth.password("demo", Secret(PASSWORD), peer())
        clock.now += auth_module.CACHE_S + 1
        monkeypatch.setattr(auth_module, "_matches", lambda stored, text: False)
        with pytest.raises(BadCredentials):
            await auth.password("demo", Secret(PASSWORD), peer())

    asyncio.run(work())


def test_one_verification_per_user_at_a_time(auth: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    running = 0
    most = 0

    def slow(stored: str | None, text: str) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        sum(range(100_000))
        running -= 1
        return True

    monkeypatch.setattr(auth_module, "_matches", slow)

    async def work() -> None:
        await asyncio.gather(*(auth.password("demo", Secret(f"x{n}"), peer()) for n in range(8)))

    asyncio.run(work())
    assert most == 1
    assert auth._locks == {}


def test_no_log_in_without_tls_from_afar(auth: Authenticator) -> None:
    async def work() -> None:
        far = peer("192.0.2.1")
        assert auth.mechanisms(far) == ()
        with pytest.raises(TlsRequired):
            await auth.password("demo", Secret(PASSWORD), far)
        with pytest.raises(TlsRequired):
            auth.exchange("PLAIN", far)
        far.is_tls = True
        assert auth.mechanisms(far) == ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN")
        await auth.password("demo", Secret(PASSWORD), far)

    asyncio.run(work())


def test_failures_slow_the_next_attempt(auth: Authenticator, clock: Clock) -> None:
    async def work() -> None:
        for _ in range(6):
            with pytest.raises(BadCredentials):
                await auth.password("demo", Secret("wrong"), peer())
        assert len(clock.slept) == 5  # the first answer is not delayed
        assert clock.slept == sorted(clock.slept)
        assert clock.slept[0] >= 0.5
        assert max(clock.slept) <= 15
        clock.slept.clear()
        clock.now += 3600  # forgotten
        with pytest.raises(BadCredentials):
            await auth.password("demo", Secret("wrong"), peer())
        assert clock.slept == []

    asyncio.run(work())


def test_guessing_is_limited_by_address(auth: Authenticator, clock: Clock) -> None:
    async def work() -> None:
        async def guess(number: int) -> type[Exception]:
            try:
                await auth.password(f"user{number}", Secret("guess"), peer())
            except (BadCredentials, LoginThrottled) as error:
                return type(error)
            raise AssertionError

        results = [await guess(number) for number in range(60)]
        assert results[:10] == [BadCredentials] * 10
        assert LoginThrottled in results
        # Side by side is no way around it.
        results = await asyncio.gather(*(guess(number) for number in range(100, 200)))
        assert results.count(BadCredentials) < 40

    asyncio.run(work())


def test_strangers_do_not_lock_the_owner_out(auth: Authenticator, clock: Clock) -> None:
    async def work() -> None:
        await auth.password("demo", Secret(PASSWORD), peer())
        for number in range(80):
            conn = peer(f"198.51.100.{number}")
            conn.is_tls = True
            with pytest.raises((BadCredentials, LoginThrottled)):
                await auth.password("demo", Secret("guess"), conn)
        clock.slept.clear()
        await auth.password("demo", Secret(PASSWORD), peer())
        assert clock.slept == []

    asyncio.run(work())


def test_hanging_up_early_counts(auth: Authenticator) -> None:
    async def work() -> None:
        task = asyncio.ensure_future(auth.password("demo", Secret("guess"), peer()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert auth._by_peer.count("127.0.0.1", auth._clock()) == 1

    asyncio.run(work())


def test_throttle_is_bounded() -> None:
    throttle = Throttle(limit=3, leak_s=10, keys_max=100)
    for number in range(1000):
        throttle.add(str(number), 0.0)
    assert len(throttle._failures) == 100
    throttle.add("a", 0.0)
    throttle.add("a", 0.0)
    assert throttle.count("a", 5.0) == 1.5
    assert throttle.count("a", 100.0) == 0
    assert not throttle.full("a", 0.0)


def test_sasl_passwords(auth: Authenticator) -> None:
    async def work() -> None:
        exchange = auth.exchange("plain", peer())
        assert await exchange.step(None) == Challenge(b"")
        result = await exchange.step(b"\0demo\0" + PASSWORD.encode())
        assert isinstance(result, Success)
        assert result.account.name == "demo"
        exchange = auth.exchange("LOGIN", peer())
        assert await exchange.step(b"demo") == Challenge(b"Password:")
        assert isinstance(await exchange.step(PASSWORD.encode()), Success)
        with pytest.raises(BadCredentials):
            await auth.exchange("PLAIN", peer()).step(b"anna@example.org\0demo\0" + PASSWORD.encode())
        with pytest.raises(ProtocolError):
            await auth.exchange("PLAIN", peer()).step(b"nonsense")
        for unknown in ("CRAM-MD5", "EXTERNAL", "SCRAM-SHA-256-PLUS"):
            with pytest.raises(NotAllowed):
                auth.exchange(unknown, peer())

    asyncio.run(work())


async def scram(auth: Authenticator, login: str, password: str, mechanism: str) -> str:
    exchange = auth.exchange(mechanism, peer())
    client = ScramClient([mechanism], login, password)
    challenge = await exchange.step(client.get_client_first().encode())
    assert isinstance(challenge, Challenge)
    client.set_server_first(challenge.data.decode())
    challenge = await exchange.step(client.get_client_final().encode())
    assert isinstance(challenge, Challenge)
    client.set_server_final(challenge.data.decode())
    result = await exchange.step(b"")
    assert isinstance(result, Success)
    return result.account.name


@pytest.mark.parametrize("mechanism", sasl.SCRAM)
def test_scram(auth: Authenticator, clock: Clock, mechanism: str) -> None:
    async def work() -> None:
        assert await scram(auth, "demo", PASSWORD, mechanism) == "demo"
        for login, password in (("demo", "wrong"), ("nobody", PASSWORD)):
            with pytest.raises(BadCredentials):
                await scram(auth, login, password, mechanism)
        assert clock.slept  # it is slowed like any other

    asyncio.run(work())


def test_an_unknown_user_has_a_salt_that_stays(auth: Authenticator, store: Store) -> None:
    again = Authenticator(store, salt_key=b"k" * 32)
    for mechanism in sasl.SCRAM:
        first, second = auth.scram_keys(mechanism, "nobody"), again.scram_keys(mechanism, "nobody")
        real = auth.scram_keys(mechanism, "demo")
        assert (first.salt, first.iterations) == (second.salt, second.iterations)
        assert (len(first.salt), first.iterations) == (len(real.salt), real.iterations)
        assert auth.scram_keys(mechanism, "noone").salt != first.salt
    again.close()


def test_external(store: Store) -> None:
    auth = Authenticator(store, external=lambda conn: "demo")

    async def work() -> None:
        conn = peer()
        assert auth.mechanisms(conn)[0] == "EXTERNAL"
        result = await auth.exchange("EXTERNAL", conn).step(b"")
        assert isinstance(result, Success)
        with pytest.raises(BadCredentials):
            await auth.exchange("EXTERNAL", conn).step(b"anna@example.org")

    asyncio.run(work())
    auth.close()


def test_sessions_per_user(store: Store) -> None:
    auth = Authenticator(store, sessions_per_user=2)
    account = store.directory.find("demo")
    assert account is not None
    auth.enter(account)
    auth.enter(account)
    with pytest.raises(LoginThrottled):
        auth.enter(account)
    auth.leave(account)
    auth.enter(account)
    auth.close()


def test_a_secret_is_never_shown(auth: Authenticator) -> None:
    secret = Secret("geheim")
    assert f"{secret} {secret!r} {secret:>10}" == "… … …"
    with pytest.raises(TypeError):
        import pickle

        pickle.dumps(secret)

    async def work() -> None:
        try:
            await auth.password("demo", secret, peer())
        except BadCredentials as error:
            assert "geheim" not in "".join(traceback.format_exception(error))

    asyncio.run(work())


def test_passwords_that_cannot_be() -> None:
    for bad in ("", "x" * 2000):
        with pytest.raises(NotAllowed):
            make_credentials(Secret(bad))
    with pytest.raises(ProtocolError):
        make_credentials(Secret("bell\x07"))
    assert set(make_credentials(Secret("ü"))) == {"argon2id", "SCRAM-SHA-256", "SCRAM-SHA-1"}


def test_the_salt_key_is_made_once(tmp_path: Path) -> None:
    key = load_salt_key(tmp_path / "salt.key")
    assert len(key) == 32
    assert load_salt_key(tmp_path / "salt.key") == key
    assert (tmp_path / "salt.key").stat().st_mode & 0o777 == 0o600
