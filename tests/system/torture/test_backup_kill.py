"""kill -9 of pull, push and POP3 at each step on the disk and at each command on the line; then the same command again.

In the short form a few steps of each scene, others in each run; in the long form all of them, each in three ways:
killed before it, in the middle of it, after it.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mailkeep.testing import Faulty
from tests.backup.targets import faulty_login
from tests.messages import bulk
from tests.steps import KILLS, command
from tests.system.torture.scenes import (
    PULL,
    SCENES,
    Scene,
    Stage,
    add_remote,
    brought,
    contents_there,
    equal_of,
    look,
    own,
    put,
    some,
    without_gone,
)

STEPS_SHORT, COMMANDS_SHORT = 2, 1


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_killed_at_any_step_the_same_command_ends_it(
    scene: Scene, stage_of: Callable[[Scene], Stage], rng: random.Random, full: bool
) -> None:
    rng = own(rng, scene)
    stage = stage_of(scene)
    steps, commands = stage.steps, stage.commands
    killed = 0
    for number in some(steps, STEPS_SHORT, rng, full=full):
        for how in KILLS if full else (rng.choice(KILLS),):
            with stage.set():
                run = stage.play(at=number, how=how)
                # The threads of a run do not always take the same steps: the last ones may never come.
                assert run.killed or run.code == 0, run.out + run.err
                killed += run.killed
                stage.ends_well(f"{scene}, killed {how} step {number} of {steps}")
    for number in some(commands, COMMANDS_SHORT, rng, full=full):
        for executed in (False, True) if full else (bool(rng.randrange(2)),):
            with stage.set():
                stage.deadly(number, executed=executed)
                run = stage.play()
                assert run.killed or run.code == 0, run.out + run.err
                killed += run.killed
                stage.ends_well(f"{scene}, killed at command {number} of {commands}, executed: {executed}")
    assert killed
    print(f"{scene}: {killed} kills, {steps} steps, {commands} commands")


def test_killed_again_and_again_it_comes_to_its_end(
    library: Path, tmp_path: Path, rng: random.Random, full: bool
) -> None:
    """The program itself, as it is installed, with its own batches and its child that renders."""
    root, mail = tmp_path / "store", bulk(3000 if full else 700)
    command_line = (*PULL, "--json", "--data", str(root))
    with Faulty() as server:
        put(server, "INBOX", mail)
        add_remote(root, "there", "ann", faulty_login(server))
        shutil.copytree(root, tmp_path / "begun")
        steps = command(library, root, *command_line).steps
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "begun", root)
        kills = 0
        for _ in range(60 if full else 4):
            run = command(library, root, *command_line, at=rng.randint(10, steps // 3), how=rng.choice(KILLS))
            assert run.killed or run.code == 0, run.out + run.err
            kills += run.killed
        run = command(library, root, *command_line)
        assert run.code == 0 and equal_of(run), run.out + run.err
        assert without_gone(look(root, "ann")) == contents_there(server)
        again = command(library, root, *command_line)
        assert again.code == 0 and brought(again) == 0
        checked = command(library, root, "verify", "--data", str(root))
        assert checked.code == 0, checked.out
    assert kills
    print(f"{kills} kills on the way to {len(mail)} messages")
