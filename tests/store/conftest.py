"""A store, an account, mail to put into it: for every test of the store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.store import Account, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def account(store: Store) -> Account:
    store.directory.add("ann@example.org")
    return store.account("ann@example.org")
