-- Other people's servers: which account takes in what, and what was learnt of a host. What clients may do in an account.

ALTER TABLE account ADD COLUMN access TEXT NOT NULL DEFAULT 'full' CHECK (access IN ('full', 'read'));
ALTER TABLE account ADD COLUMN gone   TEXT NOT NULL DEFAULT 'show' CHECK (gone IN ('show', 'hide'));

CREATE TABLE remote (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: origins name it
    name     TEXT    NOT NULL,
    folded   TEXT    NOT NULL UNIQUE,            -- the name as compared
    account  INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE ON UPDATE CASCADE,
    settings BLOB    NOT NULL,
    secret   BLOB,                               -- sealed
    schedule TEXT,
    state    BLOB,
    created  INTEGER NOT NULL                    -- Unix seconds
);
CREATE INDEX remote_account ON remote (account);
CREATE TABLE host (
    name  TEXT PRIMARY KEY,
    state BLOB NOT NULL
) WITHOUT ROWID;
