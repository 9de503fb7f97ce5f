"""What every test run says and shares: the seed, the corpus, and which strangers are missing."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import messages, programs
from tests.dovecot import Dovecot

SEED = int(os.environ.get("MAILKEEP_SEED") or random.SystemRandom().randrange(1 << 32))

hypothesis.settings.register_profile("mailkeep", deadline=None, print_blob=True)
hypothesis.settings.load_profile("mailkeep")

# Who starts the tests in the background may have Ctrl-C ignored, and so would every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> random.Random:
    """Randomness that a failing run prints how to repeat."""
    return random.Random(SEED)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The program makes its files for the owner alone; a test that runs it in this process must not leave that on."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def full() -> bool:
    """True in `make torture`: the long form of a test."""
    return os.environ.get("MAILKEEP_TORTURE") == "full"


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    """One Dovecot for the whole run; each test takes users of its own."""
    with Dovecot() as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the run rests on, above the last line."""
    write = terminalreporter.write_line
    write(f"seed {SEED} (MAILKEEP_SEED={SEED} repeats this run)")
    shared = messages.shared_corpus()
    if shared is None:
        write(f"corpus: our own {len(messages.ugly())} ugly messages; no {_shown(messages.SHARED)} on this machine")
    else:
        write(f"corpus: our own {len(messages.ugly())} ugly messages and {len(shared)} real ones")
    missing = [name for name in programs.PACKAGES if shutil.which(name, path=programs.PATH) is None]
    if missing:
        write(f"not on this machine, so their tests were skipped: {', '.join(missing)}")


def _shown(path: Path) -> str:
    return os.path.relpath(path)
