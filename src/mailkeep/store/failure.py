"""SQLite's and the system's errors, told as the store's own: the one border where foreign exceptions are translated.

Knows result codes and errno values, nothing of mail. An error that means "try again when there is space" or "when the
disk can be written" must never look like damage, and damage must never look temporary.
"""

import errno
from types import TracebackType

import apsw

from mailkeep.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreReadOnly

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def translate(error: apsw.Error | OSError) -> StoreError:
    """The store's error for a foreign one."""
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return StoreFull("No space left in the mail store")
        return StoreReadOnly("The mail store cannot be written")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreBusy("The account is busy")
    if isinstance(error, apsw.FullError):
        return StoreFull("No space left in the mail store")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StoreCorrupt("The account's index is damaged")
    if isinstance(
        error, apsw.ReadOnlyError | apsw.CantOpenError | apsw.IOError | apsw.PermissionsError | apsw.AuthError
    ):
        return StoreReadOnly("The mail store cannot be written")
    return StoreError("The mail store failed")


class _Translated:
    # Not a generator: this stands around every statement, and costs a tenth so.
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None) -> None:
        if error is not None and isinstance(error, apsw.Error | OSError):
            raise translate(error) from error


_TRANSLATED = _Translated()


def translated() -> _Translated:
    """Raise foreign errors of the block as the store's own, the foreign one as the cause."""
    return _TRANSLATED
