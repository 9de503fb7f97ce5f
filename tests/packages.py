"""Strangers' readers that come from package registries and not from Debian: two of npm, one wheel.

    python -m tests.packages        fetch what is missing into build/readers, by the hashes in tests/readers

Tests only look; what is missing skips them, as in tests/programs.py.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.programs import ProgramMissing, find_program

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "tests" / "readers"
READERS = ROOT / "build" / "readers"
NODE = READERS / "node"
PYPSTREADER = READERS / "pypstreader"
# The wheel asks for Python 3.12 because of one statement, which names a type and does nothing.
TYPE_STATEMENT = ("pypstreader/ltp/prop_type.py", "\ntype PropValue = (", "\nPropValue = object\n_ = lambda: (")


def node_modules() -> Path:
    """Where @kenjiuno/msgreader and pst-extractor lie, for NODE_PATH; raises ProgramMissing."""
    find_program("node")
    return _there(NODE / "node_modules")


def pypstreader() -> Path:
    """A directory for PYTHONPATH; raises ProgramMissing."""
    return _there(PYPSTREADER)


def _there(path: Path) -> Path:
    if not path.is_dir():
        raise ProgramMissing(f"{path} is not there: python -m tests.packages")
    return path


def fetch() -> int:
    """Fetch what is missing or of another version. Never fails the run: what stays missing skips its tests."""
    for target, locks, make in (
        (NODE, ("package.json", "package-lock.json"), _fetch_node),
        (PYPSTREADER, ("pypstreader.lock",), _fetch_pypstreader),
    ):
        want = hashlib.sha256(b"".join((LOCKS / name).read_bytes() for name in locks)).hexdigest()
        mark = target.parent / f"{target.name}.sha256"
        if target.is_dir() and mark.is_file() and mark.read_text() == want:
            continue
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            make(target)
        except (OSError, subprocess.CalledProcessError, ProgramMissing) as error:
            shutil.rmtree(target)
            detail = getattr(error, "stderr", b"") or b""
            print(f"{target.name}: {error}\n{detail.decode(errors='replace')[-500:]}", file=sys.stderr)
        else:
            mark.write_text(want)
    return 0


def _fetch_node(target: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKS / name, target)
    command = [find_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    print("Fetching for the tests: readers from npm", flush=True)
    subprocess.run(command, cwd=target, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _fetch_pypstreader(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    command += ["--require-hashes", "--python-version", "3.12", "--only-binary=:all:"]
    command += ["-r", os.fspath(LOCKS / "pypstreader.lock"), "-d", os.fspath(target)]
    print("Fetching for the tests: pypstreader", flush=True)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(target)
    wheel.unlink()
    name, statement, plain = TYPE_STATEMENT
    text = (target / name).read_text(encoding="utf-8")
    (target / name).write_text(text.replace(statement, plain), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(fetch())
