"""A disk that is full, and one that cannot be written: a clear error at every door, and nothing said that is not so.

Needs root for a small file system of its own; without, the tests say so and are skipped.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import messages
from tests.server import Server, run_command
from tests.system.lmtp import Lmtp
from tests.system.login import Login, ok

USER, PASSWORD = "ann@example.org", "secret"
SIZE_MIB = 24


def mount(*arguments: str) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(["mount", *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        pytest.skip(f"no mounting here: {done.stderr.decode(errors='replace').strip()}")


def unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount("-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(place))
    yield place
    unmount(place)


def fill_up(place: Path, name: str = "filler") -> Path:
    """Take what space is left, to the last block."""
    filler = place / name
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return filler


def try_every_door(login: Login, *, detail: str) -> dict[str, str]:
    """One writing operation of each kind; what each said, "OK…" for done."""
    said: dict[str, str] = {}
    data = messages.numbered(4711, size=300_000)
    with Lmtp(login.ports["lmtp"]) as session:
        answer = session.begin([login.user])[0]
        code, text = answer if answer[0] != 250 else session.data(data)[0]
        said["lmtp"] = f"{'OK ' if code == 250 else ''}{code} {text}"
        assert session.ask(b"NOOP")[0] == 250
    with login.imap("INBOX") as client:
        for name, run in {
            "append": lambda: client.append("INBOX", None, None, data),
            "copy": lambda: client.copy("1:*", "Archive"),
            "create": lambda: client.create(f"New{detail}"),
            "store": lambda: client.store("1", "+FLAGS", f"(key{detail})"),
        }.items():
            status, answer = run()
            said[name] = f"{status} {answer}"
        assert ok(client.noop())
    return said


def test_a_full_disk(small_disk: Path) -> None:
    data, reserve = small_disk / "data", small_disk / "reserve"
    reserve.write_bytes(bytes(8 << 20))
    with Server(data, users={USER: PASSWORD}, doors=("imap", "pop3", "lmtp")) as server:
        login = Login(USER, PASSWORD, server.ports)
        kept: list[bytes] = []
        with Lmtp(server.port("lmtp")) as session:
            code = 250
            for number in range(10_000):
                message = messages.numbered(number, size=200_000)
                code, text = session.deliver(USER, message)
                if code != 250:
                    break
                kept.append(message)
            assert 400 <= code < 500, f"a full disk is a passing trouble (4xx), not {code} {text}"
            assert session.ask(b"NOOP")[0] == 250
        assert len(kept) > 5
        filler = fill_up(small_disk)
        said = try_every_door(login, detail="1")
        assert said["lmtp"].startswith("4"), said
        assert said["append"].startswith("NO"), said
        # Reading goes on, by both doors, and shows what was acknowledged and nothing else.
        check(login, kept)
        # Space is back: the same server goes on.
        filler.unlink()
        reserve.unlink()
        said = try_every_door(login, detail="2")
        assert all(text.startswith("OK") for text in said.values()), said
        assert server.stop() == 0
    assert run_command("verify", "--data", str(data), check=False).returncode == 0


def check(login: Login, kept: list[bytes]) -> None:
    stored = login.read()
    assert len(stored) == len(kept), f"{len(stored)} there, {len(kept)} acknowledged"
    assert all(message.data.endswith(data) for message, data in zip(stored, kept, strict=True))
    with login.pop3() as client:
        assert client.stat()[0] == len(kept)
        assert b"\r\n".join(client.retr(1)[1]).endswith(kept[0].removesuffix(b"\r\n"))
        client.quit()


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    """The store's directory is mounted read-only: what can be read is served, the rest is refused in words."""
    data = tmp_path / "data"
    kept = [messages.numbered(number) for number in range(3)]
    with Server(data, users={USER: PASSWORD}) as server:
        Login(USER, PASSWORD, server.ports).append("INBOX", kept)
    mount("--bind", str(data), str(data))
    try:
        mount("-o", "remount,ro,bind", str(data))
        for command in (
            ("user", "add", "bob@example.org", "--password-stdin"),
            ("gc",),
            ("import", str(tmp_path), "--user", USER),
        ):
            done = run_command(*command, "--data", str(data), stdin="x\n", check=False)
            assert done.returncode in {73, 74}, (command, done.returncode, done.stdout, done.stderr)
            assert "Traceback" not in done.stderr and done.stderr.strip()
        server = Server(data, doors=("imap", "pop3", "lmtp"))
        try:
            server.start()
        except RuntimeError as error:
            # Not to start at all is an answer too, when it says why.
            assert "read-only" in str(error).lower() or "cannot be written" in str(error).lower(), error
        else:
            login = Login(USER, PASSWORD, server.ports)
            check(login, kept)
            said = try_every_door(login, detail="1")
            assert said["lmtp"][0] == "4" and all(said[n].startswith("NO") for n in ("append", "copy", "create")), said
            server.stop()
    finally:
        unmount(data)
    with Server(data) as server:
        login = Login(USER, PASSWORD, server.ports)
        check(login, kept)
        said = try_every_door(login, detail="2")
        assert all(text.startswith("OK") for text in said.values()), said


def test_a_disk_that_fails_under_way(tmp_path: Path) -> None:
    """An ext4 that is told to abort turns read-only while the server runs, as it does on a failing disk."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    mkfs = shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if os.geteuid() != 0 or mkfs is None:
        pytest.skip("making a disk image needs root and mkfs.ext4")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run([mkfs, "-q", "-F", str(image)], check=True, stdin=subprocess.DEVNULL)
    mount("-o", "loop", str(image), str(place))
    data, kept = place / "data", []
    try:
        with Server(data, users={USER: PASSWORD}, doors=("imap", "pop3", "lmtp")) as server:
            login = Login(USER, PASSWORD, server.ports)
            with Lmtp(server.port("lmtp")) as session:
                for number in range(20):
                    kept.append(messages.numbered(number))
                    assert session.deliver(USER, kept[-1])[0] == 250
            mount("-o", "remount,abort", str(place))
            said = try_every_door(login, detail="1")
            assert said["lmtp"][0] == "4" and said["append"].startswith("NO"), said
            with login.imap("INBOX") as client:
                assert len(ok(client.search(None, "ALL"))[0].split()) == len(kept)
            server.stop()
        unmount(place)
        mount("-o", "loop", str(image), str(place))
        with Server(data, doors=("imap", "pop3", "lmtp")) as server:
            check(Login(USER, PASSWORD, server.ports), kept)
        assert run_command("verify", "--data", str(data), check=False).returncode == 0
    finally:
        unmount(place)
