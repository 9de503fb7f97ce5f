"""What the store keeps of a remote: it comes back as it was, and from older and newer versions too."""

import contextlib
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest

from mailkeep.backup.settings import (
    OAuth,
    Settings,
    add_remote,
    find_remote,
    is_loopback,
    load_remotes,
    pack,
    remove_remote,
    unpack,
)
from mailkeep.errors import AccountExists, StoreCorrupt, UsageError
from mailkeep.mail.selection import Selection
from mailkeep.store.store import Store

FULL = Settings(
    protocol="pop3",
    host="pop.example.org",
    port=995,
    user="anna",
    provider="gmail",
    ca="/etc/ca.pem",
    secret="oauth2",
    oauth=OAuth("google", "id", "loopback", "https://t", "mail", authorize_url="https://a"),
    gone="mirror",
    into="Old",
    selection=Selection(folders=("Work/*",), since=date(2020, 5, 17), kinds=frozenset({"mail"})),
    leave="days",
    leave_days=14,
    connections_max=3,
    bytes_per_day=1 << 30,
    size_max=1 << 20,
)


@pytest.mark.parametrize("settings", [FULL, Settings("imap", "imap.example.org", 993, "anna")])
def test_settings_come_back_as_they_were(settings: Settings) -> None:
    assert unpack(pack(settings), name="anna") == settings


def test_settings_of_another_version_are_read() -> None:
    least = {"protocol": "imap", "host": "h", "port": 993, "user": "u"}
    assert unpack(json.dumps(least).encode(), name="x") == Settings("imap", "h", 993, "u")
    assert unpack(json.dumps({**least, "invented_later": {"a": 1}}).encode(), name="x").tls == "tls"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"protocol": "nntp", "host": "h", "port": 1, "user": "u"}'])
def test_what_cannot_be_read_names_the_remote(data: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="anna"):
        unpack(data, name="anna")


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1")))
    assert not any(map(is_loopback, ("127.0.0.1.example.org", "localhost.example.org", "10.0.0.1", "", "127.evil.net")))


def test_remotes_are_found_by_name_whatever_its_case(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    try:
        account = store.directory.add("archive").id
        with pytest.raises(UsageError, match="remote add"):
            find_remote(store, "anna")
        for name in ("bela", "Anna@example.org"):
            store.remotes.add(name, account, settings=pack(FULL), secret=b"sealed")
        assert [each.name for each in load_remotes(store)] == ["Anna@example.org", "bela"]
        found = find_remote(store, "ANNA@EXAMPLE.ORG")
        assert found.settings == FULL and found.account == account and found.sealed == b"sealed"
        assert "sealed" not in repr(found)
        for near, name in (("anna", "Anna@example.org"), ("bela1", "bela")):
            with pytest.raises(UsageError, match=f"did you mean {name}"):
                find_remote(store, near)
    finally:
        store.close()


# ---- remotes that come, go and come again

WORK = Settings(protocol="imap", host="mail.example.org", port=993, user="ann", secret="command", command="echo geheim")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(tmp_path)) as opened:
        yield opened


def test_one_that_is_added_again_is_the_same(store: Store) -> None:
    account, other = store.directory.add("archive").id, store.directory.add("other").id
    first = add_remote(store, "work", account, WORK, sealed=b"sealed")
    remove_remote(store, first)
    assert load_remotes(store) == []
    with pytest.raises(UsageError, match="no remote work"):
        find_remote(store, "work")
    # Another user, host, protocol or account is another remote.
    for number, (where, changes) in enumerate(
        [(account, {"user": "bob"}), (account, {"host": "example.net"}), (account, {"protocol": "pop3"}), (other, {})]
    ):
        assert add_remote(store, f"r{number}", where, msgspec.structs.replace(WORK, **changes)).id != first.id
    again = add_remote(store, "Job", account, msgspec.structs.replace(WORK, host="MAIL.example.org", port=143))
    assert (again.id, again.name, again.sealed, again.schedule, again.state) == (first.id, "Job", None, None, None)
    assert again.settings.port == 143
    # It is there once: a third one is new.
    assert add_remote(store, "third", account, WORK).id > first.id


def test_nothing_that_leads_to_a_secret_is_kept_of_one_that_went(store: Store) -> None:
    account = store.directory.add("archive").id
    row = add_remote(store, "work", account, WORK, sealed=b"sealed-secret")
    store.remotes.update(row.id, schedule="every 15 min", state=b"{}")
    remove_remote(store, row)
    (kept,) = store.remotes.removed()
    assert (kept.secret, kept.schedule, kept.state) == (None, None, None)
    assert b"geheim" not in kept.settings


def test_names_are_free_again_and_taken_while_they_are_used(store: Store) -> None:
    account = store.directory.add("archive").id
    for _ in range(3):
        row = add_remote(store, "work", account, WORK)
        with pytest.raises(AccountExists):
            add_remote(store, "WORK", account, msgspec.structs.replace(WORK, user="bob"))
        remove_remote(store, row)
    assert len(store.remotes.removed()) == 1
