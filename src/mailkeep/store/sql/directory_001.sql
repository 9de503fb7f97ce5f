-- Who has mail here: accounts, their names and credentials, and jobs. Mail itself is in each account's own database.

CREATE TABLE account (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT    NOT NULL,
    folded  TEXT    NOT NULL UNIQUE,   -- the name as compared
    quota   INTEGER,                   -- bytes; NULL: none
    created INTEGER NOT NULL           -- Unix seconds
);
CREATE TABLE alias (
    folded  TEXT    PRIMARY KEY,
    name    TEXT    NOT NULL,
    account INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE
);
CREATE TABLE credential (
    account   INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    mechanism TEXT    NOT NULL,
    value     BLOB    NOT NULL,
    PRIMARY KEY (account, mechanism)
);
CREATE TABLE job (
    id      INTEGER PRIMARY KEY,
    kind    TEXT    NOT NULL,
    account INTEGER,
    key     BLOB    NOT NULL,          -- what the job is about; the same one resumes
    state   TEXT    NOT NULL,
    cursor  BLOB,
    detail  BLOB,
    created INTEGER NOT NULL,          -- Unix seconds
    updated INTEGER NOT NULL,
    UNIQUE (kind, account, key)
);
