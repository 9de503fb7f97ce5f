"""`make bench-export`: how many messages a second become files of each format, and in how much memory.

    BENCH_MESSAGES=2000        messages of a lot; the slow formats take a part of them
    BENCH_SLOW=300             … of pdf, docx and doc
    BENCH_LOTS=plain,mixed     see export_mail.py; also brief and heavy
    BENCH_FORMATS=…            some of CASES; default: all
    BENCH_ROUNDS=3             rounds; the median counts
    BENCH_RIVALS=1             0: leave out Dovecot's own `doveadm backup`

    python -m bench.export --large      PST of more than 2 GB, and of 100,000 messages, every one of them read again

Each run is the real command, started anew, into a place that is not there; the time is that of the whole process. It
counts only when it ends with 0, and then the export itself has counted what is in its output. Memory is looked at 50
times a second: the resident memory of the command and all its children, added up (pages that they share count for
each), and what of it is neither a file's nor shared. Messages a second of processor time tell the cost of a format also
where other work goes on beside it.
"""

import compileall
import contextlib
import dataclasses
import json
import os
import platform
import pwd
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import export_mail
from mailkeep.export import maildir_writer
from tests.dovecot import Dovecot
from tests.programs import ProgramMissing, find_program
from tests.server import program

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
RUN_MAX_S = 4 * 3600
LOOK_S = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")
CASES: dict[str, list[str]] = {
    "eml": ["--to", "eml"],
    "eml-zip": ["--to", "eml", "--per", "all"],
    "mbox": ["--to", "mbox"],
    "mbox-one": ["--to", "mbox", "--per", "all"],
    "maildir": ["--to", "maildir"],
    "html": ["--to", "html"],
    "mht": ["--to", "mht"],
    "msg": ["--to", "msg"],
    "pst": ["--to", "pst"],
    "pdf": ["--to", "pdf"],
    "pdf-folder": ["--to", "pdf", "--per", "folder"],
    "pdf-chromium": ["--to", "pdf", "--engine", "chromium"],
    "docx": ["--to", "docx"],
    "doc": ["--to", "doc"],
}
SLOW = ("pdf", "docx", "doc")
# Messages a second of plain replies that were promised.
WANTED = {"pst": 200.0, "msg": 200.0, "pdf": 20.0}


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    seconds: float
    cpu_s: float
    resident: int  # bytes at the most, of all processes
    own: int
    size: int  # of the output
    files: int


class Watch:
    """Looks at the memory and processor time of a process and its children until it ends."""

    def __init__(self, pid: int) -> None:
        self.resident = self.own = 0
        self._pid = pid
        self._ticks: dict[int, int] = {}  # of each process, when it was seen last
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def cpu_s(self) -> float:
        """Also of processes that nobody waited for, as some of a browser's; up to the last look at each."""
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            resident = own = 0
            for pid in descendants(self._pid):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = Path(f"/proc/{pid}/statm").read_bytes().split()
                    resident += int(fields[1]) * PAGE
                    own += (int(fields[1]) - int(fields[2])) * PAGE
                    ticks = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[11:13]
                    self._ticks[pid] = sum(map(int, ticks))
            self.resident, self.own = max(self.resident, resident), max(self.own, own)


def descendants(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_bytes().split():
                yield from descendants(int(child))


def run(command: list[str], out: Path) -> Run:
    """Run a command that fills `out`. Raises SystemExit when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with Watch(process.pid) as watch:
        said, _ = process.communicate(timeout=RUN_MAX_S)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise SystemExit(
            f"{' '.join(command)} ended with {process.returncode}:\n{said.decode(errors='replace')[-2000:]}"
        )
    cpu_s = max(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, watch.cpu_s())
    size, files = measure(out)
    return Run(seconds, cpu_s, watch.resident, watch.own, size, files)


def measure(out: Path) -> tuple[int, int]:
    """Bytes and number of files."""
    paths = [out] if out.is_file() else [Path(folder, name) for folder, _, names in os.walk(out) for name in names]
    return sum(path.stat().st_size for path in paths), len(paths)


def remove(out: Path) -> None:
    for path in out.parent.glob(f"{out.name}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    os.sync()  # what one has left to be written must not be the next one's burden


def export(data: Path, lot: str, case: str, out: Path) -> Run:
    command = [*program(), "export", lot, str(_named(case, out)), *CASES[case], "--quiet", "--data", str(data)]
    return run(command, _named(case, out))


def _named(case: str, out: Path) -> Path:
    return out.with_name(out.name + {"pst": ".pst", "eml-zip": ".zip", "mbox-one": ".mbox"}.get(case, ""))


@dataclasses.dataclass(slots=True)
class Row:
    lot: str
    case: str
    messages: int
    bytes: int
    runs: list[Run] = dataclasses.field(default_factory=list)
    rivals: list[Run] = dataclasses.field(default_factory=list)

    def facts(self) -> dict[str, object]:
        seconds = statistics.median(one.seconds for one in self.runs)
        wanted = WANTED.get(self.case) if self.lot == "plain" else None
        return {
            "lot": self.lot,
            "case": self.case,
            "messages": self.messages,
            "seconds": seconds,
            "rate": self.messages / seconds,
            "megabytes_s": self.bytes / seconds / 1e6,
            "cpu_s": statistics.median(one.cpu_s for one in self.runs),
            "rate_cpu": self.messages / statistics.median(one.cpu_s for one in self.runs),
            "resident_mb": max(one.resident for one in self.runs) / 1e6,
            "own_mb": max(one.own for one in self.runs) / 1e6,
            "output_mb": self.runs[0].size / 1e6,
            "files": self.runs[0].files,
            "wanted": wanted,
            "rival_s": statistics.median(one.seconds for one in self.rivals) if self.rivals else None,
        }


# --- Dovecot, which has the same mail and puts it into the same formats ---


@contextlib.contextmanager
def dovecot_with(place: Path, data: Path, lots: list[str]) -> Iterator[Dovecot]:
    """A Dovecot (sdbox) whose accounts have what ours have."""
    with Dovecot(directory=place / "dovecot") as dovecot:
        for lot in lots:
            out = place / "dovecot" / f"in-{lot}"
            export(data, lot, "maildir", out)
            _give_away(out)
            doveadm(dovecot, "import", "-s", "-u", lot, f"maildir:{out}", "", "ALL")
            shutil.rmtree(out)
        yield dovecot


def _give_away(out: Path) -> None:
    """Dovecot's mail belongs to nobody when we are root."""
    if os.geteuid() == 0:
        owner = pwd.getpwnam("nobody")
        for path in (out, *out.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)


def doveadm(dovecot: Dovecot, *arguments: str) -> list[str]:
    command = [
        find_program("dovecot").replace("/sbin/dovecot", "/bin/doveadm"),
        "-c",
        str(dovecot.root / "dovecot.conf"),
    ]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    return command


def rival(dovecot: Dovecot, row: Row, out: Path) -> Run:
    out.mkdir()
    _give_away(out)
    binary = find_program("dovecot").replace("/sbin/dovecot", "/bin/doveadm")
    target = f"{row.case}:{out}/mail"
    found = run([binary, "-c", str(dovecot.root / "dovecot.conf"), "backup", "-u", row.lot, target], out)
    kept = RIVALS[row.case](out / "mail")
    if kept != row.messages:
        raise SystemExit(f"doveadm backup made {row.case} of {kept} messages, of {row.messages}")
    return found


def _in_mbox(place: Path) -> int:
    paths = [path for path in place.rglob("*") if path.is_file() and path.read_bytes()[:5] == b"From "]
    # Dovecot puts a message of its own into a file, with its settings.
    return sum(path.read_bytes().count(b".bench@example.net>\nIn-Reply-To: <") for path in paths)


RIVALS = {"maildir": maildir_writer.count, "mbox": _in_mbox}  # messages in what Dovecot made


# --- the table ---


HEADING = (
    f"{'lot':<7}{'format':<14}{'messages':>9}{'seconds':>9}{'per s':>9}{'MB/s':>8}{'CPU s':>8}{'per CPU s':>10}"
    f"{'MB':>7}{'own':>6}{'output':>9}{'files':>8}{'doveadm':>9}"
)


def show(row: dict[str, object]) -> None:
    rival_s = f"{row['rival_s']:>7.2f} s" if row["rival_s"] else ""
    short = f"  SHORT of {row['wanted']}" if row["wanted"] and row["rate"] < row["wanted"] else ""  # type: ignore[operator]
    print(
        f"{row['lot']:<7}{row['case']:<14}{row['messages']:>9}{row['seconds']:>9.2f}{row['rate']:>9,.0f}"
        f"{row['megabytes_s']:>8.1f}{row['cpu_s']:>8.2f}{row['rate_cpu']:>10,.0f}{row['resident_mb']:>7.0f}{row['own_mb']:>6.0f}"
        f"{row['output_mb']:>9.1f}{row['files']:>8}{rival_s:>9}{short}",
        flush=True,
    )


def compare(place: Path) -> list[dict[str, object]]:
    """All lots and formats that were asked for."""
    lots = os.environ.get("BENCH_LOTS", "plain,mixed").split(",")
    cases = os.environ.get("BENCH_FORMATS", ",".join(CASES)).split(",")
    rounds = int(os.environ.get("BENCH_ROUNDS", "3"))
    many, few = int(os.environ.get("BENCH_MESSAGES", "2000")), int(os.environ.get("BENCH_SLOW", "300"))
    data, slow = place / "data", place / "slow"
    counts = {data: many, slow: few}
    sizes = {(root, lot): export_mail.fill(root, lot, count) for root, count in counts.items() for lot in lots}
    rows = []
    print(HEADING, flush=True)
    with contextlib.ExitStack() as stack:
        dovecot = None
        if os.environ.get("BENCH_RIVALS", "1") != "0" and RIVALS.keys() & set(cases):
            with contextlib.suppress(ProgramMissing):
                dovecot = stack.enter_context(dovecot_with(place, data, lots))
        for lot in lots:
            for case in cases:
                root = slow if case.startswith(SLOW) else data
                row = Row(lot, case, counts[root], sizes[root, lot])
                for _ in range(rounds):
                    row.runs.append(export(root, lot, case, place / "out"))
                    remove(place / "out")
                    if dovecot is not None and case in RIVALS:
                        row.rivals.append(rival(dovecot, row, place / "out"))
                        remove(place / "out")
                rows.append(row.facts())
                show(rows[-1])
    return rows


def main() -> int:
    """Run the bench; returns an exit code."""
    if sys.argv[1:] not in ([], ["--large"]):
        print(__doc__)
        return 2
    BUILD.mkdir(exist_ok=True)
    compileall.compile_dir(str(ROOT / "src"), quiet=2)  # as it is where it was installed
    with tempfile.TemporaryDirectory(prefix="bench-export-", dir=BUILD) as name:
        place = Path(name)
        place.chmod(0o755)  # Dovecot's mail belongs to nobody
        if sys.argv[1:]:
            from bench import export_large

            rows = export_large.run(place)
        else:
            rows = compare(place)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.release()}"
    path = BUILD / f"bench-export{'-large' if sys.argv[1:] else ''}.json"
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    print(f"\nFigures: {path.relative_to(ROOT)} ({machine})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
