"""`mailkeep serve` as a process: its lines, its signals, its workers, the demo."""

import contextlib
import imaplib
import json
import os
import select
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep import app
from tests.server import Server, program, run_command

USERS = {"anna@example.org": "secret"}


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """A server with literal arguments; its lines up to `ready`."""
    process = subprocess.Popen(
        [*program(), "serve", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if lines[-1] == "ready":
                break
        yield process, lines
    finally:
        process.terminate()
        process.communicate(timeout=30)


def login(server: Server, password: str = "secret") -> imaplib.IMAP4:
    client = imaplib.IMAP4(server.host, server.port("imap"), timeout=20)
    client.login("anna@example.org", password)
    return client


def test_term_says_goodbye_to_every_session_and_ends_with_0(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", users=USERS).start()
    client = login(server)
    plain = socket.create_connection((server.host, server.port("pop3")), timeout=20)
    assert plain.recv(1024).startswith(b"+OK")
    assert server.stop() == 0
    assert b"BYE" in client.readline()
    plain.close()
    client.shutdown()


def test_all_doors_are_told_before_ready(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    doors = ["--imap", "127.0.0.1:0", "--imap", "[::1]:0", "--lmtp", str(path)]
    with serving("--data", tmp_path / "data", *doors) as (_, lines):
        assert [line.rsplit(":", 1)[0] for line in lines[:2]] == ["listening imap 127.0.0.1", "listening imap [::1]"]
        assert lines[2:] == [f"listening lmtp {path}", "ready"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert client.recv(100).startswith(b"220 ")
    assert not path.exists()


def test_json_is_one_object(tmp_path: Path) -> None:
    command = [*program(), "serve", "--json", "--data", str(tmp_path / "data"), "--imap", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert facts["ready"] is True and facts["pid"] == process.pid and facts["doors"][0]["door"] == "imap"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "" and process.returncode == 0


def test_a_port_that_is_taken_is_69_and_a_public_door_without_certificate_78(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        at = f"127.0.0.1:{other.getsockname()[1]}"
        done = run_command("serve", "--data", str(tmp_path / "d"), "--imap", at, check=False)
        assert done.returncode == 69 and at in done.stderr and done.stderr.count("\n") == 1
    done = run_command("serve", "--data", str(tmp_path / "d"), "--imaps", "*:0", check=False)
    assert done.returncode == 78 and "certificate" in done.stderr and done.stderr.count("\n") == 1
    done = run_command("serve", "--data", str(tmp_path / "d"), "--demo", "--lmtp", "*:0", check=False)
    assert done.returncode == 2 and "--demo" in done.stderr


def test_the_demo_is_made_once_and_can_be_read(tmp_path: Path) -> None:
    arguments = ("--demo", "--data", tmp_path / "data", "--imap", "127.0.0.1:0", "--imaps", "127.0.0.1:0")
    counts = []
    for _ in range(2):
        with serving(*arguments) as (_, lines):
            text = "\n".join(lines)
            assert "demo@example.org" in text and "Password" in text
            port = int(lines[0].rpartition(":")[2])
            with imaplib.IMAP4("127.0.0.1", port, timeout=20) as client:
                client.login("demo@example.org", "demo")
                boxes = [
                    line.split(b' "/" ')[1].strip(b'"').decode() for line in client.list()[1] if isinstance(line, bytes)
                ]
                assert {"INBOX", "Sent", "Drafts", "Junk", "Trash", "Archive", "Lists/Garden"} <= set(boxes)
                found = {}
                for box in boxes:
                    code, answer = client.select(f'"{box}"', readonly=True)
                    assert code == "OK" and answer[0] is not None
                    found[box] = int(answer[0])
                counts.append(found)
    assert counts[0] == counts[1] and sum(counts[0].values()) > 250


def descendants(pid: int) -> set[int]:
    """Children and theirs, by /proc."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_parent_leaves_nobody_behind(tmp_path: Path, workers: int) -> None:
    server = Server(tmp_path / "data", users=USERS, options=["--workers", str(workers)]).start()
    handles = [os.pidfd_open(pid) for pid in descendants(server.pid)]
    assert len(handles) == (1 if workers == 1 else workers + 1)
    server.kill()
    for handle in handles:  # a pidfd is readable once its process has ended
        assert select.select([handle], [], [], 20)[0], "a child lives on"
        os.close(handle)


def test_workers_share_every_port_and_are_started_again(tmp_path: Path) -> None:
    with Server(tmp_path / "data", users=USERS, options=["--workers", "2"]) as server:
        clients = [login(server) for _ in range(8)]
        assert all(client.noop()[0] == "OK" for client in clients)
        clients[0].append("INBOX", "", "", b"Subject: x\r\n\r\nbody\r\n")
        for client in clients:
            assert client.select("INBOX")[1] == [b"1"]
            client.shutdown()
        before = descendants(server.pid)
        handles = {pid: os.pidfd_open(pid) for pid in before}
        for pid, handle in handles.items():
            os.kill(pid, signal.SIGKILL)
            assert select.select([handle], [], [], 20)[0]
            os.close(handle)
        # Connections that come meanwhile wait in the queues that the parent kept open.
        for _ in range(4):
            login(server).logout()
        assert not descendants(server.pid) & before
    assert server.log().count("a process ended by itself") == len(before)


def test_hup_reads_certificate_and_configuration_again(tmp_path: Path) -> None:
    from mailkeep.serve.tls import make_self_signed

    certificate, key = make_self_signed(tmp_path / "one", hostname="one.example.org")
    file = tmp_path / "mailkeep.toml"
    paths = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
    file.write_text('hostname = "one.example.org"\n' + paths)

    def presented() -> bytes | None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((server.host, server.port("imaps")), timeout=20) as plain,
            context.wrap_socket(plain) as tls,
        ):
            return tls.getpeercert(binary_form=True)

    with Server(tmp_path / "data", users=USERS, options=["--config", str(file)]) as server:
        before = presented()
        client = login(server)
        certificate.unlink()
        make_self_signed(tmp_path / "one", hostname="two.example.org")
        file.write_text('hostname = "two.example.org"\n[limits]\nmessage_size = "1K"\n' + paths)
        os.kill(server.pid, signal.SIGHUP)
        while "reloaded" not in server.log():
            client.noop()
        assert presented() != before
        assert "needs_restart=hostname" in server.log()
        assert client.append("INBOX", "", "", b"Subject: x\r\n\r\n" + b"x" * 2000)[0] == "NO"
        file.write_text("nonsense = 1\n")
        os.kill(server.pid, signal.SIGHUP)
        while "reload failed" not in server.log():
            client.noop()
        assert client.noop()[0] == "OK"
        client.logout()


def test_the_certificate_of_loopback_is_private(tmp_path: Path) -> None:
    with Server(tmp_path / "data", users=USERS):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        (key,) = (tmp_path / "data" / "tls").glob("*.key")
        assert key.stat().st_mode & 0o777 == 0o600


def test_new_mail_is_indexed_in_the_background(tmp_path: Path) -> None:
    from mailkeep.store.store import Store

    store = Store.open(tmp_path / "data")
    info = store.directory.add("anna")
    with store.account("anna").transaction() as transaction:
        staging = store.stage()
        staging.write(b"Subject: needle\r\n\r\nhay\r\n")
        staged = staging.finish()
        transaction.append(transaction.mailbox("INBOX").id, staged)
        staged.close()
    seen: dict[int, tuple[int, ...]] = {}
    assert app.index_changed(store, seen, lambda: False) is True
    assert (store.directory.account_path(info.id) / "search.db").exists() and info.id in seen
    before = dict(seen)
    assert app.index_changed(store, seen, lambda: False) is False
    assert seen == before
    store.close()


def test_an_import_is_told_to_a_client_that_idles(tmp_path: Path) -> None:
    (tmp_path / "x.eml").write_bytes(b"Subject: x\n\nbody\n")
    with Server(tmp_path / "data", users=USERS) as server:
        client = login(server)
        client.select("INBOX")
        client.send(b"i IDLE\r\n")
        assert client.readline().startswith(b"+")
        run_command("import", str(tmp_path / "x.eml"), "--user", "anna@example.org", "--data", str(server.data))
        assert client.readline() == b"* 1 EXISTS\r\n"
        client.shutdown()


def test_workers_share_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    with serving("--data", tmp_path / "data", "--lmtp", path, "--workers", "2") as (_, lines):
        assert lines == [f"listening lmtp {path}", "ready"]
        for _ in range(4):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                assert client.recv(100).startswith(b"220 ")
    assert not path.exists()


def test_a_store_that_cannot_be_opened_is_said_before_any_worker_starts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "directory.db").write_bytes(b"this is no database, whatever its name says" * 100)
    for workers in ("1", "2"):
        done = run_command(
            "serve", "--data", str(tmp_path / "data"), "--imap", "127.0.0.1:0", "--workers", workers, check=False
        )
        assert done.returncode == 74 and done.stderr.count("\n") == 1, done.stderr


def test_a_key_that_does_not_fit_is_a_configuration_error(tmp_path: Path) -> None:
    from mailkeep.serve.tls import make_self_signed

    certificate, _ = make_self_signed(tmp_path / "one", hostname="a.example.org")
    _, key = make_self_signed(tmp_path / "two", hostname="b.example.org")
    file = tmp_path / "c.toml"
    file.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    done = run_command(
        "serve", "--data", str(tmp_path / "d"), "--config", str(file), "--imap", "127.0.0.1:0", check=False
    )
    assert done.returncode == 78 and done.stderr.count("\n") == 1
    assert "key" in run_command("doctor", "--data", str(tmp_path / "d"), "--config", str(file), check=False).stdout


def test_garbage_is_collected_once_a_day_and_not_at_the_start(tmp_path: Path) -> None:
    stamp = tmp_path / "collected"
    assert not app.is_due(stamp, 86400) and stamp.exists()  # the first look only begins the count
    assert not app.is_due(stamp, 86400)
    os.utime(stamp, (1, 1))
    assert app.is_due(stamp, 86400) and not app.is_due(stamp, 0)
