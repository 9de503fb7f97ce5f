"""The tests mirror `src/mailkeep`; what is shared between them are plain modules: `dovecot`, `server`, `messages`."""
