"""The commands as a user types them: what they print, and their exit codes."""

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mailkeep.cli import main, output
from mailkeep.store.mailboxes import GONE
from mailkeep.store.store import Store
from tests.server import program, run_command

MAIL = b"Subject: %d\n\nbody %d\n"


class Keep:
    """A store of a test, and its commands run in this process."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self._capsys = capsys

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command; what it printed. Errors must be one line, and no traceback."""
        given = [str(argument) for argument in arguments]
        assert main.run([*given, "--data", str(self.data)]) == code, self._capsys.readouterr()
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.err
        return printed.out + printed.err

    def facts(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        found = json.loads(self(*arguments, "--json", code=code).partition("\n")[0])
        assert isinstance(found, dict)
        return found

    def subjects(self, user: str, mailbox: str) -> list[str]:
        store = Store.open(self.data, create=False)
        try:
            account = store.account(user)
            box = account.mailbox(mailbox)
            rows = account.fetch(box.id, list(account.index(box.id).uids), ("uid", "email"))
            return [account.read(email).split(b"\r\n")[0].decode().removeprefix("Subject: ") for _, email in rows]
        finally:
            store.close()


@pytest.fixture
def keep(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Keep:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    store = Store.open(tmp_path / "data")
    store.directory.add("anna@example.org")
    store.close()
    return Keep(tmp_path / "data", capsys)


def folder(path: Path, count: int, start: int = 0) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (path / f"{number}.eml").write_bytes(MAIL % (number, number))
    return path


# --- users -----------------------------------------------------------------------------------------------------------


def test_users_are_added_listed_and_removed(tmp_path: Path) -> None:
    data = ["--data", str(tmp_path / "new")]
    assert (
        "Added bela"
        in run_command("user", "add", "bela", "--password-stdin", "--quota", "5G", *data, stdin="x\n").stdout
    )
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    again = run_command("user", "add", "BELA", "--password-stdin", *data, stdin="x\n", check=False)
    assert again.returncode == 2 and again.stderr.count("\n") == 1
    listed = json.loads(run_command("user", "list", "--json", *data).stdout)["accounts"]
    assert [(row["name"], row["quota"], row["messages"]) for row in listed] == [("bela", 5 << 30, 0)]
    assert "5.0 GiB" in run_command("user", "list", *data).stdout
    run_command("user", "quota", "bela", "none", *data)
    assert json.loads(run_command("user", "list", "--json", *data).stdout)["accounts"][0]["quota"] is None
    assert run_command("user", "passwd", "bela", "--password-stdin", "--quiet", *data, stdin="y\n").stdout == ""
    asked = run_command("user", "remove", "bela", *data, check=False)
    assert asked.returncode == 2 and "--yes" in asked.stderr
    assert "Removed bela" in run_command("user", "remove", "bela", "--yes", *data).stdout
    assert run_command("user", "passwd", "bela", "--password-stdin", *data, stdin="y\n", check=False).returncode == 2


def test_access_is_set_and_shown(keep: Keep, tmp_path: Path) -> None:
    data = ["--data", str(keep.data)]
    added = run_command("user", "add", "old", "--read-only", "--password-stdin", "--json", *data, stdin="x\n")
    assert json.loads(added.stdout)["access"] == "read"
    assert {row["name"]: row["access"] for row in keep.facts("user", "list")["accounts"]} == {
        "anna@example.org": "full",
        "old": "read",
    }
    assert re.search(r"old .* read ", keep("user", "list"))
    keep("import", folder(tmp_path / "mail", 2), "--user", "old")
    assert keep.subjects("old", "INBOX") == ["0", "1"], "an import is no client"
    assert "read and change" in keep("user", "access", "OLD", "full")
    assert "only read" in keep("user", "access", "anna@example.org", "read")
    assert {row["name"]: row["access"] for row in keep.facts("user", "list")["accounts"]} == {
        "anna@example.org": "read",
        "old": "full",
    }
    assert "no account" in keep("user", "access", "nobody", "read", code=2)
    keep("user", "access", "old", "write", code=2)


def test_what_is_gone_is_hidden_and_shown(keep: Keep, tmp_path: Path) -> None:
    keep("import", folder(tmp_path / "mail", 3), "--user", "anna@example.org")
    store = Store.open(keep.data)
    account = store.account("anna@example.org")
    with account.transaction() as tx:
        tx.store_flags(tx.find("INBOX"), [2], "+", frozenset({GONE}))
    store.close()
    assert keep.facts("user", "gone", "anna@example.org", "hide")["moved"] == 1
    assert keep.subjects("anna@example.org", "INBOX") == ["0", "2"]
    assert keep.facts("user", "list")["accounts"][0]["gone"] == "hide"
    assert keep.facts("import", tmp_path / "mail", "--user", "anna@example.org")["added"] == 0
    assert "1 message moved" in keep("user", "gone", "anna@example.org", "show")
    assert sorted(keep.subjects("anna@example.org", "INBOX")) == ["0", "1", "2"]
    assert keep.facts("verify")["sound"] is True
    keep("user", "gone", "nobody", "hide", code=2)


def test_other_names_come_and_go(keep: Keep) -> None:
    assert "as well" in keep("user", "alias", "anna@example.org", "Info@example.org")
    assert keep.facts("user", "list")["accounts"][0]["aliases"] == ["Info@example.org"]
    keep("user", "alias", "anna@example.org", "info@EXAMPLE.org", code=2)
    keep("user", "alias", "anna@example.org", "anna@example.org", code=2)
    keep("user", "alias", "anna@example.org", "two words", code=2)
    keep("user", "alias", "nobody", "x@example.org", code=2)
    assert keep.facts("user", "alias", "info@example.org", "INFO@example.org", "--remove")["aliases"] == []
    keep("user", "alias", "anna@example.org", "info@example.org", "--remove", code=2)


def test_an_empty_password_is_none(tmp_path: Path) -> None:
    for stdin in ("", "\n"):
        done = run_command(
            "user", "add", "a", "--password-stdin", "--data", str(tmp_path / "d"), stdin=stdin, check=False
        )
        assert done.returncode == 2 and "empty" in done.stderr
    done = run_command("user", "add", "a", "--data", str(tmp_path / "d"), check=False)
    assert done.returncode == 2 and "--password-stdin" in done.stderr


def test_passwords_are_asked_for_twice_without_echo(tmp_path: Path) -> None:
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(program()[0], [*program(), "user", "add", "bela", "--data", str(tmp_path / "d")])
    shown = b""
    for asked, word in enumerate((b"sesame\n", b"sesam\n", b"sesame\n", b"sesame\n"), 1):
        while len(re.findall(rb"(?:Password for bela|Once more): ", shown)) < asked:
            shown += os.read(terminal, 1024)
        os.write(terminal, word)
    try:
        while piece := os.read(terminal, 1024):
            shown += piece
    except OSError:  # Linux says so when the other side has closed
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    assert b"sesam" not in shown and b"Added bela" in shown and shown.count(b"Once more") == 2


# --- import ----------------------------------------------------------------------------------------------------------


def test_import_never_twice(keep: Keep, tmp_path: Path) -> None:
    mail = folder(tmp_path / "mail", 5)
    folder(mail / "Work", 2, start=10)
    first = keep.facts("import", mail, "--user", "anna@example.org")
    assert (first["added"], first["already"], first["failed"], first["code"]) == (7, 0, 0, 0)
    assert first["mailboxes"] == {"INBOX": {"added": 5, "already": 0}, "Work": {"added": 2, "already": 0}}
    again = keep.facts("import", mail, "--user", "anna@example.org")
    assert (again["added"], again["already"]) == (0, 7)
    folder(mail, 1, start=5)
    more = keep.facts("import", mail, "--user", "anna@example.org")
    assert (more["added"], more["already"]) == (1, 7)
    assert keep.subjects("anna@example.org", "INBOX") == ["0", "1", "2", "3", "4", "5"]
    elsewhere = keep.facts("import", mail, "--user", "anna@example.org", "--into", "Copy")
    assert elsewhere["mailboxes"] == {"Copy": {"added": 6, "already": 0}, "Copy/Work": {"added": 2, "already": 0}}
    assert keep.facts("verify")["sound"] is True


def test_equal_messages_of_one_file_are_all_kept_and_only_once(keep: Keep, tmp_path: Path) -> None:
    one = b"From a@example.org Tue Jan 20 10:00:00 2026\nSubject: same\n\nbody\n\n"
    (tmp_path / "box").write_bytes(one * 3)
    for added in (3, 0):
        assert keep.facts("import", tmp_path / "box", "--user", "anna@example.org")["added"] == added
    (tmp_path / "box").write_bytes(one * 4)
    assert keep.facts("import", tmp_path / "box", "--user", "anna@example.org")["added"] == 1


def test_bad_items_are_listed_and_the_rest_goes_on(keep: Keep, tmp_path: Path) -> None:
    mail = folder(tmp_path / "mail", 2)
    (mail / "1a.emlx").write_bytes(b"nonsense")
    (mail / "x.zip").write_bytes(b"PK\x03\x04nonsense")
    found = keep.facts("import", mail, "--user", "anna@example.org", code=1)
    assert (found["added"], found["failed"]) == (2, 2)
    assert {Path(fault["source"]).name for fault in found["faults"]} == {"1a.emlx", "x.zip"}
    text = keep("import", mail, "--user", "anna@example.org", code=1)
    assert "Not imported" in text and "x.zip" in text


def test_a_full_quota_ends_the_import(keep: Keep, tmp_path: Path) -> None:
    keep("user", "quota", "anna@example.org", "100")
    mail = folder(tmp_path / "mail", 30)
    found = keep.facts("import", mail, "--user", "anna@example.org", code=1)
    assert found["stopped"] and 0 < found["added"] < 30
    keep("user", "quota", "anna@example.org", "none")
    again = keep.facts("import", mail, "--user", "anna@example.org")
    assert again["added"] == 30 - found["added"] and again["stopped"] is None


def test_what_is_missing_is_said_in_one_line(keep: Keep, tmp_path: Path) -> None:
    assert "no such file" in keep("import", tmp_path / "nowhere", "--user", "anna@example.org", code=2)
    mail = folder(tmp_path / "mail", 1)
    assert "mailkeep user add" in keep("import", mail, "--user", "nobody", code=2)
    assert keep("import", mail, "--user", "anna@example.org", "--into", "a//b", code=2).count("\n") == 1
    keep.data = tmp_path / "empty"
    assert "there is no store" in keep("import", mail, "--user", "anna@example.org", code=2)


def test_an_interrupted_import_says_so_and_goes_on(keep: Keep, tmp_path: Path) -> None:
    """Ctrl-C once the first batch is committed; the job row tells how far it came, and nothing comes twice."""
    box = tmp_path / "big.mbox"
    line = b"From a@example.org Tue Jan 20 10:00:00 2026\n"
    fifo = tmp_path / "end"
    with box.open("wb") as file:
        for number in range(3000):
            file.write(line + MAIL % (number, number) + b"\n")
    os.mkfifo(fifo)
    command = [*program(), "import", str(box), str(tmp_path / "pipe.eml"), "--user", "anna@example.org"]
    # The second source is a pipe that nobody writes to: reading it waits, so the interrupt surely comes in the middle.
    (tmp_path / "pipe.eml").symlink_to(fifo)
    process = subprocess.Popen(
        [*command, "--data", str(keep.data)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    writer = os.open(fifo, os.O_WRONLY)  # returns when the importer opens the pipe, which is after the mbox
    process.send_signal(signal.SIGINT)
    os.close(writer)  # a signal that came just before the read began is looked at only when the read ends
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "same command again" in error and "Traceback" not in error
    done = len(keep.subjects("anna@example.org", "INBOX"))
    assert 0 < done <= 3000
    (tmp_path / "pipe.eml").unlink()
    fifo.unlink()
    (tmp_path / "pipe.eml").write_bytes(MAIL % (9999, 9999))
    found = keep.facts("import", box, tmp_path / "pipe.eml", "--user", "anna@example.org")
    assert found["added"] == 3001 - done and found["already"] == done
    assert len(set(keep.subjects("anna@example.org", "INBOX"))) == 3001


# --- care ------------------------------------------------------------------------------------------------------------


def test_expunged_mail_comes_back(keep: Keep, tmp_path: Path) -> None:
    keep("import", folder(tmp_path / "mail", 3), "--user", "anna@example.org")
    store = Store.open(keep.data)
    account = store.account("anna@example.org")
    with account.transaction() as transaction:
        transaction.expunge(account.mailbox("INBOX").id, [2], only_deleted=False)
    store.close()
    assert keep.facts("undelete", "--user", "anna@example.org", "--since", "2020-01-01") == {
        "messages": 1,
        "mailboxes": {"INBOX": 1},
    }
    assert keep.subjects("anna@example.org", "INBOX")[-1] == "1"
    assert "Nothing" in keep("undelete", "--user", "anna@example.org", "--mailbox", "INBOX")
    assert "--since" in keep("undelete", "--user", "anna@example.org", "--since", "yesterday", code=2)
    assert keep("undelete", "--user", "anna@example.org", "--mailbox", "Nope", code=2).count("\n") == 1


def test_a_deleted_mailbox_comes_back_with_its_mail(keep: Keep, tmp_path: Path) -> None:
    keep("import", folder(tmp_path / "mail", 3), "--user", "anna@example.org", "--into", "Work")
    store = Store.open(keep.data)
    with store.account("anna@example.org").transaction() as transaction:
        transaction.delete_mailbox("Work")
    store.close()
    assert "3 messages brought back" in keep(
        "undelete", "--user", "anna@example.org", "--mailbox", "Work", "--since", "1h"
    )
    assert keep.subjects("anna@example.org", "Work") == ["0", "1", "2"]
    assert keep.facts("verify")["sound"] is True


def test_a_damaged_store_is_found_and_repaired(keep: Keep, tmp_path: Path) -> None:
    keep("import", folder(tmp_path / "mail", 30), "--user", "anna@example.org")
    (database,) = keep.data.glob("accounts/*/mail.db")
    for path in database.parent.glob("mail.db*"):
        path.unlink()
    assert "repair" in keep("verify", code=1)
    found = keep.facts("repair")
    assert found["accounts"][0]["action"] == "rebuilt" and found["accounts"][0]["messages"] == 30
    assert keep.subjects("anna@example.org", "INBOX") == [str(number) for number in range(30)]
    assert keep.facts("verify")["sound"] is True
    assert "nothing to repair" in keep("repair")


def test_an_account_in_use_is_not_repaired(keep: Keep) -> None:
    store = Store.open(keep.data)
    store.account("anna@example.org").mailboxes()
    assert "in use" in keep("repair", code=75)
    store.close()
    assert "nothing to repair" in keep("repair")


def test_gc_counts_what_it_did(keep: Keep, tmp_path: Path) -> None:
    keep("import", folder(tmp_path / "mail", 3), "--user", "anna@example.org")
    assert "freed" in keep("gc", "--retention", "0s", "--grace", "0s")
    assert "--grace" in keep("gc", "--grace", "soon", code=2)
    assert keep.facts("gc")["tombstones"] == 0


def test_doctor(keep: Keep, tmp_path: Path) -> None:
    doors = 'listen.imap = "127.0.0.1:0"\n'
    file = tmp_path / "good.toml"
    file.write_text(doors)
    found = keep.facts("doctor", "--config", file)
    assert found["healthy"] is True, found
    assert {"store", "disk", "clock", "SQLite", "certificate"} <= {finding["about"] for finding in found["findings"]}
    keep.data.chmod(0o755)
    assert "chmod 700" in keep("doctor", "--config", file)
    keep.data.chmod(0o700)
    file.write_text(doors + 'tls.certificate = "none.pem"\ntls.key = "none.pem"\n')
    assert "certificate" in keep("doctor", "--config", file, "--quiet", code=1)
    file.write_text("workrs = 1\n")
    assert "did you mean workers" in keep("doctor", "--config", file, code=1)


def test_doctor_tells_what_formats_of_exports_need(keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = tmp_path / "good.toml"
    doors.write_text('listen.imap = "127.0.0.1:0"\n')
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("mailkeep.cli.doctor.PDF_LIBRARIES", ("libnobody-has-this.so.9",))
    facts = keep.facts("doctor", "--config", doors)
    absent = {each["about"]: each["remedy"] for each in facts["findings"] if each["state"] == "absent"}
    assert "libpango" in absent["export to pdf"] and "libreoffice-writer" in absent["export to docx and doc"], absent
    assert "chromium" in absent["export to pdf with --engine chromium"] and "fonts" not in absent, absent
    assert facts["healthy"] is True, "who exports no pages needs none of it"
    lists = programs / "fc-list"  # of a machine that has an Arabic font only
    lists.write_text("#!/bin/sh\ncase $1 in :charset=639) echo Font;; esac\n")
    lists.chmod(0o755)
    told = keep("doctor", "--config", doors)
    assert "apt-get install fonts-noto-cjk fonts-noto-color-emoji\n" in told, told


def test_doctor_finds_who_sits_on_a_port(keep: Keep, tmp_path: Path) -> None:
    import socket

    file = tmp_path / "c.toml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        file.write_text(f'listen.lmtp = "127.0.0.1:{other.getsockname()[1]}"\n')
        other.settimeout(0.01)
        assert "another program" in keep("doctor", "--config", file, code=1)


# --- the program -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["srve"], "did you mean `mailkeep serve`"),
        (["frobnicate"], "mailkeep --help"),
        (["verify", "--frob"], "--frob"),
        (["import"], "PATH"),
        (["user", "add"], "NAME"),
        (["serve", "--workers", "0"], "--workers"),
    ],
)
def test_wrong_calls_are_told_in_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1, error


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in main.COMMANDS)
    for name in main.COMMANDS:
        assert main.run([name, "--help"]) == 0


def test_errors_with_json_are_an_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["verify", "--json", "--data", str(tmp_path / "none")]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == 2


def test_every_error_has_its_exit_code() -> None:
    from mailkeep import errors

    expected = {
        errors.UsageError: 2, errors.AccountMissing: 2, errors.ConfigError: 78, errors.Unreachable: 69,
        errors.StoreReadOnly: 73, errors.StoreFull: 74, errors.StoreCorrupt: 74, errors.StoreBusy: 75,
        errors.BadCredentials: 77, errors.MailkeepError: 1,
    }  # fmt: skip
    assert {kind: output.exit_code(kind("x")) for kind in expected} == expected


def test_a_store_that_cannot_be_written_says_73(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_command(
        "user", "add", "a", "--password-stdin", "--data", str(tmp_path / "file" / "x"), stdin="x\n", check=False
    )
    assert done.returncode == 73 and done.stderr.count("\n") == 1


def test_output_into_a_closed_pipe_is_no_error(keep: Keep) -> None:
    command = [*program(), "user", "list", "--data", str(keep.data)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""


def test_names_of_files_do_nothing_to_the_terminal(tmp_path: Path, keep: Keep) -> None:
    store = Store.open(keep.data)
    store.directory.add("ann")
    store.close()
    mail = tmp_path / "mail"
    mail.mkdir()
    (mail / "a\x1b]0;owned\x07\nforged.eml").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(mail) + b"/\xff.eml")).write_bytes(b"")
    printed = keep("import", mail, "--user", "ann", code=1)
    assert "a\\x1b]0;owned\\x07\\nforged.eml" in printed
    assert "\x1b" not in printed
    assert len(keep.facts("import", mail, "--user", "ann", code=1)["faults"]) == 2


def test_errors_and_json_hold_nothing_that_a_terminal_obeys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "no\x1b]0;owned\x07\x9b2J\u202e"
    main.run(["remote", "show", name, "--json", "--data", str(tmp_path)])  # there is no store
    with contextlib.closing(Store.open(tmp_path)):
        main.run(["remote", "show", name, "--json", "--data", str(tmp_path)])
        main.run([name, "--json"])
    printed = capsys.readouterr()
    assert "owned" in printed.err and "owned" in printed.out
    assert not set("\x1b\x07\x9b\u202e") & set(printed.err + printed.out)
