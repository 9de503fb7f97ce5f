"""What tests of backups share: a store, a user of Dovecot's, an authority of certificates, no patience."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mailkeep.store.store import Store
from tests.backup.archive import Source
from tests.dovecot import Dovecot

_users = itertools.count(1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried at once."""
    for name in ("migrate_here.WAIT_FIRST_S", "push.WAIT_FIRST_S", "pull.WAIT_FIRST_S", "pace.BACKOFF_FIRST_S"):
        monkeypatch.setattr(f"mailkeep.backup.{name}", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def user() -> str:
    """One of the test's own, whoever else runs tests against the same Dovecot."""
    return f"backup{os.getpid()}-{next(_users)}@example.org"


@pytest.fixture
def source(dovecot: Dovecot, user: str) -> Iterator[Source]:
    """The account of `user` at Dovecot."""
    made = Source(dovecot.imap, user, dovecot.password)
    yield made
    made.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    """The authority's certificate as a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)
