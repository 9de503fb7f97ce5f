"""MSG files are read back as they were, those of other writers too, and damaged ones never do worse than Bad."""

import contextlib
import io
import random
import struct
from uuid import UUID

import olefile
import pytest

from mailkeep.export import cfb, cfb_reader, demo, mapi, msg_reader
from mailkeep.export.cfb import Storage
from mailkeep.export.mapi import Attached, Item, Named, Value
from mailkeep.export.msg_storage import storage_of
from mailkeep.export.to_mapi import item_of
from mailkeep.export.writer import Folder, Message
from mailkeep.mail.letter import letter_of
from tests.messages import corpus

INBOX = Folder("INBOX", ("INBOX",))
ADDED = {mapi.STORE_SUPPORT_MASK, mapi.ROW_ID, mapi.ATTACH_NUMBER, mapi.RECORD_KEY, mapi.OBJECT_TYPE, mapi.ATTACH_SIZE}


def item(data: bytes, *flags: str) -> Item:
    return item_of(Message(1, INBOX, 1, frozenset(flags), 1_700_000_000, data), letter_of(data))


def written(content: Item) -> bytes:
    return b"".join(cfb.pieces(storage_of(content)))


def kept(properties: dict[int, Value]) -> dict[int, Value]:
    """Without what the file adds, and the empty strings that it cannot hold."""
    return {tag: value for tag, value in properties.items() if tag not in ADDED and value != ""}


def plain(content: Item) -> object:
    return (
        kept(content.properties),
        content.named,
        [kept(one) for one in content.recipients[:2048]],
        [(kept(one.properties), one.data, one.item and plain(one.item)) for one in content.attachments[:2048]],
    )


def test_what_was_written_is_read() -> None:
    mail = [*corpus(), *((f"demo {n}", b"".join(one.chunks)) for n, one in enumerate(demo.items()))]
    for name, data in mail:
        content = item(data, "\\Flagged", "Work", "later", "$MDNSent", "$Forwarded")
        found = msg_reader.read(written(content))
        assert plain(found) == plain(content), name
        assert len(found.named) == 3


def test_values_of_every_type_are_read() -> None:
    guid = UUID("01234567-89ab-cdef-0123-456789abcdef")
    values: dict[int, Value] = {
        mapi.INTEGER16: -2, mapi.INTEGER32: -70000, mapi.FLOATING32: 0.5, mapi.FLOATING64: -1.25, mapi.CURRENCY: -1,
        mapi.FLOATING_TIME: 44000.5, mapi.ERROR_CODE: 0x8004010F, mapi.BOOLEAN: True, mapi.INTEGER64: -(1 << 40),
        mapi.STRING: "grüße 🦊", mapi.TIME: 1 << 60, mapi.GUID: guid, mapi.BINARY: b"\0\1" * 3000,
        0x1002: [1, -1], 0x1003: [5, -5], 0x1004: [0.5], 0x1005: [1.5, 2.5], 0x1006: [-7], 0x1007: [1.0],
        0x1014: [1 << 40], 0x101F: ["a", "", "ü🦊"], 0x1040: [5, 6], 0x1048: [guid, guid], 0x1102: [b"", b"xyz"],
    }  # fmt: skip
    properties = {mapi.tag(0x3A00 + number, kind): value for number, (kind, value) in enumerate(values.items())}
    named = {Named(mapi.PSETID_ADDRESS, 0x8080 + kind, kind): value for kind, value in values.items()}
    named |= {Named(mapi.PS_PUBLIC_STRINGS, f"näme {kind}", kind): value for kind, value in values.items()}
    content = Item({mapi.MESSAGE_CLASS: "IPM.Test", **properties}, named)
    content.attachments.append(Attached({mapi.ATTACH_METHOD: 5}, item=Item({mapi.MESSAGE_CLASS: "IPM.Note"}, named)))
    found = msg_reader.read(written(content))
    assert kept(found.properties) == content.properties
    assert found.named == named
    inner = found.attachments[0].item
    assert inner is not None and inner.named == named


def substg(storage: Storage, tag: int, data: bytes) -> None:
    storage.children[f"__substg1.0_{tag:08X}"] = data


def ansi(codepage: int, codec: str, text: str) -> bytes:
    """A file as Outlook 2000 wrote it: 8-bit strings in a codepage that the message names."""
    root = Storage()
    substg(root, 0x001A001E, b"IPM.Note")
    substg(root, 0x0037001E, text.encode(codec) + b"\0")
    substg(root, 0x1013001E, f"<p>{text}".encode(codec))
    row = struct.pack("<IIII", mapi.MESSAGE_CODEPAGE, 6, codepage, 0)
    root.children["__properties_version1.0"] = bytes(32) + row
    who = root.children["__recip_version1.0_#00000000"] = Storage()
    substg(who, 0x3001001E, text.encode(codec))
    who.children["__properties_version1.0"] = bytes(8) + struct.pack("<IIII", mapi.RECIPIENT_TYPE, 6, 1, 0)
    return b"".join(cfb.pieces(root))


@pytest.mark.parametrize(
    ("codepage", "codec", "text"),
    [
        (1252, "cp1252", "grüße €"),
        (1251, "cp1251", "привет"),
        (932, "cp932", "日本語"),
        (936, "gb18030", "你好"),
        (28605, "iso8859-15", "€uro"),
        (20866, "koi8-r", "привет"),
        (50220, "iso2022_jp", "日本語"),
        (65001, "utf-8", "🦊"),
        (0, "cp1252", "café"),
        (99999, "cp1252", "café"),
    ],
)
def test_strings_of_8_bits_are_read_in_the_codepage_of_the_message(codepage: int, codec: str, text: str) -> None:
    found = msg_reader.read(ansi(codepage, codec, text))
    assert found.properties[mapi.SUBJECT] == text
    assert found.properties[mapi.HTML] == f"<p>{text}".encode(codec)
    assert found.recipients == [{mapi.DISPLAY_NAME: text, mapi.RECIPIENT_TYPE: 1}]


def test_an_embedded_ole_object_is_a_compound_file_of_its_own() -> None:
    root = Storage()
    substg(root, mapi.MESSAGE_CLASS, "IPM.Note".encode("utf-16-le"))
    attachment = root.children["__attach_version1.0_#00000000"] = Storage()
    row = struct.pack("<IIII", mapi.ATTACH_METHOD, 6, mapi.OLE, 0)
    attachment.children["__properties_version1.0"] = bytes(8) + row
    inner = attachment.children["__substg1.0_3701000D"] = Storage()
    inner.children["\x01Ole"] = b"12345"
    inner.children["Workbook"] = bytes(9000)
    sub = inner.children["deeper"] = Storage()
    sub.children["x"] = b"y"
    found = msg_reader.read(b"".join(cfb.pieces(root)))
    data = found.attachments[0].data
    assert data is not None
    with olefile.OleFileIO(io.BytesIO(data)) as ole:
        assert ole.openstream("Workbook").read() == bytes(9000)
        assert ole.openstream(["deeper", "x"]).read() == b"y"


def test_what_is_no_message_is_bad() -> None:
    sheet = Storage()
    sheet.children["Workbook"] = bytes(100)
    for data in (b"", b"x" * 600, cfb.SIGNATURE, cfb.SIGNATURE + bytes(600), b"".join(cfb.pieces(sheet))):
        with pytest.raises(msg_reader.Bad):
            msg_reader.read(data)


# --- damage ----------------------------------------------------------------------------------------------------------


def samples() -> list[bytes]:
    rich = [data for name, data in corpus() if name in ("forwarded-10", "disposition", "many-fields")]
    mail = [*rich, *(b"".join(one.chunks) for one in list(demo.items())[::60])]
    return [written(item(data, "Work", "\\Flagged")) for data in mail]


def test_damaged_files_are_read_or_bad_but_never_worse() -> None:
    rng = random.Random(20)
    for data in samples():
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(rng.choice((1, 1, 3, 20))):
                at = rng.choice(
                    (rng.randrange(512), rng.randrange(len(damaged)), len(damaged) - 1 - rng.randrange(4096))
                )
                at = max(0, at)
                damaged[at : at + 4] = rng.choice(
                    (rng.randbytes(1), rng.randbytes(4), b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", bytes(4), bytes(300))
                )
            cut = rng.randrange(len(damaged)) if rng.random() < 0.1 else len(damaged)
            try:
                msg_reader.read(bytes(damaged[:cut]))
            except msg_reader.Bad as error:
                assert str(error)


def test_a_damaged_stream_costs_that_stream_alone() -> None:
    mail = b"Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nbody\r\n"
    mail += b"--b\r\nContent-Type: application/x-y; name=a.bin\r\n\r\n" + b"a" * 60_000 + b"\r\n--b--\r\n"
    data = written(item(mail))
    entry = data.rindex("__substg1.0_37010102".encode("utf-16-le"))
    for number in (0x7FFFFFFF, 0xFFFFFFFF):
        found = msg_reader.read(patched(data, (entry + 116, number)))
        assert found.properties[mapi.SUBJECT] == "s" and found.properties[mapi.BODY] == "body"
        assert found.attachments[0].data is None
        assert found.problems == ["__substg1.0_37010102: a stream is cut off"]


def patched(data: bytes, *changes: tuple[int, int]) -> bytes:
    made = bytearray(data)
    for at, value in changes:
        struct.pack_into("<I", made, at, value)
    return bytes(made)


def comes_to_an_end(data: bytes) -> None:
    with contextlib.suppress(msg_reader.Bad):
        msg_reader.read(data)


def test_numbers_of_the_header_do_not_set_the_pace() -> None:
    data = samples()[0]
    for at in (40, 44, 48, 60, 64, 68, 72, 76, 80):
        for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF):
            comes_to_an_end(patched(data, (at, value)))
    comes_to_an_end(patched(data, (44, 0xFFFFFFF0), (68, 0), (72, 0xFFFFFFF0)))


def test_chains_that_run_in_circles_come_to_an_end() -> None:
    root = Storage()
    substg(root, mapi.MESSAGE_CLASS, "IPM.Note".encode("utf-16-le"))
    substg(root, mapi.HTML, bytes(2_000_000))
    data = b"".join(cfb.pieces(root))
    count = len(data) // 512 - 1
    fat = len(data) - 512 * -(-count // 128)
    for sector in (0, 1, count // 2):
        comes_to_an_end(patched(data, *((fat + 4 * number, sector) for number in range(count))))


def test_streams_that_share_their_sectors_do_not_multiply() -> None:
    """A bomb: thousands of streams, each of which says that it is the one big stream."""
    root = Storage()
    substg(root, mapi.MESSAGE_CLASS, "IPM.Note".encode("utf-16-le"))
    big = bytes(1_000_000)
    substg(root, mapi.HTML, big)
    for number in range(3000):
        substg(root, mapi.tag(0x4000 + number, mapi.BINARY), b"x" * 4096)
    data = b"".join(cfb.pieces(root))
    directory = data.index("Root Entry".encode("utf-16-le"))
    start = data[data.index("__substg1.0_10130102".encode("utf-16-le"), directory) + 116 :][:12]
    made = bytearray(data)
    for at in range(directory, directory + 128 * 3000, 128):
        if made[at + 66] == 2:
            made[at + 116 : at + 128] = start
    with pytest.raises(msg_reader.Bad, match="larger than the file"):
        msg_reader.read(bytes(made))


def test_a_tree_that_is_a_list_is_read_however_long() -> None:
    """Some writers do not balance the directory."""
    root = Storage()
    for number in range(5000):
        root.children[f"s{number:05}"] = b"x"
    made = bytearray(b"".join(cfb.pieces(root)))
    directory = made.index("Root Entry".encode("utf-16-le"))
    struct.pack_into("<I", made, directory + 76, 1)
    for number in range(1, 5001):
        right = number + 1 if number < 5000 else 0xFFFFFFFF
        struct.pack_into("<II", made, directory + 128 * number + 68, 0xFFFFFFFF, right)
    compound = cfb_reader.Compound(bytes(made))
    assert len(compound.root.children or {}) == 5000


def test_it_reads_what_olefile_reads() -> None:
    for data in samples():
        compound = cfb_reader.Compound(data)
        with olefile.OleFileIO(io.BytesIO(data)) as ole:
            for path in ole.listdir():
                entry: cfb_reader.Entry | None = compound.root
                for name in path:
                    entry = None if entry is None or entry.children is None else entry.children.get(name.lower())
                assert entry is not None and compound.read(entry) == ole.openstream(path).read()


def test_a_file_cut_off_anywhere_is_bad_or_read() -> None:
    data = samples()[0]
    for size in range(0, len(data), 509):
        comes_to_an_end(data[:size])
