"""Gmail's labels, as Takeout writes them: one header `X-Gmail-Labels` a message.

The value is a comma-separated list (a label with a comma in it is quoted), sent through RFC 2047 as a whole when it is
not ASCII. System labels come in the language of the account and mean a mailbox (Inbox, Sent), a flag (Starred) or the
lack of one (Unread). Every other label is a mailbox of its own, `/` in it is hierarchy; one message under three labels
becomes three rows and one copy of the bytes.

The hard part is that nothing says which language it is, so all tables are consulted at once. Two words mean different
things in two languages in no case here; a user's own label that is spelled like a system label of another language
loses nothing but its name.
"""

import csv
import re
from dataclasses import dataclass
from typing import Final

from mailkeep.export.item import keyword
from mailkeep.mail.flags import DRAFT, FLAGGED, SEEN
from mailkeep.mail.header import decode_words

_MAILBOX: Final = {
    "INBOX": "inbox|posteingang|boîte de réception|recibidos|bandeja de entrada|posta in arrivo|caixa de entrada|"
    "entrada|recebidos|postvak in|odebrane|входящие|受信トレイ|收件箱|收件匣|받은편지함|gelen kutusu|inkorg|inkorgen|"
    "indbakke|innboks|saapuneet|doručená pošta|доручено|вхідні|البريد الوارد|דואר נכנס|beérkező levelek|primite|"
    "εισερχόμενα|hộp thư đến|กล่องจดหมาย|kotak masuk|इनबॉक्स",
    "Sent": "sent|sent mail|sent messages|gesendet|gesendete nachrichten|messages envoyés|envoyés|envoyé|enviados|"
    "mensajes enviados|elementos enviados|posta inviata|inviati|inviata|itens enviados|e-mails enviados|verzonden|"
    "verzonden berichten|wysłane|отправленные|送信済み|送信済みメール|已发送|已发邮件|寄件備份|보낸편지함|"
    "gönderilmiş postalar|gönderilenler|skickat|skickade|sendt|sendte|sendt post|lähetetyt|"
    "odeslaná pošta|odeslané|надіслані|"
    "البريد المرسل|المرسل|דואר שנשלח|נשלח|elküldött levelek|trimise|απεσταλμένα|thư đã gửi|จดหมายที่ส่งแล้ว|terkirim",
    "Drafts": "draft|drafts|entwurf|entwürfe|brouillons|brouillon|borradores|borrador|bozze|bozza|rascunhos|rascunho|"
    "concepten|concept|wersje robocze|черновики|черновик|下書き|草稿|임시보관함|taslaklar|taslak|utkast|kladder|kladde|"
    "luonnokset|luonnos|koncepty|koncept|чернетки|المسودات|مسودة|טיוטות|טיוטה|piszkozatok|mesaje nefinalizate|"
    "πρόχειρα|thư nháp|ร่างจดหมาย|draf",
    "Junk": "spam|junk|correo no deseado|lixo eletrônico|спам|迷惑メール|垃圾邮件|垃圾郵件|스팸함|skräppost|"
    "søppelpost|roskaposti|الرسائل غير المرغوب فيها|דואר זבל|ספאם|ανεπιθύμητα|thư rác|จดหมายขยะ",
    "Trash": "trash|bin|papierkorb|corbeille|papelera|cestino|lixeira|lixo|prullenbak|kosz|корзина|ゴミ箱|"
    "已删除邮件|回收站|已删除|垃圾桶|휴지통|çöp kutusu|papperskorgen|papperskorg|papirkurv|papirkurven|"
    "roskakori|koš|кошик|"
    "المهملات|سلة المهملات|אשפה|coș de gunoi|κάδος απορριμμάτων|thùng rác|ถังขยะ|sampah",
    "Archive": "archived|archive|archiviert|archivé|archivés|messages archivés|archivado|archivados|archiviati|"
    "archiviato|archiviata|arquivado|arquivados|gearchiveerd|zarchiwizowane|archiwum|архив|архивные|"
    "заархивировано|アーカイブ|アーカイブ済み|已归档|已封存|보관됨|보관처리됨|arşivlendi|arşivlenmiş|arkiverad|arkiverade|arkiveret|"
    "arkivert|arkistoitu|archivováno|архівовано|تمت الأرشفة|مؤرشف|הועבר לארכיון",
    "Chats": "chat|chats|chat-protokolle|discussions|чаты|チャット|聊天|聊天记录|채팅|sohbetler|chattar|czaty",
}
_STARRED: Final = (
    "starred|markiert|suivis|suivi|favoris|destacados|destacado|speciali|com estrela|met ster|oznaczone gwiazdką|"
    "помеченные|スター付き|已加星标|已加星號|별표편지함|별표|yıldızlı|stjärnmärkta|stjärnmärkt|stjernemarkeret|stjernemerket|"
    "tähdellä merkitty|s hvězdičkou|із зірочкою|مميّز بنجمة|المميّزة بنجمة|מסומן בכוכב|csillagozott|cu stea|με αστέρι"
)
_UNREAD: Final = (
    "unread|ungelesen|non lu|non lus|no leído|no leídos|sin leer|da leggere|non letto|non letti|não lidas|não lida|"
    "não lido|não lidos|ongelezen|nieprzeczytane|непрочитанные|непрочитано|未読|未读|未讀|읽지않음|읽지 않음|okunmadı|"
    "okunmamış|oläst|olästa|ulæst|ulæste|ulest|uleste|lukematon|lukemattomat|nepřečtené|непрочитані|غير مقروء|"
    "غير مقروءة|לא נקרא|olvasatlan|necitite|μη αναγνωσμένα|chưa đọc|ยังไม่ได้อ่าน|belum dibaca"
)
# Said of nearly every message, or only of use to Gmail itself: neither a mailbox nor a flag.
_IGNORED: Final = (
    "opened|geöffnet|ouvert|ouverts|abierto|abiertos|aperti|aperto|aberto|abertas|geopend|otwarte|открытые|открыто|"
    "開封済み|已打开|已開啟|열어봄|açıldı|öppnad|öppnat|åbnet|åpnet|avattu|otevřené|"
    "all mail|alle nachrichten|tous les messages"
)
_IMPORTANT: Final = (
    "important|wichtig|importante|importantes|importanti|belangrijk|ważne|важное|重要|중요편지함|중요|önemli|viktigt|"
    "vigtig|vigtigt|viktig|tärkeä|tärkeät|důležité|важливо|هام|مهم|חשוב|fontos|σημαντικά"
)
_CATEGORY = re.compile(
    r"category:?\s+(?:personal|social|promotions|updates|forums|travel|purchases|reservations|finance)|"
    r"(?:kategorie|catégorie|categoría|categoria|categorie|kategoria|kategori|kategória|категория|категорія|"
    r"κατηγορία|カテゴリ|类别|類別|카테고리|الفئة|קטגוריה)\s*[:：]\s*\S.*",
    re.IGNORECASE,
)
_IMAP_KEYWORD = re.compile(r"IMAP_(\S+)", re.IGNORECASE)  # a keyword that an IMAP client once set

_TO_MAILBOX: Final = {word: name for name, words in _MAILBOX.items() for word in words.split("|")}
_STARRED_SET, _UNREAD_SET, _IGNORED_SET, _IMPORTANT_SET = (
    frozenset(words.split("|")) for words in (_STARRED, _UNREAD, _IGNORED, _IMPORTANT)
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a message of Gmail goes, and with which flags."""

    mailboxes: tuple[str, ...]
    flags: frozenset[str]


def place(value: bytes) -> Placement:
    """The meaning of one unfolded X-Gmail-Labels value. A message under no mailbox label is archived mail."""
    flags = {SEEN}
    mailboxes: list[str] = []
    for label in split_labels(value):
        folded = label.casefold()
        if folded in _TO_MAILBOX:
            name = _TO_MAILBOX[folded]
            if name == "Drafts":
                flags.add(DRAFT)
            mailboxes.append(name)
        elif folded in _STARRED_SET:
            flags.add(FLAGGED)
        elif folded in _UNREAD_SET:
            flags.discard(SEEN)
        elif folded in _IMPORTANT_SET:
            flags.add("$Important")
        elif folded in _IGNORED_SET or _CATEGORY.fullmatch(label):
            continue
        elif match := _IMAP_KEYWORD.fullmatch(label):
            made = keyword(match[1])
            flags |= {made} if made else set()
        else:
            mailboxes.append(label)
    # "Archived" only says "not in the inbox"; beside a label of the user's own, that label is where the message lives.
    named = [name for name in mailboxes if name != "Archive"]
    return Placement(tuple(dict.fromkeys(named or ["Archive"])), frozenset(flags))


def split_labels(value: bytes) -> list[str]:
    """The labels one by one: RFC 2047 decoded, then commas outside of quotes."""
    text = decode_words(value)
    rows = list(csv.reader([text.replace("\n", " ").replace("\r", " ").replace("\0", "")], skipinitialspace=True))
    return [label.strip() for label in (rows[0] if rows else []) if label.strip()]
