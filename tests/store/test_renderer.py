"""A child process stages messages as this one would, and nothing is lost when it is."""

import io
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from mailkeep.mail.rendering import work
from mailkeep.store import renderer as module
from mailkeep.store.renderer import Renderer
from mailkeep.store.staging import Staged
from tests.messages import corpus, numbered


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    made = Renderer()
    yield made
    made.close()


def facts(staged: Staged) -> tuple[Any, ...]:
    return staged.data(), staged.size, staged.sha256, staged.crc, staged.rendered


def child(renderer: Renderer) -> "subprocess.Popen[bytes]":
    assert renderer._child is not None
    return renderer._child


def test_the_corpus_is_staged_as_here(renderer: Renderer) -> None:
    messages = [data for _, data in corpus()] + [b"", b"x" * 3_000_000]
    renderer.start(wait=True)
    for _ in range(2):
        found = renderer.stage(messages)
        assert [facts(staged) for staged in found] == [facts(Staged.of(data)) for data in messages]
    assert renderer._child is not None, "it was the child's work"


def test_what_comes_before_it_is_ready_is_done_here(renderer: Renderer) -> None:
    messages = [numbered(number) for number in range(100)]
    assert [staged.size for staged in renderer.stage(messages)] == [len(data) for data in messages]
    assert renderer.stage([]) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_dies_takes_nothing_along(renderer: Renderer, number: int) -> None:
    messages = [numbered(number, size=3000) for number in range(100)]
    renderer.start(wait=True)
    renderer.stage(messages)
    os.kill(child(renderer).pid, number)
    for _ in range(2):
        assert [facts(staged) for staged in renderer.stage(messages)] == [facts(Staged.of(data)) for data in messages]
    assert renderer._child is None


def test_a_child_that_cannot_be_started_is_not_missed(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise OSError

    monkeypatch.setattr(module, "_start", fail)
    renderer.start(wait=True)
    assert len(renderer.stage([numbered(number) for number in range(100)])) == 100


def test_it_ends_with_its_parent_and_when_told(renderer: Renderer) -> None:
    renderer.start(wait=True)
    process = child(renderer)
    process.send_signal(signal.SIGINT)  # the parent's to handle
    assert len(renderer.stage([numbered(number) for number in range(100)])) == 100
    assert renderer._child is process
    renderer.close()
    renderer.close()
    assert process.returncode is not None
    told = io.BytesIO()
    work(io.BytesIO(b""), told)  # the parent is gone at once
    assert told.getvalue() == b"R"
