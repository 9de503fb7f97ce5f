"""The line to a server cut at each command, and anywhere in the octets of both directions; the next run ends it.

A run whose line is cut goes on by itself as far as it can, or ends with what it has and an exit code that says so; it
never hangs, never fails as a fault of our own, and never believes half of a message. In the short form a few cuts of
each scene, others in each run; in the long form each command in three ways, and many places of the line.
"""

import random
from pathlib import Path

import pytest

from mailkeep.testing import Break, Cut
from tests.steps import Nursery, Run
from tests.system.torture.scenes import SCENES, Scene, Stage, own, some

WHEN = ("before", "middle", "after")
# Ended well, something is missing, cannot be reached, refused for now, refused.
CODES = (0, 1, 69, 75, 76)
PLACES_FULL = 120


def ended_in_words(run: Run) -> None:
    assert run.code in CODES, run.out + run.err
    assert run.code == 0 or run.err, "a failure without a word"


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_cut_at_any_command_the_next_run_ends_it(
    scene: Scene, nursery: Nursery, tmp_path: Path, rng: random.Random, full: bool
) -> None:
    rng = own(rng, scene)
    stage = Stage(scene, nursery, tmp_path, thorough=full)
    _, commands = stage.whole()
    codes = []
    for number in some(commands, 1, rng, full=full):
        for when in WHEN if full else (rng.choice(WHEN),):
            with stage.set():
                # Once, or until the client gives up.
                times = rng.choice((1, 1, 8))
                stage.target.change(breaks=(Break(nth=number, when=when, times=times, bye=times > 1),))  # type: ignore[arg-type]
                run = stage.play()
                ended_in_words(run)
                codes.append(run.code)
                stage.target.change(breaks=())
                stage.ends_well(f"{scene}, {times} cuts {when} command {number} of {commands}")
    print(f"{scene}: {len(codes)} cuts at commands, {codes.count(0)} healed by the same run")


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_cut_at_any_octet_the_next_run_ends_it(
    scene: Scene, nursery: Nursery, tmp_path: Path, rng: random.Random, full: bool
) -> None:
    rng = own(rng, scene)
    stage = Stage(scene, nursery, tmp_path, far=True, thorough=full)
    stage.whole()
    proxy = stage.proxy
    assert proxy is not None
    passed, cuts = dict(proxy.passed), []
    for _ in range(PLACES_FULL if full else 1):
        direction = rng.choice(("up", "down", "down"))
        with stage.set():
            cuts.append(Cut(after=rng.randrange(1, passed[direction] + 1), direction=direction, times=1))  # type: ignore[arg-type,index]
            proxy.cuts = (cuts[-1],)
            run = stage.play()
            ended_in_words(run)
            proxy.cuts = ()
            stage.ends_well(f"{scene}, {cuts[-1]}")
    print(f"{scene}: {len(cuts)} cuts on the line, {proxy.cut_count} struck")
