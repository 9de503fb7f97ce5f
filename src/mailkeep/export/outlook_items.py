"""What an item of Outlook is besides mail: contact, appointment, meeting, task, note, journal entry, list of people."""

from dataclasses import dataclass

from mailkeep.export.mapi import Item
from mailkeep.mail.compose import Field, Part


@dataclass(frozen=True, slots=True)
class Extra:
    """What a message of the item has besides its body.

    `facts` are shown above the body, `forms` are one more form of the body (a calendar), `attached` go along (a card).
    """

    subject: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    forms: tuple[Part, ...] = ()
    attached: tuple[Part, ...] = ()
    fields: tuple[Field, ...] = ()


def extra_of(item: Item) -> Extra | None:
    """None for mail. Never raises."""
    return None
