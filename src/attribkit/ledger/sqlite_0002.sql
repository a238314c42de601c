ALTER TABLE attribkit_calls ADD COLUMN charged_pico INTEGER;
CREATE TABLE attribkit_repricings (
    label TEXT PRIMARY KEY NOT NULL,
    reason TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    price_version TEXT NOT NULL,
    since_ns INTEGER,
    until_ns INTEGER,
    conditions TEXT NOT NULL,
    calls INTEGER NOT NULL,
    changed INTEGER NOT NULL
);
CREATE TABLE attribkit_figures (
    label TEXT NOT NULL,
    call_id TEXT NOT NULL,
    cost_pico INTEGER,
    list_pico INTEGER,
    charged_pico INTEGER,
    cost_status TEXT NOT NULL,
    cost_reason TEXT,
    price_version TEXT NOT NULL,
    priced_as TEXT,
    price_date TEXT,
    cost_lines TEXT NOT NULL,
    PRIMARY KEY (label, call_id)
) WITHOUT ROWID;
