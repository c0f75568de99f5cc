-- State of one project: <data_dir>/<project>/state.db, SQLite in WAL mode, 0600 in a 0700 folder.
-- Each table has one owner. Points in time are seconds since the epoch; JSON columns hold codec.to_data of model classes.

-- owner: engine ---------------------------------------------------------------------------------------------------

CREATE TABLE project (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    name        TEXT NOT NULL,
    file        TEXT NOT NULL,           -- real path of the first config file; another one is an error unless --adopt
    environment TEXT NOT NULL,
    log_dir     TEXT NOT NULL,           -- where instance logs lie, so that logs work without the file
    created_at  REAL NOT NULL
) STRICT;

CREATE TABLE revisions (                 -- immutable numbered content behind one run hash of a service
    service    TEXT NOT NULL,
    number     INTEGER NOT NULL,
    run_hash   TEXT NOT NULL,
    content    TEXT NOT NULL,            -- model.Content; env included, hence 0600
    secrets    TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL,
    PRIMARY KEY (service, number),
    UNIQUE (service, run_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (                  -- model.Policy by digest: most deployments share most of them
    digest TEXT PRIMARY KEY,
    policy TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE deployments (
    number              INTEGER PRIMARY KEY,
    kind                TEXT NOT NULL,   -- deploy | stop | restart | scale | rollback
    status              TEXT NOT NULL,   -- in_progress | completed | failed | rolled_back
    good                INTEGER NOT NULL DEFAULT 0,  -- completed phase "health", not forced
    forced              INTEGER NOT NULL DEFAULT 0,
    rollback_on_failure INTEGER NOT NULL DEFAULT 1,
    started_at          REAL NOT NULL,
    finished_at         REAL,
    who                 TEXT NOT NULL,   -- user@host pid N
    origin              TEXT NOT NULL,   -- the command, secrets redacted
    environment         TEXT NOT NULL,
    services            TEXT NOT NULL,   -- JSON list: what this run may touch
    before              TEXT NOT NULL,   -- JSON {service: {revision, policy digest, replicas, stopped}}: the full map
    after               TEXT NOT NULL,   -- the full map this deployment is to reach
    final               TEXT,            -- the full map that held when it was over; NULL while it runs and after a crash
    plan                TEXT NOT NULL DEFAULT '',   -- str(plan), secrets redacted
    settings            TEXT NOT NULL DEFAULT '{}',  -- model.Settings it went by: what other commands go by without the file
    report              TEXT NOT NULL DEFAULT '{}'  -- DeploymentReport as a mapping, secrets redacted
) STRICT;

CREATE TABLE steps (                     -- trace for people; recovery never reads it
    deployment  INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    step        TEXT NOT NULL,
    cause       TEXT NOT NULL,
    started_at  REAL NOT NULL,
    finished_at REAL,
    error       TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (deployment, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    at         REAL NOT NULL,
    deployment INTEGER NOT NULL,
    service    TEXT NOT NULL,
    name       TEXT NOT NULL,
    text       TEXT NOT NULL,
    who        TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE images (                    -- what images say of themselves, by ID: an ID never means anything else
    id    TEXT PRIMARY KEY,              -- sha256:…
    facts TEXT NOT NULL                  -- orchestrator.image_facts.ImageFacts
) STRICT, WITHOUT ROWID;

CREATE TABLE resolved (                  -- cache: digest of all inputs of a load → model.Project
    digest     TEXT PRIMARY KEY,
    project    TEXT NOT NULL,
    used_at    REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- owner: agent ----------------------------------------------------------------------------------------------------

CREATE TABLE wanted (                    -- the wanted set; content comes from revisions
    service    TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    replicas   INTEGER NOT NULL,
    policy     TEXT NOT NULL,
    deployment INTEGER NOT NULL,
    settled    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (service, revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (                 -- committed before the spawn, so that nothing spawned is ever unknown
    uuid     TEXT PRIMARY KEY,
    service  TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state    TEXT NOT NULL               -- model.Instance
) STRICT, WITHOUT ROWID;

CREATE TABLE one_shots (                 -- for ever: once per (service, run hash)
    service     TEXT NOT NULL,
    run_hash    TEXT NOT NULL,
    outcome     TEXT NOT NULL,           -- started | completed | failed | unknown
    exit_code   INTEGER,
    started_at  REAL NOT NULL,
    finished_at REAL,
    PRIMARY KEY (service, run_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE agent_events (
    id         INTEGER PRIMARY KEY,
    at         REAL NOT NULL,
    deployment INTEGER NOT NULL,
    service    TEXT NOT NULL,
    name       TEXT NOT NULL,
    text       TEXT NOT NULL
) STRICT;

CREATE TABLE circuits (                  -- breakers of the agent that are not closed; a new agent begins without any
    protects TEXT PRIMARY KEY,           -- what is behind it, for people
    state    TEXT NOT NULL,              -- open | half-open
    retry_at REAL NOT NULL,              -- 0: a try is under way
    reason   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX events_at ON events (at);
CREATE INDEX agent_events_at ON agent_events (at);
