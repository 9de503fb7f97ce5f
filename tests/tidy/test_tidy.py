"""The house rules that a reader would otherwise have to check by eye: who may import whom, sizes, names, hosts.

It reads the source tree with `ast` and imports nothing of the package.
"""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "mailkeep"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])

# Who may import whom; anything else is forbidden. `errors` and `log` are open to all that the table does not name pure.
FLOORS = {
    "errors": set(),
    "secret": {"errors"},
    "log": {"errors"},
    "mail": {"errors"},
    "wire": {"mail", "secret", "errors"},
    "store": {"mail", "errors", "log"},
    "jobs": {"store", "mail", "errors", "log"},
    "delivery": {"jobs", "wire", "store", "mail", "errors", "log"},
    "serve": {"delivery", "wire", "store", "mail", "secret", "errors", "log"},
    "backup": {"jobs", "wire", "store", "mail", "secret", "errors", "log"},
    "export": {"jobs", "store", "mail", "errors", "log"},
    "testing": {"wire", "mail", "errors", "log"},
    "config": {"serve", "backup", "export", "delivery", "jobs", "store", "mail", "errors", "log"},
    "app": {"config", "serve", "backup", "export", "delivery", "jobs", "store", "mail", "secret", "errors", "log"},
    "cli": {
        "app",
        "config",
        "serve",
        "backup",
        "export",
        "delivery",
        "jobs",
        "store",
        "mail",
        "secret",
        "errors",
        "log",
    },
}
PURE = ("mail", "wire")
IMPURE_MODULES = {
    "asyncio", "socket", "ssl", "select", "selectors", "sqlite3", "apsw", "time", "threading", "multiprocessing",
    "subprocess", "uvloop", "os", "pathlib", "tempfile", "random", "logging", "structlog",
}  # fmt: skip
# `time` is forbidden for its clock; these of its functions only calculate.
CLOCK_CALLS = {("datetime", "now"), ("datetime", "today"), ("datetime", "utcnow"), ("date", "today")}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "impl", "misc", "lib"}
FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 70


def floor_of(path: Path) -> str:
    """`mail` for mail/mime.py, `errors` for errors.py, "" for the package's own __init__."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem.replace("__init__", "")


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, anywhere in it, absolute: (line, dotted name)."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*above, *([origin] if origin else [])])
            yield node.lineno, origin
            # `from mailkeep.mail import mime` names a module as well as a package.
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_tree_is_there() -> None:
    assert len(SOURCES) > 10, "the package has moved: this whole file checks nothing"


def test_every_import_goes_in_an_allowed_direction() -> None:
    wrong = []
    for path in SOURCES:
        here = floor_of(path)
        if not here:
            continue
        assert here in FLOORS, f"{shown(path)}: a new floor; give it a row in FLOORS"
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "mailkeep" or len(parts) < 2:
                continue
            there = parts[1]
            if there in FLOORS and there != here and there not in FLOORS[here]:
                wrong.append(f"{shown(path)}:{line}: {here} must not import {there}")
    assert not wrong, "\n".join(sorted(set(wrong)))


@pytest.mark.parametrize("floor", PURE)
def test_pure_floors_import_no_io_and_no_clock(floor: str) -> None:
    wrong = []
    for path in SOURCES:
        if floor_of(path) != floor:
            continue
        wrong += [
            f"{shown(path)}:{line}: {name}" for line, name in imports(path) if name.split(".")[0] in IMPURE_MODULES
        ]
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                called = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if (called, node.func.attr) in CLOCK_CALLS or (called == "" and node.func.attr == "open"):
                    wrong.append(f"{shown(path)}:{node.lineno}: {called}.{node.func.attr}()")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print"}:
                wrong.append(f"{shown(path)}:{node.lineno}: {node.func.id}()")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {module_of(path): path for path in SOURCES}
    edges = {
        name: {there for _, there in imports(path) if there in modules and there != name}
        for name, path in modules.items()
    }
    # A package that only holds a docstring is nobody's dependency, though every import of a child names it.
    edges = {name: {t for t in there if modules[t].name != "__init__.py"} for name, there in edges.items()}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        if name in trail:
            raise AssertionError("a circle of imports: " + " → ".join([*trail[trail.index(name) :], name]))
        if name in done:
            return
        for there in sorted(edges[name]):
            walk(there, [*trail, name])
        done.add(name)

    for name in sorted(edges):
        walk(name, [])


def test_files_and_functions_keep_to_their_size() -> None:
    wrong = []
    for path in [*SOURCES, *TESTS]:
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > FILE_LINES_MAX:
            wrong.append(f"{shown(path)}: {lines} lines, {FILE_LINES_MAX} at most")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                size = node.end_lineno - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    wrong.append(
                        f"{shown(path)}:{node.lineno}: {node.name} has {size} lines, {FUNCTION_LINES_MAX} at most"
                    )
    assert not wrong, "\n".join(wrong)


def test_names_say_what_a_file_holds() -> None:
    wrong = [shown(path) for path in [*SOURCES, *TESTS] if path.stem in BANNED_NAMES]
    wrong += [shown(path) for path in PACKAGE.rglob("*") if path.is_dir() and path.name in BANNED_NAMES]
    assert not wrong, "\n".join(wrong)


def test_every_file_says_what_it_is_for() -> None:
    wrong = [shown(path) for path in [*SOURCES, *TESTS] if path.stat().st_size and not ast.get_docstring(tree_of(path))]
    assert not wrong, "no docstring: " + ", ".join(wrong)


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Every text file that git tracks (or would): what a stranger gets."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_registry_and_no_place_of_one_machine_is_written_down() -> None:
    """Packages come from wherever the reader's pip is set up to look; paths are relative or asked for."""
    registry = re.compile(r"pypi\.(org|python)|files\.python[h]osted|--(extra-)?index-url|registry\.npmj[s]")
    machine = re.compile(r"(?<![\w./])/(work|root)/|/home/(?!user\b)\w")
    wrong = []
    for name, text in tracked_texts():
        if name == shown(Path(__file__)):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if (registry.search(line) and "--no-emit-index-url" not in line) or machine.search(line):
                wrong.append(f"{name}:{number}: {line.strip()[:120]}")
    assert not wrong, "\n".join(wrong)


def test_locks_are_by_hash() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        entries = re.findall(r"^\S+==.*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+", text, flags=re.MULTILINE)
        assert len(entries) == len(re.findall(r"^[a-z]", text, flags=re.MULTILINE)) > 0, (
            f"{name}: an entry without a hash"
        )


def test_ignored_type_errors_carry_a_code() -> None:
    wrong = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "type: ignore" in line and not re.search(r"type: ignore\[[\w, -]+\]", line):
                wrong.append(f"{shown(path)}:{number}")
    assert not wrong, "`# type: ignore` without a code: " + ", ".join(wrong)


def test_no_child_imports_from_where_one_is() -> None:
    """`python -c` and `-m` begin to look for modules in the present directory, which may be full of attachments."""
    started = re.compile(r"[\[(]sys\.executable,\s*(\S+)")
    found = {match[1] for path in SOURCES for match in started.finditer(path.read_text(encoding="utf-8"))}
    assert found == {'"-P",'}


def test_no_test_sleeps() -> None:
    """Tests wait on sockets, processes and events; a sleep is either too long or too short."""
    wrong = []
    for path in TESTS:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
                arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if arguments != [0]:  # sleep(0) lets other tasks run and waits for nothing
                    wrong.append(f"{shown(path)}:{node.lineno}")
    assert not wrong, "a sleep in a test: " + ", ".join(wrong)
