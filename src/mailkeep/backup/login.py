"""What to log in with: the password or token of a remote, from wherever its settings say that it is.

Sealed in the store, printed by a command, in the desktop's keyring, or got from an OAuth 2 issuer: only this file knows
all four. Ask again for each connection, for a token lives an hour.
"""

from mailkeep.backup.outside import outside_secret
from mailkeep.backup.seal import password_of, unseal
from mailkeep.backup.settings import Password, Remote, Token
from mailkeep.store.store import Store


async def secret_of(store: Store, remote: Remote) -> Password | Token:
    """Ready to be sent; a token is fresh. Raises BadCredentials, ConfigError, Unreachable, RemoteError."""
    settings = remote.settings
    if settings.secret == "sealed":
        return Password(password_of(unseal(store.root, remote.name, remote.sealed), remote.name))
    if settings.secret == "oauth2":
        from mailkeep.backup import oauth  # authlib and httpx2 take longer to load than a pull with nothing to do

        return Token(await oauth.access_token(store, remote))
    return Password(await outside_secret(settings))
