-- What this account has of other people's servers. The remote_* tables hold cursors and facts that the next pull finds
-- again by origin; `uidl` is journalled as messages are.

CREATE TABLE remote_mailbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- below 2**31; never reused
    remote      INTEGER NOT NULL,                   -- directory.remote.id
    name        TEXT    NOT NULL,                   -- as the server names it, decoded
    mailbox     INTEGER,                            -- ours, mailbox.id; NULL: none yet
    uidvalidity INTEGER NOT NULL,                   -- of the server, as are the next two; 0: not known
    uidnext     INTEGER NOT NULL,
    modseq      INTEGER NOT NULL,
    cursor      BLOB,                               -- the engine's own
    UNIQUE (remote, name)
);
-- One row per message that the server was seen to have, whatever became of it here.
CREATE TABLE remote_message (
    key    INTEGER PRIMARY KEY,  -- remote_mailbox.id << 32 | uid
    flags  INTEGER NOT NULL,     -- flagset.id: what both sides last agreed on
    state  INTEGER NOT NULL,     -- remote_rows.State: 0 kept, else why not
    gone   INTEGER,              -- Unix seconds since when the server lacks it; NULL: it has it
    detail TEXT
);
-- Few rows are not kept: found without a scan.
CREATE INDEX remote_message_missing ON remote_message (key) WHERE state != 0;

-- What POP3 clients know a message by, where that is not what we would say.
CREATE TABLE uidl (
    key  INTEGER PRIMARY KEY,    -- message.key
    uidl TEXT    NOT NULL
);
