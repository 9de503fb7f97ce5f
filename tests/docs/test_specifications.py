"""docs/specifications.md: every test that it names exists, every claim names one, every extension on offer is in it."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "specifications.md").read_text()


def rows_of(text: str) -> list[list[str]]:
    """| RFC | what | yes/partly/no | tests |"""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith("| RFC")
    ]


ROWS = rows_of(TEXT)
NAMED = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")
STATES = {"yes", "partly", "no"}


@functools.cache
def functions(path: Path) -> frozenset[str]:
    """The test functions of a file."""
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_named_test_exists() -> None:
    named = {match.groups() for row in ROWS for match in NAMED.finditer(row[-1])}
    assert len(named) > 50, "the page has another form now: this checks nothing"
    missing = []
    for file, function in sorted(named, key=str):
        path = ROOT / "tests" / file
        if not path.exists() or (function and function not in functions(path)):
            missing.append(f"{file}::{function}" if function else file)
    assert not missing, "docs/specifications.md names tests that are not there: " + ", ".join(missing)


def test_every_claim_has_a_test() -> None:
    wrong = []
    for row in ROWS:
        if len(row) != 4 or row[2] not in STATES:
            wrong.append(f"not four cells, or no state: {row}")
        elif (row[2] != "no") != bool(NAMED.search(row[3])):
            wrong.append(f"{row[0]}: {row[2]}, but tests: {row[3] or 'none'}")
    assert not wrong, "\n".join(wrong)


def test_no_rfc_is_listed_twice() -> None:
    """But once as a server and once as a client."""
    server, client = TEXT.split("\n## As a client")
    for part in (server, client):
        numbers = [row[0] for row in rows_of(part)]
        assert len(numbers) > 30
        assert sorted(set(numbers)) == sorted(numbers)


def test_what_imap_advertises_is_described() -> None:
    from mailkeep.serve import imap_login

    names = {name.decode().partition("=")[0] for name in imap_login._ALWAYS.split()} | {"APPENDLIMIT", "STARTTLS"}
    missing = [name for name in sorted(names) if not any(name in row[1] for row in ROWS)]
    assert not missing, "advertised, but not in docs/specifications.md: " + ", ".join(missing)
