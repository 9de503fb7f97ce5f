"""Secrets of remotes: sealed so that only the key file opens them, and never shown."""

import asyncio
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from mailkeep.backup import outside
from mailkeep.backup.login import secret_of
from mailkeep.backup.outside import outside_secret, run_command
from mailkeep.backup.seal import KEY_FILE, Kept, password_of, seal, unseal
from mailkeep.backup.settings import Password, Settings, find_remote, pack
from mailkeep.errors import BadCredentials, ConfigError
from mailkeep.secret import Secret
from mailkeep.store.store import Store

PLAIN = Settings("imap", "imap.example.org", 993, "anna")


def test_what_is_sealed_comes_back_and_does_not_show(tmp_path: Path) -> None:
    kept = Kept(password="geheim", refresh_token="r", access_token="a", expires=7)
    sealed = seal(tmp_path, "anna", kept)
    assert b"geheim" not in sealed and "geheim" not in f"{kept!r} {kept}"
    assert unseal(tmp_path, "ANNA ", sealed) == kept, "names of remotes have no case"
    assert sealed != seal(tmp_path, "anna", kept), "a nonce is used once"


def test_the_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    seal(tmp_path, "anna", Kept(password="x"))
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [KEY_FILE], "nothing is left beside it"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        seal(tmp_path, "anna", Kept(password="x"))


def test_several_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda n: seal(tmp_path, "anna", Kept(password=str(n))), range(32)))
    assert [unseal(tmp_path, "anna", each).password for each in sealed] == [str(n) for n in range(32)]


def test_a_sealed_secret_cannot_be_moved_or_changed(tmp_path: Path) -> None:
    sealed = seal(tmp_path, "anna", Kept(password="geheim"))
    with pytest.raises(BadCredentials, match="remote login evil"):
        unseal(tmp_path, "evil", sealed)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(BadCredentials):
            unseal(tmp_path, "anna", bytes(changed))
        with pytest.raises(BadCredentials):
            unseal(tmp_path, "anna", sealed[:at])


def test_a_lost_or_damaged_key_says_what_to_do(tmp_path: Path) -> None:
    sealed = seal(tmp_path, "anna", Kept(password="geheim"))
    with pytest.raises(BadCredentials, match="no secret of anna"):
        unseal(tmp_path, "anna", None)
    path = tmp_path / KEY_FILE
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="damaged"):
        unseal(tmp_path, "anna", sealed)
    path.unlink()
    with pytest.raises(BadCredentials, match=r"is gone.*mailkeep remote login anna"):
        unseal(tmp_path, "anna", sealed)
    assert not path.exists(), "opening makes no key"
    with pytest.raises(BadCredentials, match="no password"):
        password_of(Kept(refresh_token="r"), "anna")


def test_a_command_prints_the_password_on_its_first_line(capfd: pytest.CaptureFixture[str]) -> None:
    async def revealed(command: str) -> str:
        return (await run_command(command, "--password-command")).reveal()

    assert asyncio.run(revealed("printf 'ge heim\\r\\nsecond line\\n'")) == "ge heim"
    many = f"{sys.executable} -c \"print('x'); print('y' * 1000000)\""
    assert asyncio.run(revealed(many)) == "x"
    for command, words in (
        ("echo geheim; exit 3", "code 3"),
        ("true", "printed nothing"),
        (f"{sys.executable} -c \"print('y' * 100000)\"", "longer than"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            asyncio.run(revealed(command))
        assert "geheim" not in str(caught.value)
    assert "geheim" not in capfd.readouterr().out


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(ConfigError, match="took longer"):
        asyncio.run(run_command("exec tail -f /dev/null", "--password-command"))


def test_the_keyring_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = msgspec.structs.replace(PLAIN, secret="keyring")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match="pip install keyring"):
        asyncio.run(outside_secret(settings))

    entries: dict[tuple[str, str], str] = {}
    fake = SimpleNamespace(
        get_password=lambda service, name: entries.get((service, name)),
        set_password=lambda service, name, value: entries.__setitem__((service, name), value),
        delete_password=lambda service, name: entries.pop((service, name)),
    )
    monkeypatch.setitem(sys.modules, "keyring", fake)
    with pytest.raises(BadCredentials, match=r"anna@imap\.example\.org"):
        asyncio.run(outside_secret(settings))
    outside.to_keyring(settings, Secret("geheim"))
    assert asyncio.run(outside_secret(settings)).reveal() == "geheim"
    outside.drop_from_keyring(settings)
    outside.drop_from_keyring(settings)
    assert not entries

    def broken(*_: str) -> str:
        raise RuntimeError("no D-Bus; geheim")

    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_password=broken))
    with pytest.raises(ConfigError, match="RuntimeError") as caught:
        asyncio.run(outside_secret(settings))
    assert "geheim" not in str(caught.value)


def test_the_secret_of_a_remote_comes_from_where_its_settings_say(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    try:
        account = store.directory.add("anna").id
        sealed = seal(store.root, "anna", Kept(password="geheim"))
        store.remotes.add("anna", account, settings=pack(PLAIN), secret=sealed)
        command = msgspec.structs.replace(PLAIN, secret="command", command="echo oth''er")
        store.remotes.add("bela", account, settings=pack(command))
        for name, password in (("Anna", "geheim"), ("bela", "other")):
            remote = find_remote(store, name)
            found = asyncio.run(secret_of(store, remote))
            assert isinstance(found, Password) and found.secret.reveal() == password
            assert password not in f"{found} {remote}"
    finally:
        store.close()
