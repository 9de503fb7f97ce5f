"""One server process for all tests of strangers' clients; each test has an account of its own.

`MAILKEEP_SUBJECT=dovecot` drives Dovecot instead, to tell a fault of the tests from one of the server.
"""

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from tests.dovecot import Dovecot
from tests.server import Server
from tests.system.login import Login

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | Dovecot]:
    """The server under test, alive for the whole run."""
    if os.environ.get("MAILKEEP_SUBJECT") == "dovecot":
        with Dovecot() as dovecot:
            yield dovecot
        return
    root = tmp_path_factory.mktemp("subject")
    with Server(root / "data", users={"first@example.org": "first"}) as server:
        yield server


@pytest.fixture
def new_login(subject: Server | Dovecot) -> Callable[[], Login]:
    """Makes an account and says how to reach it."""

    def make() -> Login:
        user = f"user{next(NUMBERS)}@example.org"
        if isinstance(subject, Dovecot):
            return Login(user, subject.password, {"imap": subject.imap, "pop3": subject.pop3, "lmtp": subject.lmtp})
        subject.add_user(user, "secret")
        return Login(user, "secret", subject.ports)

    return make


@pytest.fixture
def login(new_login: Callable[[], Login]) -> Login:
    return new_login()
