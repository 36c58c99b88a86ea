-- Everything that people and machines change while the gateway runs is a document. Its version is the "seq" of the audit
-- entry that put it.
CREATE TABLE documents (
    "kind" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "version" bigint NOT NULL,
    "value" bytea NOT NULL, -- JSON
    PRIMARY KEY ("kind", "id")
);

-- An identity is assigned before the commit, so that a later number could be seen before an earlier one. From here on the
-- number is given under a lock that is held until the commit.
ALTER TABLE audit ALTER COLUMN "seq" DROP IDENTITY;
CREATE INDEX audit_object ON audit ("object", "seq");
CREATE INDEX audit_who ON audit ("who", "seq");
CREATE INDEX audit_action ON audit ("action", "seq");

INSERT INTO documents SELECT 'grant', g."id", coalesce((SELECT max(a."seq") FROM audit a
    WHERE a."object" = g."id" AND a."action" = 'grant.put'), 1), g."value" FROM grants g;
INSERT INTO documents SELECT 'exemption', e."id", coalesce((SELECT max(a."seq") FROM audit a
    WHERE a."object" = e."id" AND a."action" = 'exemption.put'), 1), e."value" FROM exemptions e;
DROP TABLE grants;
DROP TABLE exemptions;

-- How often something was used, and when last. Not audited.
CREATE TABLE uses (
    "kind" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "last" timestamptz NOT NULL,
    "count" bigint NOT NULL,
    PRIMARY KEY ("kind", "id")
) WITH (fillfactor = 70);

-- Keys and values, for what must be decided once. Not audited.
CREATE TABLE kv (
    "bucket" text COLLATE "C" NOT NULL,
    "key" bytea NOT NULL,
    "value" bytea NOT NULL,
    "at" timestamptz NOT NULL, -- when it was written
    PRIMARY KEY ("bucket", "key")
);
CREATE INDEX kv_at ON kv ("bucket", "at");
