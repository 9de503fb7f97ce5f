"""`mailkeep bulk` as a user runs it, against servers on loopback."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.store.store import Store
from mailkeep.testing import Faulty
from tests import messages
from tests.server import run_command


@pytest.fixture
def servers() -> Iterator[tuple[Faulty, Faulty]]:
    with Faulty("plain", user="ann@example.org") as one, Faulty("plain", user="bob@example.org") as two:
        for number in range(5):
            one.mailboxes["INBOX"].add(messages.numbered(number))
            two.mailboxes["INBOX"].add(messages.numbered(100 + number))
        yield one, two


HEAD = ["source", "source_host", "source_port", "source_protocol", "source_tls", "source_user", "source_password",
        "source_password_command", "source_password_file", "target", "target_host", "target_port", "target_tls",
        "target_user", "target_password", "into"]  # fmt: skip


def write(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD)
        writer.writeheader()
        writer.writerows(rows)
    path.chmod(0o600)
    return path


def source(server: Faulty, protocol: str, **more: object) -> dict[str, object]:
    port = server.imap_port if protocol == "imap" else server.pop3_port
    return {
        "source_host": server.host,
        "source_port": port,
        "source_protocol": protocol,
        "source_tls": "none",
        "source_user": server.user,
        **more,
    }


def results(path: Path) -> dict[str, dict[str, str]]:
    with path.with_name("accounts.results.csv").open(newline="") as file:
        return {cells["line"]: cells for cells in csv.DictReader(file)}


def held(data: Path, account: str, mailbox: str = "INBOX") -> int:
    with contextlib.closing(Store.open(data)) as store:
        return store.account(account).mailbox(mailbox).messages


def test_many_at_once_and_again(tmp_path: Path, servers: tuple[Faulty, Faulty]) -> None:
    one, two = servers
    data = tmp_path / "data"
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    path = write(
        tmp_path / "accounts.csv",
        source(one, "imap", source_password="secret"),
        source(two, "pop3", source_password_command="echo secret", target="everything"),
        source(one, "pop3", source="ann-pop", source_password_file=secret, target="everything", into="Ann"),
        source(two, "imap", source="wrong", source_password="geheim"),
        {"source": "nobody", "target": "everything"},
        {"source": "x", "source_port": "many"},
    )
    done = run_command("bulk", str(path), "--data", str(data), check=False)
    assert done.returncode == 1, done.stderr
    found = results(path)
    assert {line: cells["state"] for line, cells in found.items()} == {
        "2": "done",
        "3": "done",
        "4": "done",
        "5": "failed",
        "6": "failed",
        "7": "failed",
    }
    assert "geheim" not in done.stdout + done.stderr + path.with_name("accounts.results.csv").read_text()
    assert found["3"]["copied"] == found["3"]["server"] == found["3"]["kept"] == "5"
    assert held(data, "ann@example.org") == held(data, "everything") == held(data, "everything", "Ann") == 5
    # Again: only what was not done. Nobody is asked a second time for what was.
    connections = one.state.connections
    done = run_command("bulk", str(path), "--data", str(data), "--json", check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["line"] for line in lines if line["event"] == "row") == [5, 6, 7]
    assert lines[-1]["rows"] == {"done": 3, "failed": 3}
    assert one.state.connections == connections
    # The password is right now, and one has new mail.
    write(
        path,
        source(one, "imap", source_password="secret"),
        source(two, "imap", source="wrong", source_password="secret"),
    )
    one.mailboxes["INBOX"].add(messages.numbered(50))
    done = run_command("bulk", str(path), "--data", str(data), "--again")
    assert "2 rows: 2 done" in done.stdout
    assert held(data, "ann@example.org") == 6


def test_from_server_to_server(tmp_path: Path, servers: tuple[Faulty, Faulty]) -> None:
    one, two = servers
    path = write(
        tmp_path / "accounts.csv",
        source(
            one,
            "imap",
            source_password="secret",
            target="new home",
            target_host=two.host,
            target_port=two.imap_port,
            target_tls="none",
            target_user=two.user,
            target_password="secret",
        )
        | {"target": "new-home"},
    )
    done = run_command("bulk", str(path), "--data", str(tmp_path / "data"))
    assert "1 row: 1 done" in done.stdout, done.stdout + done.stderr
    assert len(two.mailboxes["INBOX"].messages) == 10
    done = run_command("bulk", str(path), "--again", "--data", str(tmp_path / "data"))
    assert len(two.mailboxes["INBOX"].messages) == 10


def test_a_known_remote_is_not_said_to_be_in_an_account_where_it_is_not(
    tmp_path: Path, servers: tuple[Faulty, Faulty]
) -> None:
    data, file = tmp_path / "data", tmp_path / "accounts.csv"
    for target, code in (("", 0), ("account:other", 1)):
        write(file, source(servers[0], "imap", source_password=servers[0].password, target=target))
        run = run_command("bulk", str(file), "--data", str(data), check=False)
        assert run.returncode == code, run.stderr
    assert (
        results(file)["2"]["error"]
        == "the mail of ann@example.org is kept in the account ann@example.org, not in other"
    )


def test_a_refused_log_in_is_not_tried_in_another_row(tmp_path: Path, servers: tuple[Faulty, Faulty]) -> None:
    one, _ = servers
    path = write(
        tmp_path / "accounts.csv",
        *(source(one, "imap", source=f"r{n}", target=f"a{n}", source_password="geheim") for n in range(3)),
    )
    done = run_command("bulk", str(path), "--per-provider", "3", "--data", str(tmp_path / "d"), check=False)
    assert done.returncode == 1
    assert [cells["state"] for cells in results(path).values()] == ["failed"] * 3
    assert len(one.commands(rb"AUTHENTICATE|LOGIN")) == 1


def test_a_plan_contacts_nobody(tmp_path: Path, servers: tuple[Faulty, Faulty]) -> None:
    one, _ = servers
    path = write(tmp_path / "accounts.csv", source(one, "imap", source_password="geheim"))
    run_command("user", "add", "x", "--password-stdin", "--data", str(tmp_path / "data"), stdin="y\n")
    path.chmod(0o644)
    done = run_command("bulk", str(path), "--plan", "--data", str(tmp_path / "data"))
    assert "1 row to run" in done.stdout
    assert "chmod 600" in done.stderr
    assert "geheim" not in done.stdout + done.stderr
    assert one.state.connections == 0
    assert not path.with_name("accounts.results.csv").exists()


def test_a_plain_line_to_another_machine_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "accounts.csv",
        {"source_host": "mail.example.org", "source_tls": "none", "source_user": "a", "source_password": "geheim"},
    )
    done = run_command("bulk", str(path), "--data", str(tmp_path / "data"), check=False)
    assert done.returncode == 1
    assert "tls none is for this very machine only" in results(path)["2"]["error"]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    done = run_command("bulk", str(tmp_path / "missing.csv"), "--data", str(tmp_path / "data"), check=False)
    assert done.returncode == 2
    assert os.listdir(tmp_path) == []
