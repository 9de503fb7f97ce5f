"""Mailkeep against Dovecot on one machine: `make bench`. See `docs/performance.md` for what the figures mean."""
