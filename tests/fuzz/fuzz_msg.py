"""Coverage-guided damage to MSG files: an item comes, or Bad, and mail can be made of every item.

Alone: `python -m tests.fuzz.fuzz_msg -runs=100000`. The octets are changes: two for a place in the file, four to put
there; the first chooses the file.
"""

import sys

import atheris

with atheris.instrument_imports(include=["mailkeep"]):
    from mailkeep.export import cfb, from_mapi, msg_reader
    from mailkeep.export.msg_storage import storage_of
    from mailkeep.export.to_mapi import item_of
    from mailkeep.export.writer import Folder, Message
    from mailkeep.mail.letter import letter_of

from tests import messages

NAMES = ("raw-utf8-subject", "disposition", "forwarded-10", "delivery-status", "html")


def written(data: bytes) -> bytes:
    message = Message(1, Folder("INBOX", ("INBOX",)), 1, frozenset(("\\Flagged", "Work")), 1_700_000_000, data)
    return b"".join(cfb.pieces(storage_of(item_of(message, letter_of(data)))))


FILES = [written(data) for name, data in messages.ugly() if name in NAMES]


def one_input(data: bytes) -> None:
    file = bytearray(FILES[data[0] % len(FILES)] if data else FILES[0])
    for at in range(1, len(data) - 5, 6):
        place = int.from_bytes(data[at : at + 2], "little") % len(file)
        file[place : place + 4] = data[at + 2 : at + 6]
    try:
        item = msg_reader.read(bytes(file))
    except msg_reader.Bad:
        return
    from_mapi.message_of(item)


def main() -> None:
    assert len(FILES) == len(NAMES)
    one_input(b"")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
