"""`mailkeep sync`, and the schedule that runs it, as a person and as a program call them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.cli.main import run
from mailkeep.testing import Faulty
from tests.backup.archive import NAME
from tests.backup.two_sides import Here
from tests.messages import numbered

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[Faulty]:
    made = Faulty()
    for number in range(5):
        made.mailboxes["INBOX"].add(numbered(number), date=1_700_000_000 + number)
    with made:
        yield made


@pytest.fixture
def data(server: Faulty, tmp_path: Path) -> str:
    """A store whose account has two messages of its own."""
    here = Here(tmp_path / "store", server.imap_port, user=server.user, password=server.password)
    here.add("INBOX", numbered(100), numbered(101))
    here.close()
    return str(tmp_path / "store")


def test_a_plan_then_a_run_then_nothing_to_do(server: Faulty, data: str, capsys: Printed) -> None:
    assert run(["sync", "--plan", "--data", data]) == 0
    assert "to do: 5 brought here, 2 put there" in capsys.readouterr().out
    assert len(list(server.mailboxes["INBOX"])) == 5
    assert run(["sync", "--json", "--data", data]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines[:-1]} <= {"progress"}
    (facts,) = lines[-1]["remotes"]
    assert (facts["fetched"], facts["uploaded"], facts["equal"]) == (5, 2, True)
    assert len(list(server.mailboxes["INBOX"])) == 7
    assert run(["sync", "--plan", "--data", data]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_status_tells_of_two_ways(data: str, capsys: Printed) -> None:
    run(["sync", "--data", data])
    capsys.readouterr()
    assert run(["status", NAME, "--data", data]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{NAME}\s+ann\s+none\s+\d{{4}}-.*\b7\s+7\s+0\s+0\s+both sides equal$", out, re.MULTILINE)
    assert re.search(r"^INBOX\s+7\s+7\s+0\s+0$", out, re.MULTILINE)


def test_a_schedule_of_two_ways(data: str, capsys: Printed) -> None:
    assert run(["remote", "schedule", NAME, "every 15 min", "--sync", "--data", data]) == 0
    assert "synchronised every 15 min" in capsys.readouterr().out
    for command in (["remote", "schedule", NAME], ["remote", "list"], ["remote", "show", NAME], ["status"]):
        assert run([*command, "--data", data]) == 0
        assert re.search(r"sync(hronised)? every 15 min", capsys.readouterr().out), command
    assert run(["remote", "schedule", NAME, "--sync", "--data", data]) == 2
    assert run(["remote", "schedule", NAME, "daily at 04:00", "--data", data]) == 0
    assert "pulled daily at 04:00" in capsys.readouterr().out


def test_what_clients_may_only_read_is_not_synchronised(data: str, capsys: Printed) -> None:
    run(["user", "access", "ann", "read", "--data", data])
    for command in (["sync"], ["remote", "schedule", NAME, "every hour", "--sync"]):
        assert run([*command, "--data", data]) == 2
        assert "mailkeep user access ann full" in capsys.readouterr().err
    assert run(["remote", "schedule", NAME, "every hour", "--data", data]) == 0


def test_a_refused_log_in_ends_watching_and_is_remembered(server: Faulty, data: str, capsys: Printed) -> None:
    server.change(login_refused="[AUTHENTICATIONFAILED] no")
    assert run(["sync", "--watch", "--data", data]) == 77
    assert len(server.commands(rb"LOGIN|AUTHENTICATE")) == 1
    assert "trying again" not in capsys.readouterr().err
    run(["status", "--json", "--data", data])
    (facts,) = json.loads(capsys.readouterr().out)["remotes"]
    assert facts["last"]["refused"] is True
