"""What pypstreader finds in a PST: a line of JSON for each folder and each message. A program of its own."""

import hashlib
import json
import sys
from typing import Any

import pypstreader


def message_of(message: Any, folder: str) -> dict[str, Any]:
    attachments: list[Any] = []
    for one in message.attachments():
        name = one.long_filename or one.filename or ""
        inside = one.embedded_message()
        if inside is not None:
            attachments.append((name, message_of(inside, "")))
        else:
            attachments.append((name, hashlib.sha256(data_of(one)).hexdigest()))
    html = message.body_html
    return {
        "folder": folder,
        "subject": message.subject or "",
        "sender": message.get(0x0042) or "",
        "sender_address": message.get(0x0065) or "",
        "delivered": message.delivery_filetime,
        "submitted": message.client_submit_filetime,
        "read": bool(message.message_flags & 1),
        "text": message.body_text or "",
        "html": (html or b"").hex(),
        "recipients": [(int(one.type), one.name or "", one.email or "") for one in message.recipients()],
        "attachments": attachments,
    }


def data_of(attachment: Any) -> bytes:
    try:
        return attachment.data() or b""
    except pypstreader.PstFormatError:
        # It takes an empty value, which has no place in the file, for a missing one.
        if attachment.properties.records[0x3701].raw:
            raise
        return b""


def main() -> None:
    store = pypstreader.open(sys.argv[1])
    for folder in store.root_folder.walk():
        name = str(folder.get(0x3001) or "")  # `display_name` takes the root's, which is empty, for a fault
        print(json.dumps({"path": name, "count": folder.content_count}))
        for message in folder.messages():
            print(json.dumps(message_of(message, name)))


if __name__ == "__main__":
    main()
