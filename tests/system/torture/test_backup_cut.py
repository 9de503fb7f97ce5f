"""The line to a server cut at each command, and anywhere in the octets of both directions; the next run ends it.

A run whose line is cut goes on by itself as far as it can, or ends with what it has and an exit code that says so; it
never hangs, never fails as a fault of our own, and never believes half of a message. In the short form a few cuts of
each scene, others in each run; in the long form each command in three ways, and many places of the line.
"""

import random
from collections.abc import Callable
from typing import Literal

import pytest

from mailkeep.testing import Break, Cut
from mailkeep.testing.proxy import Direction
from tests.steps import Run
from tests.system.torture.scenes import SCENES, Scene, Stage, own, some

When = Literal["before", "middle", "after"]
WHEN: tuple[When, ...] = ("before", "middle", "after")
WAYS: tuple[Direction, ...] = ("up", "down", "down")
# Ended well, something is missing, cannot be reached, refused for now, refused.
CODES = (0, 1, 69, 75, 76)
PLACES_FULL = 120


def ended_in_words(run: Run) -> None:
    assert run.code in CODES, run.out + run.err
    assert run.code == 0 or run.err, "a failure without a word"


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_cut_anywhere_the_next_run_ends_it(
    scene: Scene, stage_of: Callable[[Scene], Stage], rng: random.Random, full: bool
) -> None:
    rng = own(rng, scene)
    stage = stage_of(scene)
    chosen = rng.randrange(2)
    if full or chosen == 0:
        cut_at_commands(stage, rng, full=full)
    if full or chosen == 1:
        cut_at_octets(stage, rng, full=full)


def cut_at_commands(stage: Stage, rng: random.Random, *, full: bool) -> None:
    codes = []
    for number in some(stage.commands, 1, rng, full=full):
        for when in WHEN if full else (rng.choice(WHEN),):
            with stage.set():
                times = rng.choice((1, 1, 8))  # once, or until the client gives up
                stage.target.change(breaks=(Break(nth=number, when=when, times=times, bye=times > 1),))
                run = stage.play()
                ended_in_words(run)
                codes.append(run.code)
                stage.target.change(breaks=())
                stage.ends_well(f"{stage.scene}, {times} cuts {when} command {number} of {stage.commands}")
    print(f"{stage.scene}: {len(codes)} cuts at commands, {codes.count(0)} healed by the same run")


def cut_at_octets(stage: Stage, rng: random.Random, *, full: bool) -> None:
    proxy = stage.proxy
    with stage.set():
        proxy.passed.update(up=0, down=0)
        assert stage.play().code == 0
        passed = dict(proxy.passed)
    cuts, struck = [], proxy.cut_count
    for _ in range(PLACES_FULL if full else 1):
        direction: Direction = rng.choice(WAYS)
        with stage.set():
            cuts.append(Cut(after=rng.randrange(1, passed[direction] + 1), direction=direction, times=1))
            proxy.cuts = (cuts[-1],)
            run = stage.play()
            ended_in_words(run)
            proxy.cuts = ()
            stage.ends_well(f"{stage.scene}, {cuts[-1]}")
    print(f"{stage.scene}: {len(cuts)} cuts on the line, {proxy.cut_count - struck} struck")
