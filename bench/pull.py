"""`make bench-pull`: how long it takes to copy mail from a server, by Mailkeep and by those who do the same.

    BENCH_MESSAGES=10000       messages of 10 KB in the mailbox that is copied
    BENCH_ROUNDS=3             rounds; the median counts
    BENCH_DELAYS=0,50          round trips in milliseconds
    BENCH_TOOLS=mailkeep,mbsync,offlineimap,getmail
    BENCH_FOLDERS=50           mailboxes of the run that finds nothing to do; 0: leave it out
    BENCH_SLOW=1000            messages for those who wait for each message's round trip
    BENCH_FLUSH_MS=0           make each fsync of every tool take so much longer (needs a C compiler)

One Dovecot (sdbox) is the source for all. Each tool is the real command, started anew into an empty place for each
round, one tool after the other within a round; the time is that of the whole process, and what lies in its place
afterwards is counted: a run that does not have every message does not count. Everything is at its default where it
costs or saves time, fsync first of all. 50 ms are made by the proxy of `mailkeep.testing`, a process of its own; at
0 ms nothing is in between. What the tools do for safety costs what the disk's flush costs; the heading says how much
that is here.
"""

import compileall
import contextlib
import dataclasses
import json
import os
import platform
import pwd
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.load import Imap
from tests.dovecot import Dovecot
from tests.messages import WORDS
from tests.programs import ProgramMissing, find_program
from tests.server import program
from tests.syncers import mbsync, offlineimap

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
HOST = "127.0.0.1"
BULK, FEW, FOLDERS = "bulk@example.org", "few@example.org", "folders@example.org"
SIZE = 10_000  # octets of a message
IN_A_FOLDER = 20  # messages
RUN_MAX_S = 1800
# What was promised, as a ratio to mbsync: by case.
WANTED = {"pull-0": 7.0, "pull-50": 6.0, "nothing-50": 2.0}
# They ask for one message after the other, and wait for each: ten thousand of them at 50 ms would take half an hour.
# getmail slows down with their number besides, and has given up at six thousand.
WAITERS = ("offlineimap", "getmail")

GETMAIL = """
[retriever]
type = SimpleIMAPRetriever
server = {host}
port = {port}
username = {user}
password = {password}
mailboxes = ("INBOX",)

[destination]
type = Maildir
path = {root}/mail/

[options]
delete = False
read_all = False
delivered_to = false
received = false
verbose = 0
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where the mail is."""

    port: int
    user: str
    password: str

    def at(self, root: Path) -> dict[str, object]:
        """What a tool's configuration says of it."""
        return {"host": HOST, "port": self.port, "user": self.user, "password": self.password, "root": root}


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    """`prepare(root, source)` gives the command to measure; `count(root)` the messages that it has kept."""

    name: str
    prepare: Callable[[Path, Source], list[str]]
    count: Callable[[Path], int]
    as_nobody: bool = False  # getmail delivers nothing as root


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    seconds: float
    cpu_s: float  # of the tool's own processes
    messages: int


# --- the tools ---


def _maildir(root: Path) -> int:
    return sum(1 for part in ("cur", "new") for _ in (root / "mail").rglob(f"{part}/*"))


def _mbsync(root: Path, source: Source) -> list[str]:
    for name in ("mail", "state"):
        (root / name).mkdir(exist_ok=True)
    patterns = "*" if source.user == FOLDERS else "INBOX"
    (root / "config").write_text(mbsync(f"Patterns {patterns}", "Sync Pull", "Create Near", **source.at(root)))
    return [find_program("mbsync"), "-q", "-c", str(root / "config"), "-a"]


def _offlineimap(root: Path, source: Source) -> list[str]:
    (root / "mail").mkdir(exist_ok=True)
    (root / "config").write_text(offlineimap("readonly = True", ui="quiet", **source.at(root)))
    return [find_program("offlineimap"), "-o", "-c", str(root / "config")]


def _getmail(root: Path, source: Source) -> list[str]:
    for part in ("cur", "new", "tmp"):
        (root / "mail" / part).mkdir(parents=True, exist_ok=True)
    (root / "rc").write_text(GETMAIL.format(**source.at(root)))
    return [find_program("getmail"), "--getmaildir", str(root), "--rcfile", str(root / "rc")]


def _mailkeep(root: Path, source: Source) -> list[str]:
    data = str(root / "data")
    if not Path(data).exists():
        add = ["remote", "add", source.user, "--imap", f"{HOST}:{source.port}", "--tls", "none", "--password-stdin"]
        # Found, logged in and written down beforehand, as the others' configuration files are.
        subprocess.run(
            [*program(), *add, "--no-check", "--data", data],
            input=source.password + "\n",
            text=True,
            check=True,
            capture_output=True,
        )
    return [*program(), "pull", source.user, "--quiet", "--data", data]


def _kept(root: Path) -> int:
    listed = subprocess.run(
        [*program(), "user", "list", "--json", "--data", str(root / "data")], capture_output=True, text=True, check=True
    )
    return sum(int(found) for found in re.findall(r'"messages": ?(\d+)', listed.stdout))


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("mailkeep", _mailkeep, _kept),
        Tool("mbsync", _mbsync, _maildir),
        Tool("offlineimap", _offlineimap, _maildir),
        Tool("getmail", _getmail, _maildir, as_nobody=True),
    )
}


# --- one run ---

_FLUSH: dict[str, str] = {}  # the environment that makes flushes slower


def slower_flush(place: Path, flush_ms: float) -> None:
    """From here on each fsync of a tool takes so much longer."""
    library = place / "flush.so"
    source = ROOT / "bench" / "flush.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)
    _FLUSH.update(LD_PRELOAD=str(library), FLUSH_US=str(int(flush_ms * 1000)))


def flush_ms(place: Path) -> float:
    """What an fdatasync of a new file of 10 KB costs here: the median of 200."""
    took = []
    for number in range(200):
        descriptor = os.open(place / f"flush{number}", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"x" * SIZE)
        begun = time.perf_counter()
        os.fdatasync(descriptor)
        took.append(time.perf_counter() - begun)
        os.close(descriptor)
        (place / f"flush{number}").unlink()
    return statistics.median(took) * 1000


def _owner() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def run(tool: Tool, root: Path, source: Source, *, expected: int) -> Run:
    """Run a tool once and look at what it has. Raises SystemExit when it failed or has not everything."""
    root.mkdir(exist_ok=True)
    command = tool.prepare(root, source)
    nobody = _owner() if tool.as_nobody else None
    if nobody is not None:
        for path in (root, *root.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, "HOME": str(root), "LC_ALL": "C.UTF-8", **_FLUSH},
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=RUN_MAX_S,
        check=False,
        user=nobody.pw_uid if nobody is not None else None,
        group=nobody.pw_gid if nobody is not None else None,
        extra_groups=[] if nobody is not None else None,
    )
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kept = tool.count(root)
    if done.returncode != 0 or kept != expected:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[-1500:]
        raise SystemExit(f"{tool.name} ended with {done.returncode}, with {kept} of {expected} messages:\n{said}")
    return Run(seconds, cpu_s, kept)


# --- the mail ---


def message(number: int, rng: random.Random) -> bytes:
    """Some 10 KB of text that no other message has."""
    head = (
        f"Return-Path: <u{number % 500}@example.net>\r\nFrom: Ann Other <ann{number % 50}@example.net>\r\n"
        f"To: Bob <bob@example.org>\r\nSubject: {' '.join(rng.choices(WORDS, k=5))} {number}\r\n"
        f"Date: Tue, 20 Jan 2026 {number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02} +0000\r\n"
        f"Message-ID: <{number}.{rng.getrandbits(40):x}@example.net>\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: text/plain; charset="utf-8"\r\n\r\n'
    )
    line = " ".join(rng.choices(WORDS, k=11))
    body = "".join(f"{rng.getrandbits(48):012x} {line}\r\n" for _ in range((SIZE - len(head)) // (len(line) + 15) + 1))
    return (head + body)[: SIZE - 2].encode() + b"\r\n"


def fill(port: int, user: str, mailboxes: dict[str, int]) -> None:
    """APPEND so many messages to each mailbox, pipelined."""
    rng = random.Random(user)
    wire = Imap(port, user, Dovecot.password)
    number = 0
    for name, count in mailboxes.items():
        if name != "INBOX":
            wire.command(b"CREATE " + name.encode())
            wire.command(b"SUBSCRIBE " + name.encode())
        for start in range(0, count, 100):
            packet, tag = b"", b""
            for _ in range(min(100, count - start)):
                data = message(number, rng)
                number += 1
                tag = wire.tag()
                packet += b'%b APPEND %b (%b) "20-Jan-2026 10:%02d:%02d +0000" {%d+}\r\n%b\r\n' % (
                    tag, name.encode(), (b"", b"\\Seen", b"\\Seen \\Answered")[number % 3],
                    number // 60 % 60, number % 60, len(data), data,
                )  # fmt: skip
            wire.send(packet)
            wire.until(tag + b" ")
    wire.close()


@contextlib.contextmanager
def delayed(port: int, delay_ms: float) -> Iterator[int]:
    """A port that leads there with this round trip."""
    if not delay_ms:
        yield port
        return
    command = [sys.executable, "-m", "mailkeep.testing", "proxy", "--to", f"{HOST}:{port}", "--delay-ms", str(delay_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)


# --- the cases ---


def pulls(place: Path, dovecot: Dovecot, tools: list[Tool], *, delay_ms: int, rounds: int) -> dict[str, list[Run]]:
    """Everything into an empty place, round by round."""
    messages, few = int(os.environ.get("BENCH_MESSAGES", "10000")), int(os.environ.get("BENCH_SLOW", "1000"))
    runs: dict[str, list[Run]] = {tool.name: [] for tool in tools}
    with delayed(dovecot.imap, delay_ms) as port:
        for number in range(rounds):
            for tool in tools:
                slow = tool.name == "getmail" or (tool.name in WAITERS and delay_ms > 0)
                if slow and number:
                    continue  # minutes each, and nowhere near: once is enough
                source = Source(port, FEW if slow else BULK, dovecot.password)
                root = place / tool.name
                runs[tool.name].append(run(tool, root, source, expected=min(few, messages) if slow else messages))
                shutil.rmtree(root)
                os.sync()  # what one has left to be written must not be the next one's burden
                print(f"  {tool.name}: {runs[tool.name][-1].seconds:.2f} s", file=sys.stderr, flush=True)
    return runs


def nothing(place: Path, dovecot: Dovecot, tools: list[Tool], *, delay_ms: int, rounds: int) -> dict[str, list[Run]]:
    """A run that finds nothing new, after one that brought everything."""
    expected = int(os.environ.get("BENCH_FOLDERS", "50")) * IN_A_FOLDER
    runs: dict[str, list[Run]] = {tool.name: [] for tool in tools}
    with delayed(dovecot.imap, delay_ms) as port:
        source = Source(port, FOLDERS, dovecot.password)
        roots = {tool.name: place / f"{tool.name}-folders" for tool in tools}
        for tool in tools:
            run(tool, roots[tool.name], source, expected=expected)
            run(tool, roots[tool.name], source, expected=expected)  # the first run after a first run may differ
        for _ in range(rounds):
            for tool in tools:
                runs[tool.name].append(run(tool, roots[tool.name], source, expected=expected))
    return runs


def row(case: str, runs: dict[str, list[Run]]) -> dict[str, object]:
    """The medians of one case. A rate is compared, since not all had the same number of messages."""
    tools = {
        name: {
            "seconds": statistics.median(one.seconds for one in found),
            "cpu_s": statistics.median(one.cpu_s for one in found),
            "messages": found[0].messages,
            "rate": statistics.median(one.messages / one.seconds for one in found),
        }
        for name, found in runs.items()
        if found
    }
    ratios = {name: tools["mailkeep"]["rate"] / one["rate"] for name, one in tools.items() if "mailkeep" in tools}
    return {"case": case, "tools": tools, "ratios": ratios, "wanted": WANTED.get(case)}


def show(found: dict[str, object]) -> None:
    """The lines of one case."""
    tools, ratios = found["tools"], found["ratios"]
    assert isinstance(tools, dict) and isinstance(ratios, dict)
    for name, one in tools.items():
        ratio = f"{ratios[name]:>8.2f}" if name in ratios and name != "mailkeep" else f"{'':>8}"
        short = name == "mbsync" and name in ratios and ratios[name] < (found["wanted"] or 0)
        note = f"  SHORT of {found['wanted']}" if short else ""
        print(
            f"{found['case']:<12}{name:<13}{one['messages']:>8}{one['seconds']:>10.2f}"
            f"{one['rate']:>10,.0f}{one['cpu_s']:>9.2f}{ratio}{note}",
            flush=True,
        )


def main() -> int:
    """Run the bench; returns an exit code."""
    if len(sys.argv) > 1:
        print(__doc__)
        return 2
    wanted = os.environ.get("BENCH_TOOLS", ",".join(TOOLS)).split(",")
    rounds = int(os.environ.get("BENCH_ROUNDS", "3"))
    delays = [int(text) for text in os.environ.get("BENCH_DELAYS", "0,50").split(",")]
    messages, folders = int(os.environ.get("BENCH_MESSAGES", "10000")), int(os.environ.get("BENCH_FOLDERS", "50"))
    tools = [TOOLS[name] for name in wanted]
    rows = []
    BUILD.mkdir(exist_ok=True)
    compileall.compile_dir(str(ROOT / "src"), quiet=2)  # as it is where it was installed
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-pull-", dir=BUILD)))
        place.chmod(0o755)  # Dovecot's mail belongs to nobody, and so does getmail
        try:
            dovecot = stack.enter_context(Dovecot(directory=place / "dovecot"))
        except ProgramMissing as missing:
            print(missing, file=sys.stderr)
            return 1
        fill(dovecot.imap, BULK, {"INBOX": messages})
        fill(dovecot.imap, FEW, {"INBOX": min(int(os.environ.get("BENCH_SLOW", "1000")), messages)})
        # Dovecot's own five and INBOX are among them.
        fill(dovecot.imap, FOLDERS, {"INBOX": IN_A_FOLDER, **{f"Folder{n}": IN_A_FOLDER for n in range(1, folders)}})
        added = float(os.environ.get("BENCH_FLUSH_MS", "0"))
        flush = flush_ms(place) + added
        if added:
            slower_flush(place, added)
        print(f"a flush takes {flush:.2f} ms here{f', of which {added} ms are made' if added else ''}\n")
        heading = f"{'case':<12}{'tool':<13}{'messages':>8}{'seconds':>10}{'per s':>10}{'CPU s':>9}{'ratio':>8}"
        print(heading, flush=True)
        for delay in delays:
            rows.append(row(f"pull-{delay}", pulls(place, dovecot, tools, delay_ms=delay, rounds=rounds)))
            show(rows[-1])
        both = [tool for tool in tools if tool.name in ("mailkeep", "mbsync")]
        if folders and both and max(delays):
            case = f"nothing-{max(delays)}"
            rows.append(row(case, nothing(place, dovecot, both, delay_ms=max(delays), rounds=2 * rounds - 1)))
            show(rows[-1])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.release()}"
    path = BUILD / "bench-pull.json"
    path.write_text(json.dumps({"machine": machine, "rounds": rounds, "flush_ms": flush, "cases": rows}, indent=1))
    print(f"\nFigures: {path.relative_to(ROOT)} ({machine})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
