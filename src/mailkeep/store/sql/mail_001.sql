-- One account's mail. The packs hold the bytes and a journal; everything here can be rebuilt from them.

CREATE TABLE state (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    modseq      INTEGER NOT NULL,  -- the last one given, account-wide
    trimmed     INTEGER NOT NULL,  -- tombstones with `removed` at or below this may be gone: changes() before it are incomplete
    uidvalidity INTEGER NOT NULL,  -- the last one given; only rises, so a name made again never repeats one
    logged      INTEGER NOT NULL,  -- flag_change lacks what is at or below this
    txn         INTEGER NOT NULL,  -- random name of the last committed transaction: the journal's chain (blobs.py)
    email       INTEGER NOT NULL,  -- the last email.id given
    pack        INTEGER NOT NULL,  -- the pack that the last synced transaction wrote to, and its end: newer than its
    pack_end    INTEGER NOT NULL,  -- row in `pack`, if it has one. Here, every commit writes this row anyway
    boot        TEXT    NOT NULL   -- of the machine that wrote last (ledger.BOOT)
);

CREATE TABLE mailbox (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,  -- below 2**31; never reused
    name          TEXT    NOT NULL,                   -- "/" between levels; INBOX in capitals
    uidvalidity   INTEGER NOT NULL,
    uidnext       INTEGER NOT NULL DEFAULT 1,
    highestmodseq INTEGER NOT NULL,
    recent_from   INTEGER NOT NULL DEFAULT 1,         -- first UID that no session was told as \Recent
    messages      INTEGER NOT NULL DEFAULT 0,         -- live ones, as are the next four
    unseen        INTEGER NOT NULL DEFAULT 0,         -- without \Seen
    deleted       INTEGER NOT NULL DEFAULT 0,         -- with \Deleted
    size          INTEGER NOT NULL DEFAULT 0,         -- bytes
    checksum      INTEGER NOT NULL DEFAULT 0,         -- XOR of schema.checksum_term(uid, sha256)
    special_use   TEXT    NOT NULL DEFAULT '',        -- "\Drafts", … separated by spaces
    removed       INTEGER,                            -- modseq at which the mailbox was deleted
    removed_at    INTEGER                             -- … and when, Unix seconds
);
CREATE UNIQUE INDEX mailbox_name ON mailbox (name) WHERE removed IS NULL;

CREATE TABLE subscription (name TEXT PRIMARY KEY) WITHOUT ROWID;  -- may name what does not exist (RFC 9051 6.3.7)

CREATE TABLE flagset (
    id    INTEGER PRIMARY KEY,   -- rises; never removed
    names TEXT NOT NULL UNIQUE   -- sorted, system flags first, separated by spaces; '' is the empty set
);

-- One row per distinct content. The columns that FETCH asks for most come first.
CREATE TABLE email (
    id            INTEGER PRIMARY KEY,                -- never reused (state.email): sessions, header_cache remember it
    sha256        BLOB    NOT NULL,                   -- of the bytes as received
    size          INTEGER NOT NULL,                   -- of the bytes as received
    header_size   INTEGER NOT NULL,
    pack          INTEGER NOT NULL,                   -- packs/<pack>.pack
    offset        INTEGER NOT NULL,                   -- of the record's header in the pack
    length        INTEGER NOT NULL,                   -- stored bytes after the record's header
    codec         INTEGER NOT NULL,                   -- blobs.RAW or blobs.ZSTD
    thread        INTEGER NOT NULL,
    sent_day      INTEGER,
    envelope      BLOB    NOT NULL,
    envelope_utf8 BLOB,
    sections      BLOB    NOT NULL,
    bodystructure BLOB    NOT NULL,
    body          BLOB    NOT NULL,
    message_id    TEXT,
    subject       TEXT    NOT NULL,
    preview       TEXT    NOT NULL
);
CREATE UNIQUE INDEX email_sha256 ON email (sha256);

-- One row per place. A tombstone keeps its row, with `removed` set.
CREATE TABLE message (
    key          INTEGER PRIMARY KEY,  -- mailbox << 32 | uid
    email        INTEGER NOT NULL,
    size         INTEGER NOT NULL,     -- the email's: asked for in every listing, and email rows are wide
    flags        INTEGER NOT NULL,     -- flagset.id
    modseq       INTEGER NOT NULL,     -- of the last change of flags, or of the arrival
    internaldate INTEGER NOT NULL,     -- Unix seconds
    savedate     INTEGER NOT NULL,     -- when it came into this mailbox, Unix seconds
    added        INTEGER NOT NULL,     -- modseq of the arrival
    removed      INTEGER,              -- modseq of the removal; NULL: live
    removed_at   INTEGER,              -- Unix seconds
    fate         INTEGER,              -- why removed: schema.Fate
    origin       BLOB                  -- where it was taken from; unique, so that a repeated pull adds nothing
);
CREATE UNIQUE INDEX message_origin ON message (origin) WHERE origin IS NOT NULL;
CREATE INDEX message_email ON message (email);
CREATE INDEX message_removed ON message (removed) WHERE removed IS NOT NULL;

-- Which messages a flag change touched: lets another process catch up without scanning the mailbox. Trimmed from
-- below up to state.logged; message.modseq is the truth, so a reader that asks for more than is here scans.
CREATE TABLE flag_change (
    modseq  INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL,
    uids    BLOB    NOT NULL           -- u32 each, in the machine's order
);

CREATE TABLE thread_ref (ref INTEGER PRIMARY KEY, thread INTEGER NOT NULL);  -- hash of a Message-ID → thread

-- Header sets that clients ask for (BODY[HEADER.FIELDS (…)]), cut once.
CREATE TABLE header_set (id INTEGER PRIMARY KEY, names BLOB NOT NULL UNIQUE);
CREATE TABLE header_cache (key INTEGER PRIMARY KEY, value BLOB NOT NULL);   -- header_set << 40 | email

-- How far each pack is known to be synced: its next owner looks for a half-written tail only past this.
CREATE TABLE pack (id INTEGER PRIMARY KEY, end INTEGER NOT NULL);

-- Packs whose records are all elsewhere by now, to be unlinked after a grace time (collect).
CREATE TABLE retired (pack INTEGER PRIMARY KEY, at INTEGER NOT NULL);

INSERT INTO state VALUES (1, 1, 0, 0, 0, 0, 0, 0, 0, '');
INSERT INTO flagset VALUES (1, '');
