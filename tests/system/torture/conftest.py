"""What the tests of the backup's torture share: the library that counts steps, and a process ready to be forked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.steps import Nursery, build
from tests.system.torture.scenes import TUNE


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="session")
def nursery(library: Path) -> Iterator[Nursery]:
    with Nursery(library, tune=TUNE) as ready:
        yield ready
