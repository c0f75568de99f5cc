-- What images say of themselves, so that an unchanged deploy asks the engine once for all services.

CREATE TABLE images (                    -- what images say of themselves, by ID: an ID never means anything else
    id    TEXT PRIMARY KEY,              -- sha256:…
    facts TEXT NOT NULL                  -- orchestrator.image_facts.ImageFacts
) STRICT, WITHOUT ROWID;
