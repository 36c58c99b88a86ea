-- One row for each flow; a copy of what is searched by, then the flow itself in two columns of JSON, which are bytea because
-- a text or jsonb column takes neither NUL nor a lone surrogate.
CREATE TABLE flows (
    "id" text COLLATE "C" NOT NULL,
    "conn" text COLLATE "C" NOT NULL,
    "gateway" text NOT NULL,
    "kind" text NOT NULL,
    "begin" timestamptz NOT NULL,
    "end" timestamptz,
    "outcome" text NOT NULL,
    "resolve_us" bigint NOT NULL,
    "connect_us" bigint NOT NULL,
    "tls_us" bigint NOT NULL,
    "wait_us" bigint NOT NULL,
    "stage" text NOT NULL,
    "way" text NOT NULL,
    "host" text NOT NULL,
    "class" text NOT NULL,
    "identified_by" text NOT NULL,
    "source_addr" inet,
    "dest_host" text NOT NULL,
    "dest_port" bigint NOT NULL,
    "aim_addr" inet,
    "aim_port" bigint NOT NULL,
    "authority_connect" text NOT NULL,
    "authority_sni" text NOT NULL,
    "authority_host" text NOT NULL,
    "dialled_addr" inet,
    "dialled_port" bigint NOT NULL,
    "client_proto" text NOT NULL,
    "client_alpn" text NOT NULL,
    "client_tls" text NOT NULL,
    "client_ja4" text NOT NULL,
    "upstream_proto" text NOT NULL,
    "upstream_alpn" text NOT NULL,
    "upstream_tls" text NOT NULL,
    "upstream_cert" text NOT NULL,
    "method" text NOT NULL,
    "scheme" text NOT NULL,
    "url" text NOT NULL,
    "path" text NOT NULL,
    "request_headers" text NOT NULL,
    "response_headers" text NOT NULL,
    "status" bigint NOT NULL,
    "sent_header" bigint NOT NULL,
    "sent_body" bigint NOT NULL,
    "received_header" bigint NOT NULL,
    "received_body" bigint NOT NULL,
    "request_body" text NOT NULL,
    "response_body" text NOT NULL,
    "request_sha256" text NOT NULL,
    "action" text NOT NULL,
    "rule" text NOT NULL,
    "reason" text NOT NULL,
    "revision" text NOT NULL,
    "grant" text NOT NULL,
    "exemption" text NOT NULL,
    "audit" boolean NOT NULL,
    "fault_step" text NOT NULL,
    "fault_type" text NOT NULL,
    "fault_reason" text NOT NULL,
    "findings" text NOT NULL,
    "record" bytea NOT NULL, -- JSON of the flow without its question
    "question" bytea NOT NULL, -- JSON of the question, exactly as it was judged
    PRIMARY KEY ("id", "begin")
) PARTITION BY RANGE ("begin");
CREATE TABLE flows_other PARTITION OF flows DEFAULT;

CREATE INDEX flows_begin ON flows USING brin ("begin");
CREATE INDEX flows_host ON flows ("host", "id");
CREATE INDEX flows_dest_host ON flows ("dest_host", "id");
CREATE INDEX flows_dest_suffix ON flows (reverse("dest_host") text_pattern_ops);
CREATE INDEX flows_conn ON flows ("conn");
CREATE INDEX flows_outcome ON flows ("outcome", "id") WHERE "outcome" <> 'allowed';

CREATE TABLE grants (
    "id" text COLLATE "C" PRIMARY KEY,
    "value" bytea NOT NULL -- JSON
);
CREATE TABLE exemptions (
    "id" text COLLATE "C" PRIMARY KEY,
    "value" bytea NOT NULL -- JSON
);

-- Who changed what, and why. Rows are only ever added.
CREATE TABLE audit (
    "seq" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "at" timestamptz NOT NULL,
    "who" text NOT NULL,
    "action" text NOT NULL,
    "object" text NOT NULL,
    "reason" text NOT NULL,
    "value" bytea NOT NULL -- JSON
);
CREATE FUNCTION audit_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'audit entries are kept'; END $$;
CREATE TRIGGER audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_kept();
