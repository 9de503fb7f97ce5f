"""An account's lock files: who may do what beside whom. A killed process gives its locks up by itself (flock).

lock     shared by all that have mail.db open; alone by `repair`, which puts another file in its place
gc.lock  alone by garbage collection and `repair`; shared by `verify`, which wants the packs to stay
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mailkeep.errors import StoreBusy
from mailkeep.store.failure import translated

IN_USE: Final = "The account is in use: stop the server, or wait until nobody is logged in"
IN_REPAIR: Final = "The account is being repaired"
IN_COLLECTION: Final = "Garbage is being collected, or the account checked, just now"


@contextmanager
def locked(path: Path, *, alone: bool, busy: str) -> Iterator[None]:
    """Hold a lock file of an account. Raises StoreBusy with the text `busy` when another has it."""
    with translated():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy(busy) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def using(account: Path) -> Iterator[None]:
    """Have an account's mail.db open within the block. Raises StoreBusy while it is being repaired."""
    with locked(account / "lock", alone=False, busy=IN_REPAIR):
        yield
