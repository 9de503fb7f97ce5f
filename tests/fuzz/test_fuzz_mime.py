"""A bounded run of the MIME fuzzer: short in `make test`, long in `make torture`."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import SEED

ROOT = Path(__file__).resolve().parents[2]


def test_mime_reader(full: bool, tmp_path: Path) -> None:
    runs = 500_000 if full else 3_000
    command = [sys.executable, "-m", "tests.fuzz.fuzz_mime", f"-runs={runs}", f"-seed={SEED or 1}", "-max_len=4096"]
    command += ["-rss_limit_mb=1024", "-timeout=30", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
