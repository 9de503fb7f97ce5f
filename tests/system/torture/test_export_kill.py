"""kill -9 of an export at each step that it makes on the disk, and a disk that is full or broken; for each format.

Then the same command again: what comes out is what comes out of an export that nobody disturbed. In the short form a
few steps of each format, others in each run; in the long form all of them.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.store.store import Store
from tests.export.fill import fill
from tests.messages import bulk, ugly
from tests.steps import KILLS, How, Nursery
from tests.system.torture.scenes import some

STEPS_SHORT, TROUBLES_SHORT = 2, 1
# Format and options; those that start other programs, and take long, only in the long form.
SCENES = {
    "eml": ("eml",),
    "zip": ("eml", "--per", "all"),
    "zip by size": ("eml", "--per", "all", "--split", "1M"),
    "eml by year": ("eml", "--split", "year"),
    "mbox": ("mbox",),
    "one mbox": ("mbox", "--per", "all"),
    "maildir": ("maildir",),
    "html": ("html",),
    "mht": ("mht",),
    "msg": ("msg",),
    "pst": ("pst",),
    "pst by year": ("pst", "--split", "year"),
}
SLOW = {"pdf": ("pdf",), "pdf of folders": ("pdf", "--per", "folder")}
TUNE = """
from mailkeep.export import exporter, reading
exporter.CHECKPOINT_S = exporter.CHECKPOINT_SHARE = 0.0
reading.BATCH_MESSAGES = 6
import uuid
uuid.uuid4 = lambda: uuid.UUID(int=7)  # a PST has a key of its own, which no other one may have
"""


@pytest.fixture(scope="module")
def nursery(library: Path) -> Iterator[Nursery]:
    with Nursery(library, tune=TUNE) as ready:
        yield ready


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ordinary and ugly mail of two years in four folders, and empty ones."""
    root = tmp_path_factory.mktemp("store") / "data"
    mail = [
        *bulk(20),
        *(data for _, data in ugly()[:12]),
        b"Subject: big\r\n\r\n" + random.Random(1).randbytes(700_000),
    ]
    names = ("INBOX", "Work", "Work/Clients", "Été")
    with_names = [
        (names[number % 4], body, 1_690_000_000 + number % 2 * 20_000_000 + number) for number, body in enumerate(mail)
    ]
    store = Store.open(root)
    store.directory.add("ann")
    fill(store.account("ann"), [(name, body, when, frozenset({"\\Seen"})) for name, body, when in with_names])
    store.close()
    return root


class Stage:
    """One export, played over and over into an empty directory."""

    def __init__(self, nursery: Nursery, data: Path, place: Path) -> None:
        self.nursery, self.data, self.place = nursery, data, place

    def clear(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def play(self, scene: tuple[str, ...], *, at: int = 0, how: How = "before") -> tuple[int, int, str]:
        """Exit code (below zero: killed), steps, what it said."""
        arguments = ("export", "ann", "--to", *scene, str(self.place / "out"), "--json", "--data", str(self.data))
        run = self.nursery.run(self.place, *arguments, at=at, how=how)
        return run.code, run.steps, run.out + run.err

    def ends_well(self, scene: tuple[str, ...], expected: dict[str, str], told: str) -> None:
        code, _, said = self.play(scene)
        if code == 2 and "is there already" in said:  # it was killed when it had only to clear up
            code = 0
        else:
            (result,) = [line for line in said.splitlines() if line.startswith('{"event": "done"')]
            facts = json.loads(result)
            assert facts["complete"] and facts["listed"] == facts["exported"] == facts["counted"] == 33, told
        assert code == 0, f"{told}: {said}"
        assert look(self.place) == expected, told


@pytest.fixture
def stage(nursery: Nursery, data: Path, tmp_path: Path) -> Stage:
    stage = Stage(nursery, data, tmp_path / "place")
    stage.clear()
    return stage


def look(place: Path) -> dict[str, str]:
    """Hashes of all files below, but for the moment at which the list of messages was made."""
    found = {}
    for file in sorted(place.rglob("*")):
        data = file.read_bytes() if file.is_file() else b"(a folder)"
        if file.name.endswith("manifest.jsonl"):
            head, _, rest = data.partition(b"\n")
            data = json.dumps({**json.loads(head), "listed": ""}).encode() + rest
        found[str(file.relative_to(place))] = hashlib.sha256(data).hexdigest()
    return found


@pytest.mark.parametrize("name", [*SCENES, *SLOW])
def test_killed_at_any_step_the_same_command_ends_it(
    stage: Stage, name: str, *, rng: random.Random, full: bool
) -> None:
    if name in SLOW and not full:
        pytest.skip("takes long: only in the long form")
    scene = SCENES.get(name) or SLOW[name]
    code, steps, said = stage.play(scene)
    assert code == 0, said
    expected = look(stage.place)
    killed = 0
    rng = random.Random(f"{rng.random()} {name}")
    for number in some(steps, STEPS_SHORT, rng, full=full and name in SCENES):
        how = rng.choice(KILLS)
        stage.clear()
        code, _, said = stage.play(scene, at=number, how=how)
        assert code in (-9, 0), said
        killed += code == -9
        stage.ends_well(scene, expected, f"{name}, killed {how} step {number} of {steps}")
    assert killed
    for number in some(steps, TROUBLES_SHORT, rng, full=full and name in SCENES):
        how = rng.choice(("full", "io"))
        stage.clear()
        code, _, said = stage.play(scene, at=number, how=how)
        assert code in (0, 73), f"{name}, {how} at step {number}: {said}"
        if code:
            assert "give the same command again" in said or "is there" in said, said
        if code or not (stage.place / "out").exists():
            stage.ends_well(scene, expected, f"{name}, {how} at step {number} of {steps}")


def test_killed_again_and_again_it_comes_to_its_end(stage: Stage, rng: random.Random) -> None:
    name = rng.choice(list(SCENES))
    assert stage.play(SCENES[name])[0] == 0
    expected = look(stage.place)
    stage.clear()
    for number in range(200):
        code, _, said = stage.play(SCENES[name], at=rng.randrange(20, 60), how=rng.choice(KILLS))
        if code == 0 or "is there already" in said:
            break
        assert code == -9, f"{name}, time {number}: {said}"
    assert look(stage.place) == expected, name
