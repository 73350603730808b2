-- The same text for SQLite and PostgreSQL: BIGINT milliseconds since 1970, TEXT for words, ids and JSON.

-- Numbers are taken here inside of the transaction that uses them, which also puts its writers in a row.
CREATE TABLE counter (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('delivery', 0), ('deployment', 0), ('check', 0);

-- What is known of a site beside its configuration. `touched` is written to lock the row.
CREATE TABLE site (
    name TEXT NOT NULL PRIMARY KEY,
    touched BIGINT NOT NULL DEFAULT 0,
    hold_reason TEXT,
    hold_owner TEXT,
    hold_since BIGINT
);

-- One webhook POST that was authentic. The same forge_key with a higher attempt is a redelivery.
CREATE TABLE delivery (
    id BIGINT NOT NULL PRIMARY KEY,
    repository TEXT NOT NULL,
    forge_key TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    event TEXT NOT NULL,
    digest TEXT NOT NULL,
    ref_name TEXT,
    before_id TEXT,
    after_id TEXT,
    status TEXT NOT NULL,
    reason TEXT,
    received_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX delivery_by_key ON delivery (repository, forge_key, attempt);

CREATE TABLE deployment (
    id BIGINT NOT NULL PRIMARY KEY,
    site TEXT NOT NULL,
    node TEXT NOT NULL,
    kind TEXT NOT NULL,
    trigger TEXT NOT NULL,
    state TEXT NOT NULL,
    step TEXT,
    reason TEXT,
    ref_name TEXT,
    before_id TEXT,
    after_id TEXT,
    commit_id TEXT,
    release TEXT,
    rollback_to TEXT,
    forced BOOLEAN NOT NULL,
    attempt BIGINT NOT NULL,
    retry_of BIGINT,
    superseded_by BIGINT,
    requested_by TEXT,
    forge_key TEXT,
    queued_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    lease_owner TEXT,
    lease_token TEXT,
    lease_until BIGINT
);
-- Per site and node at most one runs and one waits: not by care, by construction.
CREATE UNIQUE INDEX deployment_one_runs ON deployment (site, node) WHERE state = 'running';
CREATE UNIQUE INDEX deployment_one_waits ON deployment (site, node) WHERE state = 'queued';
CREATE INDEX deployment_waiting ON deployment (node, id) WHERE state = 'queued';
CREATE INDEX deployment_unfinished ON deployment (node, id) WHERE state IN ('running', 'stuck');
CREATE INDEX deployment_by_site ON deployment (site, id);

-- What was decided for each site of a delivery: the answer to "why did this push (not) deploy".
CREATE TABLE delivery_site (
    delivery BIGINT NOT NULL REFERENCES delivery (id),
    site TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    deployment BIGINT REFERENCES deployment (id),
    PRIMARY KEY (delivery, site)
);

-- Appended, never changed.
CREATE TABLE journal (
    deployment BIGINT NOT NULL REFERENCES deployment (id),
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (deployment, seq)
);

-- Releases that were rolled away from: a bare rollback does not choose them.
CREATE TABLE bad_release (
    site TEXT NOT NULL,
    node TEXT NOT NULL,
    release TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (site, node, release)
);
