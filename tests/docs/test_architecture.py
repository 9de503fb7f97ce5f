"""ARCHITECTURE.md names every module, none that is not there, and shows the directions that are enforced."""

import re
from pathlib import Path

from tests.tidy.test_tidy import FLOORS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "mailkeep"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def chapter(title: str) -> list[list[str]]:
    """The names in backquotes, of the first cell and of the others, for each row of a chapter's table."""
    _, _, rest = TEXT.partition(f"## {title}\n")
    rows = [line.strip("| ").split(" | ", 1) for line in rest.partition("\n## ")[0].splitlines() if line[:3] == "| `"]
    assert rows, title
    return [[*re.findall(r"`([\w/]+)`", row[0]), "|", *re.findall(r"`([\w/]+)`", row[1])] for row in rows]


def named() -> set[str]:
    """`mail/ids` `flags`: what follows a folder's name is in that folder."""
    found = set()
    for row in chapter("Module by module"):
        folder = ""
        for name in row[: row.index("|")]:
            folder = name.rpartition("/")[0] or folder
            found.add(name if "/" in name or not folder else f"{folder}/{name}")
    return found


def test_every_module_is_named_and_no_other() -> None:
    there = {
        str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"
    }
    assert named() == there


def test_the_directions_are_those_enforced() -> None:
    table = {}
    for row in chapter("Who may import whom"):
        at = row.index("|")
        table[row[0]] = set(row[at + 1 :])
    for above, below in (("app", "config"), ("cli", "app")):
        assert table[above] == {below}
        table[above] |= table[below]
    everywhere = {"errors", "secret", "log"}
    assert table == {floor: allowed - everywhere for floor, allowed in FLOORS.items() if floor not in everywhere}
