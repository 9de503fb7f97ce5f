"""`mailkeep export` as a user types it: what it prints, its exit codes, Ctrl-C, and each format once."""

import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailkeep.cli import export, main
from mailkeep.errors import UsageError
from mailkeep.export import demo, exporter, formats, reading
from mailkeep.export.importer import Importer
from mailkeep.store.store import Store
from tests.programs import find_program, need_files
from tests.server import program

Keep = Callable[..., str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demo account, and an empty one beside it."""
    root = tmp_path_factory.mktemp("store") / "data"
    store = Store.open(root)
    store.directory.add("demo@example.org")
    store.directory.add("anna")
    for _ in Importer(store, store.account("demo@example.org")).items(demo.items()):
        pass
    store.close()
    return root


@pytest.fixture
def keep(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Keep:
    """Run `mailkeep export` in this process, in an empty directory; what it printed."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str, code: int = 0) -> str:
        found = main.run(["export", *arguments, "--data", str(data)])
        printed = capsys.readouterr()
        assert found == code, printed
        assert "Traceback" not in printed.err
        return printed.out + printed.err

    return run


def facts(printed: str) -> dict[str, Any]:
    found = json.loads(printed.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_it_says_what_came_of_it(keep: Keep) -> None:
    printed = keep("demo@example.org", "--to", "eml", "out")
    assert printed.startswith("301 messages exported (1.2 MiB), in ")
    assert re.search(r"^Lists/Garden +41  39.9 KiB$", printed, flags=re.MULTILINE)
    assert f"All 301 of the list were found again in the output. Manifest: {Path.cwd()}/out/manifest.jsonl" in printed
    assert (Path("out").stat().st_mode & 0o777, Path("out/manifest.jsonl").stat().st_mode & 0o777) == (0o700, 0o600)
    again = keep("demo@example.org", "--to", "eml", "out", code=2)
    assert again.count("\n") == 1 and "is there already, and nothing is overwritten" in again
    assert keep("demo@example.org", "--to", "eml", "quiet", "--quiet") == ""


def test_json_is_events_and_then_the_result(keep: Keep) -> None:
    printed = keep("demo@example.org", "--to", "eml", "out", "--json", "--split", "year", "--into", "Old")
    events = [json.loads(line) for line in printed.splitlines()]
    assert [event["event"] for event in events][-1] == "done" and {event["event"] for event in events[:-1]} == {
        "progress"
    }
    done = events[-1]
    assert (done["listed"], done["exported"], done["counted"], done["complete"], done["code"]) == (
        301,
        301,
        301,
        True,
        0,
    )
    assert [Path(part["path"]).name for part in done["parts"]] == sorted(path.name for path in Path("out").iterdir())[
        :-1
    ]
    assert {"Making the list", "Completing it", "Reading it again"} <= {event["phase"] for event in events[:-1]}
    mail = [path for path in Path("out").rglob("*.eml") if "2025" in path.parts]
    assert sum(path.stat().st_size for path in mail) == next(
        part["size"] for part in done["parts"] if part["path"].endswith("2025")
    )
    assert done["folders"]["Junk"] == {"messages": 15, "bytes": done["folders"]["Junk"]["bytes"], "missing": 0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--to", "eml", "out"), "did you mean demo@example.org?"),
        (("dmeo@example.org", "--to", "eml", "out"), "did you mean demo@example.org?"),
        (("nobody", "--to", "eml", "out"), "`mailkeep user list` shows them"),
        (("demo@example.org", "--to", "elm", "out"), "did you mean eml? There are eml, mbox"),
        (("demo@example.org", "--to", "eml", "--per", "folder", "out"), "per message or all"),
        (("demo@example.org", "--to", "msg", "--engine", "chromium", "out"), "only pdf has a choice"),
        (("demo@example.org", "--to", "eml", "/"), "/ is there already"),
        (("demo@example.org", "--to", "eml", "not/there"), "there is no such directory; make it first"),
        (("demo@example.org", "--to", "eml", "out", "--folder", "Wrok"), "none of the folders: INBOX, Archive"),
        (("demo@example.org", "--to", "eml", "out", "--since", "2050"), "no message in 15 folders"),
        (("demo@example.org", "--to", "eml", "out", "--split", "10"), "1M is the least"),
        (("demo@example.org", "--to", "eml", "out", "--split", "month"), "give a size such as 10G, or year"),
        (("demo@example.org", "--to", "eml", "out", "--into", "a//b"), "empty level"),
        (("demo@example.org", "out"), "Missing option '--to'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(keep: Keep, arguments: tuple[str, ...], said: str) -> None:
    printed = keep(*arguments, code=2)
    assert said in printed and printed.count("\n") == 1
    assert os.listdir() == []


def test_an_empty_account_is_no_error(keep: Keep) -> None:
    assert "0 messages exported" in keep("anna", "--to", "eml", "out")
    assert (Path("out") / "INBOX").is_dir()


def test_filters_choose(keep: Keep) -> None:
    done = facts(keep("demo@example.org", "--to", "eml", "a", "--folder", "Lists/*", "--flag", "unread", "--json"))
    assert done["complete"] and 0 < done["exported"] < 61 and set(done["folders"]) <= {"Lists/Garden", "Lists/News"}
    done = facts(
        keep("demo@example.org", "--to", "eml", "b", "--query", "has:attachment", "--not-folder", "Junk", "--json")
    )
    assert 0 < done["exported"] < 100


def test_what_is_missing_is_listed_and_the_code_is_1(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.Format, "count", lambda self, place: 300)
    printed = keep("demo@example.org", "--to", "eml", "out", code=1)
    assert "300 messages found in it, 301 expected" in printed and "300 of 301 messages are in" in printed


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    keep: Keep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reading, "BATCH_MESSAGES", 10)
    report = exporter.Export._report

    def pressing(self: exporter.Export, *given: Any) -> None:
        report(self, *given)
        if self.progress.items >= 50:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(exporter.Export, "_report", pressing)
    before = signal.getsignal(signal.SIGINT)
    printed = keep("demo@example.org", "--to", "eml", "out", "--since", "9000d", code=130)
    assert "Once more to stop at once" in printed
    assert "stopped; give the same command again to go on where it was (50 of 301 messages done)" in printed
    assert signal.getsignal(signal.SIGINT) is before and os.listdir() == ["out.partial"]
    monkeypatch.setattr(exporter.Export, "_report", report)
    assert "give that command again to go on, --restart" in keep("demo@example.org", "--to", "mbox", "out", code=2)
    printed = keep("demo@example.org", "--to", "eml", "out", "--since", "9000d")
    assert "Went on with an export that was stopped after 50 messages." in printed and "All 301 " in printed


def test_a_second_ctrl_c_stops_at_once(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    report = exporter.Export._report

    def pressing(self: exporter.Export, *given: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(exporter.Export, "_report", pressing)
    keep("demo@example.org", "--to", "eml", "out", code=130)
    monkeypatch.setattr(exporter.Export, "_report", report)
    assert "All 301 " in keep("demo@example.org", "--to", "eml", "out")


def test_the_words_for_a_size() -> None:
    assert export.parse_split("10G") == 10 << 30 and export.parse_split("Year") == "year"
    with pytest.raises(UsageError):
        export.parse_split("1000")


def test_a_file_that_may_not_grow_is_told_and_taken_up_later(data: Path, tmp_path: Path) -> None:
    """The real process, with a limit on the size of files as a small file system has one."""
    command = [*program(), "export", "demo@example.org", "--to", "eml", "--per", "all", "out", "--data", str(data)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert failed.returncode == 73 and failed.stderr.count("\n") == 1, failed.stderr
    assert "larger than a file may be here" in failed.stderr and "give the same command again" in failed.stderr
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "All 301 " in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["out.zip", "out.zip.manifest.jsonl"]


# --- each format -----------------------------------------------------------------------------------------------------

NEEDS = {"docx": "soffice", "doc": "soffice"}
SLOW = {"pdf": "Projects/*", "docx": "Drafts", "doc": "Drafts"}  # format → the folders that are enough
EVERY = [(row.name, per) for row in formats.FORMATS.values() for per in row.per]


@pytest.mark.parametrize(("name", "per"), EVERY, ids=["-".join(each) for each in EVERY])
def test_every_format_takes_the_demo_account(data: Path, tmp_path: Path, name: str, per: str) -> None:
    """By the real program. What is in the output is each format's own tests' business; here all of it must be there."""
    if name in NEEDS:
        find_program(NEEDS[name])
    if name == "pdf":
        need_files("Pango")
    command = [
        *program(),
        "export",
        "demo@example.org",
        "--to",
        name,
        "--per",
        per,
        "out",
        "--json",
        "--data",
        str(data),
    ]
    command += ["--folder", SLOW[name]] if name in SLOW else []
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = facts(done.stdout)
    assert told["complete"] and told["exported"] == told["counted"] == told["listed"] > 0
    assert name in SLOW or told["exported"] == 301
    assert not told["notes"], "nothing in the demo account is beyond any format"
    out = Path(told["out"])
    assert out.exists() and out.suffix == formats.FORMATS[name].single.get(per, "")
    lines = [json.loads(line) for line in Path(told["manifest"]).read_text().splitlines()][1:-1]
    assert len(lines) == told["exported"] and not any("missing" in line for line in lines)
    if out.is_dir():
        assert all((out / line["file"]).exists() for line in lines)
        owned = {path.stat().st_mode & 0o077 for path in out.rglob("*")}
        assert owned == {0}, "for its owner alone"
    assert sorted(os.listdir(tmp_path)) == sorted({out.name, Path(told["manifest"]).name} - {"manifest.jsonl"})
