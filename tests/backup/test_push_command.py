"""`mailkeep push` and `migrate` as a user runs them: plans, exit codes, killed in the middle, onto our own server."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from mailkeep.store.store import Store
from mailkeep.testing import Break, Faulty
from tests.backup.targets import (
    Login,
    add_remote,
    contents,
    contents_of,
    contents_of_faulty,
    faulty_login,
    fill,
    without_empty,
)
from tests.messages import bulk, numbered
from tests.server import Server, program, run_command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with an account that has mail."""
    store = Store.open(tmp_path / "store")
    store.directory.add("ann")
    account = store.account("ann")
    fill(account, "INBOX", bulk(60))
    fill(account, "Work/A", [numbered(n) for n in range(20)])
    store.directory.add("spare")
    store.close()
    return tmp_path / "store"


def remote_at(data: Path, name: str, account: str, login: Login) -> None:
    store = Store.open(data)
    add_remote(store, name, store.account(account), login)
    store.close()


def ours(data: Path, account: str = "ann") -> dict[str, object]:
    store = Store.open(data)
    try:
        return dict(without_empty(contents_of(store.account(account))))
    finally:
        store.close()


def facts(*arguments: str, data: Path, code: int = 0) -> dict[str, object]:
    done = run_command(*arguments, "--json", "--data", str(data), check=False)
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_a_plan_and_the_push_onto_our_own_server(data: Path, tmp_path: Path) -> None:
    with Server(tmp_path / "target", users={"new": "secret"}, doors=("imap",)) as server:
        login = Login(server.port("imap"), "new", "secret")
        remote_at(data, "target", "spare", login)
        plan = run_command("push", "ann", "target", "--plan", "--data", str(data))
        assert "80 messages" in plan.stdout and "Work/A (new)" in plan.stdout
        assert without_empty(contents(login)) == {}
        done = facts("push", "ann", "target", data=data)
        assert done["equal"] is True and done["copied"] == 80 and done["there"] == 80
        assert without_empty(contents(login)) == ours(data)
        assert facts("push", "ann", "target", data=data)["copied"] == 0


def test_killed_in_the_middle_and_gone_on(data: Path) -> None:
    """kill -9 while messages are on their way, at several places; nothing is doubled and nothing is missing."""
    with Faulty("plain", delay_s=0.002) as server:
        remote_at(data, "target", "spare", faulty_login(server))
        for count in (5, 30, 61):
            process = subprocess.Popen(
                [*program(), "push", "ann", "target", "--data", str(data)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while process.poll() is None:
                if len(server.commands(rb"APPEND")) >= count:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            server.log.clear()
        facts("push", "ann", "target", data=data)
        assert without_empty(contents_of_faulty(server)) == ours(data)


def test_exit_codes_say_whether_all_is_there(data: Path) -> None:
    with Faulty("plain", append_max=100, capabilities=("IMAP4rev1", "APPENDLIMIT=100")) as server:
        remote_at(data, "small", "spare", faulty_login(server))
        assert facts("push", "ann", "small", "--plan", data=data, code=1)["append_max"] == 100
        assert facts("push", "ann", "small", data=data, code=1)["equal"] is False
    with Faulty("plain", login_refused="[AUTHENTICATIONFAILED] no") as server:
        remote_at(data, "refused", "spare", faulty_login(server))
        assert facts("push", "ann", "refused", data=data, code=77)["equal"] is False
    for wrong in (
        ("push", "nobody", "small"),
        ("push", "ann", "nowhere"),
        ("migrate", "small"),
        ("migrate", "small", "small"),
        ("push", "ann", "small", "--folder", "Wrok"),
    ):
        assert "error" in facts(*wrong, data=data, code=2)


def test_ctrl_c_writes_down_what_is_there(data: Path) -> None:
    with Faulty("plain", delay_s=0.01, breaks=(Break(rb"NEVER"),)) as server:
        remote_at(data, "target", "spare", faulty_login(server))
        process = subprocess.Popen(
            [*program(), "push", "ann", "target", "--data", str(data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None and len(server.commands(rb"APPEND")) < 10:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        assert b"give the same command again" in errors
        server.change(delay_s=0.0)
        facts("push", "ann", "target", data=data)
        assert without_empty(contents_of_faulty(server)) == ours(data)


def test_migrate_here_through_the_command(data: Path, tmp_path: Path) -> None:
    """From a server of our own, which is left with nothing to download: the numbers are the same."""
    with Server(data, doors=("imap", "pop3")) as server:
        run_command("user", "passwd", "ann", "--password-stdin", "--data", str(data), stdin="secret\n")
        login = Login(server.port("imap"), "ann", "secret")
        run_command("user", "add", "new", "--password-stdin", "--data", str(tmp_path / "here"), stdin="x\n")
        remote_at(tmp_path / "here", "old", "new", login)
        door = f"127.0.0.1:{server.port('pop3')}"
        done = facts("migrate", "old", "--account", "new", "--pop3", door, data=tmp_path / "here")
        assert done["equal"] is True, done
        assert done["notes"] == []
    assert ours(tmp_path / "here", "new") == ours(data)
    old, new = Store.open(data), Store.open(tmp_path / "here")
    for name in ("INBOX", "Work/A"):
        before, after = old.account("ann").mailbox(name), new.account("new").mailbox(name)
        assert (before.uidvalidity, before.uidnext) == (after.uidvalidity, after.uidnext)
    assert len(new.account("new").uidls(new.account("new").mailbox("INBOX").id)) == 60
    old.close()
    new.close()


def test_migrate_from_server_to_server_through_the_command(data: Path) -> None:
    with Faulty("plain") as old, Faulty("plain") as new:
        for body in bulk(15):
            old.mailboxes["INBOX"].add(body, flags=["\\Seen"], date=1_600_000_000)
        remote_at(data, "old", "spare", faulty_login(old))
        remote_at(data, "new", "ann", faulty_login(new))
        assert facts("migrate", "old", "new", "--plan", data=data)["copied"] == 15
        assert facts("migrate", "old", "new", data=data)["equal"] is True
        assert contents_of_faulty(new) == contents_of_faulty(old)


def test_a_migration_killed_in_the_middle_keeps_its_numbers(data: Path, tmp_path: Path) -> None:
    """kill -9 while it writes; the last run brings the rest, each message under its own UID."""
    here = tmp_path / "here"
    with Faulty("plain", delay_s=0.002) as old:
        box = old.mailboxes["INBOX"]
        for number, body in enumerate(bulk(400)):
            box.add(body, flags=["\\Seen"], date=1_600_000_000 + number)
        for uid in (2, 5, 77, 300):
            box.remove(uid)
        store = Store.open(here)
        store.directory.add("new")
        store.close()
        remote_at(here, "old", "new", faulty_login(old))
        for count in (1, 3, 5):
            process = subprocess.Popen(
                [*program(), "migrate", "old", "--account", "new", "--data", str(here)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while process.poll() is None:
                if len(old.commands(rb"BODY.PEEK")) >= count:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            old.log.clear()
        done = facts("migrate", "old", "--account", "new", data=here)
        assert done["equal"] is True
        assert ours(here, "new") == without_empty(contents_of_faulty(old))
        store = Store.open(here)
        account = store.account("new")
        mailbox = account.mailbox("INBOX")
        assert account.snapshot(mailbox.id).uids.tolist() == [message.uid for message in box]
        assert mailbox.uidvalidity == box.uidvalidity
        store.close()
