-- One row for each flow. "begin" and "end" are microseconds since 1970 UTC; "end" is null while the flow is open.
CREATE TABLE flows (
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
    "question"  TEXT NOT NULL, -- JSON of the question, exactly as it was judged

    "gateway"    TEXT AS ("record" ->> '$.gateway'),
    "resolve_us" INTEGER AS (("record" ->> '$.phases.resolve') / 1000),
    "connect_us" INTEGER AS (("record" ->> '$.phases.connect') / 1000),
    "tls_us"     INTEGER AS (("record" ->> '$.phases.tls') / 1000),
    "wait_us"    INTEGER AS (("record" ->> '$.phases.wait') / 1000),

    "stage"         TEXT AS ("question" ->> '$.stage'),
    "identified_by" TEXT AS ("question" ->> '$.host.by'),
    "source_addr"   TEXT AS ("question" ->> '$.host.addr'),
    "dest_port"     INTEGER AS ("question" ->> '$.dest.port'),
    "aim"           TEXT AS ("question" ->> '$.dest.aim'),

    "authority_connect" TEXT AS ("record" ->> '$.authority.connect'),
    "authority_sni"     TEXT AS ("record" ->> '$.authority.sni'),
    "authority_host"    TEXT AS ("record" ->> '$.authority.host'),
    "dialled"           TEXT AS ("record" ->> '$.authority.dialled'),
    "client_proto"      TEXT AS ("record" ->> '$.client.proto'),
    "client_alpn"       TEXT AS ("record" ->> '$.client.alpn'),
    "client_tls"        TEXT AS ("record" ->> '$.client.tls'),
    "client_ja4"        TEXT AS ("question" ->> '$.tls.ja4'),
    "upstream_proto"    TEXT AS ("record" ->> '$.upstream.proto'),
    "upstream_alpn"     TEXT AS ("record" ->> '$.upstream.alpn'),
    "upstream_tls"      TEXT AS ("record" ->> '$.upstream.tls'),
    "upstream_cert"     TEXT AS ("record" ->> '$.upstream_cert'),

    "scheme"           TEXT AS ("question" ->> '$.http.scheme'),
    "path"             TEXT AS ("question" ->> '$.http.path'),
    "request_headers"  TEXT AS ("question" -> '$.http.headers'),
    "response_headers" TEXT AS ("question" -> '$.response.headers'),
    "sent_header"      INTEGER AS ("record" ->> '$.sent.header'),
    "sent_body"        INTEGER AS ("record" ->> '$.sent.body'),
    "received_header"  INTEGER AS ("record" ->> '$.received.header'),
    "received_body"    INTEGER AS ("record" ->> '$.received.body'),
    "request_body"     TEXT AS ("record" ->> '$.request_body'),
    "response_body"    TEXT AS ("record" ->> '$.response_body'),
    "request_sha256"   TEXT AS ("record" ->> '$.request_sha256'),

    "action"       TEXT AS ("record" ->> '$.verdict.action'),
    "reason"       TEXT AS ("record" ->> '$.verdict.reason'),
    "grant"        TEXT AS ("record" ->> '$.verdict.grant'),
    "exemption"    TEXT AS ("record" ->> '$.verdict.exemption'),
    "audit"        INTEGER AS ("record" ->> '$.verdict.audit'),
    "fault_step"   TEXT AS ("record" ->> '$.fault.step'),
    "fault_type"   TEXT AS ("record" ->> '$.fault.type'),
    "fault_reason" TEXT AS ("record" ->> '$.fault.reason'),
    "findings"     TEXT AS ("record" -> '$.findings')
);

CREATE INDEX flows_begin ON flows ("begin");
CREATE INDEX flows_host ON flows ("host", "id");
CREATE INDEX flows_dest_host ON flows ("dest_host", "id");
CREATE INDEX flows_conn ON flows ("conn");

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
