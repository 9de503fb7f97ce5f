"""Every command, option and configuration key is documented; every link in the docs leads somewhere.

Commands and options are read from the command tree itself, keys from the configuration's own table, so that a new one
without a word in the docs fails here.
"""

import importlib
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


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of the tree with the words that call it."""
    module = importlib.import_module("mailkeep.cli.main")
    (root,) = [value for value in vars(module).values() if isinstance(value, click.Group)]

    def walk(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from walk(f"{words} {name}", child)

    return walk("mailkeep", root)


def section(text: str, words: str) -> str:
    """What stands below the headings that name a command, up to the next heading."""
    pattern = rf"^#+ [^\n]*`{re.escape(words)}\b[^\n]*\n(.*?)(?=^#+ |\Z)"
    return "\n".join(found[1] for found in re.finditer(pattern, text, flags=re.MULTILINE | re.DOTALL))


def test_every_command_and_option_is_documented() -> None:
    """In the section of its command, or of the command above it, or in the preface that holds for all."""
    text = COMMANDS.read_text()
    preface = text.partition("\n## ")[0]
    missing = []
    for words, command in commands():
        if words not in text:
            missing.append(words)
        place = preface + section(text, words) + section(text, words.rpartition(" ")[0])
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                names = [name for name in parameter.opts if name.startswith("--")]
                if not any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", place) for name in names):
                    missing.append(f"{words} {'/'.join(names)}")
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
