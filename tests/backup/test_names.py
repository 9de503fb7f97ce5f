"""Folders mapped both ways: by special use, by well-known names, as the target allows, and never two into one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.backup.imap_remote import RemoteMailbox
from mailkeep.backup.names import (
    Ours,
    Target,
    known_use,
    local_names,
    lost_flags,
    special_uses,
    target_flags,
    target_names,
    target_of,
)
from mailkeep.backup.quirks import Quirks
from mailkeep.mail.mailbox_name import check_name, encode_utf7


def box(name: str, use: str | None = None, *, separator: str | None = "/", attributes: str = "") -> RemoteMailbox:
    return RemoteMailbox(
        name, name.encode(), separator, frozenset(attributes.split()), use, subscribed=True, selectable=True
    )


# ---- special uses


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("Gesendete Objekte", "\\Sent"),
        ("ÉLÉMENTS ENVOYÉS", "\\Sent"),
        ("E\u0301le\u0301ments envoye\u0301s", "\\Sent"),
        ("[Gmail]/Papierkorb", "\\Trash"),
        ("[Google Mail]/Alle Nachrichten", "\\All"),
        ("INBOX/Drafts", "\\Drafts"),
        ("迷惑メール", "\\Junk"),
        ("Корзина", "\\Trash"),
        ("Work/Sent", None),
        ("Sent to Anna", None),
    ],
)
def test_well_known_names_in_many_languages(name: str, use: str | None) -> None:
    assert known_use(name) == use


def test_what_the_server_says_is_stronger_than_a_name() -> None:
    boxes = [box("INBOX"), box("Sent"), box("Verzonden", "\\Sent"), box("Müll", attributes="\\bin"), box("Entwürfe")]
    assert special_uses(boxes) == {"Verzonden": "\\Sent", "Müll": "\\Trash", "Entwürfe": "\\Drafts"}
    xlist = [box("[Gmail]/Todos", attributes="\\allmail"), box("[Gmail]/Spam", attributes="\\spam")]
    assert special_uses(xlist) == {"[Gmail]/Todos": "\\All", "[Gmail]/Spam": "\\Junk"}


# ---- from there to here


@pytest.mark.parametrize(
    ("prefix", "names", "ours"),
    [
        ("", {"inbox": "/", "Work/A": "/"}, ["INBOX", "Work/A"]),
        ("INBOX.", {"INBOX": ".", "INBOX.Sent": ".", "INBOX.Work.A": "."}, ["INBOX", "Sent", "Work/A"]),
        ("", {"INBOX.Work": "."}, ["INBOX/Work"]),
        ("", {"Projects\\A/B": "\\"}, ["Projects/A_B"]),
        ("", {"a/b": None, "a": None}, ["a_b", "a"]),
        ("", {"a/b": ".", "a_b": "."}, ["a_b (2)", "a_b"]),
        ("", {"..": "/", "a//b": "/", "x\x07y": "/"}, ["__", "a/b", "x_y"]),
        ("", {"Work": "/", "work": "/"}, ["Work", "work"]),
    ],
)
def test_names_come_here(prefix: str, names: dict[str, str | None], ours: list[str]) -> None:
    boxes = [box(name, separator=separator) for name, separator in names.items()]
    found = local_names(boxes, prefix=prefix)
    assert [found[name] for name in names] == ours


def test_a_whole_tree_below_a_folder() -> None:
    found = local_names([box("INBOX"), box("Sent"), box("A/B")], into="Old/Anna")
    assert found == {"INBOX": "Old/Anna/Inbox", "Sent": "Old/Anna/Sent", "A/B": "Old/Anna/A/B"}


NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=8, unique=True)


@given(NAMES, st.sampled_from(["/", ".", "\\", None]), st.sampled_from(["", "INBOX."]))
def test_any_names_are_ours_and_differ(names: list[str], separator: str | None, prefix: str) -> None:
    found = local_names([box(name, separator=separator) for name in names], prefix=prefix)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(names)
    assert all(check_name(name) == name for name in found.values())


def test_many_names_that_become_the_same_are_told_apart_in_no_time() -> None:
    names = [f"{chr(1 + a)}{chr(1 + b)}{chr(1 + c)}" for a in range(30) for b in range(30) for c in range(30)]
    ours = local_names([box(name) for name in (*names, "___ (7)")])
    assert ours["___ (7)"] == "___ (7)"
    assert len(set(ours.values())) == len(ours)
    assert f"___ ({len(ours)})" in ours.values()


def test_very_long_names_are_cut_and_differ() -> None:
    names = ["x" * 900 + str(n) for n in range(3)] + ["/".join(["d" * 200] * 9)]
    found = local_names([box(name) for name in names])
    assert len(set(found.values())) == 4 and all(check_name(name) == name for name in found.values())


# ---- from here to there

MINE = [Ours("INBOX"), Ours("Sent", ("\\Sent",)), Ours("Trash", ("\\Trash",)), Ours("Work"), Ours("Work/A.B")]


def placed(ours: list[Ours], there: list[RemoteMailbox], target: Target, **options: object) -> dict[str, str]:
    made = target_names(ours, there, target, **options)  # type: ignore[arg-type]
    names = [each.name for each in made.values()]
    assert len({name.casefold() if target.folds_case else name for name in names}) == len(ours)
    for each in made.values():
        assert each.exists == any(each.name == str(box.name) for box in there)
    return {each.mailbox: each.name for each in made.values()}


def test_special_use_finds_its_folder_whatever_it_is_called() -> None:
    there = [box("INBOX"), box("Gesendete Objekte", "\\Sent"), box("Papierkorb")]
    names = placed(MINE, there, Target())
    assert names["Sent"] == "Gesendete Objekte" and names["Trash"] == "Papierkorb" and names["Work/A.B"] == "Work/A.B"
    made = target_names(MINE, there[:1], Target())
    assert made["Sent"].special_use == "\\Sent" and not made["Sent"].exists
    ours = [Ours("INBOX"), Ours("Envoyés"), Ours("Sent Items"), Ours("Envoyés/2019")]
    names = placed(ours, there, Target())
    assert names["Envoyés"] == "Gesendete Objekte" and names["Sent Items"] == "Sent Items"
    assert names["Envoyés/2019"] == "Gesendete Objekte/2019"


def test_two_never_go_into_one() -> None:
    ours = [Ours("INBOX"), Ours("Sent", ("\\Sent",)), Ours("Gesendet"), Ours("work"), Ours("Work")]
    names = placed(ours, [box("INBOX"), box("Gesendet", "\\Sent")], Target(folds_case=True))
    assert names["Sent"] == "Gesendet" and names["Gesendet"] == "Gesendet (2)"
    assert {names["Work"], names["work"]} == {"Work", "work (2)"}


def test_prefix_and_separator_of_courier_and_cyrus() -> None:
    target = target_of(Quirks(), separator=".", prefix="INBOX.")
    names = placed([*MINE, Ours("INBOX/Old")], [box("INBOX", separator="."), box("INBOX.Sent", separator=".")], target)
    assert names == {
        "INBOX": "INBOX",
        "Sent": "INBOX.Sent",
        "Trash": "INBOX.Trash",
        "Work": "INBOX.Work",
        "Work/A.B": "INBOX.Work.A_B",
        "INBOX/Old": "INBOX.Old",
    }
    again = local_names([box(name, separator=".") for name in names.values()], prefix="INBOX.")
    assert again["INBOX.Work"] == "Work"


def test_gmail_keeps_its_own_folders_and_has_no_case() -> None:
    target = target_of(Quirks(name="gmail"), separator="/")
    there = [box("INBOX"), box("[Gmail]/Sent Mail", "\\Sent"), box("[Gmail]/All Mail", "\\All")]
    ours = [Ours("INBOX"), Ours("Sent", ("\\Sent",)), Ours("Archive", ("\\Archive",)), Ours("[Gmail]/Mine")]
    names = placed(ours, there, target)
    assert names == {
        "INBOX": "INBOX",
        "Sent": "[Gmail]/Sent Mail",
        "Archive": "[Gmail]/All Mail",
        "[Gmail]/Mine": "Gmail/Mine",
    }


def test_what_the_target_does_not_take_is_changed_and_said() -> None:
    made = target_names([Ours("50% *now*"), Ours(" lead"), Ours("#x"), Ours("é" * 120)], [], Target())
    assert made["50% *now*"].name == "50_ _now_" and made["#x"].name == "_x" and made[" lead"].name == "lead"
    assert made["é" * 120].note and len(encode_utf7(made["é" * 120].name)) <= 200
    flat = target_names([Ours("A"), Ours("A/B")], [], Target(separator=None))
    assert flat["A/B"].name == "A - B"
    assert target_names([Ours("Zoë")], [], Target(ascii_only=True))["Zoë"].name == "Zoe"


def test_what_was_decided_once_stays() -> None:
    there = [box("INBOX"), box("Sent"), box("Old Sent")]
    names = placed(MINE, there, Target(), known={"Sent": "Old Sent", "Work": "no longer there"})
    assert names["Sent"] == "Old Sent" and names["Work"] == "Work"


def test_everything_below_a_folder_of_the_target() -> None:
    names = placed(MINE, [box("INBOX"), box("Sent", "\\Sent")], Target("."), into="Back/2024")
    assert names["INBOX"] == "Back.2024.Inbox" and names["Sent"] == "Back.2024.Sent"
    assert names["Work/A.B"] == "Back.2024.Work.A_B"


TREES = st.lists(
    st.lists(st.text("aA.b/é*%~ \\", min_size=1, max_size=6).map(lambda s: s.replace("/", "")), min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda name: all(level.strip(".") for level in name.split("/"))),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(TREES, st.sampled_from(["/", ".", "\\", None]), st.sampled_from(["", "INBOX."]), st.booleans(), st.booleans())
def test_any_tree_has_names_that_differ_and_stay(
    tree: list[str], separator: str | None, prefix: str, folds: bool, below: bool
) -> None:
    target = Target(separator, prefix if separator == "." else "", folds_case=folds)
    ours = [Ours(name) for name in tree]
    into = "Into" if below else None
    first = placed(ours, [], target, into=into)
    there = [box(name, separator=separator) for name in first.values()]
    assert placed(ours, there, target, into=into, known=first) == first


# ---- flags


def test_flags_and_keywords_that_a_mailbox_can_keep() -> None:
    flags = frozenset({"\\Seen", "\\Flagged", "$Forwarded", "Junk", "Project-X", "$Gone"})
    everything = frozenset({"\\Seen", "\\Flagged", "\\*"})
    assert target_flags(flags, everything) == flags - {"$Gone"}
    assert target_flags(flags, frozenset()) == flags - {"$Gone"}
    listed = frozenset({"\\seen", "Forwarded", "$Junk"})
    assert target_flags(flags, listed) == {"\\Seen", "Forwarded", "$Junk"}
    assert lost_flags(flags, listed) == {"\\Flagged", "Project-X"}
    assert lost_flags(flags, everything, custom=False) == {"$Forwarded", "Junk", "Project-X"}
