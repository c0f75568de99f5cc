-- Breakers of the agent that are not closed.

CREATE TABLE circuits (                  -- breakers of the agent that are not closed; a new agent begins without any
    protects TEXT PRIMARY KEY,           -- what is behind it, for people
    state    TEXT NOT NULL,              -- open | half-open
    retry_at REAL NOT NULL,              -- 0: a try is under way
    reason   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
