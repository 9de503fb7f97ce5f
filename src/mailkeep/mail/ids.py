"""Numbers that must not mix.

A UID, a sequence number and a mod-sequence are all integers; a type checker that tells them apart finds the classic
bugs of IMAP servers before a client does.
"""

from typing import NewType

UID = NewType("UID", int)  # 1 … 2**32-1, per mailbox, never reused (RFC 9051 section 2.3.1.1)
SeqNum = NewType("SeqNum", int)  # 1 … number of messages, per session (RFC 9051 section 2.3.1.2)
ModSeq = NewType("ModSeq", int)  # 1 … 2**63-1, one counter per account (RFC 7162)
UIDValidity = NewType("UIDValidity", int)
AccountId = NewType("AccountId", int)
MailboxId = NewType("MailboxId", int)
EmailId = NewType("EmailId", int)  # one per distinct content in an account
FlagSetId = NewType("FlagSetId", int)  # one per distinct set of flags in an account

UID_MAX = 0xFFFF_FFFF
