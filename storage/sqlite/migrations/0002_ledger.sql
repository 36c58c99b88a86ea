-- Everything that people and machines change while the gateway runs is a document. Its version is the "seq" of the audit
-- entry that put it.
CREATE TABLE documents (
    "kind"    TEXT NOT NULL,
    "id"      TEXT NOT NULL,
    "version" INTEGER NOT NULL,
    "value"   BLOB NOT NULL, -- JSON
    PRIMARY KEY ("kind", "id")
) WITHOUT ROWID;

CREATE INDEX audit_object ON audit ("object", "seq");
CREATE INDEX audit_who ON audit ("who", "seq");
CREATE INDEX audit_action ON audit ("action", "seq");

INSERT INTO documents SELECT 'grant', g."id", coalesce((SELECT max(a."seq") FROM audit a
    WHERE a."object" = g."id" AND a."action" = 'grant.put'), 1), g."value" FROM grants g;
INSERT INTO documents SELECT 'exemption', e."id", coalesce((SELECT max(a."seq") FROM audit a
    WHERE a."object" = e."id" AND a."action" = 'exemption.put'), 1), e."value" FROM exemptions e;
DROP TABLE grants;
DROP TABLE exemptions;

-- How often something was used, and when last ("last" is microseconds since 1970 UTC). Not audited.
CREATE TABLE uses (
    "kind"  TEXT NOT NULL,
    "id"    TEXT NOT NULL,
    "last"  INTEGER NOT NULL,
    "count" INTEGER NOT NULL,
    PRIMARY KEY ("kind", "id")
) WITHOUT ROWID;

-- Keys and values, for what must be decided once. Not audited.
CREATE TABLE kv (
    "bucket" TEXT NOT NULL,
    "key"    BLOB NOT NULL,
    "value"  BLOB NOT NULL,
    "at"     INTEGER NOT NULL, -- when it was written: microseconds since 1970 UTC
    PRIMARY KEY ("bucket", "key")
) WITHOUT ROWID;
CREATE INDEX kv_at ON kv ("bucket", "at");
