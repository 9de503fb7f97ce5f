"""What Outlook calls the folders that every mailbox has, in the languages that it comes in most.

A store says which is the wastebasket, and often no more: the inbox of a PST is known by its name. Only data, and one
look-up. Words that other mail programs use for the same are there too, for a PST may hold what was imported from them.
"""

from typing import Final

_NAMES: Final = {
    "INBOX": "inbox|posteingang|boîte de réception|bandeja de entrada|posta in arrivo|caixa de entrada|"
    "a receber|postvak in|skrzynka odbiorcza|входящие|受信トレイ|收件箱|收件匣|받은 편지함|받은편지함|"
    "gelen kutusu|inkorgen|indbakke|innboks|saapuneet|doručená pošta|вхідні|البريد الوارد|علبة الوارد|דואר נכנס|"
    "beérkezett üzenetek|εισερχόμενα|mesaje primite|hộp thư đến|กล่องขาเข้า|kotak masuk|इनबॉक्स|входящи|"
    "ulazna pošta|prejeto",
    "Sent": "sent|sent items|sent mail|sent messages|gesendete elemente|gesendet|éléments envoyés|"
    "elementos enviados|posta inviata|itens enviados|verzonden items|elementy wysłane|wysłane elementy|"
    "отправленные|送信済みアイテム|已发送邮件|寄件備份|보낸 편지함|보낸편지함|gönderilmiş öğeler|skickat|"
    "skickade objekt|sendt post|sendte elementer|sendt|lähetetyt|odeslaná pošta|odeslané položky|надіслані|"
    "العناصر المرسلة|פריטים שנשלחו|elküldött elemek|απεσταλμένα|elemente trimise|mục đã gửi|รายการที่ถูกส่ง|"
    "item terkirim|poslano|изпратени",
    "Drafts": "drafts|entwürfe|brouillons|borradores|bozze|rascunhos|concepten|wersje robocze|kopie robocze|"
    "черновики|下書き|草稿|임시 보관함|임시보관함|taslaklar|utkast|kladder|luonnokset|koncepty|rozepsané|"
    "чернетки|المسودات|טיוטות|piszkozatok|πρόχειρα|schițe|ciorne|bản thảo|แบบร่าง|draf|osnutki",
    "Junk": "junk e-mail|junk email|junk|spam|junk-e-mail|courrier indésirable|correo no deseado|"
    "posta indesiderata|lixo eletrônico|lixo eletrónico|correio não solicitado|ongewenste e-mail|"
    "ongewenste email|wiadomości-śmieci|wiadomości śmieci|нежелательная почта|спам|迷惑メール|垃圾邮件|垃圾郵件|"
    "정크 메일|önemsiz e-posta|skräppost|uønsket e-mail|uønsket mail|søppelpost|roskaposti|nevyžádaná pošta|"
    "небажана пошта|البريد الإلكتروني غير الهام|דואר זבל|levélszemét|ανεπιθύμητη αλληλογραφία|e-mail nedorit|"
    "thư rác|อีเมลขยะ",
    "Trash": "deleted items|trash|deleted messages|gelöschte elemente|papierkorb|éléments supprimés|"
    "elementos eliminados|posta eliminata|itens excluídos|itens eliminados|verwijderde items|elementy usunięte|"
    "удаленные|удалённые|削除済みアイテム|已删除邮件|刪除的郵件|지운 편지함|silinmiş öğeler|borttaget|"
    "borttagna objekt|slettet post|slettede elementer|poistetut|odstraněná pošta|видалені|العناصر المحذوفة|"
    "פריטים שנמחקו|törölt elemek|διαγραμμένα|elemente șterse|mục đã xóa|รายการที่ถูกลบ|item terhapus|izbrisano|"
    "изтрити",
    "Archive": "archive|archiv|archives|archivo|archivio|arquivo morto|archief|archiwum|архив|アーカイブ|存档|"
    "封存|보관|arşiv|arkiv|arkisto|archív|архів|الأرشيف|ארכיון|archívum|αρχείο|arhivă|lưu trữ",
}  # fmt: skip
_BY_NAME: Final = {word: role for role, words in _NAMES.items() for word in words.split("|")}


def special_name(name: str) -> str:
    """INBOX, Sent, Drafts, Junk, Trash or Archive when a folder at the top has such a name, else ""."""
    return _BY_NAME.get(name.strip().casefold(), "")
