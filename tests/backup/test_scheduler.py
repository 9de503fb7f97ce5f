"""What is due is pulled, each remote once, few at a time; and nothing outlives the keeper."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mailkeep.backup.scheduler import PULLS_MAX, SHARE_S, Scheduler
from mailkeep.backup.settings import Settings, pack
from mailkeep.store.store import Store
from mailkeep.testing import Faulty
from tests import messages
from tests.server import Server, run_command

NOW = 1_800_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(tmp_path / "keep")) as opened:
        opened.directory.add("archive")
        yield opened


class Clock:
    def __init__(self) -> None:
        self.time = float(NOW)

    def __call__(self) -> float:
        return self.time


@contextlib.contextmanager
def scheduling(store: Store, command: Sequence[str], *names: str) -> Iterator[tuple[Scheduler, Clock]]:
    """A scheduler over remotes of these names, each every 15 minutes."""
    account = store.directory.find("archive")
    assert account is not None
    settings = Settings(protocol="pop3", host="127.0.0.1", port=1, user="a")
    for name in names:
        row = store.remotes.add(name, account.id, settings=pack(settings))
        store.remotes.update(row.id, schedule="every 15 min")
    clock = Clock()
    scheduler = Scheduler(store, command, clock)
    try:
        yield scheduler, clock
    finally:
        scheduler.stop()


def ended(scheduler: Scheduler) -> None:
    """Wait for the children that run."""
    for child in scheduler.running.values():
        child.wait(30)


def test_what_is_due_is_pulled_once_and_again_when_its_time_comes(store: Store, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script = f'echo "$@" >> {calls}'
    with scheduling(store, ["sh", "-c", script, "mailkeep"], "one") as (scheduler, clock):
        scheduler.tick()
        ended(scheduler)
        for seconds in (10, 889):
            clock.time = NOW + seconds
            scheduler.tick()
            assert not scheduler.running
        clock.time = NOW + 900
        scheduler.tick()
        assert len(scheduler.running) == 1
        ended(scheduler)
    assert calls.read_text().splitlines() == [f"pull --quiet --data {store.root} -- one"] * 2


def test_a_schedule_of_two_ways_synchronises(store: Store, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with scheduling(store, ["sh", "-c", f'echo "$1" >> {calls}', "mailkeep"], "one") as (scheduler, _):
        row = store.remotes.find("one")
        assert row is not None
        store.remotes.update(row.id, schedule="sync every 15 min")
        scheduler.tick()
        ended(scheduler)
    assert calls.read_text() == "sync\n"


def test_few_at_a_time_and_none_beside_itself(store: Store) -> None:
    names = [f"r{number}" for number in range(PULLS_MAX + 2)]
    with scheduling(store, ["sh", "-c", "exec tail -f /dev/null"], *names) as (scheduler, clock):
        scheduler.tick()
        first = dict(scheduler.running)
        assert len(first) == PULLS_MAX
        clock.time += SHARE_S - 1
        scheduler.tick()
        assert scheduler.running == first
        next(iter(first.values())).kill()
        ended_one = next(iter(first.values()))
        ended_one.wait(30)
        clock.time += 10
        scheduler.tick()
        assert len(scheduler.running) == PULLS_MAX
        children = list(scheduler.running.values())
    assert all(child.returncode is not None for child in children)


def test_one_that_never_ends_makes_room_for_others_and_goes_on_after_them(store: Store) -> None:
    names = [f"r{number}" for number in range(PULLS_MAX + 1)]
    ids = dict.fromkeys(names, 0)
    with scheduling(store, ["sh", "-c", "exec tail -f /dev/null"], *names) as (scheduler, clock):
        for row in store.remotes.list():
            ids[row.name] = row.id
            store.remotes.update(row.id, schedule="every 2 hours")
        scheduler.tick()
        assert set(scheduler.running) == {ids["r0"], ids["r1"]}
        clock.time += SHARE_S
        scheduler.tick()
        scheduler.running[ids["r0"]].wait(30)
        clock.time += 10
        scheduler.tick()
        assert set(scheduler.running) == {ids["r1"], ids["r2"]}
        clock.time += 10  # r0 waits, though its time has not come: r1 had its share too
        scheduler.tick()
        scheduler.running[ids["r1"]].wait(30)
        clock.time += 10
        scheduler.tick()
        assert set(scheduler.running) == {ids["r0"], ids["r2"]}


def test_no_schedule_no_pull(store: Store) -> None:
    with scheduling(store, ["false"], "one") as (scheduler, _):
        row = store.remotes.find("one")
        assert row is not None
        for text in (None, "never", "of a later version"):
            store.remotes.update(row.id, schedule=text)
            scheduler.tick()
            assert not scheduler.running


def test_a_command_that_cannot_be_started_is_tried_later(store: Store) -> None:
    with scheduling(store, ["/nonexistent/mailkeep"], "one") as (scheduler, clock):
        scheduler.tick()
        assert not scheduler.running
        clock.time += 901
        scheduler.tick()
        assert not scheduler.running


def test_serve_pulls_as_scheduled(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with Faulty("plain") as source:
        source.mailboxes["INBOX"].add(messages.numbered(7))
        at = f"127.0.0.1:{source.pop3_port}"
        run_command(
            *("remote", "add", source.user, "--pop3", at, "--tls", "none", "--password-stdin", "--data", data),
            stdin=source.password + "\n",
        )
        run_command("user", "passwd", source.user, "--password-stdin", "--data", data, stdin="own\n")
        shown = run_command("remote", "schedule", source.user, "every 15 minutes", "--data", data).stdout
        assert "every 15 min" in shown
        with (
            Server(Path(data), doors=("imap",)) as server,
            socket.create_connection((server.host, server.port("imap")), timeout=60) as client,
        ):
            talk = client.makefile("rwb")
            talk.write(f'a LOGIN "{source.user}" own\r\nb EXAMINE INBOX\r\nc IDLE\r\n'.encode())
            talk.flush()
            heard = b""
            while b"* 1 EXISTS" not in heard:
                line = talk.readline()
                assert line, heard
                heard += line
        run_command("remote", "schedule", source.user, "never", "--data", data)
        assert "has no schedule" in run_command("remote", "schedule", source.user, "--data", data).stdout
        bad = run_command("remote", "schedule", source.user, "now and then", "--data", data, check=False)
        assert bad.returncode == 2
        assert "every 15 min" in bad.stderr


def test_pulls_end_with_the_server(tmp_path: Path) -> None:
    """A pull whose server does not answer is told to stop when `serve` is, and does."""
    data = str(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        run_command(
            *("remote", "add", "ann@example.org", "--pop3", at, "--tls", "none"),
            *("--password-stdin", "--no-check", "--data", data),
            stdin="x\n",
        )
        run_command("remote", "schedule", "ann@example.org", "every hour", "--data", data)
        server = Server(Path(data), doors=("imap",)).start()
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            assert server.stop() == 0
            connection.settimeout(30)
            assert connection.recv(100) == b""


def test_subprocesses_are_those_of_this_program() -> None:
    done = subprocess.run([*Scheduler.__dataclass_fields__["command"].default, "--version"], capture_output=True)
    assert done.returncode == 0
