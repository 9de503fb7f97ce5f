"""Run as a process of its own: reads MSG files with extract-msg, one path a line, and prints what it found as JSON.

It imports nothing of Mailkeep: extract-msg is under the GPL, and a stranger's reader.
"""

import base64
import json
import logging
import sys
from typing import Any

import extract_msg

KEYWORDS = ("Keywords", "{00020329-0000-0000-C000-000000000046}")


def message_of(message: Any) -> dict[str, Any]:
    return {
        "class": message.classType,
        "subject": message.subject or "",
        "sender": [
            message.getStringStream("__substg1.0_0C1A") or "",
            message.getStringStream("__substg1.0_5D01") or "",
        ],
        "recipients": [[who.name, who.email, int(who.type)] for who in message.recipients],
        "display": [message.to or "", message.cc or "", message.bcc or ""],
        "sent": message.getPropertyVal("00390040").timestamp() if "00390040" in message.props else None,
        "arrived": message.getPropertyVal("0E060040").timestamp() if "0E060040" in message.props else None,
        "text": message.getStringStream("__substg1.0_1000"),
        "html": None if (html := message.getStream("__substg1.0_10130102")) is None else html.decode("utf-8"),
        "headers": message.getStringStream("__substg1.0_007D"),
        "read": message.isRead,
        "flags": message.getPropertyVal("0E070003"),
        "flagged": message.getPropertyVal("10900003"),
        "importance": message.getPropertyVal("00170003"),
        "icon": message.getPropertyVal("10800003"),
        "categories": message.getNamedProp(*KEYWORDS) or [],
        # A signed message would show what is inside its attachment instead.
        "attachments": [
            attachment_of(attachment) for attachment in getattr(message, "rawAttachments", None) or message.attachments
        ],
    }


def attachment_of(attachment: Any) -> dict[str, Any]:
    inner = attachment.type is extract_msg.enums.AttachmentType.MSG
    return {
        "name": attachment.longFilename,
        "type": attachment.mimetype,
        "cid": attachment.cid,
        "hidden": attachment.hidden,
        "data": None if inner else base64.b64encode(attachment.data).decode(),
        "message": message_of(attachment.data) if inner else None,
    }


logging.disable(logging.CRITICAL)
for line in sys.stdin:
    with extract_msg.openMsg(line.rstrip("\n")) as opened:
        print(json.dumps(message_of(opened)))
