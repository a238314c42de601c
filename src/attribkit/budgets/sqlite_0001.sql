CREATE TABLE attribkit_budgets (
    name TEXT PRIMARY KEY,
    definition TEXT NOT NULL,
    origin TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE attribkit_budget_version (version INTEGER NOT NULL);

INSERT INTO attribkit_budget_version VALUES (0);

CREATE TABLE attribkit_budget_counters (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    budget TEXT NOT NULL,
    key TEXT NOT NULL,
    "window" TEXT NOT NULL,
    unit TEXT NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER,
    slice INTEGER NOT NULL,
    length INTEGER NOT NULL,
    spent INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0,
    extra INTEGER NOT NULL DEFAULT 0,
    lent INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX attribkit_budget_counters_by_budget ON attribkit_budget_counters (budget);

CREATE TABLE attribkit_budget_holders (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    born TEXT NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE attribkit_budget_holds (
    counter INTEGER NOT NULL,
    holder TEXT NOT NULL,
    held INTEGER NOT NULL,
    share INTEGER NOT NULL,
    flushed INTEGER NOT NULL,
    PRIMARY KEY (counter, holder)
) WITHOUT ROWID;

CREATE INDEX attribkit_budget_holds_by_holder ON attribkit_budget_holds (holder);

CREATE TABLE attribkit_budget_slices (
    counter INTEGER NOT NULL,
    start INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    PRIMARY KEY (counter, start)
) WITHOUT ROWID;

CREATE TABLE attribkit_budget_entries (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    budget TEXT NOT NULL,
    key TEXT NOT NULL,
    amount INTEGER NOT NULL,
    note TEXT NOT NULL
);
