"""What the connections of a scripted server have in common: its mailboxes, its faults, how often which rule struck.

Knows no protocol and no socket. The counts are the server's and not a connection's, so that who comes again finds a
fault mended that was to strike once.
"""

import re
import ssl
from collections import Counter
from dataclasses import dataclass, field

from mailkeep.testing.faults import Break, Busy, Faults
from mailkeep.testing.mailboxes import Account

Rule = tuple[str, int] | str


@dataclass(slots=True)
class State:
    """`faults` may be replaced at any time and holds from the next command on."""

    faults: Faults
    account: Account
    user: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    starttls: ssl.SSLContext | None = None
    log: list[bytes] = field(default_factory=list)
    connections: int = 0  # accepted so far
    open: int = 0
    body_bytes: int = 0  # of messages, sent in all: what `bytes_cap` counts
    counts: Counter[Rule] = field(default_factory=Counter)  # how often each rule was asked, and struck

    def breaks(self, line: bytes) -> Break | None:
        """The break that strikes at this command, if one does."""
        found = None
        for number, rule in enumerate(self.faults.breaks):
            if not re.search(rule.at, line, re.IGNORECASE):
                continue
            self.counts["breaks", number] += 1
            struck = self.counts["breaks", number] - rule.nth
            if struck >= 0 and (rule.times is None or struck < rule.times):
                found = rule
        return found

    def busy(self, line: bytes) -> Busy | None:
        """The rule that refuses this command for now, if one does."""
        for number, rule in enumerate(self.faults.busy):
            if not re.search(rule.at, line, re.IGNORECASE):
                continue
            self.counts["busy", number] += 1
            if self.counts["busy", number] % rule.every == 0:
                self.counts["busy", -1 - number] += 1  # below zero: how often it struck
                if rule.times is None or self.counts["busy", -1 - number] <= rule.times:
                    return rule
        return None

    def first(self, name: str, limit: int) -> bool:
        """Whether this is among the first `limit` times that something happens; `name` is the fault's."""
        if limit <= self.counts[name]:
            return False
        self.counts[name] += 1
        return True
