"""From an address to an account: who gets this mail, and in which mailbox.

Knows names only: exact address first, then the plain name for domains that are ours, then either without `+detail`,
then the postmaster. Knows no protocol and opens no account.
"""

from dataclasses import dataclass
from typing import Final

from mailkeep.errors import AccountMissing, AccountReadOnly
from mailkeep.store.account import AccountInfo
from mailkeep.store.accounts import Directory

ANY_DOMAIN: Final = "*"
_DELIMITER: Final = "+"


@dataclass(frozen=True, slots=True)
class Recipient:
    account: AccountInfo
    detail: str | None  # the mailbox wished for by `user+detail`; it may not exist
    address: str


@dataclass(frozen=True, slots=True)
class Routes:
    """`domains`: those for which a plain account name is an address, `*` for any. The postmaster is an account."""

    directory: Directory
    domains: frozenset[str] = frozenset({"localhost"})
    postmaster: str | None = None

    def find(self, local: str, domain: str | None = None) -> Recipient:
        """Raises AccountMissing, AccountReadOnly."""
        recipient = self._find(local, domain)
        if recipient.account.read_only:
            raise AccountReadOnly("This mailbox takes no mail")
        return recipient

    def _find(self, local: str, domain: str | None) -> Recipient:
        address = local if domain is None else f"{local}@{domain}"
        account = self._account(local, domain)
        if account is not None:
            return Recipient(account, None, address)
        name, delimiter, detail = local.partition(_DELIMITER)
        if delimiter and name:
            account = self._account(name, domain)
            if account is not None:
                return Recipient(account, detail or None, address)
        # Every system has a postmaster, in any case of letters, with and without domain (RFC 5321 section 4.5.1).
        if local.lower() == "postmaster" and self.postmaster and self._is_ours(domain):
            account = self.directory.find(self.postmaster)
            if account is not None:
                return Recipient(account, None, address)
        raise AccountMissing("No such user here")

    def _account(self, local: str, domain: str | None) -> AccountInfo | None:
        if domain is not None:
            account = self.directory.find(f"{local}@{domain}")
            if account is not None:
                return account
        # An account whose own name is a whole address is not reached through a quoted local part that spells it.
        if self._is_ours(domain) and "@" not in local:
            return self.directory.find(local)
        return None

    def _is_ours(self, domain: str | None) -> bool:
        return domain is None or ANY_DOMAIN in self.domains or domain.lower().rstrip(".") in self.domains
