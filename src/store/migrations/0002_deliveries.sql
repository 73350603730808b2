-- What it takes to say why a push was (not) deployed, and to do it again with the very same bytes.

ALTER TABLE delivery ADD COLUMN changes TEXT;
ALTER TABLE delivery ADD COLUMN headers TEXT;
ALTER TABLE delivery ADD COLUMN body_size BIGINT;
ALTER TABLE delivery ADD COLUMN source TEXT;
ALTER TABLE delivery ADD COLUMN latency_us BIGINT;
ALTER TABLE delivery ADD COLUMN replay_of BIGINT;
ALTER TABLE delivery ADD COLUMN asked_by TEXT;
CREATE INDEX delivery_by_time ON delivery (received_at);

-- What of a delivery was for the site: of several refs one.
ALTER TABLE delivery_site ADD COLUMN ref_name TEXT;
ALTER TABLE delivery_site ADD COLUMN after_id TEXT;
CREATE INDEX delivery_site_by_commit ON delivery_site (site, after_id);

-- The forge's own id of a repository, as the first authentic push said it that came after it was configured so.
CREATE TABLE repository (
    name TEXT NOT NULL,
    identity TEXT NOT NULL,
    forge_id TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (name, identity)
);

-- Bodies, compressed: beside the rows, so that a long one does not slow down who reads the others, and each once, however
-- often it is sent. SQLite takes any word for a type, and keeps bytes as they are.
CREATE TABLE body (
    digest TEXT NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    packed_size BIGINT NOT NULL,
    last_used BIGINT NOT NULL,
    -- The last: what stands behind a long value takes a walk through it.
    packed BYTEA NOT NULL
);
CREATE INDEX body_by_use ON body (last_used);
