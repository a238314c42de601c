CREATE TABLE attribkit_budget_counters_2 (
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
    extra INTEGER NOT NULL DEFAULT 0
);

INSERT INTO attribkit_budget_counters_2
    SELECT number, id, budget, key, "window", unit, start, "end", slice, length, extra FROM attribkit_budget_counters;

INSERT INTO attribkit_budget_holds SELECT number, '', reserved, lent, spent FROM attribkit_budget_counters;

DROP TABLE attribkit_budget_counters;

ALTER TABLE attribkit_budget_counters_2 RENAME TO attribkit_budget_counters;

CREATE INDEX attribkit_budget_counters_by_budget ON attribkit_budget_counters (budget)
