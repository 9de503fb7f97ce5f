"""The words of messages, and an index of them that a page can search without a server.

Knows text and numbers of messages; knows no mail. A page that was opened from a disk can load script files but may not
read any other, so the index is many small scripts, sorted by word: a list of the first word of each tells which ones
hold the words that begin with what was typed. `data/site.js` cuts what is typed by the same rules as `words_of` does
here; where one changes, the other must.

The hard idea is constant memory: postings are gathered until there are RUN_MAX, written as a sorted run, and the runs
are merged at the end. A posting list is differences of numbers in printable characters, so that runs are joined by
writing one more difference between them; no list is ever decoded here.
"""

import functools
import heapq
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec

LENGTH_MAX: Final = 24  # characters of a word that count
RUN_MAX: Final = 1_000_000  # postings in memory
SHARD_SIZE: Final = 64 << 10  # characters of a script, roughly

# Digits of a difference: 46 that end a number and 46 that do not. All printable ASCII but `"`, `\` and `<`.
_DIGITS: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\<')
_BASE: Final = 46

# Scripts that put no spaces between words: every two neighbours are a word, and the last letter is one too.
# Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_PICTURES: Final = "\u2600-\u27bf\U0001f300-\U0001faff"
# Accents of Latin, Greek and Cyrillic, points of Hebrew, vowels of Arabic: nobody types them to find a word.
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u0655\u0670\u0640]")
_ASCII_WORD = re.compile(r"[a-z0-9]+")


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    r"""A row of unspaced letters, a picture, or a word: letters, digits and the marks on them, which `\w` lacks."""
    marks = [code for code in range(0x300, 0x11A00) if unicodedata.category(chr(code)).startswith("M")]
    classes = "".join(map(chr, marks))
    return re.compile(f"([{_UNSPACED}]+)|([{_PICTURES}])|(?:(?![{_UNSPACED}])[^\\W_]|[{classes}])+")


def fold(text: str) -> str:
    """Text as it is compared: lower case, without accents, compatibility characters unified."""
    text = text.lower()
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text).lower().replace("ß", "ss").replace("ς", "σ")
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))


def words_of(text: str) -> set[str]:
    """The words of a text, folded and cut to LENGTH_MAX."""
    text = fold(text)
    if text.isascii():
        return {word[:LENGTH_MAX] for word in _ASCII_WORD.findall(text)}
    words: set[str] = set()
    for match in _word_pattern().finditer(text):
        row = match[1]
        if row is None:
            words.add(match[0][:LENGTH_MAX])
        else:
            words.update(row[at : at + 2] for at in range(len(row)))
    return words


def _encode(difference: int) -> str:
    digits = ""
    while difference >= _BASE:
        digits += _DIGITS[_BASE + difference % _BASE]
        difference //= _BASE
    return digits + _DIGITS[difference]


_SHORT: Final = tuple(_encode(number) for number in range(_BASE * _BASE))


def encode(difference: int) -> str:
    """A number from 0 as printable characters, lowest digit first."""
    return _SHORT[difference] if difference < len(_SHORT) else _encode(difference)


class WordIndex:
    """Takes the words of messages in the order of their numbers; `shards` then gives the scripts' contents."""

    def __init__(self, scratch: Path) -> None:
        """`scratch`: an empty directory for runs."""
        self._scratch = scratch
        self._lists: dict[str, list[int]] = {}
        self._count = 0
        self._runs: list[Path] = []

    def add(self, number: int, words: list[str]) -> None:
        lists = self._lists
        for word in words:
            numbers = lists.get(word)
            if numbers is None:
                lists[word] = [number]
            else:
                numbers.append(number)
        self._count += len(words)
        if self._count >= RUN_MAX:
            self._flush()

    def _flush(self) -> None:
        """Write a run: a line a word with the first number, the last, and the differences between."""
        path = self._scratch / f"run-{len(self._runs)}"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for word in sorted(self._lists):
                numbers = self._lists[word]
                between = "".join([encode(b - a) for a, b in pairwise(numbers)])
                file.write(f"{word}\t{numbers[0]}\t{numbers[-1]}\t{between}\n")
        self._runs.append(path)
        self._lists = {}
        self._count = 0

    def shards(self) -> Iterator[tuple[str, bytes]]:
        """Each script's (first word, JSON list of word, numbers, word, numbers …), sorted by word."""
        if self._lists:
            self._flush()
        batch: list[str] = []
        size = 0
        for word, numbers in self._merged():
            batch += (word, numbers)
            size += len(word) + len(numbers) + 6
            if size >= SHARD_SIZE:
                yield batch[0], msgspec.json.encode(batch)
                batch, size = [], 0
        if batch:
            yield batch[0], msgspec.json.encode(batch)

    def _merged(self) -> Iterator[tuple[str, str]]:
        present: str | None = None
        pieces: list[str] = []
        last = 0
        for word, first, end, between in heapq.merge(*map(_read, self._runs), key=itemgetter(0)):
            if word != present:
                if present is not None:
                    yield present, "".join(pieces)
                present, pieces, last = word, [], 0
            pieces += (encode(first - last), between)
            last = end
        if present is not None:
            yield present, "".join(pieces)


def _read(path: Path) -> Iterator[tuple[str, int, int, str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            word, first, last, between = line.rstrip("\n").split("\t")
            yield word, int(first), int(last), between
