"""A disk that is full, or fails, at any step of a run of the backup: it ends in words, and loses nothing it has said.

Then there is room again, and the same command ends the work. At the server nothing is deleted that is not here.
"""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.steps import How
from tests.system.torture.scenes import SCENES, Scene, Stage, own, some

# All was done before; something is missing; it cannot be written to; it is full.
CODES = (0, 1, 73, 74)
HOWS: tuple[How, ...] = ("full", "io")


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_without_a_disk_it_ends_in_words_and_later_well(
    scene: Scene, stage_of: Callable[[Scene], Stage], rng: random.Random, full: bool
) -> None:
    rng = own(rng, scene)
    stage = stage_of(scene)
    steps = stage.steps
    codes: list[int] = []
    for number in some(steps, 80 if full else 1, rng, full=False):
        how = rng.choice(HOWS)
        with stage.set():
            run = stage.play(at=number, how=how)
            told = f"{scene}, disk {how} at step {number} of {steps}"
            assert run.code in CODES, f"{told}: {run.code} {run.out}{run.err}"
            assert run.code == 0 or run.err, f"{told}: a failure without a word"
            assert "Traceback" not in run.err, f"{told}: {run.err}"
            codes.append(run.code)
            stage.ends_well(told)
    print(f"{scene}: {len(codes)} times without a disk, {dict(Counter(codes))} by exit code")
