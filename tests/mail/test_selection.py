"""The filters: what they take by name, by facts, by header and by content; and the language of searches."""

import itertools
from datetime import date
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.cli.selection import make_selection, parse_day
from mailkeep.errors import UsageError
from mailkeep.mail.query import All, And, Body, HasFlag, Header, Internal, Larger, Not, Or, Query, Text, matches
from mailkeep.mail.search_text import FIELDS, parse_days, parse_search, parse_size
from mailkeep.mail.selection import Known, Need, Selection

NOON = 1_684_324_800  # 2023-05-17 12:00 UTC
MAIL = (
    b"From: =?utf-8?q?Anna_M=C3=BCller?= <anna@example.org>\r\nTo: bob@example.org\r\nSubject: Invoice 17\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nPlease pay.\r\n'
    b'--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="i.pdf"\r\n\r\nx\r\n--b--\r\n'
)
HEADER = MAIL[: MAIL.index(b"\r\n\r\n") + 4]


def known(data: bytes = MAIL, *flags: str, internaldate: int = NOON) -> Known:
    return Known(frozenset(flags), internaldate, len(data), data=data)


def finds(text: str, data: bytes = MAIL, *flags: str) -> bool:
    answer = Selection(query=text).decide(known(data, *flags))
    assert answer is not None
    return answer


# ---- mailboxes


@pytest.mark.parametrize(
    ("folders", "not_folders", "taken"),
    [
        ((), (), {"INBOX", "Work", "Work/A", "Work/A/B", "Gesendet"}),
        (("Work",), (), {"Work"}),
        (("Work/",), (), {"Work"}),
        (("work/*",), (), {"Work/A", "Work/A/B"}),
        (("Work/%",), (), {"Work/A"}),
        (("*",), ("Work*",), {"INBOX", "Gesendet"}),
        (("inbox",), (), {"INBOX"}),
        (("\\sent", "\\Inbox"), (), {"INBOX", "Gesendet"}),
        ((), ("\\Sent",), {"INBOX", "Work", "Work/A", "Work/A/B"}),
        (("GESENDET",), (), {"Gesendet"}),
    ],
)
def test_mailboxes_by_pattern_and_by_special_use(
    folders: tuple[str, ...], not_folders: tuple[str, ...], taken: set[str]
) -> None:
    selection = Selection(folders=folders, not_folders=not_folders).check()
    names = {"INBOX": (), "Work": (), "Work/A": (), "Work/A/B": (), "Gesendet": ("\\Sent",)}
    assert {name for name, uses in names.items() if selection.takes_mailbox(name, uses)} == taken


# ---- messages


def test_facts_decide_when_they_can() -> None:
    selection = Selection(since=date(2023, 5, 17), before=date(2023, 5, 18), larger=100, flags=("unread",))
    assert selection.decides_on_facts()
    assert selection.takes_facts(frozenset(), NOON, 101) is True
    assert selection.takes_facts(frozenset(), NOON, 100) is False
    assert selection.takes_facts(frozenset({"\\Seen"}), None, None) is False
    assert selection.takes_facts(None, NOON, 101) is None
    assert selection.takes_facts(frozenset(), NOON - 13 * 3600, 101) is False
    assert selection.takes_facts(frozenset(), NOON + 12 * 3600, 101) is False


def test_a_header_is_only_needed_where_facts_do_not_rule_it_out() -> None:
    selection = Selection(query="from:anna larger:1G")
    assert selection.need() == Need.HEADER
    assert selection.takes_facts(frozenset(), NOON, 5) is False
    assert selection.takes_facts(frozenset(), NOON, 2 << 30) is None
    assert selection.decide(Known(frozenset(), NOON, 2 << 30, header=HEADER)) is True
    assert Selection(query="pay").decide(Known(header=HEADER)) is None
    assert Selection(query="pay OR larger:10").takes_facts(frozenset(), NOON, 11) is True
    assert [Selection(query=q).need() for q in ("", "is:read", "to:x", "x", "has:attachment")] == [0, 1, 2, 3, 3]


KINDS = {
    "mail": b"Subject: x\r\nContent-Type: text/plain\r\n",
    "event": b"Content-Type: TEXT/Calendar; charset=utf-8\r\n",
    "contact": b"Content-Type: text/vcard\r\n",
    "note": b"X-Uniform-Type-Identifier: com.apple.mail-note\r\nContent-Type: text/html\r\n",
    "task": b'Content-Type: text/calendar;\r\n component="VTODO"\r\n',
}
OTHER_SIGNS = {
    "event": b"X-Kolab-Type: application/x-vnd.kolab.event\r\n",
    "contact": b"Message-Class: IPM.Contact\r\n",
    "note": b"X-Message-Class: IPM.StickyNote\r\n",
    "task": b"Content-Class: urn:content-classes:task\r\n",
    "mail": b"Message-Class: IPM.Note\r\nContent-Type: multipart/alternative\r\n",
}


@pytest.mark.parametrize("examples", [KINDS, OTHER_SIGNS])
def test_every_item_is_of_one_kind(examples: dict[str, bytes]) -> None:
    for wanted, (kind, header) in itertools.product(KINDS, examples.items()):
        taken = Selection(kinds=frozenset({wanted})).decide(Known(header=header + b"\r\n"))
        assert taken is (wanted == kind), (wanted, kind)
    both = Selection(kinds=frozenset({"note", "task"}))
    assert [both.decide(Known(header=header + b"\r\n")) for header in KINDS.values()] == [False] * 3 + [True] * 2


def test_the_store_and_decide_agree_on_the_tree() -> None:
    data = known(MAIL, "\\Seen", "$Label")

    class Subject(SimpleNamespace):
        def header(self, name: str) -> list[str]:
            return (data.fields or {}).get(name.lower(), [])

        def searchable(self) -> Any:
            return data.searchable

    facts = {"flags": data.flags, "internaldate": NOON, "size": len(MAIL), "has_attachment": data.has_attachment}
    subject = cast(Any, Subject(**facts))
    for text in (
        "",
        "invoice",
        "-invoice",
        "from:müller",
        "is:read -is:flagged",
        "to:anna",
        "has:attachment",
        "on:2023",
    ):
        selection = Selection(query=text)
        assert selection.takes(subject) is selection.decide(data), text


# ---- the language


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", All()),
        ("  ", All()),
        ("word", Text("word")),
        ('"two words"', Text("two words")),
        ("a b", And((Text("a"), Text("b")))),
        ("a AND b", And((Text("a"), Text("b")))),
        ("a or b", And((Text("a"), Text("or"), Text("b")))),
        ("a b OR c", And((Text("a"), Or((Text("b"), Text("c")))))),
        ("a OR b OR c d", And((Or((Text("a"), Text("b"), Text("c"))), Text("d")))),
        ("-a", Not(Text("a"))),
        ("e-mail", Text("e-mail")),
        ('-"a b"', Not(Text("a b"))),
        ("-(a OR b)", Not(Or((Text("a"), Text("b"))))),
        ("(a b) OR c", Or((And((Text("a"), Text("b"))), Text("c")))),
        ('SUBJECT:"to do"', Header("Subject", "to do")),
        ("-from:anna@x.org", Not(Header("From", "anna@x.org"))),
        ("to:b", Or((Header("To", "b"), Header("Cc", "b"), Header("Bcc", "b")))),
        ("body:b", Body("b")),
        ("larger:5M", Larger(5 << 20)),
        ("is:unread", Not(HasFlag("\\Seen"))),
        ("is:flagged", HasFlag("\\Flagged")),
        ("is:gone", HasFlag("$Gone")),
        ("keyword:$Forwarded", HasFlag("$Forwarded")),
        ("since:2023-05-17", Internal(date(2023, 5, 17).toordinal(), None)),
        ("before:2023", Internal(None, date(2023, 1, 1).toordinal())),
        ("on:2023-12", Internal(date(2023, 12, 1).toordinal(), date(2024, 1, 1).toordinal())),
        ("12:30", Text("12:30")),
        ("-", Text("-")),
    ],
)
def test_a_search_text_becomes_a_tree(text: str, tree: Query) -> None:
    assert parse_search(text) == tree


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("frm:anna", 'to look for the text itself: "frm:anna"'),
        ("http://example.org", '"http:'),
        ("from: anna", "from:word"),
        ("from:(anna OR bob)", "from:one OR from:other"),
        ("is:unseeen", "give one of"),
        ("has:fun", "has:attachment"),
        ("larger:big", "300K"),
        ("since:yesterday", "2023-05-17"),
        ("since:2023-02-30", "not a day"),
        ("kind:letter", "contact"),
        ("in:inbox", "--folder"),
        ('"open', "does not end"),
        ("(a", '"(" without ")"'),
        ("a)", '")" without "("'),
        ("a OR", "without a word"),
        ("OR a", "without a word"),
        ("a AND", "nothing after AND"),
        ("(" * 50 + "a" + ")" * 50, "parentheses"),
        ("a " * 600, "words"),
        ("a" * 20_000, "characters"),
        ("keyword:a(b", "without"),
    ],
)
def test_errors_say_what_to_write(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_search(text)
    assert says in error.value.text


@given(st.text(alphabet='ab:()"- ORANDfromis\n', max_size=60))
def test_any_text_is_a_search_or_an_error(text: str) -> None:
    try:
        tree = parse_search(text)
    except UsageError:
        return
    subject = cast(
        Any,
        SimpleNamespace(
            header=lambda _: [], searchable=lambda: known().searchable, flags=frozenset(), size=1, has_attachment=False
        ),
    )
    assert matches(tree, subject) in (True, False)


def test_what_a_search_finds() -> None:
    assert finds("müller") and finds("MUELLER OR Müller") and finds('from:"anna m"')
    assert finds("has:attachment") and finds("i.pdf") and not finds("-has:attachment")
    assert finds("subject:invoice -is:read") and not finds("subject:invoice is:read")
    assert finds("to:bob") and not finds("to:anna")
    assert not finds("has:attachment", b"Subject: x\r\n\r\nhello\r\n")
    assert finds("has:attachment", b"Content-Type: image/png\r\nContent-Disposition: attachment\r\n\r\nhello\r\n")


def test_every_field_of_the_language_is_documented(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs" / "commands.md").read_text()
    assert [name for name in FIELDS if f"`{name}:" not in text] == []


# ---- words of a command line


def test_sizes_and_days() -> None:
    assert [parse_size(text) for text in ("17", "1.5k", "5M", "5 MiB", "2GB")] == [17, 1536, 5 << 20, 5 << 20, 2 << 30]
    assert parse_days("2024-02") == (date(2024, 2, 1), date(2024, 3, 1))
    assert parse_day("30d", option="--since", now=NOON) == date(2023, 4, 17)
    assert parse_day("1y", option="--since", now=NOON) == date(2022, 5, 17)
    with pytest.raises(UsageError, match="--since tomorrow"):
        parse_day("tomorrow", option="--since")


def test_the_command_line_is_checked() -> None:
    made = make_selection(folder=("A",), since="2023", kind=("note,task", "Mail"), larger="1k", flag=("!seen",))
    assert made.kinds == {"note", "task", "mail"} and made.larger == 1024 and not made.takes_all
    assert "since 2023-01-01" in made.describe()
    assert make_selection().takes_all and make_selection().describe() == ""
    for wrong in ({"since": "2024", "before": "2023"}, {"larger": "2k", "smaller": "1k"}, {"folder": ("\\Snet",)}):
        with pytest.raises(UsageError):
            make_selection(**wrong)  # type: ignore[arg-type]
    for text in ("bad flag", "\\Nope"):
        with pytest.raises(UsageError):
            make_selection(flag=(text,))
