"""Names under which attachments lie beside a page: safe ones, that open in a browser or a file manager and run nothing.

A page from a disk cannot forbid what another file does: whoever clicks `evil.html` leaves the page and its policy, and
a browser ignores `download` on links to files. So what a file is called decides. Names whose kind is known to be inert
stay; all others get `.txt` after them, and are then shown as text. Which kinds run cannot be listed (browsers take any
+xml type for a page with scripts, Firefox takes a file without a suffix for HTML if it looks so, Windows runs some
hundred suffixes), which ones do not can.
"""

import re
from typing import Final

from mailkeep.export.names import Names
from mailkeep.mail.letter import Attachment

BYTES_MAX: Final = 72  # of a name: with a folder and a page it stays below Windows' 260 characters

# Pictures, sound, films; documents without macros, or that ask before they run them; text and data; keys and
# signatures; archives; drawings, fonts, databases.
_INERT_SUFFIXES: Final = """
png jpg jpeg jpe jfif gif webp avif bmp tif tiff heic heif ico psd xcf ai eps raw cr2 nef dng
mp3 m4a aac ogg oga opus wav flac wma mid midi amr mp4 m4v mov avi mkv webm mpg mpeg wmv 3gp ogv
pdf doc docx dot dotx xls xlsx xlt xltx ppt pptx pps ppsx odt ods odp odg ott ots rtf pages numbers key
epub mobi djvu vsd vsdx pub mpp wpd wps tex bib dvi xps
txt text csv tsv log md markdown rst ics ifb vcf vcs eml json yaml yml toml ini conf cfg diff patch srt sub po
asc ldif sql h c cc cpp hpp java go rs f90 mbox
p7s p7m p7b p7c pgp gpg sig pem cer crt der csr
zip 7z rar gz tgz bz2 tbz xz txz zst tar lz lzma
dwg dxf stl step stp iges igs obj ttf otf woff woff2 dat bin msg pst ost tnef
"""
_INERT: Final = frozenset(_INERT_SUFFIXES.split())
# Of these a browser may know no type. Firefox then looks inside, and takes what begins like a page for one.
_UNKNOWN_SUFFIXES: Final = """
psd xcf ai raw cr2 nef dng pages numbers key mobi djvu vsd vsdx pub mpp wpd wps tex bib dvi tsv log md markdown rst
ifb vcs yaml yml toml ini conf cfg diff patch srt sub po asc ldif sql h c cc cpp hpp java go rs f90 mbox pgp gpg sig
pem cer crt der csr lz lzma tbz txz dwg dxf stl step stp iges igs obj dat bin msg pst ost tnef
"""
_UNKNOWN: Final = frozenset(_UNKNOWN_SUFFIXES.split())
_LIKE_A_PAGE = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*<\0?[!?a-z]", re.IGNORECASE)
_SUFFIXES: Final = {
    "image/jpeg": "jpg", "image/pjpeg": "jpg", "image/jpg": "jpg", "image/png": "png", "image/gif": "gif",
    "image/webp": "webp", "image/avif": "avif", "image/bmp": "bmp", "image/tiff": "tif", "image/heic": "heic",
    "image/svg+xml": "svg", "application/pdf": "pdf", "application/zip": "zip", "application/json": "json",
    "application/msword": "doc", "application/vnd.ms-excel": "xls", "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/rtf": "rtf", "text/rtf": "rtf", "text/html": "html", "text/csv": "csv", "text/calendar": "ics",
    "text/vcard": "vcf", "text/x-vcard": "vcf", "text/directory": "vcf", "message/rfc822": "eml",
    "message/global": "eml", "application/pgp-signature": "asc", "application/pgp-encrypted": "asc",
    "application/pkcs7-signature": "p7s", "application/x-pkcs7-signature": "p7s", "application/pkcs7-mime": "p7m",
    "application/x-pkcs7-mime": "p7m", "audio/mpeg": "mp3", "audio/wav": "wav", "audio/ogg": "ogg",
    "video/mp4": "mp4", "application/gzip": "gz", "application/octet-stream": "bin", "application/ms-tnef": "dat",
}  # fmt: skip


def file_name(names: Names, attachment: Attachment, content: bytes = b"") -> str:
    """A name of its own in a directory, for an attachment; it ends in a suffix that nothing runs."""
    wanted = attachment.name.replace("\\", "/").rpartition("/")[2].strip(" .")
    suffix = _SUFFIXES.get(attachment.media_type, "")
    if not wanted:
        wanted = f"{'message' if attachment.message else 'attachment'} {attachment.number}"
    stem, dot, last = wanted.rpartition(".")
    if not (dot and stem and 0 < len(last) <= 8 and last.isascii() and last.isalnum()) and suffix:
        wanted, last = f"{wanted}.{suffix}", suffix
    if last.lower() not in _INERT or (last.lower() in _UNKNOWN and _LIKE_A_PAGE.match(content)):
        wanted += ".txt"
    name = names.take(wanted, bytes_max=BYTES_MAX)
    # Shortening and cleaning keep the last suffix; that nothing else came out of it is worth a look all the same.
    return name if name.rpartition(".")[2].lower() in _INERT else names.take(name + ".txt", bytes_max=BYTES_MAX)


def is_renamed(name: str, attachment: Attachment) -> bool:
    """Whether the file is called by more than another spelling of its name: `.txt` was put behind."""
    return name.lower().endswith(".txt") and not attachment.name.lower().rstrip(" .").endswith(".txt")
