"""Compound files are as [MS-CFB] has them: by a strict check of our own, and by olefile."""

import io
import random

import olefile
import pytest

from mailkeep.export import cfb
from mailkeep.export.cfb import Storage
from tests.export import compound

SIZES = (0, 1, 63, 64, 65, 511, 512, 4095, 4096, 4097, 8192, 100_000)


def written(root: Storage, version: int | None = None) -> bytes:
    return b"".join(cfb.pieces(root, version=version))


def flat(sizes: tuple[int, ...]) -> Storage:
    root = Storage()
    rng = random.Random(7)
    for number, size in enumerate(sizes):
        root.children[f"stream {number}"] = rng.randbytes(size)
    return root


def as_tree(storage: Storage) -> compound.Tree:
    return {name: inner if isinstance(inner, bytes) else as_tree(inner) for name, inner in storage.children.items()}


def by_olefile(data: bytes) -> dict[str, bytes]:
    with olefile.OleFileIO(io.BytesIO(data), raise_defects=olefile.DEFECT_POTENTIAL) as ole:
        assert not ole.parsing_issues
        return {"/".join(path): ole.openstream(path).read() for path in ole.listdir()}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("sizes", [(), *((size,) for size in SIZES), SIZES, SIZES * 20])
def test_streams_of_all_sizes_come_back(sizes: tuple[int, ...], version: int) -> None:
    root = flat(sizes)
    data = written(root, version)
    assert compound.read(data) == as_tree(root)
    assert by_olefile(data) == root.children


@pytest.mark.parametrize("count", [*range(1, 20), 31, 32, 33, 127, 128, 255, 256, 257, 1000, 4097])
def test_a_directory_is_a_red_black_tree_whatever_its_size(count: int) -> None:
    root = Storage()
    for number in range(count):
        root.children[f"{number * 7919 % 10007:X}"] = b""
    assert compound.read(written(root)) == as_tree(root)


def test_names_are_ordered_by_length_and_then_by_upper_case() -> None:
    root = Storage()
    for name in ("b", "A", "aa", "_", "Z", "AB", "ba", "\x01Ole", "a" * 31):
        root.children[name] = name.encode()
    assert list(compound.read(written(root))) == ["A", "b", "Z", "_", "aa", "AB", "ba", "\x01Ole", "a" * 31]


def test_storages_nest() -> None:
    top = Storage(bytes(range(16)))
    at = top
    for depth in range(60):
        at.children["here"] = b"%d" % depth * 40
        at.children["big"] = bytes(5000)
        at.children["empty"] = Storage()
        at.children["deeper"] = at = Storage()
    data = written(top)
    file = compound.Compound(data)
    assert file.read() == as_tree(top)
    assert file.entries[0].class_id == bytes(range(16))


# A FAT of 109 sectors, the most that the header lists, is 7,143,424 bytes; 127 more have one DIFAT sector.
@pytest.mark.parametrize("size", [7_080_000, 7_085_000, 7_090_000, 15_400_000, 15_500_000])
def test_a_big_file_has_more_allocation_tables_than_the_header_can_list(size: int) -> None:
    root = Storage()
    root.children["a"] = bytes(range(256)) * (size // 256)
    root.children["b"] = b"small"
    data = written(root)
    assert compound.read(data) == root.children
    assert by_olefile(data) == root.children


def test_every_size_around_the_first_allocation_table_outside_the_header() -> None:
    sectors = []
    for size in range(109 * 128 - 115, 109 * 128 - 105):
        root = Storage()
        root.children["a"] = bytes(size * 512)
        data = written(root)
        assert compound.read(data) == root.children
        sectors.append(len(data) // 512 - size)
    assert max(sectors) - min(sectors) == 2  # one more FAT sector, and the DIFAT sector with its number


def test_a_big_stream_is_not_copied() -> None:
    root = Storage()
    root.children["a"] = data = bytes(1_000_000)
    assert any(piece is data for piece in cfb.pieces(root))


def test_it_is_the_same_every_time() -> None:
    assert written(flat(SIZES)) == written(flat(SIZES))


def test_what_is_too_big_for_version_3_is_version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cfb, "VERSION_3_MAX", 10_000)
    root = flat((9000, 900))
    assert written(root)[26] == 3
    root.children["more"] = bytes(9000)
    data = written(root)
    assert data[26] == 4
    assert compound.read(data) == as_tree(root)
