-- One row for each flow. "begin" and "end" are microseconds since 1970 UTC; "end" is null while the flow is open.
CREATE TABLE flow (
    "id"        TEXT NOT NULL UNIQUE,
    "conn"      TEXT NOT NULL,
    "kind"      TEXT NOT NULL,
    "begin"     INTEGER NOT NULL,
    "end"       INTEGER,
    "outcome"   TEXT NOT NULL,
    "way"       TEXT NOT NULL,
    "host"      TEXT NOT NULL,
    "class"     TEXT NOT NULL,
    "dest_host" TEXT NOT NULL,
    "method"    TEXT NOT NULL,
    "url"       TEXT NOT NULL,
    "status"    INTEGER NOT NULL,
    "rule"      TEXT NOT NULL,
    "revision"  TEXT NOT NULL,
    "record"    TEXT NOT NULL, -- JSON of the flow without its question
    "question"  TEXT NOT NULL -- JSON of the question, exactly as it was judged
);

CREATE INDEX flow_begin ON flow ("begin");
CREATE INDEX flow_host ON flow ("host", "id");
CREATE INDEX flow_dest_host ON flow ("dest_host", "id");
CREATE INDEX flow_conn ON flow ("conn");

-- The flows with every column by its name. What is not written is computed here when somebody reads it: SQLite computes
-- virtual columns for every row that is inserted, which costs more than all else.
CREATE VIEW flows AS SELECT
    "id", "conn", "kind", "begin", "end", "outcome", "way", "host", "class", "dest_host", "method", "url", "status",
    "rule", "revision",
    "record" ->> '$.gateway' AS "gateway",
    ("record" ->> '$.phases.resolve') / 1000 AS "resolve_us",
    ("record" ->> '$.phases.connect') / 1000 AS "connect_us",
    ("record" ->> '$.phases.tls') / 1000 AS "tls_us",
    ("record" ->> '$.phases.wait') / 1000 AS "wait_us",
    "question" ->> '$.stage' AS "stage",
    "question" ->> '$.host.by' AS "identified_by",
    "question" ->> '$.host.addr' AS "source_addr",
    "question" ->> '$.dest.port' AS "dest_port",
    "question" ->> '$.dest.aim' AS "aim",
    "record" ->> '$.authority.connect' AS "authority_connect",
    "record" ->> '$.authority.sni' AS "authority_sni",
    "record" ->> '$.authority.host' AS "authority_host",
    "record" ->> '$.authority.dialled' AS "dialled",
    "record" ->> '$.client.proto' AS "client_proto",
    "record" ->> '$.client.alpn' AS "client_alpn",
    "record" ->> '$.client.tls' AS "client_tls",
    "question" ->> '$.tls.ja4' AS "client_ja4",
    "record" ->> '$.upstream.proto' AS "upstream_proto",
    "record" ->> '$.upstream.alpn' AS "upstream_alpn",
    "record" ->> '$.upstream.tls' AS "upstream_tls",
    "record" ->> '$.upstream_cert' AS "upstream_cert",
    "question" ->> '$.http.scheme' AS "scheme",
    "question" ->> '$.http.path' AS "path",
    "question" -> '$.http.headers' AS "request_headers",
    "question" -> '$.response.headers' AS "response_headers",
    "record" ->> '$.sent.header' AS "sent_header",
    "record" ->> '$.sent.body' AS "sent_body",
    "record" ->> '$.received.header' AS "received_header",
    "record" ->> '$.received.body' AS "received_body",
    "record" ->> '$.request_body' AS "request_body",
    "record" ->> '$.response_body' AS "response_body",
    "record" ->> '$.request_sha256' AS "request_sha256",
    "record" ->> '$.verdict.action' AS "action",
    "record" ->> '$.verdict.reason' AS "reason",
    "record" ->> '$.verdict.grant' AS "grant",
    "record" ->> '$.verdict.exemption' AS "exemption",
    "record" ->> '$.verdict.audit' AS "audit",
    "record" ->> '$.fault.step' AS "fault_step",
    "record" ->> '$.fault.type' AS "fault_type",
    "record" ->> '$.fault.reason' AS "fault_reason",
    "record" -> '$.findings' AS "findings",
    "record", "question"
FROM flow;

CREATE TABLE grants (
    "id"    TEXT NOT NULL PRIMARY KEY,
    "value" BLOB NOT NULL -- JSON
) WITHOUT ROWID;

CREATE TABLE exemptions (
    "id"    TEXT NOT NULL PRIMARY KEY,
    "value" BLOB NOT NULL -- JSON
) WITHOUT ROWID;

-- Who changed what, and why. Rows are only ever added.
CREATE TABLE audit (
    "seq"    INTEGER PRIMARY KEY AUTOINCREMENT,
    "at"     INTEGER NOT NULL, -- microseconds since 1970 UTC
    "who"    TEXT NOT NULL,
    "action" TEXT NOT NULL,
    "object" TEXT NOT NULL,
    "reason" TEXT NOT NULL,
    "value"  BLOB NOT NULL -- JSON
);
CREATE TRIGGER audit_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit entries are kept'); END;
CREATE TRIGGER audit_fixed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit entries are kept'); END;
