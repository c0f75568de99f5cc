-- What of this machine is promised to whom: .machine/ledger.db, SQLite in WAL mode, 0600 in a 0700 folder.
-- Points in time are seconds since the epoch; memory is in MB of 2^20 bytes, storage in GB of 2^30.

CREATE TABLE owners (
    id         TEXT PRIMARY KEY,         -- real path of a project's state folder, or PID:START:BOOT of a process
    name       TEXT NOT NULL,            -- what people know it by
    is_project INTEGER NOT NULL,
    pid        INTEGER NOT NULL,         -- the process; of a project: the one that deploys it, 0 when none does
    start_time INTEGER NOT NULL,
    boot_id    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE promises (
    owner      TEXT NOT NULL,
    service    TEXT NOT NULL,
    stage      TEXT NOT NULL CHECK (stage IN ('kept', 'deploying', 'allocated')),
    cpu_cores  REAL NOT NULL CHECK (cpu_cores >= 0),
    memory_mb  INTEGER NOT NULL CHECK (memory_mb >= 0),
    storage_gb INTEGER NOT NULL CHECK (storage_gb >= 0),
    gpu_count  INTEGER NOT NULL CHECK (gpu_count >= 0),
    folders    TEXT NOT NULL,            -- JSON list: where what it stores lies
    disk       TEXT NOT NULL,            -- a folder on the disk that storage_gb is of: the data_dir
    made_at    REAL NOT NULL,
    PRIMARY KEY (owner, service, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (                   -- GPUs that are promised; what is not here is free
    number    INTEGER PRIMARY KEY,       -- index of NVML
    owner     TEXT NOT NULL,
    service   TEXT NOT NULL,
    allocated INTEGER NOT NULL,          -- by hand: no deployment takes it away
    revision  INTEGER,                   -- the instance that has it; NULL: none yet
    instance  INTEGER                    -- its index
) STRICT;

CREATE TABLE ports (                     -- dynamic ports that one project alone may choose from
    number INTEGER PRIMARY KEY,
    owner  TEXT NOT NULL
) STRICT;
