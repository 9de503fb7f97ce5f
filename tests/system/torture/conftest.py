"""What the tests of the backup's torture share: the library that counts steps, and a process ready to be forked."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.steps import Nursery, build
from tests.system.torture.scenes import TUNE, Scene, Stage


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="session")
def nursery(library: Path) -> Iterator[Nursery]:
    with Nursery(library, tune=TUNE) as ready:
        yield ready


@pytest.fixture(scope="session")
def stage_of(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, full: bool) -> Callable[[Scene], Stage]:
    """A scene's stage, on which it was played once without a disturbance."""
    stages: dict[str, Stage] = {}

    def get(scene: Scene) -> Stage:
        if scene.name not in stages:
            stage = Stage(scene, nursery, tmp_path_factory.mktemp("stage"), thorough=full)
            stage.whole()
            stages[scene.name] = stage
        return stages[scene.name]

    return get
