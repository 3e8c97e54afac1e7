//! No call reads a whole table: every statement of the server is explained by SQLite itself.
//!
//! The statements are read out of the sources, so that a new one is looked at, too.

use std::path::Path;

use rusqlite::Connection;

/// What stands for a part of a statement, and what can stand there.
const PARTS: &[(&str, &[&str])] = &[
    ("{COLUMNS}", &["*"]),
    ("{columns}", &["*"]),
    ("{}", &["*"]),
    (
        "{rest}",
        &[
            "WHERE id = ?1",
            "WHERE kind = ?1 AND name_fold = ?2",
            "WHERE kind = ?4 AND (kind, name_fold) > (?1, ?2) ORDER BY kind, name_fold LIMIT ?3",
            "WHERE ?4 IS NULL AND (kind, name_fold) > (?1, ?2) ORDER BY kind, name_fold LIMIT ?3",
        ],
    ),
    (
        "{from}",
        &[
            "items INDEXED BY items_parent WHERE parent_id = ?1 AND id > ?2 AND kind = 1 AND trashed_at IS NULL",
            "items INDEXED BY items_workspace WHERE workspace_id = ?1 AND id > ?2 AND kind = 1 AND trashed_at IS NULL",
        ],
    ),
    ("{within}", &["workspace_id = ?6", "?6 IS NULL"]),
    (
        "{filter}",
        &["owner_cluster = ?3 AND (?4 IS NULL OR state = ?4)", "?3 IS NULL AND state = ?4", "?3 IS NULL AND ?4 IS NULL"],
    ),
    (
        "{mine}",
        &[
            "AND ?5 IS NULL",
            "AND id IN (SELECT workspace_id FROM members WHERE state = 0 AND principal_id IN
               (SELECT ?5 UNION ALL SELECT group_id FROM group_members WHERE member_id = ?5)) AND state < 2",
        ],
    ),
];

/// What may be read from end to end: no table, or one that only has what waits for something.
const SHORT: &[&str] = &["CONSTANT ROW", "below", "up", "p", "purges", "orphans"];

fn sources(folder: &Path, statements: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, statements);
        } else if path.extension().is_some_and(|kind| kind == "rs") && path.file_stem().is_some_and(|name| name != "plans") {
            literals(&std::fs::read_to_string(&path).unwrap(), statements);
        }
    }
}

/// The string literals that begin like a statement.
fn literals(source: &str, statements: &mut Vec<String>) {
    for verb in ["SELECT ", "UPDATE ", "DELETE ", "WITH "] {
        for (at, start) in source.match_indices(&format!("\"{verb}")) {
            let rest = &source[at + 1..];
            let end = rest.find('"').unwrap_or_else(|| panic!("{start} does not end"));
            // A line that ends with a backslash goes on with the next word.
            statements.extend(expanded(rest[..end].replace("\\\n", " ")));
        }
    }
}

fn expanded(statement: String) -> Vec<String> {
    let Some((part, variants)) = PARTS.iter().find(|(part, _)| statement.contains(part)) else { return vec![statement] };
    variants.iter().flat_map(|variant| expanded(statement.replace(part, variant))).collect()
}

/// The tables that a statement reads from end to end.
fn scanned(db: &Connection, statement: &str) -> Vec<String> {
    let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap_or_else(|why| panic!("{statement}: {why}"));
    let mut rows = plan.raw_query();
    let mut scans = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let step: String = row.get(3).unwrap();
        scans.extend(step.strip_prefix("SCAN ").map(str::to_owned));
    }
    scans
}

#[test]
fn no_statement_reads_a_whole_table() {
    let db = Connection::open_in_memory().unwrap();
    super::schema::migrate(&db).unwrap();
    let mut statements = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server"), &mut statements);
    assert!(statements.len() > 130, "only {} statements were found", statements.len());
    for statement in &statements {
        for scan in scanned(&db, statement) {
            let is_short = scan.starts_with("(subquery") || SHORT.iter().any(|short| scan == *short);
            // The first or last rows of a table, in its own order.
            let is_an_end = statement.contains(" ORDER BY sequence ") && !statement.contains("WHERE");
            assert!(is_short || (is_an_end && statement.contains(" LIMIT ")), "SCAN {scan}: {statement}");
        }
    }
}
