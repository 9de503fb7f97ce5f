"""The lower layers by themselves: places in the file, the cipher, heaps of any size, the map of names."""

import random
from pathlib import Path

import pytest

from mailkeep.export import mapi
from mailkeep.export.pst import ndb
from mailkeep.export.pst.crypt import DECODE, ENCODE, crc, signature
from mailkeep.export.pst.heap import TREE, Heap, Tree
from mailkeep.export.pst.ltp import encode, write_properties
from mailkeep.export.pst.ndb import FIRST_SECTION, PAGE, SECTION, Database, fmap_stands, fpmap_stands, map_pages
from mailkeep.export.pst.spool import Spool
from mailkeep.export.pst.tables import ATTACHMENTS, CONTENTS, HIERARCHY, RECIPIENTS


def test_the_cipher_is_undone() -> None:
    every = bytes(range(256))
    assert every.translate(ENCODE).translate(DECODE) == every
    assert sorted(ENCODE) == list(range(256))
    assert ENCODE[:4] == bytes((0x41, 0x36, 0x13, 0x62))


def test_checksum_and_signature() -> None:
    assert crc(b"") == 0
    assert crc(b"123456789") == 0x2DFD2D88  # by section 5.3's own table, without the usual first and last step
    assert signature(0x12345678, 0) == 0x1234 ^ 0x5678
    assert signature(0x1_0000_0000, 4) == 4


@pytest.mark.parametrize(
    ("offset", "stands"), [(0x1F04400, fmap_stands), (0x7C004400, fpmap_stands)], ids=["first FMap", "first FPMap"]
)
def test_where_the_maps_of_large_files_stand(offset: int, stands: object) -> None:
    section = (offset - FIRST_SECTION) // SECTION
    assert (offset - FIRST_SECTION) % SECTION == 0
    assert callable(stands)
    assert [at for at in range(section + 1) if stands(at)] == [section]
    assert map_pages(section) == 3  # AMap, PMap and this one


def test_no_section_has_both_maps() -> None:
    assert not [section for section in range(1_000_000) if fmap_stands(section) and fpmap_stands(section)]


def test_blocks_never_touch_a_map(tmp_path: Path, rng: random.Random) -> None:
    database = Database(tmp_path / "a", {})
    places = []
    for _ in range(300):
        database.block(bytes(rng.randrange(1, ndb.BLOCK_MAX + 1)))
        places.append(database.end)
    end = 0
    for record in database.blocks.records(24):
        at, size = int.from_bytes(record[8:16], "little"), int.from_bytes(record[16:18], "little")
        total = size + 79 & ~63
        assert at >= end and at % 64 == 0
        section = (at - FIRST_SECTION) // SECTION
        assert at - FIRST_SECTION - section * SECTION >= PAGE * map_pages(section)
        assert (at + total - 1 - FIRST_SECTION) // SECTION == section
        end = at + total
    database.close()


def test_a_state_right_at_the_end_of_a_section(tmp_path: Path) -> None:
    """The next section is not begun then, and its maps are still to be left room for."""
    place = tmp_path / "a"
    database = Database(place, {})
    room = SECTION - PAGE * map_pages(0)
    while room:
        total = min(room, 8192)
        database.block(bytes(total - 16))
        room -= total
    assert (database.end - FIRST_SECTION) % SECTION == 0
    state = database.state()
    database.close()
    again = Database(place, state)
    again.block(b"x")
    assert again.end == FIRST_SECTION + SECTION + PAGE * map_pages(1) + 64
    again.close()


@pytest.mark.parametrize("count", [0, 1, 447, 448, 10_000, 200_000])
def test_trees_of_any_height(tmp_path: Path, count: int) -> None:
    """200,000 records are more than 1,000 blocks, two levels, and several blocks with fill levels."""
    database = Database(tmp_path / "a", {})
    heap = Heap(database, TREE)
    header = heap.add(bytes(8))
    tree = Tree(heap, 4, 4)
    for number in range(count):
        tree.add(number.to_bytes(4, "little") + b"data")
    packed = tree.header()
    heap.replace(header, packed)
    data, size = heap.finish(header)
    assert data and size >= 8 * count
    assert packed[3] == (0 if count <= 447 else 1 if count <= 447 * 447 else 2)
    database.close()


def test_more_properties_than_there_is_room_for_are_left_out(tmp_path: Path) -> None:
    database = Database(tmp_path / "a", {})
    values = encode({0x6000_0000 + (number << 16) | mapi.INTEGER32: number for number in range(2000)})
    assert write_properties(database, values).data
    database.close()


def test_the_layouts_are_as_wide_as_outlooks() -> None:
    widths = [layout.row_size for layout in (HIERARCHY, CONTENTS, ATTACHMENTS, RECIPIENTS)]
    assert widths == [55, 126, 25, 56]


def test_a_spool_gives_back_its_records(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a", 0)
    records = [bytes([number % 256]) * (number * 7 % 300) for number in range(5000)]
    for record in records:
        spool.add_framed(record)
    spool.sync()
    assert list(spool.framed(0, spool.size)) == records
    size = spool.size
    spool.add(b"beyond")
    spool.close()
    again = Spool(tmp_path / "a", size)
    assert list(again.framed(0, size)) == records
    assert b"".join(again.records(100)) == (tmp_path / "a").read_bytes()
    again.close()
