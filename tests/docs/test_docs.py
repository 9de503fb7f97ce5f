"""Every command, option and configuration key is documented; every link in the docs leads somewhere.

Commands and options are read from the command tree itself, keys from the configuration's own table, so that a new one
without a word in the docs fails here.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "docs" / "commands.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the tree with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


def section(text: str, words: tuple[str, ...]) -> str:
    """What stands under the heading that names a command, up to the next heading of that depth or less."""
    pattern = rf"^(#+) .*`mailkeep {re.escape(' '.join(words))}\b[^\n]*\n(.*?)(?=^#{{1,}} |\Z)"
    return "\n".join(found[2] for found in re.finditer(pattern, text, flags=re.MULTILINE | re.DOTALL))


def test_every_command_and_option_is_documented() -> None:
    from mailkeep.cli.main import main

    text = COMMANDS.read_text()
    missing = []
    for words, command in commands(main):
        called = " ".join(("mailkeep", *words))
        if words and called not in text:
            missing.append(called)
        place = section(text, words) + text if isinstance(command, click.Group) else section(text, words) or text
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                long = [name for name in parameter.opts if name.startswith("--")]
                if not any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", place) for name in long):
                    missing.append(f"{called} {'/'.join(long)}")
    assert not missing, f"not in {COMMANDS.name}: " + ", ".join(missing)


def test_every_configuration_key_is_documented() -> None:
    from mailkeep.config import KEYS

    text = CONFIGURATION.read_text()
    missing = [key for key in KEYS if not re.search(rf"`{re.escape(key)}\b", text)]
    assert not missing, f"not in {CONFIGURATION.name}: " + ", ".join(missing)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as forges make them."""
    found = re.findall(r"^#+ +(.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for found in LINK.finditer(page.read_text()):
        target = found[1] or found[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken, f"{page.name}: broken links {broken}"


def test_specifications_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "specifications.md").read_text()
    missing = [name for name in set(re.findall(r"`(tests/[\w/.-]+)", text)) if not (ROOT / name).exists()]
    assert not missing, "docs/specifications.md names tests that are not there: " + ", ".join(sorted(missing))
