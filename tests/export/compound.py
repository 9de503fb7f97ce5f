"""Reads a compound file by the letter of [MS-CFB], and fails on whatever the letter forbids. Shares no code with the
writer: tables and trees are walked here the long way."""

import struct
from dataclasses import dataclass, field

FREE, END, FAT, DIFAT, NONE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC, 0xFFFFFFFF
Tree = dict[str, "bytes | Tree"]


@dataclass
class Entry:
    name: str
    kind: int
    colour: int
    left: int
    right: int
    child: int
    class_id: bytes
    start: int
    size: int


@dataclass
class Compound:
    data: bytes
    version: int = 0
    used: set[int] = field(default_factory=set)  # sectors that belong to something
    mini_used: set[int] = field(default_factory=set)
    visited: set[int] = field(default_factory=set)  # entries of the directory

    def read(self) -> Tree:
        """All streams by name, storages as dictionaries."""
        data = self.data
        assert data[:8] == bytes.fromhex("d0cf11e0a1b11ae1") and data[8:24] == bytes(16)
        minor, self.version, order, shift, mini_shift = struct.unpack_from("<HHHHH", data, 24)
        assert (minor, order, mini_shift) == (0x3E, 0xFFFE, 6) and data[34:40] == bytes(6)
        assert (self.version, shift) in ((3, 9), (4, 12))
        self.sector = 1 << shift
        assert data[76 + 436 : self.sector] == bytes(self.sector - 512)
        assert len(data) % self.sector == 0
        (
            dir_count,
            fat_count,
            dir_first,
            transaction,
            cutoff,
            mini_first,
            mini_count,
            difat_first,
            difat_count,
        ) = struct.unpack_from("<9I", data, 40)
        assert transaction == 0 and cutoff == 4096
        self.fat = self.read_fat(fat_count, difat_first, difat_count)
        directory = self.chain(dir_first)
        assert dir_count == (0 if self.version == 3 else len(directory) // self.sector)
        self.entries = [entry_of(directory[at : at + 128]) for at in range(0, len(directory), 128)]
        root = self.entries[0]
        assert (root.name, root.kind, root.left, root.right) == ("Root Entry", 5, NONE, NONE)
        self.mini_fat = struct.unpack(f"<{mini_count * self.sector // 4}I", self.chain(mini_first, mini_count))
        self.mini = self.chain(root.start) if root.size else b""
        assert len(self.mini) - root.size in range(self.sector) and root.size % 64 == 0
        tree = self.storage(root)
        unused = [entry for number, entry in enumerate(self.entries) if number and number not in self.visited]
        assert all(entry.kind == 0 and entry.size == 0 and entry.name == "" for entry in unused)
        assert len(unused) < self.sector // 128
        self.check_tables()
        return tree

    def read_fat(self, fat_count: int, difat_first: int, difat_count: int) -> list[int]:
        listed = list(struct.unpack_from("<109I", self.data, 76))
        at = difat_first
        for _ in range(difat_count):
            self.use(at)
            numbers = struct.unpack(f"<{self.sector // 4}I", self.sector_at(at))
            listed += numbers[:-1]
            at = numbers[-1]
        assert at == END
        assert FREE not in listed[:fat_count] and set(listed[fat_count:]) <= {FREE}
        table: list[int] = []
        for number in listed[:fat_count]:
            self.use(number)
            table += struct.unpack(f"<{self.sector // 4}I", self.sector_at(number))
        assert all(table[number] == FAT for number in listed[:fat_count])
        assert table.count(FAT) == fat_count and table.count(DIFAT) == difat_count
        return table

    def check_tables(self) -> None:
        """Every sector is used exactly once, and no table says anything of one that is not there."""
        count = len(self.data) // self.sector - 1
        assert self.used == set(range(count))
        assert set(self.fat[count:]) <= {FREE} and FREE not in self.fat[:count]
        minis = len(self.mini) // 64
        assert self.mini_used == {number for number in range(minis) if self.mini_fat[number] != FREE}
        assert set(self.mini_fat[max(self.mini_used, default=-1) + 1 :]) <= {FREE}

    def sector_at(self, number: int) -> bytes:
        found = self.data[(number + 1) * self.sector : (number + 2) * self.sector]
        assert len(found) == self.sector
        return found

    def use(self, number: int) -> None:
        assert number not in self.used
        self.used.add(number)

    def chain(self, at: int, count: int | None = None) -> bytes:
        found = []
        while at != END:
            self.use(at)
            found.append(self.sector_at(at))
            at = self.fat[at]
        assert count is None or len(found) == count
        return b"".join(found)

    def mini_chain(self, at: int) -> bytes:
        found = []
        while at != END:
            assert at not in self.mini_used
            self.mini_used.add(at)
            found.append(self.mini[at * 64 : at * 64 + 64])
            at = self.mini_fat[at]
        return b"".join(found)

    def storage(self, owner: Entry) -> Tree:
        tree: Tree = {}
        if owner.child != NONE:
            assert self.entries[owner.child].colour == 1
            self.subtree(owner.child, tree)
        names = list(tree)
        keys = [(len(name), name.upper()) for name in names]
        assert keys == sorted(keys) and len(set(keys)) == len(keys)
        return tree

    def subtree(self, number: int, tree: Tree) -> int:
        """Add what is below an entry, in order; the number of black entries on each way down, which is the same."""
        if number == NONE:
            return 0
        assert number not in self.visited
        self.visited.add(number)
        entry = self.entries[number]
        below = [self.entries[side] for side in (entry.left, entry.right) if side != NONE]
        assert entry.colour == 1 or all(child.colour == 1 for child in below)
        blacks = self.subtree(entry.left, tree)
        tree[entry.name] = self.content(entry)
        assert blacks == self.subtree(entry.right, tree)
        return blacks + entry.colour

    def content(self, entry: Entry) -> "bytes | Tree":
        if entry.kind == 1:
            assert entry.size == entry.start == 0
            return self.storage(entry)
        assert entry.kind == 2 and entry.child == NONE and entry.class_id == bytes(16)
        if entry.size == 0:
            assert entry.start == END
            return b""
        unit, data = (64, self.mini_chain(entry.start)) if entry.size < 4096 else (self.sector, self.chain(entry.start))
        assert 0 <= len(data) - entry.size < unit
        return data[: entry.size]


def entry_of(raw: bytes) -> Entry:
    size, kind, colour, left, right, child, class_id, state, *times, start, length = struct.unpack_from(
        "<HBBIII16sIQQIQ", raw, 64
    )
    assert state == 0 and times == [0, 0]
    if kind == 0:
        assert (size, left, right, child) == (0, NONE, NONE, NONE)
        return Entry("", 0, colour, left, right, child, class_id, start, length)
    name = raw[: size - 2].decode("utf-16-le")
    assert raw[size - 2 : 64] == bytes(66 - size)
    return Entry(name, kind, colour, left, right, child, class_id, start, length)


def read(data: bytes) -> Tree:
    return Compound(data).read()
