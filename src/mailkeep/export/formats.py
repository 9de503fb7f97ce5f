"""The formats that mail can be exported to: one row each. What a format's library costs is loaded when it is used."""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from mailkeep.errors import UsageError
from mailkeep.export.writer import Options, Writer

Make = Callable[[Path, Options, bytes | None], Writer]
Count = Callable[[Path], int]


@dataclass(frozen=True, slots=True)
class Format:
    """A row. `per`: what may become a file, the default first; `single`: the suffix where all is one file."""

    name: str
    module: str
    per: tuple[str, ...]
    single: dict[str, str] = field(default_factory=dict)
    engines: tuple[str, ...] = ()  # the default first
    maker: str = "make"
    counter: str = "count"

    def make(self, place: Path, options: Options, state: bytes | None) -> Writer:
        """A writer; `state` is its own of an earlier checkpoint. Raises CannotWrite, ToolMissing."""
        return cast(Make, getattr(self._load(), self.maker))(place, options, state)

    def count(self, place: Path) -> int:
        """How many messages are in a finished output, by reading it."""
        return cast(Count, getattr(self._load(), self.counter))(place)

    def _load(self) -> object:
        return importlib.import_module(f"mailkeep.export.{self.module}")

    def check(self, *, per: str, engine: str) -> str:
        """The `per` that is meant. Raises UsageError."""
        if per and per not in self.per:
            raise UsageError(f"--to {self.name} can be had per {' or '.join(self.per)}, not per {per}")
        if engine and engine not in self.engines:
            known = (
                f"{self.name} knows {' and '.join(self.engines)}" if self.engines else "only pdf has a choice of them"
            )
            raise UsageError(f"--engine {engine}: {known}")
        return per or self.per[0]


FORMATS: Final = {
    row.name: row
    for row in (
        Format("eml", "eml", ("message", "all"), {"all": ".zip"}),
        Format("mbox", "mbox_writer", ("folder", "all"), {"all": ".mbox"}),
        Format("maildir", "maildir_writer", ("message",)),
        Format("html", "html", ("message",)),
        Format("mht", "mht", ("message",)),
        Format("pdf", "pdf", ("message", "folder"), engines=("weasyprint", "chromium")),
        Format("docx", "office", ("message",), maker="make_docx"),
        Format("doc", "office", ("message",), maker="make_doc"),
        Format("msg", "msg", ("message",)),
        Format("pst", "pst", ("all",), {"all": ".pst"}),
    )
}


def find_format(name: str) -> Format:
    """Raises UsageError, which lists what there is."""
    found = FORMATS.get(name.lower().lstrip("."))
    if found is None:
        near = difflib.get_close_matches(name.lower(), FORMATS, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        raise UsageError(f"there is no format {name}; {hint} {', '.join(FORMATS)}")
    return found
