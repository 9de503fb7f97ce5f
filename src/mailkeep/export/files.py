"""Writes files outside the store: those of a tree, those that only grow, and those that are replaced at once.

Knows paths and how the disk is made to keep what is written; knows no format. A file of a tree appears under its name
whole or not at all (written beside the tree, then renamed), so that a reader never meets half of one. Nothing is
durable before `sync`, which is one flush for thousands of files: an fsync for each would be the bottleneck of any
export of single messages. What the system refuses is CannotWrite, told with the file's name.
"""

import contextlib
import ctypes
import errno
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from mailkeep.errors import CannotWrite, UsageError

EACH_MAX: Final = 32  # files that are synced one by one; of more, the whole file system is
BUFFER: Final = 1 << 20

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Within it, what the file system refuses is a CannotWrite that names `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path | str, error: OSError) -> CannotWrite:
    """What to say of a refusal."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotWrite(f"the disk is full: {path} could not be written")
    if error.errno == errno.EFBIG:
        return CannotWrite(f"{path} would be larger than a file may be here; --split makes several")
    return CannotWrite(f"{path} could not be written: {error.strerror or error}")


class Files:
    """A tree below `place`, which exists. Relative paths have "/" between levels; folders are made as needed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.size = 0  # bytes written through here, by this process
        self._root = os.path.join(os.fspath(place), "")
        self._fresh = f"{place}.new"  # beside the tree, on the same file system
        self._opened = 0
        self._unsynced: list[str] = []  # a few; more of them are not counted
        self._many = False

    def put(self, relative: str, data: bytes | bytearray | memoryview, *, mtime: int | None = None) -> None:
        """Write a whole file, over one that is there. `mtime` in seconds since 1970. Raises CannotWrite."""
        try:
            descriptor = os.open(self._fresh, _FLAGS, 0o666)
            try:
                _write_all(descriptor, data)
                _set_time(descriptor, mtime)
            finally:
                os.close(descriptor)
            self._place(self._fresh, relative)
        except OSError as error:
            raise cannot_write(relative, error) from error
        self.size += len(data)

    @contextmanager
    def open(self, relative: str, *, mtime: int | None = None) -> Iterator[BinaryIO]:
        """A new file to write; it takes its name when the block ends without an error. Raises CannotWrite."""
        self._opened += 1
        fresh = f"{self._fresh}{self._opened}"
        try:
            with writing(relative):
                file = open(fresh, "wb", opener=lambda path, _: os.open(path, _FLAGS, 0o666))  # noqa: SIM115
                with file:
                    yield file
                    file.flush()
                    self.size += os.fstat(file.fileno()).st_size
                    _set_time(file.fileno(), mtime)
                self._place(fresh, relative)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise

    def folder(self, relative: str) -> Path:
        """Make a folder, with those above it. Raises CannotWrite."""
        path = self.place / relative
        with writing(relative):
            path.mkdir(parents=True, exist_ok=True)
        self._note(relative)
        return path

    def sync(self) -> None:
        """Make durable all that was written since the last call. Raises CannotWrite."""
        with writing(self.place):
            if not self._many or not sync_file_system(self.place):
                self._sync_each()
        self._unsynced.clear()
        self._many = False

    def _place(self, fresh: str, relative: str) -> None:
        path = self._root + relative
        try:
            os.rename(fresh, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.rename(fresh, path)
        self._note(relative)

    def _note(self, relative: str) -> None:
        if _syncfs() is not None and len(self._unsynced) >= EACH_MAX:
            self._many = True
        else:
            self._unsynced.append(relative)

    def _sync_each(self) -> None:
        folders = {""}
        for relative in self._unsynced:
            _sync(self._root + relative)
            folder = relative
            while folder:
                folder = os.path.dirname(folder)
                folders.add(folder)
        for folder in sorted(folders, reverse=True):  # a folder's own name is in the one above
            _sync(self._root + folder)
        if self._many:
            os.sync()


class Growing:
    """A file that is only written at its end, and can be cut back to where a checkpoint left it."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """Opens it, made if it is not there, and cut to `size`. Raises CannotWrite; UsageError if it is shorter."""
        self.path = path
        self.size = size  # with what is not handed over yet
        self._pending = bytearray()
        with writing(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            if os.fstat(self._descriptor).st_size < size:
                self.close()
                raise UsageError(f"{path} is shorter than it was left; give --restart to begin anew")
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises CannotWrite; what stands at the end is then not known, and nothing more may be written."""
        self._pending += data
        self.size += len(data)
        if len(self._pending) >= BUFFER:
            self.flush()

    def flush(self) -> None:
        """Hand over what is buffered, so that others can read it. Raises CannotWrite."""
        pending, self._pending = self._pending, bytearray()
        if pending:
            with writing(self.path):
                _write_all(self._descriptor, pending)

    def sync(self) -> None:
        """Make durable what was written. Raises CannotWrite."""
        self.flush()
        with writing(self.path):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of the file. What was not flushed is lost, so `sync` first."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in the place of a file at once, and durably. Raises CannotWrite."""
    fresh = f"{path}.new"
    with writing(path):
        descriptor = os.open(fresh, _FLAGS, 0o666)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(fresh, path)
        _sync(path.parent)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all that lie below a directory. Raises CannotWrite when something went away meanwhile."""
    with writing(path):
        if not path.is_dir():
            return path.stat().st_size
        size, folders = 0, [os.fspath(path)]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        return size


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises CannotWrite."""
    with writing(path):
        _sync(path)


def sync_file_system(path: Path) -> bool:
    """Make durable all that was written to the file system of `path`. False: the system cannot; raises OSError."""
    syncfs = _syncfs()
    if syncfs is None:
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor):
            number = ctypes.get_errno()
            if number == errno.ENOSYS:
                return False
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
    return True


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    found = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # Linux only
    return None if found is None else lambda descriptor: int(found(ctypes.c_int(descriptor)))


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    done = os.write(descriptor, data)
    rest = memoryview(data)[done:]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _set_time(descriptor: int, mtime: int | None) -> None:
    if mtime is not None:
        with contextlib.suppress(OSError, OverflowError):  # a date that this file system cannot hold
            os.utime(descriptor, (mtime, mtime))


def _sync(path: Path | str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
