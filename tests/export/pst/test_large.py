"""A PST over 2 GB, and one of 100,000 messages, through all readers. Only with MAILKEEP_TORTURE=full: it takes minutes.

The writer runs as a child, so that its memory is its own; the figures are printed (pytest -s shows them).
"""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailkeep.export.pst import count
from mailkeep.export.pst.ndb import FIRST_SECTION, PAGE, SECTION, map_pages
from tests.export.pst import strangers
from tests.export.pst.check import check
from tests.export.pst.written import INBOX, begin, expected, messages
from tests.messages import numbered

ROOT = Path(__file__).resolve().parents[3]
MEMORY_MAX_KIB = 300 << 10
RATE_MIN = 200  # messages/s asked of PST; a floor that a busy machine reaches too

pytestmark = pytest.mark.skipif(os.environ.get("MAILKEEP_TORTURE") != "full", reason="MAILKEEP_TORTURE=full only")

WRITE = """
import random, resource, sys, time
from pathlib import Path
from mailkeep.export.pst import make
from mailkeep.export.writer import Folder, Message, Options
from tests.messages import numbered

place, count, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder = Folder("INBOX", ("INBOX",))
noise = random.Random(1).randbytes(size * 3 // 4)
import base64
lines = base64.encodebytes(noise).replace(b"\\n", b"\\r\\n")
def mail(number):
    data = numbered(number)
    if not size:
        return data
    kind = b"MIME-Version: 1.0\\r\\nContent-Type: multipart/mixed; boundary=b\\r\\nMessage-ID:"
    head = data.replace(b"Message-ID:", kind)
    head, body = head.split(b"\\r\\n\\r\\n", 1)
    part = b"Content-Type: application/octet-stream\\r\\nContent-Transfer-Encoding: base64\\r\\n"
    part += b"Content-Disposition: attachment; filename=a.bin\\r\\n\\r\\n" + lines
    return b"\\r\\n".join([head, b"", b"--b", b"", body, b"--b", part + b"--b--", b""])
began = time.monotonic()
writer = make(place, Options(folders=(folder,)), None)
writer.folder(folder)
batch = []
for number in range(1, count + 1):
    batch.append(Message(number, folder, number, frozenset(), 1_700_000_000 + number, mail(number)))
    if len(batch) * (size + 1) > 8 << 20 or len(batch) == 64:
        writer.write(batch)
        batch = []
writer.write(batch)
writer.checkpoint()
written = time.monotonic()
writer.finish()
ended = time.monotonic()
print(round(written - began, 1), round(ended - written, 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize(("number", "size"), [(100_000, 0), (1_500, 2_000_000)])
def test_all_readers_find_every_message(tmp_path: Path, number: int, size: int) -> None:
    place = tmp_path / "large.pst"
    written = subprocess.run(
        [sys.executable, "-c", WRITE, str(place), str(number), str(size)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert written.returncode == 0, written.stderr
    writing_s, finish_s, memory_kib = map(float, written.stdout.split())
    megabytes = place.stat().st_size >> 20
    print(f"\n{number} messages, {megabytes} MiB: {writing_s} s, finish {finish_s} s, {memory_kib / 1024:.0f} MiB")
    assert memory_kib < MEMORY_MAX_KIB
    if size:
        assert place.stat().st_size > 2 << 30
    checker = check(place)
    assert checker.errors == []
    assert sum(checker.counts.values()) == number
    for name, counted in {"pypff": _pypff, "pst-extractor": _extractor, "pypstreader": _pypstreader}.items():
        began = time.monotonic()
        assert counted(place) == number, name
        print(f"{name}: {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    assert sum(strangers.by_readpst(place, tmp_path).values()) == number
    print(f"readpst: {time.monotonic() - began:.0f} s")


def test_beyond_twelve_gigabytes(tmp_path: Path) -> None:
    """A file with a hole, all of which its maps call free: what lies behind is found, and each map is in its place."""
    place = tmp_path / "a.pst"
    mail = messages(INBOX, [numbered(number) for number in range(300)])
    writer = begin(place, [INBOX])
    writer.folder(INBOX)
    writer.write(mail[:100])
    state = json.loads(writer.checkpoint())
    writer.abandon()
    known = state["database"]
    sections = (12 << 30) // SECTION
    with place.with_name("a.pst.free").open("ab") as file:
        for section in range(sections):
            start = FIRST_SECTION + section * SECTION
            begins = max(known["end"], start + PAGE * map_pages(section))
            file.write(struct.pack("<QQ", begins, start + SECTION - begins))
        known["free"] = file.tell()
    known["end"] = FIRST_SECTION + sections * SECTION
    os.truncate(place, known["end"])
    writer = begin(place, [INBOX], json.dumps(state).encode())
    writer.folder(INBOX)
    writer.write(mail[100:])
    writer.finish()
    checker = check(place)
    assert checker.errors == []
    assert count(place) == 300
    assert [one.subject for one in strangers.by_pypff(place)[1]] == [expected(message).subject for message in mail]
    assert sum("subject" in line for line in strangers.by_pypstreader(place)) == 300
    assert sum("subject" in line for line in strangers.by_extractor(place)) == 300


def _pypff(place: Path) -> int:
    folders, messages = strangers.by_pypff(place)
    assert len({message.subject for message in messages}) == len(messages)
    assert all(len(message.attachments) == len(messages[0].attachments) for message in messages)
    assert len({json.dumps(message.attachments) for message in messages}) == 1
    return sum(folders.values())


def _extractor(place: Path) -> int:
    return sum("subject" in line for line in strangers.by_extractor(place))


def _pypstreader(place: Path) -> int:
    return sum(line["count"] for line in strangers.by_pypstreader(place) if "count" in line)
