"""Base subjects and conversations, by the rules of RFC 5256 one after another, and on hostile references."""

import random
import time

import pytest

from mailkeep.mail.thread import Entry, Node, base_subject, conversations, flatten, thread_ids


@pytest.mark.parametrize(
    ("subject", "base", "reply"),
    [
        ("Hello", "Hello", False),
        ("  Hello \t there\r\n again ", "Hello there again", False),
        ("Re: Hello", "Hello", True),
        ("RE : Hello", "Hello", True),
        ("re[2]: Hello", "Hello", True),
        ("Fw: Hello", "Hello", True),
        ("FWD: Hello", "Hello", True),
        ("Re: Fwd: re: Hello", "Hello", True),
        ("Hello (fwd)", "Hello", True),
        ("Hello (fwd) (FWD) ", "Hello", True),
        ("[Fwd: Hello]", "Hello", True),
        ("[fwd: Re: Hello (fwd)]", "Hello", True),
        ("Re: [fwd: [list] Hello]", "Hello", True),
        ("[list] Hello", "Hello", False),
        ("[list] [other] Hello", "Hello", False),
        ("[list] Re: Hello", "Hello", True),
        ("Re: [list] Re: Hello", "Hello", True),
        ("[list]", "[list]", False),
        ("[one] [two]", "[two]", False),
        ("Re: [list]", "[list]", True),
        ("Re:", "", True),
        ("", "", False),
        ("(fwd)", "", True),
        ("Regarding: Hello", "Regarding: Hello", False),
        ("AW: Hallo", "AW: Hallo", False),
        ("[unclosed Hello", "[unclosed Hello", False),
    ],
)
def test_base_subject(subject: str, base: str, reply: bool) -> None:
    assert base_subject(subject) == (base, reply)


@pytest.mark.parametrize(
    "subject",
    ["AW: Hallo", "Antw: Hallo", "SV: Hallo", "Odp: Hallo", "回复：Hallo", "WG: AW: Hallo", "[Liste] AW: Hallo"],
)
def test_other_languages_answer_too(subject: str) -> None:
    assert base_subject(subject, anywhere=True) == ("Hallo", True)
    assert base_subject("Rabatt: 5 %", anywhere=True) == ("Rabatt: 5 %", False)


def test_references_win_over_in_reply_to() -> None:
    assert thread_ids("<a@x> text <b@x>\r\n <a@x>", "<c@x>") == ["a@x", "b@x"]
    assert thread_ids("", "Your mail of Monday <c@x> <d@x>") == ["c@x"]
    assert thread_ids("no ids", "") == []
    many = thread_ids(" ".join(f"<{number}@x>" for number in range(5000)), "")
    assert len(many) == 200
    assert (many[0], many[-1]) == ("0@x", "4999@x")


def mail(own: str, references: str = "", *, subject: str = "", reply: bool = False, date: float | None = None) -> Entry:
    """Ids are single words; the date is a number in the id when it is not given."""
    when = date if date is not None else float("".join(filter(str.isdigit, own)) or 0)
    return Entry(own, references.split(), subject, reply, when)


def response(entries: list[Entry], *, only_replies: bool = False) -> str:
    """As THREAD answers (RFC 5256 section 4), with ids for numbers."""

    def members(node: Node) -> str:
        own = [str(entries[node.entry].message_id)] if node.entry is not None else []
        if len(node.children) == 1:
            return " ".join([*own, members(node.children[0])])
        return " ".join(own + ["".join(f"({members(child)})" for child in node.children)] * bool(node.children))

    return "".join(f"({members(root)})" for root in conversations(entries, only_replies=only_replies))


def test_the_example_of_the_rfc() -> None:
    entries = [
        mail("2", date=1),
        mail("3", date=2),
        mail("6", "3", date=3),
        mail("4", "3 6", date=4),
        mail("23", "3 6 4", date=5),
        mail("44", "3 6", date=6),
        mail("7", "3 6 44", date=7),
        mail("96", "3 6 44 7", date=8),
    ]
    for seed in range(20):
        random.Random(seed).shuffle(entries)
        assert response(entries) == "(2)(3 6 (4 23)(44 7 96))"


def test_children_of_a_message_that_is_not_there_are_siblings() -> None:
    """RFC 5256 section 4: ((3)(5))."""
    assert response([mail("3", "gone"), mail("5", "gone")]) == "((3)(5))"


def test_a_single_child_takes_the_place_of_what_is_not_there() -> None:
    assert response([mail("3", "gone")]) == "(3)"
    assert response([mail("1"), mail("3", "1 gone"), mail("5", "1 gone")]) == "(1 (3)(5))"


def test_ids_that_were_there_before_are_no_ids() -> None:
    assert response([mail("1", date=1), mail("1", date=2), mail("3", "1", date=3)]) == "(1 3)(1)"
    unnamed = [Entry(None, (), "", False, 1), Entry(None, (), "", False, 2)]
    assert len(conversations(unnamed)) == 2


def test_what_a_message_says_itself_wins_over_what_others_say_of_it() -> None:
    assert response([mail("1"), mail("2"), mail("4", "1 3"), mail("3", "2")]) == "(1)(2 3 4)"


def test_loops_are_not_made() -> None:
    assert response([mail("1", "2"), mail("2", "1")]) in ("(2 1)", "(1 2)")
    assert response([mail("1", "1")]) == "(1)"
    assert response([mail("1", "2 3 1"), mail("2", "3 1 2"), mail("3", "1 2 3")]).count("1") == 1


def test_siblings_are_in_the_order_of_their_dates() -> None:
    assert (
        response([mail("9", date=9), mail("5", "9", date=6), mail("4", "9", date=5), mail("1", date=1)])
        == "(1)(9 (4)(5))"
    )
    assert response([mail("2"), mail("8", "gone"), mail("1", "gone")]) == "((1)(8))(2)"


def test_subjects_gather() -> None:
    original = mail("1", subject="x")
    assert response([original, mail("2", subject="x", reply=True)]) == "(1 2)"
    assert response([mail("1", subject="x", reply=True), mail("2", subject="x")]) == "(2 1)"
    assert response([original, mail("2", subject="x")]) == "((1)(2))"
    assert response([mail("1", subject="x", reply=True), mail("2", subject="x", reply=True)]) == "((1)(2))"
    assert response([original, mail("2", subject="x"), mail("3", subject="x")]) == "((1)(2)(3))"
    assert response([mail("1"), mail("2")]) == "(1)(2)"


def test_two_that_are_not_there_are_one() -> None:
    entries = [mail(str(number), gone, subject="x", reply=True) for number, gone in enumerate(("a", "a", "b", "b"), 1)]
    assert response(entries) == "((1)(2)(3)(4))"
    assert response([*entries, mail("9", subject="x", reply=True)]) == "((1)(2)(3)(4)(9))"


def test_beginnings_of_one_subject_may_stay_apart() -> None:
    invoices = [mail(str(number), subject="invoice") for number in range(1, 4)]
    assert response(invoices) == "((1)(2)(3))"
    assert response(invoices, only_replies=True) == "(1)(2)(3)"
    answer = mail("4", subject="invoice", reply=True)
    assert response([*invoices, answer], only_replies=True) == "(1 4)(2)(3)"


def test_flatten_gives_depths() -> None:
    (root,) = conversations([mail("1"), mail("2", "1"), mail("3", "1 2"), mail("4", "1")])
    assert list(flatten(root)) == [(0, 0), (1, 1), (2, 2), (3, 1)]
    (root,) = conversations([mail("1", "gone"), mail("2", "gone"), mail("3", "gone 2")])
    assert list(flatten(root)) == [(0, 0), (1, 1), (2, 2)]


def test_no_message_is_lost_or_doubled_whatever_the_references() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        count = rng.randint(1, 30)
        entries = [
            Entry(
                rng.choice([None, rng.randrange(40)]),
                [rng.randrange(40) for _ in range(rng.randrange(6))],
                rng.choice(["", "a", "b"]),
                rng.random() < 0.5,
                rng.randrange(5),
            )
            for _ in range(count)
        ]
        for only_replies in (False, True):
            roots = conversations(entries, only_replies=only_replies)
            found = sorted(entry for root in roots for entry, _ in flatten(root))
            assert found == list(range(count)), f"seed {seed}"


@pytest.mark.parametrize("step", [1, -1])
def test_long_chains_take_no_quadratic_time(step: int) -> None:
    entries = [mail(str(number), str(number + step)) for number in range(1, 20_001)]
    started = time.process_time()
    roots = conversations(entries)
    assert sum(1 for root in roots for _ in flatten(root)) == 20_000
    assert len(roots) == 1
    # Quadratic would be minutes; this is no measurement.
    assert time.process_time() - started < 30


def test_long_subjects_take_no_quadratic_time() -> None:
    started = time.process_time()
    base_subject("[a]" * 100_000 + "re:" * 100_000, anywhere=True)
    base_subject("re:" * 100_000)
    assert time.process_time() - started < 10
