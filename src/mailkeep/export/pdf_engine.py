"""What the export to PDF wants of an engine, and gets of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from mailkeep.export.writer import Message


class Printed(NamedTuple):
    """A message as PDF. `note` says what is not as wanted; `packages`: of Debian, whose fonts it would have needed."""

    pdf: bytes
    note: str | None = None
    packages: tuple[str, ...] = ()


class Engine(Protocol):
    """What makes pages of messages. `names` puts the UID before names of embedded files."""

    def print(self, messages: Sequence[Message], *, names: bool) -> Iterator[Printed]:
        """A PDF for each, in their order, whatever they are. Raises ToolMissing."""

    def close(self) -> None:
        """End the processes."""
