//! Tables and indexes. Every look-up that a call makes is served by one of them.
//!
//! Items keep their parent and their folded name, not their path: renaming or moving a folder is then one row, whatever is
//! below it, and a path is resolved in as many index look-ups as it has segments.

use rusqlite::{Connection, OptionalExtension};

const VERSION: i64 = 5;

/// Brings an empty database to the current schema. A newer one is refused.
pub fn migrate(db: &Connection) -> Result<(), rusqlite::Error> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "the database has version {version}; this server knows {VERSION}"
        )));
    }
    let steps = [&format!("{TABLES} {INDEXES}"), SECOND, THIRD, FOURTH, FIFTH];
    let missing: Vec<&str> = steps.into_iter().skip(usize::try_from(version).unwrap_or_default()).collect();
    if !missing.is_empty() {
        db.execute_batch(&format!("BEGIN IMMEDIATE; {} PRAGMA user_version = {VERSION}; COMMIT;", missing.join(" ")))?;
    }
    if meta(db, "feedEpoch")?.is_none() {
        set_meta(db, "feedEpoch", &crate::server::names::secret()[..12])?;
    }
    Ok(())
}

/// A value that belongs to the server as a whole.
pub fn meta(db: &Connection, key: &str) -> Result<Option<String>, rusqlite::Error> {
    db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
}

/// Sets a value that belongs to the server as a whole.
pub fn set_meta(db: &Connection, key: &str, value: &str) -> Result<(), rusqlite::Error> {
    db.prepare_cached("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")?
        .execute([key, value])
        .map(drop)
}

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE principals (
    id TEXT PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL, name_fold TEXT NOT NULL,
    display_name TEXT, email TEXT
) WITHOUT ROWID;
CREATE TABLE group_members (
    group_id TEXT NOT NULL, member_id TEXT NOT NULL, PRIMARY KEY (group_id, member_id)
) WITHOUT ROWID;

CREATE TABLE workspaces (
    id TEXT PRIMARY KEY, key_system TEXT, key_value TEXT, revision INTEGER NOT NULL,
    display_name TEXT NOT NULL, classification TEXT, metadata TEXT NOT NULL, sharing TEXT NOT NULL, managed_fields TEXT NOT NULL,
    owner TEXT, owner_cluster TEXT, owner_client TEXT,
    state INTEGER NOT NULL, kept_state INTEGER, purge_at INTEGER, root_id TEXT NOT NULL, created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE items (
    id TEXT PRIMARY KEY, workspace_id TEXT NOT NULL, kind INTEGER NOT NULL, parent_id TEXT, name TEXT NOT NULL, name_fold TEXT NOT NULL,
    rev INTEGER NOT NULL, children INTEGER NOT NULL DEFAULT 0, classification TEXT, metadata TEXT NOT NULL DEFAULT '{}',
    locked INTEGER NOT NULL DEFAULT 0, managed_key TEXT,
    version INTEGER, last_version INTEGER NOT NULL DEFAULT 0,
    created_by TEXT NOT NULL, creator_id TEXT, created_at INTEGER NOT NULL, modified_at INTEGER NOT NULL,
    trashed_at INTEGER, purge_at INTEGER, trash_root TEXT, quarantined INTEGER NOT NULL DEFAULT 0,
    retain_until INTEGER, retain_strength INTEGER, retain_policy TEXT, record TEXT, intake TEXT
) WITHOUT ROWID;
CREATE TABLE versions (
    item_id TEXT NOT NULL, n INTEGER NOT NULL, state INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, mime TEXT NOT NULL,
    created_by TEXT NOT NULL, creator_id TEXT, created_at INTEGER NOT NULL, PRIMARY KEY (item_id, n)
) WITHOUT ROWID;
CREATE TABLE facets (
    client_id TEXT NOT NULL, name TEXT NOT NULL, item_id TEXT NOT NULL, version INTEGER NOT NULL, workspace_id TEXT NOT NULL,
    value TEXT NOT NULL, rev TEXT NOT NULL, PRIMARY KEY (client_id, name, item_id, version)
) WITHOUT ROWID;
CREATE TABLE holds (key TEXT PRIMARY KEY, definition TEXT NOT NULL, rev INTEGER NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE item_holds (
    hold_key TEXT NOT NULL, item_id TEXT NOT NULL, workspace_id TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (hold_key, item_id)
) WITHOUT ROWID;
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, client_id TEXT NOT NULL, definition TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE upload_parts (
    upload_id TEXT NOT NULL, n INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, file TEXT NOT NULL, PRIMARY KEY (upload_id, n)
) WITHOUT ROWID;
CREATE TABLE orphans (sha256 TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE purges (workspace_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE pending_deletes (item_id TEXT PRIMARY KEY, requested_by TEXT NOT NULL, requested_at INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE members (
    workspace_id TEXT NOT NULL, principal_id TEXT NOT NULL, folder_id TEXT NOT NULL, role INTEGER NOT NULL, expires_at INTEGER,
    reason TEXT, managed INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (workspace_id, principal_id, folder_id)
) WITHOUT ROWID;
CREATE TABLE upload_requests (
    id TEXT PRIMARY KEY, workspace_id TEXT NOT NULL, name TEXT NOT NULL, folder_id TEXT NOT NULL, input TEXT NOT NULL, token TEXT NOT NULL,
    expires_at INTEGER, ended INTEGER NOT NULL DEFAULT 0, rev INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE links (
    id TEXT PRIMARY KEY, workspace_id TEXT NOT NULL, item_id TEXT NOT NULL, audience INTEGER NOT NULL, expires_at INTEGER,
    password_hash TEXT, max_downloads INTEGER, downloads INTEGER NOT NULL DEFAULT 0, download INTEGER NOT NULL, managed INTEGER NOT NULL,
    token TEXT NOT NULL, ended INTEGER NOT NULL DEFAULT 0, state INTEGER NOT NULL DEFAULT 0, rev INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE fences (
    cluster_id TEXT NOT NULL, consumer TEXT NOT NULL, epoch INTEGER NOT NULL, holder TEXT, PRIMARY KEY (cluster_id, consumer)
) WITHOUT ROWID;
CREATE TABLE client_state (
    client_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, rev TEXT NOT NULL, PRIMARY KEY (client_id, key)
) WITHOUT ROWID;
CREATE TABLE changes (sequence INTEGER PRIMARY KEY, time INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY, time INTEGER NOT NULL, action TEXT NOT NULL, item_id TEXT, workspace_id TEXT,
    body TEXT NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE answers (
    client_id TEXT NOT NULL, key TEXT NOT NULL, request BLOB NOT NULL, status INTEGER NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL,
    expires_at INTEGER NOT NULL, PRIMARY KEY (client_id, key)
) WITHOUT ROWID;
CREATE TABLE notifications (
    id TEXT PRIMARY KEY, template TEXT NOT NULL, locale TEXT NOT NULL, recipient TEXT NOT NULL, params TEXT NOT NULL,
    created_at INTEGER NOT NULL, due_at INTEGER, attempts INTEGER NOT NULL DEFAULT 0, sent_at INTEGER, failure TEXT
) WITHOUT ROWID;
CREATE TABLE codes (
    token TEXT NOT NULL, email TEXT NOT NULL, code_hash BLOB NOT NULL, tries INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    PRIMARY KEY (token, email)
) WITHOUT ROWID;
";

const INDEXES: &str = "
CREATE UNIQUE INDEX principals_name ON principals (kind, name_fold);
CREATE INDEX group_members_member ON group_members (member_id);

CREATE UNIQUE INDEX workspaces_key ON workspaces (key_system, key_value) WHERE key_value IS NOT NULL;
CREATE INDEX workspaces_cluster ON workspaces (owner_cluster, id);
CREATE INDEX workspaces_state ON workspaces (state, id);
CREATE INDEX workspaces_due ON workspaces (purge_at) WHERE purge_at IS NOT NULL;

CREATE INDEX items_workspace ON items (workspace_id, id);
CREATE UNIQUE INDEX items_name ON items (parent_id, name_fold) WHERE trashed_at IS NULL;
CREATE INDEX items_folders ON items (workspace_id) WHERE kind = 0 AND trashed_at IS NULL;
CREATE INDEX items_trash ON items (workspace_id, id) WHERE trash_root IS NOT NULL;
CREATE INDEX items_due ON items (purge_at) WHERE purge_at IS NOT NULL;
CREATE INDEX items_retained ON items (workspace_id, retain_until) WHERE retain_until IS NOT NULL;
CREATE INDEX items_records ON items (workspace_id) WHERE record IS NOT NULL;
CREATE INDEX items_parent ON items (parent_id, id);
CREATE INDEX versions_content ON versions (sha256);
CREATE INDEX versions_pending ON versions (state, item_id, n) WHERE state = 1;
CREATE INDEX facets_item ON facets (item_id, version);
CREATE INDEX facets_workspace ON facets (client_id, name, workspace_id, item_id, version);
CREATE INDEX item_holds_item ON item_holds (item_id);
CREATE INDEX item_holds_workspace ON item_holds (workspace_id);
CREATE INDEX upload_parts_content ON upload_parts (sha256);
CREATE INDEX uploads_due ON uploads (expires_at);

CREATE INDEX members_principal ON members (principal_id, workspace_id);
CREATE INDEX members_pending ON members (state) WHERE state = 1;
CREATE INDEX links_pending ON links (state) WHERE state = 1;
CREATE INDEX members_due ON members (expires_at) WHERE expires_at IS NOT NULL;
CREATE UNIQUE INDEX upload_requests_name ON upload_requests (workspace_id, name);
CREATE UNIQUE INDEX upload_requests_token ON upload_requests (token);
CREATE INDEX upload_requests_due ON upload_requests (expires_at) WHERE expires_at IS NOT NULL AND ended = 0;
CREATE INDEX links_workspace ON links (workspace_id, id);
CREATE INDEX links_item ON links (item_id);
CREATE UNIQUE INDEX links_token ON links (token);
CREATE INDEX links_due ON links (expires_at) WHERE expires_at IS NOT NULL AND ended = 0;

CREATE INDEX audit_time ON audit (time);
CREATE INDEX audit_item ON audit (item_id, sequence) WHERE item_id IS NOT NULL;
CREATE INDEX audit_action ON audit (action, sequence);
CREATE INDEX answers_due ON answers (expires_at);
CREATE INDEX notifications_due ON notifications (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX codes_due ON codes (expires_at);
";

/// What version 2 adds: where a file came from, the folders in a folder without a look at its files, and small content,
/// which is durable with the version that refers to it instead of after a sync of its own.
const SECOND: &str = "
ALTER TABLE items ADD COLUMN upload_request TEXT;
CREATE INDEX items_folders_of ON items (parent_id) WHERE kind = 0 AND trashed_at IS NULL;
CREATE TABLE contents (sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL);
";

/// What version 3 adds.
const THIRD: &str = "ALTER TABLE links ADD COLUMN recipients TEXT NOT NULL DEFAULT '[]';";

/// What version 4 adds: how often something happened to a workspace's files, and what outsiders read about required documents; who asked for what is
/// pending, and when; and the folders with an intake policy.
const FOURTH: &str = "
ALTER TABLE workspaces ADD COLUMN content_revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE upload_requests ADD COLUMN checklist TEXT NOT NULL DEFAULT '{}';
ALTER TABLE links ADD COLUMN requested_by TEXT;
ALTER TABLE links ADD COLUMN requested_at INTEGER;
ALTER TABLE members ADD COLUMN requested_by TEXT;
ALTER TABLE members ADD COLUMN requested_at INTEGER;
CREATE INDEX items_intake ON items (workspace_id) WHERE intake IS NOT NULL;
";

/// What version 5 adds: when a version that was released was withheld again.
const FIFTH: &str = "ALTER TABLE versions ADD COLUMN withheld_at INTEGER;";
