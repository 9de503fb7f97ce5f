"""Outlook's files on their way into an import: what a PST, OST or MSG file holds, as items.

Knows which mailbox a folder of Outlook becomes, and how an item is called in reports; what is in the files,
`pst_reader` and `msg_reader` know. A PST is told in its own order, and always in the same, so that an import that was
stopped finds again what it had.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from mailkeep.export.item import Bad, Item, slices

if TYPE_CHECKING:
    from mailkeep.export import pst_reader

PST_MAGIC: Final = b"!BDN"
MSG_MAGIC: Final = bytes.fromhex("d0cf11e0a1b11ae1")  # of any compound file: by the name it must be told as well
_NOTES_MAX: Final = 400  # characters


Found = tuple[tuple[str, ...], Item | Bad | None]


def read_pst(
    stream: IO[bytes], source: str, *, place: tuple[str, ...], size: int, size_max: int, temporary: Path | None
) -> Iterator[Found]:
    """The items of a PST or OST with the place that each belongs to; None stands for a folder without any.

    `size`: of the file, for the bar.
    """
    from mailkeep.export import pst_reader

    share = 0
    try:
        for found in pst_reader.read(stream, size_max=size_max, temporary=temporary):
            if isinstance(found, pst_reader.Contents):
                share = size // max(1, found.items)
                yield from ((place + folder, None) for folder in found.empty)
                continue
            where = "/".join([source, *found.folder])
            if found.number:
                where = f"{where} (item {found.number})"
            if isinstance(found, pst_reader.Fault):
                yield place, Bad(where, found.reason, share if found.number else 0)
            else:
                yield _place(place, found), _item(where, share, found)
    except pst_reader.CannotRead as error:
        yield place, Bad(source, str(error), size)


def _item(where: str, share: int, mail: "pst_reader.Mail") -> Item:
    return Item(
        where,
        share,
        slices(mail.data, 0, len(mail.data)),
        flags=mail.flags,
        internaldate=mail.internaldate,
        note="; ".join(mail.problems)[:_NOTES_MAX] or None,
    )


def _place(place: tuple[str, ...], mail: "pst_reader.Mail") -> tuple[str, ...]:
    """The folder, below where the import of this file goes. At the top, those that every account has have one name."""
    return (mail.role, *mail.folder[1:]) if mail.role and not place else place + mail.folder


def read_msg(data: bytes, source: str, *, size_max: int) -> Item | Bad:
    """The message in an MSG file."""
    from mailkeep.export import msg_reader
    from mailkeep.export.from_mapi import message_of

    try:
        composed = message_of(msg_reader.read(data))
    except msg_reader.Bad as error:
        return Bad(source, str(error), len(data))
    if len(composed.data) > size_max:
        return Bad(source, f"{len(composed.data)} bytes, more than limits.message_size", len(data))
    return Item(
        source,
        len(data),
        slices(composed.data, 0, len(composed.data)),
        flags=composed.flags,
        internaldate=composed.internaldate,
        note="; ".join(composed.problems)[:_NOTES_MAX] or None,
    )
