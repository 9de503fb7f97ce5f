"""Programs that are started without a network, with limits, and never outlive who started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mailkeep.export import confined, killable


def living(group: int) -> list[str]:
    """Processes of a group that are not dead; who is killed is first a zombie, until somebody asks for it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        if int(stat[2]) == group and stat[0] not in "ZX":
            found.append(path.parent.name)
    return found


def run(command: str, home: Path, **limits: int) -> int:
    process = confined.start(["/bin/sh", "-c", command], home=str(home), limits=limits)
    try:
        return process.wait(timeout=60)
    finally:
        confined.end(process)


def test_status_place_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILKEEP_SECRET", "x")
    assert run("exit 7", tmp_path) == 7
    assert run("env > env; pwd > pwd; cat > stdin", tmp_path) == 0
    assert (tmp_path / "pwd").read_text().strip() == str(tmp_path)
    environment = (tmp_path / "env").read_text()
    assert f"HOME={tmp_path}\n" in environment and "SECRET" not in environment
    assert (tmp_path / "stdin").read_bytes() == b""


def test_limits(tmp_path: Path) -> None:
    assert run("ulimit -n > open; ulimit -c > core", tmp_path, RLIMIT_NOFILE=100, RLIMIT_CORE=0) == 0
    assert (tmp_path / "open").read_text() == "100\n"
    assert (tmp_path / "core").read_text() == "0\n"


def test_no_network_where_the_system_allows_it(tmp_path: Path) -> None:
    allowed = subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0
    if not allowed:
        pytest.skip("network namespaces may not be made here")
    assert run("cat /proc/net/dev > dev", tmp_path) == 0
    lines = (tmp_path / "dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_descriptors_come_as_three_and_four(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    process = confined.start(
        [sys.executable, "-c", "import os; os.write(3, b'hello'); os.fstat(3)"],
        home=str(tmp_path), limits={}, descriptors=(theirs,),
    )  # fmt: skip
    os.close(theirs)
    with os.fdopen(ours, "rb") as heard:
        assert heard.read() == b"hello"  # and then the end: nobody else holds it
    assert process.wait() == 0
    confined.end(process)


def test_end_takes_all_that_it_started(tmp_path: Path) -> None:
    process = confined.start(["/bin/sh", "-c", "sleep 1000 & sleep 1000"], home=str(tmp_path), limits={})
    confined.end(process)
    assert living(process.pid) == []


def test_it_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom mailkeep.export import confined\n"
        "ours, theirs = os.pipe()\n"
        "p = confined.start(['/bin/sh', '-c', 'echo >&3; sleep 1000 & sleep 1000'], home=sys.argv[1], limits={},"
        " descriptors=(theirs,))\n"
        "os.read(ours, 1)\n"
        "print(p.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.returncode == -signal.SIGKILL
    while living(int(parent.stdout)):  # ends within the moment that the pipe's end takes to be seen
        pass


def test_nothing_is_imported_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who exports while standing among saved attachments must not run them."""
    for name in ("json", "ctypes", "subprocess", "struct", "msgspec", "mailkeep"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    code = "import os; from mailkeep.export.killable import write_frame as w; out = os.fdopen(1, 'wb')"
    child = killable.Child(f"{code}; w(out, b''); w(out, b'x')")
    try:
        assert child.ask(b"", timeout_s=60) == b"x"
    finally:
        child.close()
    assert run("true", tmp_path) == 0
    assert not (tmp_path / "run").exists()
