CREATE TABLE users (
    email         text PRIMARY KEY,
    password      bytea NOT NULL,     -- salt and scrypt hash
    registered_at timestamptz NOT NULL DEFAULT now()
);
