"""`make bench`: start Dovecot (sdbox, mdbox) and Mailkeep alike, drive them in alternation, print the comparison.

    BENCH_ONLY=noop,fetch      only cases whose name begins with one of these
    BENCH_MESSAGES=50000       messages in the mailbox that is read
    BENCH_SECONDS=1            measured time of one run
    BENCH_ROUNDS=3             rounds; the median counts
    BENCH_SERVERS=…            some of mailkeep,sdbox,mdbox

All three stand on the same disk (`build/`), on loopback, with fsync on. A figure is the median of the rounds;
the ratio is Mailkeep's over the better of the two Dovecots (for times: theirs over ours), so more is better
everywhere. Where the driver used most of a core, the server could have done more, and the line says so.
"""

import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import cases
from tests.dovecot import Dovecot
from tests.programs import ProgramMissing
from tests.server import Server

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PASSWORD = "secret"
# What the project promised itself for each case (`docs/performance.md`).
WANTED = {
    "fetch-flags": 2.0,
    "fetch-envelope": 2.0,
    "noop": 1.5,
    "noop-pipelined": 1.5,
    "uid-fetch": 1.5,
    "uid-fetch-pipelined": 1.5,
}
DRIVER_BUSY = 0.75
# As Dovecot's set-up: no full-text index (it would be written in the pauses, beside the rival's run), no info log.
CONFIG = """
[store]
search_index = false
[log]
level = "warning"
"""


def main() -> int:
    """Run the bench; returns an exit code."""
    if len(sys.argv) > 1:
        print(__doc__)
        return 2
    only = tuple(filter(None, os.environ.get("BENCH_ONLY", "").split(",")))
    chosen = [name for name in cases.CASES if not only or name.startswith(only)]
    rounds = int(os.environ.get("BENCH_ROUNDS", "3"))
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        BUILD.mkdir(exist_ok=True)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD)))
        place.chmod(0o755)  # Dovecot's mail belongs to nobody
        targets = start(stack, place, os.environ.get("BENCH_SERVERS", "sdbox,mdbox,mailkeep").split(","))
        if not targets:
            print("nothing to measure: no server started", file=sys.stderr)
            return 1
        for target in targets:
            filled = time.monotonic()
            drive("fill", target, timeout_s=600)
            print(
                f"{target.name}: {target.messages} messages delivered in {time.monotonic() - filled:.0f} s", flush=True
            )
        print(heading(targets), flush=True)
        rows = []
        for name in chosen:
            runs: dict[str, list[dict[str, Any]]] = {target.name: [] for target in targets}
            for _ in range(rounds):
                for target in targets:
                    runs[target.name].append(drive(name, target, timeout_s=120))
            rows.append(row(name, runs))
            print(line(rows[-1], targets), flush=True)
    report(rows, targets[0].messages, time.monotonic() - begun)
    return 0


def start(stack: contextlib.ExitStack, place: Path, names: list[str]) -> list[cases.Target]:
    """Start the servers that were asked for; a missing Dovecot is said, not fatal."""
    messages = int(os.environ.get("BENCH_MESSAGES", "50000"))
    seconds = float(os.environ.get("BENCH_SECONDS", "1"))
    targets = []
    for name in names:
        if name == "mailkeep":
            config = place / "mailkeep.toml"
            config.write_text(CONFIG)
            server = Server(place / "mailkeep", doors=("imap", "pop3", "lmtp"), options=["--config", str(config)])
            users = [cases.BIG, cases.POP, cases.BOX, *(f"u{n}@example.org" for n in range(cases.USERS))]
            server.add_user(users[0], PASSWORD)
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(server.add_user, users[1:], [PASSWORD] * len(users)))
            stack.enter_context(server)
            ports, pid = (server.port("imap"), server.port("pop3"), server.port("lmtp")), server.pid
        else:
            try:
                dovecot = Dovecot(format=name, directory=place / name)  # type: ignore[arg-type]
            except ProgramMissing as missing:
                print(f"{name}: {missing}", file=sys.stderr)
                continue
            stack.enter_context(dovecot)
            ports, pid = (dovecot.imap, dovecot.pop3, dovecot.lmtp), dovecot.pid
        targets.append(cases.Target(name, pid, *ports, PASSWORD, messages, seconds))
    return targets


def drive(name: str, target: cases.Target, *, timeout_s: float) -> dict[str, Any]:
    """One run in a driver process of its own."""
    described = json.dumps(dataclasses.asdict(target))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.driver", name, described],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout or "null") or {"failed": done.stderr.strip()[-300:]}
    except subprocess.TimeoutExpired:
        answer = {"failed": f"no end after {timeout_s:.0f} s"}
    if "failed" in answer:
        print(f"  {target.name} {name}: {answer['failed']}", file=sys.stderr, flush=True)
        if name == "fill":
            raise SystemExit(f"{target.name} cannot be filled")
    return answer


def row(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The medians of one case, and the ratio."""
    unit = cases.CASES[name][0]
    smaller = unit.startswith("ms")
    servers: dict[str, dict[str, float]] = {}
    for server, results in runs.items():
        good = [result for result in results if result.get("operations")]
        if good:
            servers[server] = {
                "value": statistics.median(value(result, unit) for result in good),
                "cpu_us": statistics.median(result["server_cpu_s"] / result["operations"] * 1e6 for result in good),
                "driver": statistics.median(result["driver_cpu_s"] / result["seconds"] for result in good),
                "bytes": statistics.median(result["received"] / result["operations"] for result in good),
            }
    ratio = None
    others = [figures["value"] for server, figures in servers.items() if server != "mailkeep"]
    if "mailkeep" in servers and others:
        ours = servers["mailkeep"]["value"]
        ratio = min(others) / max(ours, 1e-6) if smaller else ours / max(others)
    return {"case": name, "unit": unit, "ratio": ratio, "wanted": wanted(name), "servers": servers}


def wanted(name: str) -> float:
    return WANTED.get(name, 1.0)


def value(result: dict[str, Any], unit: str) -> float:
    if unit == "ms":
        return statistics.median(result["latencies_ms"])
    if unit == "ms p99":
        return statistics.quantiles(result["latencies_ms"], n=100)[98]
    return float(result["operations"] / result["seconds"])


def heading(targets: list[cases.Target]) -> str:
    columns = "".join(f"{target.name:>12}{'µs CPU':>9}" for target in targets)
    return f"\n{'case':<22}{'unit':<12}{columns}{'ratio':>8}{'wanted':>8}"


def line(row: dict[str, Any], targets: list[cases.Target]) -> str:
    """One line of the table."""
    cells, notes = "", []
    for target in targets:
        figures = row["servers"].get(target.name)
        if figures is None:
            cells += f"{'failed':>12}{'':>9}"
            continue
        shown = f"{figures['value']:.2f}" if row["unit"].startswith("ms") else f"{figures['value']:,.0f}"
        cells += f"{shown:>12}{figures['cpu_us']:>9.1f}"
        if figures["driver"] > DRIVER_BUSY:
            notes.append(f"driver-bound at {target.name} ({figures['driver']:.0%} of a core)")
        elif target.name == "mailkeep":
            notes.append(f"driver {figures['driver']:.0%} of a core")
    if row["ratio"] is None:
        return f"{row['case']:<22}{row['unit']:<12}{cells}"
    if row["ratio"] < row["wanted"]:
        notes.insert(0, "SHORT")
    return f"{row['case']:<22}{row['unit']:<12}{cells}{row['ratio']:>8.2f}{row['wanted']:>8.1f}  {'; '.join(notes)}"


def report(rows: list[dict[str, Any]], messages: int, seconds: float) -> None:
    """What falls short, and the JSON."""
    compared = [row for row in rows if row["ratio"] is not None]
    short = [row for row in compared if row["ratio"] < row["wanted"]]
    latency = next(
        (
            r["servers"]["mailkeep"]["value"]
            for r in rows
            if r["case"] == "exists-latency" and "mailkeep" in r["servers"]
        ),
        None,
    )
    print(f"\n{len(compared) - len(short)} of {len(compared)} cases reach what was promised; {seconds:.0f} s in all.")
    for row in short:
        print(f"  short: {row['case']} {row['ratio']:.2f} of {row['wanted']:.1f}")
    if latency is not None:
        print(f"  250 to EXISTS: {latency:.2f} ms median ({'under' if latency < 5 else 'NOT under'} 5 ms)")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.release()}"
    path = BUILD / "bench.json"
    path.write_text(json.dumps({"machine": machine, "messages": messages, "cases": rows}, indent=1))
    print(f"Figures: {path.relative_to(ROOT)} ({machine})")


if __name__ == "__main__":
    sys.exit(main())
