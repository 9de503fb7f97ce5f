"""kill -9 of pull, push and POP3 at each step on the disk and at each command on the line; then the same command again.

In the short form a few steps of each scene, others in each run; in the long form all of them. By chance it is before
the step, in the middle of it, or after it.
"""

import imaplib
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mailkeep.testing import Faulty
from tests.backup.targets import faulty_login
from tests.messages import bulk
from tests.server import Server
from tests.steps import KILLS, command
from tests.system.torture.scenes import (
    PULL,
    SCENES,
    Scene,
    Stage,
    add_remote,
    bodies,
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
# Not where the server numbered anew or renamed since: who has lost his books as well fetches such a folder again.
LOSING = {"first pull", "first pull of Gmail", "POP3, kept"}


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_killed_at_any_step_the_same_command_ends_it(
    scene: Scene, stage_of: Callable[[Scene], Stage], rng: random.Random, full: bool
) -> None:
    rng = own(rng, scene)
    stage = stage_of(scene)
    steps, commands = stage.steps, stage.commands
    killed = 0
    for number in some(steps, STEPS_SHORT, rng, full=full):
        how = rng.choice(KILLS)
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


@pytest.mark.parametrize("scene", [each for each in SCENES if each.name in LOSING], ids=str)
def test_killed_and_then_robbed_of_its_database(
    scene: Scene, stage_of: Callable[[Scene], Stage], rng: random.Random, full: bool
) -> None:
    """What is known of the server is gone with it; the packs know the origins, so nothing comes a second time."""
    rng = own(rng, scene)
    stage = stage_of(scene)
    for number in some(stage.steps, 30 if full else 1, rng, full=False):
        with stage.set():
            stage.play(at=number, how=rng.choice(KILLS))
            account = next((stage.root / "accounts").glob("*/mail.db")).parent
            for file in account.glob("mail.db*"):
                file.unlink()
            repaired = stage.play("repair")
            assert repaired.code == 0, repaired.out + repaired.err
            before = look(stage.root, "ann")
            run = stage.play(*scene.arguments, "--json")
            assert run.code == 0 and equal_of(run), run.out + run.err
            told = f"{scene}, killed at step {number} of {stage.steps} and repaired"
            assert brought(run) <= sum(bodies(stage.expected).values()) - sum(bodies(before).values()), told
            stage.compare(told)
            stage.sound(told)


def test_a_reader_at_the_door_sees_it_whole(library: Path, tmp_path: Path, rng: random.Random) -> None:
    """The archive is served while the runs that fill it are killed: a client sees all that came, and nothing else."""
    root, mail = tmp_path / "store", bulk(500)
    command_line = (*PULL, "--json", "--data", str(root))
    with Faulty() as there, Server(root, users={"ann": "mine"}, doors=("imap",)) as server:
        put(there, "INBOX", mail)
        add_remote(root, "there", "ann", faulty_login(there))
        client = imaplib.IMAP4("127.0.0.1", server.port("imap"))
        client.login("ann", "mine")
        client.select("INBOX", readonly=True)
        for _ in range(3):
            assert command(library, root, *command_line, at=rng.randint(60, 250), how=rng.choice(KILLS)).code != 1
            whole(client, mail)
        run = command(library, root, *command_line)
        assert run.code == 0 and equal_of(run), run.out + run.err
        assert whole(client, mail) == len(mail)
        client.logout()


def whole(client: imaplib.IMAP4, mail: list[bytes]) -> int:
    """What an open session finds: some of the messages, each as it was sent and once. How many there are."""
    client.noop()
    answers = client.uid("FETCH", "1:*", "(BODY.PEEK[])")[1]
    found = Counter(each[1] for each in answers if isinstance(each, tuple))
    assert not found - Counter(mail)
    return sum(found.values())


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
