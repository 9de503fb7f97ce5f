"""The file of a bulk run, its results, and whose turn it is."""

import asyncio
import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.backup.bulk import (
    Place,
    Queue,
    Result,
    Results,
    Row,
    Task,
    parse_rows,
    read_rows,
    results_path,
    run,
)
from mailkeep.errors import UsageError

HEAD = "source,source_host,source_port,source_protocol,source_tls,source_user,source_password,target,into\n"


def test_rows() -> None:
    rows = parse_rows(
        HEAD + "anna,mail.example.org,,,,anna@example.org, pass word ,,\n"
        "bob@example.org,,,,,,x,archive,Old/Bob\n"
        "\n"
        ",pop.example.org,,POP3,starttls,carl,x,account:carl,\n"
        "known,,,,,,,,\n",
        "f",
    )
    assert [row.problem for row in rows] == [None] * 4
    assert [row.line for row in rows] == [2, 3, 5, 6]
    anna, bob, carl, known = (row.source for row in rows)
    assert (anna.name, anna.host, anna.port, anna.user) == ("anna", "mail.example.org", 993, "anna@example.org")
    assert anna.password is not None and anna.password.reveal() == " pass word "
    assert "pass word" not in repr(rows)
    assert (bob.name, bob.host, bob.user, rows[1].into) == ("bob@example.org", "", "", "Old/Bob")
    assert (carl.name, carl.protocol, carl.port, carl.tls) == ("carl", "pop3", 110, "starttls")
    assert not known.has_secret


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a,h,99999,,,u,x,,", "source_port"),
        ("a,h,²,,,u,x,,", "source_port"),
        ("a,h,,smtp,,u,x,,", "source_protocol"),
        ("a,h,,,ssl3,u,x,,", "source_tls"),
        (",,,,,,geheim,t,", "names no source"),
        ("a,h,,,,u,x,,,,,,more", "cells"),
    ],
)
def test_a_bad_row_is_told_and_does_not_stop_the_others(line: str, problem: str) -> None:
    bad, good = parse_rows(HEAD + line + "\nb,h,,,,u,x,,\n", "f")
    assert bad.problem is not None and problem in bad.problem
    assert "geheim" not in bad.problem
    assert good.problem is None


def test_one_secret_for_a_side_and_no_row_twice() -> None:
    rows = parse_rows("source;source_host;source_password;source_password_file\na;h;x;f\nb;h;x;\nb;h;other;\n", "f")
    assert [row.problem is None for row in rows] == [False, True, False]
    assert rows[2].problem == "the same as line 3"
    assert len({row.id for row in rows}) == 3


@pytest.mark.parametrize(
    "text",
    ["", "source\n", "wrong,source\na,b\n", "target\na\n", "source,source\na,b\n", 'source\n"open\n' + "x" * 200_000],
)
def test_what_is_no_such_file(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rows(text, "accounts.csv")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "accounts.csv"
    with pytest.raises(UsageError, match="cannot be read"):
        read_rows(path)
    path.write_bytes(b"source\n\xff\xfe\n")
    with pytest.raises(UsageError, match="UTF-8"):
        read_rows(path)
    path.write_text("\ufeffsource\tsource_password\r\nänna\tx\r\n", encoding="utf-8")
    assert read_rows(path)[0].source.name == "änna"


def row_of(name: str, line: int = 2) -> Row:
    return Row(line, Place(name, host="h", user=name), Place())


def test_results_are_found_again(tmp_path: Path) -> None:
    path = results_path(tmp_path / "accounts.csv")
    assert path.name == "accounts.results.csv"
    results = Results.load(path)
    one, two = row_of("one"), row_of("two", 3)
    results.put(Result(one.id, 2, "one", "archive", "done", 10, 10, 4, 12345, 1.5, "2026-01-20T10:00:00", ""))
    results.put(Result(two.id, 3, "two", "archive", "failed", error='said "no", and\nmore', temporary=True))
    results.save()
    again = Results.load(path)
    assert again.is_done(one)
    assert not again.is_done(two)
    assert again.found[one.id] == results.found[one.id]
    assert again.found[two.id].error == 'said "no", and\nmore'
    with path.open(newline="") as file:
        assert [cells["source"] for cells in csv.DictReader(file)] == ["one", "two"]
    # Another password, another place in the file: the same row.
    assert again.is_done(row_of("one", 99))


def test_a_result_is_no_formula_and_no_escape_sequence(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.csv")
    results.put(replace(Result("1", 2, "a", "b", "failed"), error="=HYPERLINK(1)\x1b[2J: no", target="-2+3"))
    results.save()
    with (tmp_path / "r.csv").open(newline="") as file:
        (cells,) = csv.DictReader(file)
    assert (cells["error"], cells["target"]) == ("'=HYPERLINK(1) [2J: no", "'-2+3")


def test_a_result_file_cut_off_never_is_one(tmp_path: Path) -> None:
    results = Results(tmp_path / "missing" / "x.csv")
    with pytest.raises(UsageError, match="cannot be written"):
        results.put(Result("a", 1, "a", "b", "done"))


def task(provider: str, number: int, *others: str) -> Task:
    return Task(row_of(f"{provider}{number}", number), (provider, *others), frozenset({f"{provider}{number}"}))


def test_providers_take_turns() -> None:
    queue = Queue(
        [*(task("big", n) for n in range(100)), *(task("small", n) for n in range(3))], at_once=4, per_provider=2
    )
    running = [queue.take() for _ in range(4)]
    assert Counter(each.providers[0] for each in running if each) == {"big": 2, "small": 2}
    assert queue.take() is None
    for each in running:
        assert each is not None
        queue.done(each)
    after = [each.providers[0] for each in (queue.take(), queue.take(), queue.take()) if each]
    assert Counter(after) == {"big": 2, "small": 1}


def test_both_sides_count() -> None:
    queue = Queue([task("a", 1, "t"), task("a", 2, "t"), task("b", 1)], at_once=10, per_provider=1)
    assert [each.row.source.name for each in (queue.take(), queue.take()) if each] == ["a1", "b1"]
    assert queue.take() is None


def test_a_row_within_one_provider_is_run_though_it_needs_two_places() -> None:
    queue = Queue([task("a", 1, "a")], at_once=1, per_provider=1)
    assert queue.take() is not None


def test_what_is_used_alone_is_used_by_one() -> None:
    shared = [Task(row_of(str(n), n), ("a",), frozenset({"same"})) for n in range(2)]
    queue = Queue([*shared, task("a", 9)], at_once=10, per_provider=10)
    first, second = queue.take(), queue.take()
    assert first is shared[0] and second is not None and second.row.line == 9
    assert queue.take() is None
    queue.done(shared[0])
    assert queue.take() is shared[1]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "a", "t"])), max_size=40),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_every_row_runs_once_within_the_limits(rows: list[tuple[str, str]], at_once: int, per_provider: int) -> None:
    tasks = [task(name, n, *([other] if other else [])) for n, (name, other) in enumerate(rows)]
    queue = Queue(tasks, at_once=at_once, per_provider=per_provider)
    seen: list[int] = []
    running: Counter[str] = Counter()

    async def work(each: Task) -> Result:
        running.update(each.providers)
        assert queue.open <= at_once
        assert all(count <= max(per_provider, 2) for count in running.values())
        await asyncio.sleep(0)
        running.subtract(each.providers)
        return Result(each.row.id, each.row.line, "s", "t", "done")

    asyncio.run(run(queue, work, stop=asyncio.Event(), ended=lambda result: seen.append(result.line)))
    assert sorted(seen) == list(range(len(rows)))


def test_what_failed_for_now_is_tried_once_more_after_the_others() -> None:
    order: list[str] = []
    ended: list[str] = []

    async def work(each: Task) -> Result:
        order.append(each.row.source.name)
        bad = each.row.source.name == "a0"
        return Result(each.row.id, each.row.line, each.row.source.name, "t", "failed" if bad else "done", temporary=bad)

    queue = Queue([task("a", n) for n in range(3)], at_once=1, per_provider=1)
    asyncio.run(run(queue, work, stop=asyncio.Event(), ended=lambda result: ended.append(result.source)))
    assert order == ["a0", "a1", "a2", "a0"]
    assert ended == ["a1", "a2", "a0"]


def test_nothing_is_begun_after_a_stop() -> None:
    async def main() -> list[int]:
        stop = asyncio.Event()
        ended: list[int] = []

        async def work(each: Task) -> Result:
            stop.set()
            return Result(each.row.id, each.row.line, "s", "t", "done")

        queue = Queue([task("a", n) for n in range(5)], at_once=1, per_provider=1)
        await run(queue, work, stop=stop, ended=lambda result: ended.append(result.line))
        return ended

    assert asyncio.run(main()) == [0]
