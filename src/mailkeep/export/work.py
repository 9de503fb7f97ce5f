"""The directory `OUT.partial` in which an export grows, and how its content becomes OUT.

    lock             held (flock) by the process that is at it
    plan.json        what was asked, and the folders; written once, when the list is complete
    list             which messages; see `listing`
    state.json       how far it is: replaced at each checkpoint, after all that it speaks of is on the disk
    manifest.jsonl   grows; what stands beyond the state's length is cut off
    tree/ or files   what becomes OUT: one output, or one for each part

Knows where things lie, and nothing of messages and formats. The hard idea is that OUT appears whole or not at all and
never in the place of anything: a name is taken in a way that fails when it is there, also when it came meanwhile. Where
several names are to be taken, the state says so first, and a process killed between two goes on with the rest.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from mailkeep.errors import CannotWrite, StoreBusy, UsageError
from mailkeep.export.files import replace_file, sync_folder, writing
from mailkeep.export.listing import Section, Source

PARTIAL: Final = ".partial"
MANIFEST: Final = "manifest.jsonl"
_TREE: Final = "tree"
_OWN: Final = ("lock", "list", "plan.json", "state.json", MANIFEST)  # by these a directory is known as ours


class Plan(msgspec.Struct, frozen=True):
    """What is exported and how: fixed when it begins."""

    account: str  # its number and the second in which it was made: names are given again
    asked: str  # all that makes a command another one, in words
    listed: str  # when the list was made
    sources: list[Source]
    sections: list[Section]
    messages: int
    bytes: int


class Part(msgspec.Struct):
    """An output that is complete. `found`: messages that reading it again found; -1 before that."""

    label: str
    messages: int
    found: int = -1
    size: int = 0  # bytes of its files, once it was read again


class State(msgspec.Struct):
    """How far an export is."""

    phase: Literal["writing", "placing"] = "writing"
    sections: int = 0  # of the plan, complete
    position: int = 0  # records of the list that are done
    manifest: int = 0  # bytes
    writer: bytes | None = None  # of the present part
    label: str = ""  # of the present part
    part_messages: int = 0
    parts: list[Part] = []  # those that are complete
    exported: int = 0
    missing: int = 0
    bytes: int = 0
    bad: dict[int, str] = {}  # position → why a writer cannot take this message

    @property
    def done(self) -> int:
        return self.exported + self.missing


@dataclass(slots=True)
class Work:
    """See the module. Made by `taken`."""

    out: Path  # with its suffix
    suffix: str  # of a format that makes one file; "" for a directory
    plan: Plan | None = None
    state: State = field(default_factory=State)

    @property
    def planned(self) -> Plan:
        assert self.plan is not None, "the list was made"
        return self.plan

    @property
    def path(self) -> Path:
        return self.out.with_name(self.out.name + PARTIAL)

    @property
    def listing(self) -> Path:
        return self.path / "list"

    @property
    def manifest(self) -> Path:
        """Where it is while the export is at work."""
        return self.path / MANIFEST

    @property
    def manifest_target(self) -> Path:
        return self.out.with_name(f"{self.out.name}.{MANIFEST}") if self.suffix else self.out / MANIFEST

    def manifest_now(self) -> Path:
        """Where it is just now, also when the output was moved already."""
        places = (self.manifest, self.path / _TREE / MANIFEST, self.manifest_target)
        return next((place for place in places if place.exists()), self.manifest)

    def tree_now(self) -> Path:
        """What is, or is to be, the directory OUT."""
        tree = self.path / _TREE
        return tree if tree.exists() else self.out

    def name(self, label: str) -> str:
        """A part's name beside, or in, OUT: `mail-2.pst`, `2`; "" for a directory that is not split."""
        if not self.suffix:
            return label
        return f"{self.out.name.removesuffix(self.suffix)}-{label}{self.suffix}" if label else self.out.name

    def place(self, label: str) -> Path:
        """Where a part grows."""
        return self.path / self.name(label) if self.suffix else self.path / _TREE / self.name(label)

    # ---- beginning, and going on

    def begin(self, plan: Plan) -> None:
        """The list is complete: from now on the export can be taken up again."""
        self.plan = plan
        self._check_free([section.label for section in plan.sections])
        replace_file(self.path / "plan.json", msgspec.json.encode(plan))

    def _check_free(self, labels: list[str]) -> None:
        if self.suffix:
            for label in labels:
                target = self.out.with_name(self.name(label))
                if target.exists():
                    raise UsageError(f"{target} is there already, and nothing is overwritten; give another name")

    def save(self) -> None:
        """Note how far it is, durably. Raises CannotWrite."""
        replace_file(self.path / "state.json", msgspec.json.encode(self.state))

    def fresh_place(self, label: str) -> Path:
        """An empty place for a part that begins now; what a killed process left there goes."""
        place = self.place(label)
        self.drop_scratch(label)
        with writing(place):
            _remove(place)
            (place.parent if self.suffix else place).mkdir(parents=True, exist_ok=True)
        sync_folder(place.parent)
        return place

    def drop_scratch(self, label: str) -> None:
        """Remove what a writer left beside its place (`place.name` + ".…"): the part is complete, and noted as such."""
        place = self.place(label)
        others = {self.name(part.label) for part in self.state.parts}
        with writing(place):
            if place.parent.is_dir():
                for name in os.listdir(place.parent):
                    if name.startswith(f"{place.name}.") and name not in others:
                        _remove(place.parent / name)

    # ---- the end

    def put_in_place(self) -> None:
        """All parts are complete: give them their names, and remove the rest. Raises CannotWrite, UsageError."""
        if self.suffix:
            for part in self.state.parts:
                _move_file(self.place(part.label), self.out.with_name(self.name(part.label)))
            _move_file(self.manifest, self.manifest_target)
        else:
            with writing(self.out):
                if self.manifest.exists():
                    os.rename(self.manifest, self.path / _TREE / MANIFEST)
                    sync_folder(self.path / _TREE)
            _move_folder(self.path / _TREE, self.out)
        sync_folder(self.out.parent)
        self.remove()

    def remove(self) -> None:
        """Forget the work. Its notes go last, so that what remains of it is always known as ours."""
        with writing(self.path):
            for name in sorted(os.listdir(self.path), key=lambda name: name in _OWN):
                if name != "lock":
                    _remove(self.path / name)
            _remove(self.path / "lock")
            os.rmdir(self.path)


@contextmanager
def taken(out: Path, suffix: str, *, account: str, asked: str, restart: bool) -> Iterator[Work]:
    """The work on OUT, held alone; taken up where it was left. `account` and `asked` as in Plan.

    Raises UsageError when OUT is there, or other work on it; StoreBusy while another process is at it; CannotWrite.
    """
    out = out.absolute()
    if not out.name:
        raise UsageError(f"{out} is there already, and nothing is overwritten; give another name")
    if suffix and not out.name.lower().endswith(suffix):
        out = out.with_name(out.name + suffix)
    work = Work(out, suffix)
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: there is no such directory; make it first")
    with ExitStack() as stack:
        if not work.path.exists():
            _check_absent(work)  # before anything is made
        _enter(stack, work)
        _read(work, (account, asked), restart=restart)
        if work.state.phase == "writing":
            try:
                _check_absent(work)
            except UsageError:
                if work.plan is None:  # OUT was completed by a process that was killed while it cleared up
                    work.remove()
                raise
        yield work


def _enter(stack: ExitStack, work: Work) -> None:
    """Make the directory, if need be, and take its lock: of the one that is there, not of one just removed."""
    lock = work.path / "lock"
    while True:
        with writing(work.path):
            with contextlib.suppress(FileExistsError):
                work.path.mkdir(mode=0o700)
            try:
                if not _is_ours(work.path):
                    text = "is there and is no unfinished export; move it away, or give another name"
                    raise UsageError(f"{work.path} {text}")
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:  # who was at it has finished just now
                continue
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreBusy(f"another export to {work.out} is at work just now; wait until it is done") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return


def _is_ours(path: Path) -> bool:
    """Made by an export of this user: elsewhere than at home it may be anybody's, and lead anywhere.

    Some file systems give all files one owner, whoever makes them (FAT, some network shares): then it is that one.
    """
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or (facts.st_uid != os.geteuid() and facts.st_uid != _owner_given(path)):
        return False
    return (path / "lock").exists() or not os.listdir(path)


def _owner_given(path: Path) -> int:
    """Whose a file is that this process makes in a directory; -1 where it may make none."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            return os.fstat(file.fileno()).st_uid
    except FileNotFoundError:
        raise
    except OSError:
        return -1


def _check_absent(work: Work) -> None:
    for path in (work.out, work.manifest_target) if work.suffix else (work.out,):
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already, and nothing is overwritten; give another name")


def _read(work: Work, wanted: tuple[str, str], *, restart: bool) -> None:
    """What an earlier process left. Work that was killed before a message was written begins anew."""
    try:
        plan = msgspec.json.decode((work.path / "plan.json").read_bytes(), type=Plan)
        state = work.path / "state.json"
        found = msgspec.json.decode(state.read_bytes(), type=State) if state.exists() else State()
    except FileNotFoundError:
        plan, found = None, State()
    except (OSError, msgspec.DecodeError):
        if not restart:
            raise UsageError(f"{work.path} cannot be taken up again; give --restart to begin anew") from None
        plan, found = None, State()
    if found.phase == "placing" and restart and os.path.lexists(work.out):
        restart = False  # it is done but for the last rename
    other = plan is not None and (plan.account, plan.asked) != wanted
    if plan is not None and other and not restart and found.position:
        raise UsageError(
            f"{work.path} holds an unfinished export that was asked for otherwise ({plan.asked}); "
            "give that command again to go on, --restart to begin anew, or another name"
        )
    if plan is None or restart or other:
        _empty(work)
        return
    work.plan, work.state = plan, found


def _empty(work: Work) -> None:
    with writing(work.path):
        for name in sorted(os.listdir(work.path), key=lambda name: name != "plan.json"):
            if name != "lock":
                _remove(work.path / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move_file(source: Path, target: Path) -> None:
    """Give a file its name. Done already when the source is gone and the target there."""
    if not source.exists() and target.exists():
        return
    with writing(target):
        try:
            os.link(source, target)
        except FileExistsError:
            if not os.path.samefile(source, target):
                raise _in_the_way(target) from None
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES):
                raise
            _claim(source, target)
            return
        os.unlink(source)


def _claim(source: Path, target: Path) -> None:
    """Where there are no hard links (FAT, many network shares): an empty file takes the name first."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if target.stat().st_size:
            raise _in_the_way(target) from None
    os.rename(source, target)


def _move_folder(source: Path, target: Path) -> None:
    if not source.exists() and target.exists():
        return
    with writing(target):
        with contextlib.suppress(FileExistsError):  # made by us before a kill, if it is empty; else the next one fails
            target.mkdir(mode=0o700)
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise _in_the_way(target) from None
            raise


def _in_the_way(target: Path) -> CannotWrite:
    return CannotWrite(
        f"{target} came into being meanwhile, and nothing is overwritten; move it away and give the same command again"
    )
