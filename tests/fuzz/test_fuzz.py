"""Runs the coverage-guided fuzzers of this folder, each in a process of its own: briefly here, long in `make torture`.

atheris has wheels for CPython 3.11 on x86-64 and arm64 only; elsewhere these are skipped, and the property tests
beside the code remain.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZERS = sorted(Path(__file__).parent.glob("fuzz_*.py"))
SECONDS_SHORT, SECONDS_FULL = 4, 600
MEMORY_MIB = 2048

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not here: no wheel for this Python or machine"
)


@pytest.mark.parametrize("fuzzer", FUZZERS, ids=lambda path: path.stem)
def test_fuzz(fuzzer: Path, tmp_path: Path, full: bool) -> None:
    seconds = int(os.environ.get("MAILKEEP_FUZZ_SECONDS") or (SECONDS_FULL if full else SECONDS_SHORT))
    done = subprocess.run(
        [
            sys.executable, "-m", f"tests.fuzz.{fuzzer.stem}",
            f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MIB}", "-timeout=20",
            "-max_len=8192", f"-artifact_prefix={tmp_path}/", "-print_final_stats=1",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds + 120,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    output = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    found = [path.read_bytes()[:200] for path in tmp_path.iterdir()]
    assert done.returncode == 0, f"{output[-3000:]}\ninput: {found}"
    assert "stat::number_of_executed_units" in output, output[-2000:]


def test_there_are_fuzzers() -> None:
    assert FUZZERS, "no fuzzers: this file checks nothing"
