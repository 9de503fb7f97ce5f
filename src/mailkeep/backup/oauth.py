"""OAuth 2: tokens for Microsoft by device code (RFC 8628), for others by loopback and PKCE (RFC 8252, 7636).

The messages are authlib's over httpx2; the device flow's polling, the listener on 127.0.0.1 and the keeping of tokens
are ours. One's own client id is needed: an issuer lets a program in by its registration, and an open source program
cannot keep a registration of its own secret.

The one hard idea is single flight. A refresh token may be good for one use only, so of all tasks and processes that
find the access token stale, one refreshes, under a lock file, and writes both tokens back sealed; the others read them.
"""

from mailkeep.backup.settings import Remote
from mailkeep.secret import Secret
from mailkeep.store.store import Store


async def access_token(store: Store, remote: Remote) -> Secret:
    """Of a remote; refreshed if need be. Raises BadCredentials, Unreachable, RemoteError, ConfigError."""
    raise NotImplementedError
