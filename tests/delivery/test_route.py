"""Addresses to accounts."""

from pathlib import Path

import pytest

from mailkeep.delivery.route import Recipient, Routes
from mailkeep.errors import AccountMissing
from mailkeep.store.store import Store


@pytest.fixture
def store(tmp_path: Path):
    store = Store.open(tmp_path / "data")
    for name in ("demo", "anna@example.org", "team+odd", "Admin"):
        store.directory.add(name)
    yield store
    store.close()


@pytest.fixture
def routes(store: Store) -> Routes:
    return Routes(store.directory, frozenset({"localhost", "mail.example"}), postmaster="Admin")


FOUND = {
    ("demo", None): ("demo", None),
    ("DEMO", "LocalHost"): ("demo", None),
    ("demo", "mail.example."): ("demo", None),
    ("demo+lists/go", "localhost"): ("demo", "lists/go"),
    ("demo+", None): ("demo", None),
    ("demo+a+b", None): ("demo", "a+b"),
    ("anna", "example.org"): ("anna@example.org", None),
    ("Anna+x", "Example.ORG"): ("anna@example.org", "x"),
    ("team+odd", None): ("team+odd", None),  # the whole name before the parts
    ("PostMaster", None): ("Admin", None),
    ("postmaster", "localhost"): ("Admin", None),
}
MISSING = [
    ("nobody", None),
    ("demo", "example.org"),
    ("anna", None),
    ("anna", "localhost"),
    ("anna@example.org", None),
    ("+detail", None),
    ("postmaster", "elsewhere.example"),
]


@pytest.mark.parametrize(("address", "result"), FOUND.items())
def test_found(routes: Routes, address: tuple[str, str | None], result: tuple[str, str | None]) -> None:
    recipient = routes.find(*address)
    assert isinstance(recipient, Recipient)
    assert (recipient.account.name, recipient.detail) == result


@pytest.mark.parametrize("address", MISSING)
def test_missing(routes: Routes, address: tuple[str, str | None]) -> None:
    with pytest.raises(AccountMissing):
        routes.find(*address)


def test_any_domain(store: Store) -> None:
    routes = Routes(store.directory, frozenset({"*"}))
    assert routes.find("demo", "whatever.example").account.name == "demo"
    with pytest.raises(AccountMissing):
        routes.find("postmaster", "whatever.example")
