"""`mailkeep remote` as a user types it: against our own server, and with a little internet for what is looked for."""

import contextlib
import io
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailkeep.backup import oauth
from mailkeep.backup.discover import Means, Resolver
from mailkeep.backup.quirks import Endpoint
from mailkeep.backup.seal import Kept, unseal
from mailkeep.backup.settings import OAuth
from mailkeep.cli import main, remote_login
from mailkeep.errors import RemoteError, Unreachable
from mailkeep.store.store import Store
from tests.server import Server, program

USER, PASSWORD = "anna@example.org", "ge heim"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("other")
    with Server(root / "data", users={USER: PASSWORD}, doors=("imap", "imaps", "pop3s")) as running:
        yield running


def authority(server: Server) -> str:
    (certificate,) = [path for path in (server.data / "tls").iterdir() if b"BEGIN CERT" in path.read_bytes()]
    return str(certificate)


class Keep:
    """A store of a test, and its commands run in this process."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.data = data
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run a command; what it printed. Errors must be one line, without traceback or secret."""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        assert main.run(["remote", *arguments, "--data", str(self.data)]) == code, self._capsys.readouterr()
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.err
        assert PASSWORD not in printed.out + printed.err
        return printed.out + printed.err

    def facts(self, *arguments: str, code: int = 0, stdin: str = "") -> dict[str, Any]:
        found = json.loads(self(*arguments, "--json", code=code, stdin=stdin).partition("\n")[0])
        assert isinstance(found, dict)
        return found

    def printed(self) -> str:
        """What was printed since the last command that was called here."""
        return self._capsys.readouterr().out

    def kept(self, name: str) -> Kept:
        store = Store.open(self.data, create=False)
        try:
            row = store.remotes.find(name)
            assert row is not None
            return unseal(self.data, name, row.secret)
        finally:
            store.close()


@pytest.fixture
def keep(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Keep:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Keep(tmp_path / "data", capsys, monkeypatch)


def nowhere(
    monkeypatch: pytest.MonkeyPatch, *up: str, srv: dict[str, list[tuple[int, int, int, str]]] | None = None
) -> None:
    """Discovery sees these SRV records and hosts, and nothing else."""

    class Records(Resolver):
        async def srv(self, name: str) -> list[tuple[int, int, int, str]]:
            return (srv or {}).get(name, [])

        async def mx(self, domain: str) -> list[str]:
            return []

    async def fetch(url: str) -> bytes | None:
        return None

    async def probe(endpoint: Endpoint) -> None:
        if f"{endpoint.host}:{endpoint.port}" not in up:
            raise Unreachable("refused")

    monkeypatch.setattr(remote_login, "means", lambda: Means(Records(), fetch, probe))


# --- add -------------------------------------------------------------------------------------------------------------


def test_an_account_is_added_after_one_log_in(keep: Keep, server: Server) -> None:
    imaps = f"127.0.0.1:{server.port('imaps')}"
    said = keep("add", USER, "--imap", imaps, "--ca", authority(server), "--password-stdin", stdin=PASSWORD + "\r\n")
    assert f"Logged in to 127.0.0.1 as {USER}." in said
    assert f"new account {USER}" in said and f"mailkeep pull {USER}" in said
    assert stat.S_IMODE((keep.data / "secret.key").stat().st_mode) == 0o600
    assert PASSWORD.encode() not in b"".join(path.read_bytes() for path in keep.data.glob("directory.db*"))
    assert keep.kept(USER).password == PASSWORD
    (row,) = keep.facts("list")["remotes"]
    assert row["host"] == "127.0.0.1" and row["account"] == USER and row["secret"] == "sealed"
    store = Store.open(keep.data, create=False)
    try:
        info = store.directory.find(USER)
        assert info is not None and info.access == "read", "an archive is not written to by its readers"
    finally:
        store.close()


def test_on_a_terminal_it_asks_for_the_password_alone_and_without_echo(keep: Keep, server: Server) -> None:
    ours, theirs = pty.openpty()
    words = ("remote", "add", USER, "--imap", f"127.0.0.1:{server.port('imaps')}", "--ca", authority(server))
    with subprocess.Popen(
        [*program(), *words, "--data", str(keep.data)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other side has closed
            while chunk := os.read(ours, 4096):
                seen += chunk
                if seen.endswith(b": "):
                    assert seen.decode() == f"Password of {USER} at 127.0.0.1: "
                    os.write(ours, PASSWORD.encode() + b"\n")
        assert process.wait() == 0, seen
    os.close(ours)
    assert PASSWORD.encode() not in seen and b"Logged in" in seen
    assert keep.kept(USER).password == PASSWORD


def test_every_kind_of_line_works(keep: Keep, server: Server) -> None:
    ca = authority(server)
    for name, options in (
        ("starttls", ("--imap", f"127.0.0.1:{server.port('imap')}", "--tls", "starttls", "--ca", ca)),
        ("open", ("--imap", f"localhost:{server.port('imap')}", "--tls", "none")),
        ("pop", ("--pop3", f"127.0.0.1:{server.port('pop3s')}", "--ca", ca, "--into", "POP", "--leave", "14")),
    ):
        words = ("add", USER, "--name", name, *options, "--password-stdin")
        said = keep(*words, "--account", USER, stdin=PASSWORD + "\n")
        assert "Logged in" in said
    assert "--account" in keep("add", USER, "--imap", "a:1", "--no-check", code=2), (
        "two are mixed only if that is meant"
    )
    shown = keep("show", "POP")
    assert "deleted after 14 days" in shown and "pop3://127.0.0.1" in shown and "Under:            POP" in shown
    assert {row["account"] for row in keep.facts("list")["remotes"]} == {USER}


def test_a_refused_log_in_leaves_nothing(keep: Keep, server: Server) -> None:
    imaps = f"127.0.0.1:{server.port('imaps')}"
    words = ("add", USER, "--imap", imaps, "--password-stdin")
    failures = server.log().count("login failed")
    said = keep(*words, "--ca", authority(server), stdin="wrong\n", code=77)
    assert said.count("\n") == 1
    assert server.log().count("login failed") == failures + 1, "one failure is not followed by another"
    assert "--ca FILE" in keep(*words, stdin=PASSWORD + "\n", code=76), "the certificate is nobody's we know"
    assert keep.facts("list")["remotes"] == []
    store = Store.open(keep.data, create=False)
    try:
        assert store.directory.list() == []
    finally:
        store.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--imap", "imap.example.org:143", "--tls", "none"), "show the password to everybody"),
        (("--imap", "a:1", "--pop3", "a:2"), "cannot both be"),
        (("--imap", "imap.example.org:none"), "must be HOST:PORT"),
        (("--imap", "imap.example.org:70000"), "must be HOST:PORT"),
        (("--tls", "tls"), "goes with --imap"),
        (("--imap", "a:1", "--keyring", "--oauth2"), "choose one"),
        (("--imap", "a:1", "--client-id", "x"), "go with --oauth2"),
        (("--imap", "a:1", "--leave", "soon"), "--leave must be"),
        (("--imap", "a:1", "--connections", "0"), "from 1 to 64"),
        (("--imap", "a:1", "--size-max", "huge"), "--size-max must be a size"),
        (("--imap", "a:1", "--ca", "/nowhere.pem"), "cannot be read"),
        (("--imap", "a:1", "--since", "soon"), "--since"),
        (("--imap", "a:1"), "no terminal to ask"),
        (("--imap", "a:1", "--password-stdin"), "the password is empty"),
        (("--imap", "a:1", "--oauth2"), "name it with --issuer"),
        (("--imap", "a:1", "--oauth2", "--issuer", "acme"), "no OAuth 2 issuer acme"),
        (("--imap", "a:1", "--oauth2", "--issuer", "google:x"), "--issuer must be"),
        (("--imap", "a:1", "--oauth2", "--issuer", "microsoft:../x"), "--issuer must be"),
        (("--imap", "a:1", "--user", "a\nb"), "cannot be in one"),
        (("--imap", "imap.gmail.com", "--oauth2"), "needs a client id of your own"),
    ],
)
def test_what_cannot_be_is_told_before_anything_happens(keep: Keep, words: tuple[str, ...], said: str) -> None:
    assert said in keep("add", USER, "--no-check", *words, code=2)


def test_names_that_are_taken_are_told(keep: Keep) -> None:
    words = ("--imap", "imap.example.org", "--no-check", "--password-stdin")
    keep("add", USER, *words, stdin="x\n")
    assert "--name" in keep("add", USER.upper(), *words, stdin="x\n", code=2)
    store = Store.open(keep.data)
    store.directory.add("bela@example.org")
    store.close()
    assert "--account" in keep("add", "bela@example.org", *words, stdin="x\n", code=2)
    keep("add", "bela@example.org", *words, "--account", "bela@example.org", stdin="x\n")
    assert keep.facts("add", "carl", *words, "--account", "new", stdin="x\n")["account_made"]


def test_the_server_is_found_from_the_address_alone(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere(monkeypatch)
    found = keep.facts("add", "anna@gmx.de", "--no-check", "--password-stdin", stdin="x\n")
    assert (found["host"], found["port"], found["tls"]) == ("imap.gmx.net", 993, "tls")
    assert found["found"] == "the table of providers" and any("einschalten" in line for line in found["advice"])
    said = keep("add", "anna@yahoo.com", "--no-check", "--password-stdin", stdin="x\n")
    assert "IMAP export.imap.mail.yahoo.com:993 (TLS), user anna@yahoo.com" in said
    assert "https://login.yahoo.com/account/security" in said
    nowhere(monkeypatch, "mail.example.org:993")
    said = keep("add", USER, "--user", "anna", "--no-check", "--password-stdin", stdin="x\n")
    assert "found by trying the usual names" in said and "IMAP mail.example.org:993 (TLS), user anna" in said


def test_a_provider_that_takes_no_password_or_has_no_imap_is_told(keep: Keep) -> None:
    assert "give --oauth2 --client-id" in keep("add", "anna@hotmail.com", code=2)
    assert "neither IMAP nor POP3" in keep("add", "anna@tuta.com", code=2)


def test_a_host_that_only_dns_named_gets_no_password_unasked(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere(monkeypatch, srv={"_imaps._tcp.example.org": [(0, 0, 993, "mail.evil.net")]})
    said = keep("add", USER, "--no-check", "--password-stdin", stdin="x\n", code=2)
    assert "outside example.org" in said and "--imap mail.evil.net:993 --tls tls" in said


def test_each_host_that_only_dns_named_is_told(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in the domain comes first and need not answer; then the password would go to the other."""
    servers = [(0, 0, 993, "mail.example.org"), (1, 0, 993, "mail.evil.net"), (2, 0, 993, "mail.worse.net")]
    nowhere(monkeypatch, srv={"_imaps._tcp.example.org": servers})
    said = keep("add", USER, "--no-check", "--password-stdin", stdin="x\n", code=2)
    assert "names mail.evil.net, mail.worse.net, which are outside example.org" in said
    assert "--imap mail.example.org:993" in said


def test_a_second_server_is_tried_when_the_first_cannot_be_reached(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere(monkeypatch, "imap.example.org:993", "mail.example.org:993")
    tried: list[str] = []

    async def log_in(settings: Any, secret: object) -> None:
        tried.append(settings.host)
        if settings.host.startswith("imap."):
            raise Unreachable("refused")
        if len(tried) > 2:
            raise RemoteError("no")

    monkeypatch.setattr(remote_login, "_log_in", log_in)
    found = keep.facts("add", USER, "--password-stdin", stdin="x\n")
    assert found["host"] == "mail.example.org" and tried == ["imap.example.org", "mail.example.org"]


# --- where the secret is ---------------------------------------------------------------------------------------------


def test_a_password_command_is_run_and_not_shown(keep: Keep, server: Server) -> None:
    command = f"printf '{PASSWORD}\\nmore\\n'"
    imaps = f"127.0.0.1:{server.port('imaps')}"
    assert "Logged in" in keep("add", USER, "--imap", imaps, "--ca", authority(server), "--password-command", command)
    assert keep.facts("show", USER)["secret"] == "command" and "printf" not in keep("show", USER)
    assert "renewed" in keep("login", USER)
    assert "ended with code 1" in keep("login", USER, "--password-command", "false", code=78)


def test_the_keyring_gets_what_works_and_loses_it_again(
    keep: Keep, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("add", USER, "--imap", f"127.0.0.1:{server.port('imaps')}", "--ca", authority(server), "--keyring")
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "pip install keyring" in keep(*words, code=78)
    entries: dict[tuple[str, str], str] = {}
    fake = SimpleNamespace(
        get_password=lambda service, name: entries.get((service, name)),
        set_password=lambda service, name, value: entries.__setitem__((service, name), value),
        delete_password=lambda service, name: entries.pop((service, name)),
    )
    monkeypatch.setitem(sys.modules, "keyring", fake)
    keep(*words, "--password-stdin", stdin="wrong\n", code=77)
    assert not entries
    keep(*words, "--password-stdin", stdin=PASSWORD + "\n")
    assert list(entries.values()) == [PASSWORD] and keep.facts("show", USER)["secret"] == "keyring"
    keep("remove", USER, "--yes")
    assert not entries


def test_tokens_are_kept_sealed(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[OAuth] = []

    async def log_in(chosen: OAuth, **_: Any) -> Kept:
        asked.append(chosen)
        return Kept(access_token="access-1", refresh_token="refresh-1", expires=1 << 40)

    monkeypatch.setattr(oauth, "log_in", log_in)
    keep("add", "anna@hotmail.com", "--oauth2", "--client-id", "our-id", "--no-check")
    assert asked[0].flow == "device" and asked[0].client_id == "our-id" and "IMAP" in asked[0].scope
    assert keep.kept("anna@hotmail.com").refresh_token == "refresh-1"
    assert "OAuth 2 tokens" in keep("show", "anna@hotmail.com")
    keep("login", "anna@hotmail.com", "--no-check")
    assert asked[1] == asked[0], "the client is remembered"
    keep(
        "add", "anna@gmail.com", "--oauth2", "--client-id", "g", "--client-secret-command", "echo s3cret", "--no-check"
    )
    assert asked[2].flow == "loopback" and asked[2].issuer == "google"
    tenant = ("--issuer", "microsoft:example.onmicrosoft.com")
    said = keep("login", "anna@hotmail.com", "--oauth2", "--client-id", "other", *tenant, "--no-check", "--quiet")
    assert asked[3].token_url == "https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0/token"
    keep("login", "anna@hotmail.com", "--no-check")
    assert asked[4] == asked[3] and not said
    assert "s3cret" not in json.dumps(keep.facts("show", "anna@gmail.com"))


def test_spaces_of_a_google_app_password_are_not_part_of_it(keep: Keep) -> None:
    keep("add", "anna@gmail.com", "--no-check", "--password-stdin", stdin="abcd efgh ijkl mnop\n")
    assert keep.kept("anna@gmail.com").password == "abcdefghijklmnop"


# --- set, login, remove ----------------------------------------------------------------------------------------------


def test_settings_are_changed_one_by_one(keep: Keep) -> None:
    keep("add", USER, "--imap", "imap.example.org", "--no-check", "--password-stdin", stdin="x\n")
    changed = keep.facts("set", USER, "--gone", "mirror", "--size-max", "50M", "--folder", "Work/*", "--into", "Old")
    assert changed["changed"] and changed["gone"] == "mirror" and changed["size_max"] == 50 << 20
    assert changed["selection"]["folders"] == ["Work/*"] and changed["into"] == "Old" and changed["port"] == 993
    after = keep.facts("set", USER, "--size-max", "none", "--into", "none", "--no-filters", "--user", "bela")
    assert "size_max" not in after and "into" not in after and "selection" not in after and after["user"] == "bela"
    assert after["gone"] == "mirror", "what is not named stays"
    assert not keep.facts("set", USER, "--gone", "mirror")["changed"]
    moved = keep.facts("set", USER, "--pop3", "pop.gmail.com")
    assert (moved["protocol"], moved["port"], moved["provider"]) == ("pop3", 995, "gmail")
    assert "everybody on the way" in keep("set", USER, "--tls", "none", code=2)
    assert "cannot go with filters" in keep("set", USER, "--no-filters", "--folder", "x", code=2)


def test_a_secret_is_renewed(keep: Keep, server: Server) -> None:
    imaps = f"127.0.0.1:{server.port('imaps')}"
    words = ("--imap", imaps, "--ca", authority(server), "--no-check", "--password-stdin")
    keep("add", USER, *words, stdin="old\n")
    keep("login", USER, "--password-stdin", stdin="wrong\n", code=77)
    assert keep.kept(USER).password == "old", "what does not work is not kept"
    assert "renewed" in keep("login", USER, "--password-stdin", stdin=PASSWORD + "\n")
    assert keep.kept(USER).password == PASSWORD


def test_a_remote_is_forgotten_and_its_mail_stays(keep: Keep) -> None:
    keep("add", USER, "--imap", "imap.example.org", "--no-check", "--password-stdin", stdin="x\n")
    assert "--yes" in keep("remove", USER, code=2)
    assert f"stays in the account {USER}" in keep("remove", USER, "--yes")
    assert keep.facts("list")["remotes"] == []
    again = keep.facts("add", USER, "--imap", "imap.example.org", "--no-check", "--password-stdin", stdin="x\n")
    assert not again["account_made"], "the archive goes on where it was"


def test_an_unknown_remote_names_the_nearest(keep: Keep) -> None:
    Store.open(keep.data).close()
    assert "mailkeep remote add" in keep("show", USER, code=2)
    keep("add", USER, "--imap", "imap.example.org", "--no-check", "--password-stdin", stdin="x\n")
    assert f"did you mean {USER}?" in keep("show", "ana@example.org", code=2)
    assert "remote list" in keep("show", "zzz", code=2)


def test_doctor_looks_at_secrets_and_certificates(keep: Keep, tmp_path: Path, server: Server) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(Path(authority(server)).read_text())
    keep("add", USER, "--imap", "imap.example.org", "--no-check", "--password-stdin", "--ca", str(ca), stdin="x\n")

    def findings() -> dict[str, dict[str, str]]:
        main.run(["doctor", "--json", "--data", str(keep.data)])
        return {each["about"]: each for each in json.loads(keep.printed())["findings"]}

    assert findings()["remotes"]["state"] == "ok"
    assert "accounts" in findings() and "password" not in findings()["accounts"]["text"], "an archive may have none"
    ca.unlink()
    assert "--ca FILE" in findings()[f"remote {USER}"]["remedy"]
    (keep.data / "secret.key").chmod(0o640)
    assert "chmod 600" in findings()[f"remote {USER}"]["remedy"]
    (keep.data / "secret.key").unlink()
    assert f"mailkeep remote login {USER}" in findings()[f"remote {USER}"]["remedy"]
