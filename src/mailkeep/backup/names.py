"""Folder names and keywords, from another server to here and from here to another server. Pure.

Here a name is text with "/" between levels, and a mailbox may have a special use (RFC 6154). A server has a separator
of its own, perhaps a prefix that all names carry ("INBOX." of Courier and Cyrus), names in its users' language for what
it sends, drafts and bins, and rules on what a name may be.

The hard idea: names are mapped all at once, never one by one. What two of ours become must differ, also where the
target does not tell upper case from lower; a folder that is there already under the same special use is used, whatever
it is called; and what an earlier run decided stays decided. So the same folders always go to the same places.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from mailkeep.backup.quirks import Quirks
from mailkeep.errors import NotAllowed
from mailkeep.mail.flags import SYSTEM_FLAGS
from mailkeep.mail.mailbox_name import INBOX, LEVEL_MAX, check_name, encode_utf7

if TYPE_CHECKING:
    from mailkeep.backup.imap_remote import RemoteMailbox

GONE: Final = "$Gone"  # ours alone: the source no longer has the message
HIDDEN_ROOT: Final = "Gone/"  # where an account hides what is gone, mailbox by mailbox
HIDDEN: Final = "\\Hidden"

_Key = Callable[[str], str]
_Measure = Callable[[str], int]

# ---- special uses

# RFC 6154 and 8457, then what XLIST (Gmail's draft of it) and others call them.
_USES: Final = {
    "\\sent": "\\Sent", "\\drafts": "\\Drafts", "\\junk": "\\Junk", "\\trash": "\\Trash", "\\archive": "\\Archive",
    "\\all": "\\All", "\\flagged": "\\Flagged", "\\important": "\\Important",
    "\\allmail": "\\All", "\\spam": "\\Junk", "\\starred": "\\Flagged", "\\bin": "\\Trash",
}  # fmt: skip
# One folder each; a view such as \Flagged or \Important holds no message of its own.
MAPPED_USES: Final = ("\\Sent", "\\Drafts", "\\Junk", "\\Trash", "\\Archive", "\\All")
_INSTEAD: Final = {"\\Archive": "\\All", "\\All": "\\Archive"}  # where the target has no folder of the first

_WORDS: Final = {
    "\\Sent": (
        "sent|sent items|sent mail|sent messages|sent-mail|sent objects|outbox.sent|gesendet|gesendete objekte|"
        "gesendete elemente|gesendete nachrichten|gesendete e-mails|envoyés|messages envoyés|éléments envoyés|"
        "objets envoyés|courrier envoyé|courriels envoyés|enviados|elementos enviados|mensajes enviados|"
        "correo enviado|correos enviados|itens enviados|e-mails enviados|mensagens enviadas|enviadas|posta inviata|"
        "inviati|inviata|messaggi inviati|verzonden|verzonden items|verzonden berichten|verzonden objecten|wysłane|"
        "elementy wysłane|odeslaná pošta|odeslané|odeslané položky|odoslaná pošta|odoslané|skickat|skickade objekt|"
        "skickade|sendt post|sendte elementer|sendt|sendte|lähetetyt|saadetud|nosūtītie|išsiųsta|отправленные|"
        "надіслані|изпратени|送信済み|送信済みアイテム|送信済みメール|送信済みトレイ|已发送|已发送邮件|已发邮件|"
        "寄件備份|已傳送的郵件|보낸 편지함|보낸편지함|보낸메일함|gönderilmiş öğeler|gönderilenler|"
        "gönderilmiş postalar|απεσταλμένα|elküldött|elküldött elemek|elküldött levelek|trimise|elemente trimise|"
        "poslano|poslane stavke|poslato|נשלח|דואר שנשלח|פריטים שנשלחו|المرسل|العناصر المرسلة|البريد المرسل|"
        "thư đã gửi|đã gửi|terkirim|จดหมายที่ส่งแล้ว|รายการที่ส่ง"
    ),
    "\\Drafts": (
        "drafts|draft|entwürfe|entwurf|brouillons|brouillon|borradores|borrador|rascunhos|rascunho|bozze|bozza|"
        "concepten|concept|wersje robocze|szkice|robocze|koncepty|rozepsané|utkast|utkastit|kladder|kladde|"
        "luonnokset|mustandid|черновики|чернетки|чернови|下書き|草稿|草稿箱|임시 보관함|임시보관함|taslaklar|"
        "πρόχειρα|piszkozatok|ciorne|schițe|nacrti|skice|טיוטות|المسودات|مسودات|thư nháp|draf|konsep|ร่างจดหมาย|"
        "แบบร่าง"
    ),
    "\\Junk": (
        "junk|junk e-mail|junk email|junk mail|spam|bulk|bulk mail|spamverdacht|unerwünscht|unerwünschte werbung|"
        "junk-e-mail|courrier indésirable|indésirables|pourriel|correo no deseado|no deseado|lixo eletrônico|"
        "lixo electrónico|posta indesiderata|indesiderata|ongewenste e-mail|ongewenste berichten|ongewenst|"
        "wiadomości-śmieci|niechciane|nevyžádaná pošta|nevyžiadaná pošta|skräppost|søppelpost|uønsket mail|"
        "uønsket e-mail|roskaposti|спам|нежелательная почта|небажана пошта|迷惑メール|垃圾邮件|垃圾郵件|垃圾箱|"
        "정크 메일|스팸함|스팸메일함|önemsiz|önemsiz e-posta|gereksiz|ανεπιθύμητα|ανεπιθύμητη αλληλογραφία|"
        "levélszemét|mesaje nedorite|neželena pošta|דואר זבל|البريد العشوائي|بريد غير هام|thư rác|จดหมายขยะ"
    ),
    "\\Trash": (
        "trash|bin|deleted|deleted items|deleted messages|wastebasket|papierkorb|gelöschte objekte|gelöscht|"
        "gelöschte elemente|gelöschte nachrichten|corbeille|éléments supprimés|messages supprimés|supprimés|"
        "papelera|elementos eliminados|eliminados|mensajes eliminados|lixeira|lixo|itens excluídos|"
        "itens eliminados|cestino|posta eliminata|eliminata|eliminati|prullenbak|prullenmand|verwijderde items|"
        "verwijderde berichten|kosz|elementy usunięte|usunięte|koš|kôš|odstraněná pošta|odstránená pošta|"
        "papperskorg|papperskorgen|borttagna objekt|papirkurv|papirkurven|slettede elementer|slettet post|"
        "roskakori|poistetut|корзина|удаленные|удалённые|кошик|видалені|кошче|ゴミ箱|削除済みアイテム|"
        "削除済みメール|已删除|已删除邮件|废件箱|刪除的郵件|垃圾桶|휴지통|지운 편지함|çöp kutusu|çöp|"
        "silinmiş öğeler|κάδος απορριμμάτων|διαγραμμένα|törölt elemek|kuka|lomtár|coș de gunoi|elemente șterse|"
        "otpad|smeće|אשפה|פריטים שנמחקו|المهملات|العناصر المحذوفة|سلة المهملات|thùng rác|sampah|ถังขยะ"
    ),
    "\\Archive": (
        "archive|archives|archiv|archiviert|archivés|archivo|archivados|arquivo|arquivo morto|arquivados|archivio|"
        "archief|archiwum|archív|arkiv|arkisto|arhiiv|архив|архів|アーカイブ|存档|归档|封存|보관|보관함|arşiv|"
        "αρχείο|αρχειοθέτηση|archívum|arhivă|arhiva|ארכיון|أرشيف|الأرشيف|lưu trữ|arsip"
    ),
    "\\All": (
        "all mail|alle nachrichten|tous les messages|todos|todos os e-mails|todo el correo|tutti i messaggi|"
        "alle e-mails|alle berichten|wszystkie|všechny zprávy|вся почта|вся пошта|すべてのメール|所有邮件|所有郵件|"
        "전체보관함|tüm postalar|all e-post|al e-post|kaikki viestit|όλα τα μηνύματα|összes levél|toate mesajele|"
        "כל הדואר|كل البريد|tất cả thư"
    ),
}
_USE_OF_WORD: Final = {word: use for use, words in _WORDS.items() for word in words.split("|")}
_GMAIL_ROOTS: Final = ("[gmail]", "[google mail]")


def fold(name: str) -> str:
    """A name as servers that know no case compare it."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def known_use(name: str) -> str | None:
    """The special use that a folder so called has in some mail program or language; `name` is one of ours."""
    levels = [fold(level) for level in name.split("/")]
    if len(levels) == 2 and levels[0] in (*_GMAIL_ROOTS, "inbox"):
        levels = levels[1:]
    return _USE_OF_WORD.get(levels[0]) if len(levels) == 1 else None


def given_use(mailbox: "RemoteMailbox") -> str | None:
    """The special use that a server itself names, by SPECIAL-USE or XLIST."""
    if mailbox.special_use is not None:
        return _USES.get(mailbox.special_use.lower(), mailbox.special_use)
    found = [_USES[each] for each in sorted(mailbox.attributes) if each in _USES]
    return found[0] if found else None


def special_uses(mailboxes: Sequence["RemoteMailbox"], prefix: str = "") -> dict[str, str]:
    """Server's name → special use: as the server says; where it names none of that use, by well-known names."""
    found = {box.name: use for box in mailboxes if (use := given_use(box)) is not None}
    said = set(found.values())
    for box in sorted(mailboxes, key=lambda box: box.name):
        if box.name in found or not box.selectable:
            continue
        use = known_use(_plain(box, prefix))
        if use is not None and use not in said:
            found[box.name] = use
            said.add(use)
    return found


# ---- from there to here


def local_names(mailboxes: Sequence["RemoteMailbox"], *, prefix: str = "", into: str | None = None) -> dict[str, str]:
    """Server's name → our name, for all mailboxes of a server at once. `prefix`: of its personal namespace.

    `into`: a folder of ours under which the whole tree goes; INBOX is then called Inbox. Raises NotAllowed when `into`
    is no name.
    """
    root = check_name(into) + "/" if into else ""
    names: dict[str, str] = {}
    taken: dict[str, int] = {}
    # What needs no change keeps its name, whatever else wants it.
    wanted = {box.name: _local(box, prefix, root) for box in mailboxes}
    order = sorted(wanted, key=lambda name: (fold(name) != "inbox", wanted[name] != root + name, name))
    for name in order:
        names[name] = _unique(wanted[name], taken, str)
    return names


def _plain(box: "RemoteMailbox", prefix: str) -> str:
    """The server's name with "/" between levels and without its namespace's prefix."""
    name = str(box.name)
    if fold(name) == "inbox":
        return INBOX
    if prefix and name.startswith(prefix) and len(name) > len(prefix):
        name = name[len(prefix) :]
    levels = name.split(box.separator) if box.separator else [name]
    levels = [level.replace("/", "_") for level in levels if level]
    return "/".join(levels) or "_"


def _local(box: "RemoteMailbox", prefix: str, root: str) -> str:
    levels = [_local_level(level) for level in _plain(box, prefix).split("/")]
    if root and levels == [INBOX]:
        levels = ["Inbox"]
    try:
        return check_name(root + "/".join(levels))
    except NotAllowed:  # too long in all
        digest = hashlib.sha256("/".join(levels).encode("utf-8", "replace")).hexdigest()[:8]
        return check_name(f"{root}{levels[0][:60]}/{levels[-1][:60]} {digest}")


def _local_level(level: str) -> str:
    clean = "".join("_" if unicodedata.category(c) in ("Cc", "Cs") or c in "\u2028\u2029" else c for c in level)
    clean = unicodedata.normalize("NFC", clean)
    if clean in (".", "..", ""):
        clean = clean.replace(".", "_") or "_"
    return _cut(clean, LEVEL_MAX, lambda text: len(text.encode()))


def _cut(level: str, size_max: int, measure: _Measure) -> str:
    """The level, short enough; what was cut off stays in a few characters of a hash."""
    if measure(level) <= size_max:
        return level
    digest = "~" + hashlib.sha256(level.encode("utf-8", "replace")).hexdigest()[:6]
    while level and measure(level + digest) > size_max:
        level = level[:-1]
    return level.rstrip() + digest


def _unique(name: str, taken: dict[str, int], key: _Key) -> str:
    """The name, or with a number after it, and note it as taken: with the last number that was given to it.

    A server may have a hundred thousand names that all become the same.
    """
    found, first = name, key(name)
    number = taken.get(first, 1)
    while key(found) in taken:
        number += 1
        found = f"{name} ({number})"
    taken[first] = number
    taken[key(found)] = taken.get(key(found), 1)
    return found


# ---- from here to there


@dataclass(frozen=True, slots=True)
class Target:
    """What a server's names may be. Lengths are bytes of the name as sent (modified UTF-7)."""

    separator: str | None = "/"
    prefix: str = ""
    level_max: int = 200
    name_max: int = 800
    forbidden: str = "%*"
    folds_case: bool = False
    ascii_only: bool = False
    reserved: tuple[str, ...] = ()  # first levels below which nothing can be made, folded


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one of our mailboxes goes. `note`: why it cannot keep its name there, for people."""

    mailbox: str
    name: str  # the server's; its separator and prefix are in it
    exists: bool
    special_use: str | None = None  # to be asked for when it is made
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Ours:
    """A mailbox of ours, as far as its name goes."""

    name: str
    special_use: tuple[str, ...] = ()


# Rows of the provider data → rules that their servers have beside the general ones.
_RULES: Final[dict[str, dict[str, object]]] = {
    "gmail": {"folds_case": True, "name_max": 225, "reserved": _GMAIL_ROOTS},
    "o365": {"folds_case": True, "level_max": 250},
    "outlook": {"folds_case": True, "level_max": 250},
    "exchange-onprem": {"folds_case": True, "level_max": 250},
    "domino": {"folds_case": True, "forbidden": "%*/"},
    "yahoo": {"folds_case": True, "forbidden": '%*\\"&'},
    "aol": {"folds_case": True, "forbidden": '%*\\"&'},
    "icloud": {"folds_case": True},
}  # fmt: skip


def target_of(quirks: Quirks, *, separator: str | None, prefix: str = "") -> Target:
    """What is known of a server's rules."""
    rules: dict[str, object] = {}
    for row in quirks.name.split("+"):
        rules |= _RULES.get(row, {})
    made = Target(separator=separator, prefix=prefix, **rules)  # type: ignore[arg-type]  # the table above
    if separator == ".":  # Maildir++: names are names of directories as well
        return Target(
            separator, prefix, made.level_max, made.name_max, made.forbidden + "/~", made.folds_case, made.ascii_only
        )
    return made


@dataclass(slots=True)
class _Mapper:
    target: Target
    there: dict[str, str]  # key of a server's name → the name
    uses: dict[str, str]  # special use → server's name
    into: tuple[str, ...]
    placed: dict[str, Placed] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)

    def key(self, name: str) -> str:
        if self.target.folds_case or name.upper() == INBOX:
            return fold(name)
        return unicodedata.normalize("NFC", name)

    def take(self, ours: Ours, name: str, *, use: str | None = None, note: str | None = None) -> None:
        self.taken.setdefault(self.key(name), 1)
        self.placed[ours.name] = Placed(ours.name, name, self.key(name) in self.there, use, note)

    def special(self, ours: Ours, use: str) -> None:
        for wanted in (use, _INSTEAD.get(use, "")):
            name = self.uses.get(wanted, "")
            if name and self.key(name) not in self.taken:
                note = f"the server's folder for {use}" if name != self.plain(ours.name) else None
                self.take(ours, name, note=note)
                return
        self.ordinary(ours, use=use)

    def plain(self, name: str) -> str:
        return self.target.prefix + (self.target.separator or "-").join(name.split("/"))

    def ordinary(self, ours: Ours, *, use: str | None = None) -> None:
        levels = ours.name.split("/")
        base, rest = self.base(levels)
        changed = [clean_level(level, self.target) for level in rest]
        if not base and self.target.reserved and changed and fold(changed[0]) in self.target.reserved:
            changed[0] = changed[0].strip("[]")
        name = self.join(base, changed)
        name = self.there.get(self.key(name), name)
        unique = _unique(name, self.taken, self.key)
        note = None
        if unique != name:
            note = "another folder has this name there"
        elif changed != rest:
            note = "the server does not take this name"
        if len(encode_utf7(unique)) > self.target.name_max:
            digest = hashlib.sha256(ours.name.encode()).hexdigest()[:8]
            unique = self.join("", [clean_level(levels[-1][:60], self.target) + " " + digest])
            note = "the name is too long for the server"
        self.take(ours, unique, use=use, note=note)

    def base(self, levels: list[str]) -> tuple[str, list[str]]:
        """The server's name of the nearest ancestor that is placed already, and the levels below it."""
        for cut in range(len(levels) - 1, 0, -1):
            above = self.placed.get("/".join(levels[:cut]))
            if above is not None and not (self.target.prefix and above.name.upper() == INBOX):
                return above.name, levels[cut:]
        if levels[0] == INBOX and self.target.prefix:
            return "", levels[1:]  # the prefix is INBOX itself
        return "", levels

    def join(self, base: str, levels: list[str]) -> str:
        separator = self.target.separator
        text = (separator or " - ").join(levels)
        return f"{base}{separator or ' - '}{text}" if base else self.target.prefix + text


def target_names(
    ours: Iterable[Ours],
    there: Sequence["RemoteMailbox"],
    target: Target,
    *,
    into: str | None = None,
    known: Mapping[str, str] | None = None,
) -> dict[str, Placed]:
    """Our name → where it goes, for all mailboxes at once.

    `there`: what the server has. `into`: a folder (in our spelling) under which everything goes, INBOX as Inbox and
    without any mapping by special use. `known`: what an earlier run decided, our name → the server's name.
    """
    mapper = _Mapper(target, {}, {}, tuple(into.split("/")) if into else ())
    mapper.there = {mapper.key(box.name): box.name for box in there}
    for name, use in special_uses(there, target.prefix).items():
        mapper.uses.setdefault(use, name)
    mailboxes = sorted(ours, key=lambda each: (each.name != INBOX, each.name))
    for each in mailboxes:
        name = (known or {}).get(each.name, "")
        if name and mapper.key(name) in mapper.there and mapper.key(name) not in mapper.taken:
            mapper.take(each, mapper.there[mapper.key(name)])  # as the server itself wrote it
    waiting = [each for each in mailboxes if each.name not in mapper.placed]
    if into:
        _place_below(mapper, waiting)
        return mapper.placed
    given = {use for each in mailboxes for use in each.special_use}
    here = set(mapper.there.values())
    for each in waiting:
        if each.name == INBOX:
            mapper.take(each, INBOX)
            continue
        special = _use(each, given)
        if special is not None:
            given.add(special)  # one folder of ours for each use that is only guessed
            mapper.special(each, special)
    # Parents before children; what is called there as it is here, before what would have to give way to it.
    waiting = [each for each in waiting if each.name not in mapper.placed]
    for each in sorted(waiting, key=lambda each: (each.name.count("/"), mapper.plain(each.name) not in here)):
        mapper.ordinary(each)
    return mapper.placed


def other_names(name: str, target: Target, used: Iterable[str]) -> list[str]:
    """What to try when the server refuses to make a folder of this name: ASCII and no odd characters, then one level.

    `used`: names that none of them may be, whatever their case.
    """
    narrow = replace(target, ascii_only=True, forbidden=target.forbidden + "/\\\"&~#:;<>|?!,'()[]{}", level_max=60)
    plain = name[len(target.prefix) :] if name.startswith(target.prefix) else name
    levels = [clean_level(level, narrow) for level in (plain.split(target.separator) if target.separator else [plain])]
    taken = dict.fromkeys(map(fold, used), 1)
    found = []
    for text in ((target.separator or "-").join(levels), _cut(" - ".join(levels), 60, len)):
        candidate = _unique(target.prefix + text, taken, fold)
        if candidate != name and candidate not in found:
            found.append(candidate)
    return found


def _use(ours: Ours, given: set[str]) -> str | None:
    for use in ours.special_use:
        if use in MAPPED_USES:
            return use
    known = known_use(ours.name)
    return None if known in given else known


def _place_below(mapper: _Mapper, mailboxes: Sequence[Ours]) -> None:
    for each in mailboxes:
        levels = ["Inbox"] if each.name == INBOX else each.name.split("/")
        changed = [clean_level(level, mapper.target) for level in (*mapper.into, *levels)]
        name = mapper.join("", changed)
        name = mapper.there.get(mapper.key(name), name)
        unique = _unique(name, mapper.taken, mapper.key)
        note = "the server does not take this name" if changed[len(mapper.into) :] != levels else None
        mapper.take(each, unique, note="another folder has this name there" if unique != name else note)


def clean_level(level: str, target: Target) -> str:
    """A level as the target takes it; the same one when it takes it as it is."""
    forbidden = target.forbidden + (target.separator or "")
    text = "".join("_" if c in forbidden or unicodedata.category(c) in ("Cc", "Cs") else c for c in level)
    if target.ascii_only and not text.isascii():
        flat = unicodedata.normalize("NFKD", text)
        text = "".join(c if c.isascii() else "" if unicodedata.combining(c) else "_" for c in flat)
    text = text.strip(" ") or "_"
    if text[0] in "#~":  # other namespaces, other people's homes
        text = "_" + text[1:]
    return _cut(text, target.level_max, lambda each: len(encode_utf7(each)))


# ---- flags and keywords

_KEYWORD_NAMES: Final = (
    ("$Forwarded", "Forwarded"), ("$MDNSent", "MDNSent"), ("$Junk", "Junk"), ("$NotJunk", "NonJunk", "NotJunk"),
    ("$Important", "Important"),
)  # fmt: skip
_SAME_KEYWORD: Final = {name.lower(): group for group in _KEYWORD_NAMES for name in group}
_ATOM = re.compile(r"[^\x00-\x20\x7f-\U0010ffff(){%*\"\\\]]{1,255}")


def target_flags(flags: frozenset[str], allowed: frozenset[str], *, custom: bool = True) -> frozenset[str]:
    """What of our flags a mailbox can keep, spelled as it spells them. $Gone stays here.

    `allowed`: its PERMANENTFLAGS; empty: it did not say, so all (RFC 9051 section 7.1). `custom`: whether the server is
    believed when it says that it takes any keyword.
    """
    by_name = {name.lower(): name for name in allowed}
    anything = custom and (not allowed or "\\*" in allowed)
    kept: set[str] = set()
    for flag in flags:
        if flag == GONE:
            continue
        if flag in SYSTEM_FLAGS:
            if not allowed or flag.lower() in by_name:
                kept.add(flag)
            continue
        spellings = (flag, *_SAME_KEYWORD.get(flag.lower(), ()))
        listed = next((by_name[each.lower()] for each in spellings if each.lower() in by_name), None)
        if listed is not None:
            kept.add(listed)
        elif anything and _ATOM.fullmatch(flag):
            kept.add(flag)
    return frozenset(kept)


def lost_flags(flags: frozenset[str], allowed: frozenset[str], *, custom: bool = True) -> frozenset[str]:
    """What of our flags a mailbox cannot keep under any name."""
    return frozenset(flag for flag in flags - {GONE} if not target_flags(frozenset({flag}), allowed, custom=custom))
