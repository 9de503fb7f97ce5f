"""`mailkeep pull`, `status` and `verify --against-server`, as a person and as a program call them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.cli.main import run
from mailkeep.testing import Faulty, Ill
from tests.backup.archive import NAME, Archive
from tests.messages import numbered

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[Faulty]:
    made = Faulty()
    for number in range(12):
        made.mailboxes["INBOX"].add(numbered(number), date=1_700_000_000 + number)
    with made:
        yield made


@pytest.fixture
def data(server: Faulty, tmp_path: Path) -> str:
    archive = Archive(tmp_path / "store", server.imap_port, user=server.user, password=server.password)
    archive.close()
    return str(tmp_path / "store")


def test_pull_is_quiet_when_nobody_watches_and_all_is_well(data: str, capsys: Printed) -> None:
    assert run(["pull", NAME, "--data", data]) == 0
    assert capsys.readouterr() == ("", "")


def test_json_is_lines_of_progress_and_then_the_ledger(data: str, capsys: Printed) -> None:
    assert run(["pull", "--json", "--data", data]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines[:-1]} == {"progress"}
    done = lines[-1]
    assert (done["event"], done["code"]) == ("done", 0)
    (remote,) = done["remotes"]
    assert (remote["remote"], remote["server"], remote["kept"], remote["equal"]) == (NAME, 12, 12, True)


def test_what_is_missing_is_told_and_is_the_exit_code(
    server: Faulty, data: str, tmp_path: Path, capsys: Printed
) -> None:
    server.mailboxes["INBOX"].add(numbered(99), ill=Ill("no"))
    assert run(["pull", "--data", data, "--report", str(tmp_path / "ledger.html")]) == 1
    printed = capsys.readouterr()
    assert "1 message not here: refused by the server" in printed.err
    assert "INBOX UID 13" in printed.err
    assert "12 of 13 kept" in printed.out
    assert "12 of 13 messages" in (tmp_path / "ledger.html").read_text()
    (facts,) = json.loads((tmp_path / "ledger.json").read_text())
    assert facts["missing"] == {"refused by the server": 1}


def test_filters_that_take_no_folder_are_told(data: str, capsys: Printed) -> None:
    assert run(["pull", "--folder", "Inbocks", "--data", data]) == 1
    assert "the filters take none of its folders; there are INBOX" in capsys.readouterr().err


def test_an_error_is_told_though_quiet_was_asked_for_and_nothing_else(
    server: Faulty, data: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server.change(login_refused="[AUTHENTICATIONFAILED] no")
    assert run(["pull", "--quiet", "--data", data]) == 77
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"{NAME}: 127.0.0.1 refused the log-in")


def test_status_says_when_and_how_much(server: Faulty, data: str, capsys: Printed) -> None:
    assert run(["status", "--data", data]) == 0
    assert "never" in capsys.readouterr().out
    assert run(["pull", "--data", data]) == 0
    assert run(["status", NAME, "--data", data]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{NAME}\s+ann\s+none\s+\d{{4}}-.*\b12\s+12\s+0\s+0\s+equal$", out, re.MULTILINE)
    assert re.search(r"^INBOX\s+12\s+12\s+0\s+0$", out, re.MULTILINE)
    run(["status", "--json", "--data", data])
    facts = json.loads(capsys.readouterr().out)
    assert facts["remotes"][0]["last"]["kept"] == 12


def test_verify_against_the_server(server: Faulty, data: str, capsys: Printed) -> None:
    run(["pull", "--data", data])
    assert run(["verify", "--against-server", NAME, "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["remotes"][0]["kept"] == 12
    server.mailboxes["INBOX"].add(numbered(55))
    assert run(["verify", "--against-server", NAME, "--data", data]) == 1
    assert "1 message not here: not pulled yet" in capsys.readouterr().err


def test_filters_and_into(data: str, capsys: Printed) -> None:
    assert run(["pull", "--data", data, "--query", '"message 3."', "--into", "Old"]) == 0
    archive = Archive(Path(data), 1, user="x", password="x")
    try:
        assert [each for each, _, _ in archive.mailbox("Old/Inbox")] == [numbered(3)]
    finally:
        archive.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nobody"], "no remote nobody"), ([NAME, "--all"], "not both"), (["--query", "larger:x"], "not a size")],
)
def test_wrong_calls_say_what_to_do(data: str, arguments: list[str], words: str, capsys: Printed) -> None:
    assert run(["pull", *arguments, "--data", data]) == 2
    assert words in capsys.readouterr().err


def test_a_refused_login_has_its_own_exit_code(server: Faulty, data: str, capsys: Printed) -> None:
    server.change(login_refused="[AUTHENTICATIONFAILED] no")
    assert run(["pull", "--data", data]) == 77
    assert server.password not in "".join(capsys.readouterr())
    server.change(login_refused=None)
    assert run(["pull", "--data", data]) == 0


def test_ctrl_c_keeps_what_came_and_the_same_command_goes_on(server: Faulty, data: str) -> None:
    for number in range(100, 900):
        server.mailboxes["INBOX"].add(numbered(number, size=2000))
    server.change(bytes_per_s=400_000.0)
    command = [sys.executable, "-m", "mailkeep.cli.main", "pull", "--data", data, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as going:
        assert going.stdout is not None
        for line in going.stdout:
            facts = json.loads(line)
            if facts["event"] == "done" or facts["messages"] > 0:
                break
        going.send_signal(signal.SIGINT)
        out, err = going.communicate(timeout=30)
    assert going.returncode == 130, (out, err)
    assert "what is done so far is being kept" in err
    server.change(bytes_per_s=None)
    assert run(["pull", "--data", data, "--quiet"]) == 0
    archive = Archive(Path(data), 1, user="x", password="x")
    try:
        assert len(archive.mailbox("INBOX")) == 812
    finally:
        archive.close()
