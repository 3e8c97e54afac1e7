//! Required documents of one workspace: reads what there is, judges, records, locks.
//!
//! Records go first, then what follows from them (locks, pages, mails, reports), then the status (in the pass). Each step finds what an
//! earlier try did, so a crash in between repeats nothing. What could not be read fails the look; nothing is judged from a part (C5). What
//! follows can fail without the states: they are known by then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::pass::Pass;
use super::{reminders, reports, reviews};
use crate::api::SecureWorkspace;
use crate::api::documents::{DocumentState, DocumentsStatus, ReminderStatus, RequirementStatus};
use crate::api::secure_workspace::SecureWorkspaceSpec;
use crate::documents::judge::{Claimed, Judgement, Library, judge};
use crate::documents::machine::is_met;
use crate::documents::record::{DECISION, REQUIREMENT, parse};
use crate::documents::rules::{Asked, Rule, Rules};
use crate::error::{Error, Kind, Result};
use crate::expression::InvalidField;
use crate::file360::File360;
use crate::file360::content::IdempotencyKey;
use crate::file360::model::{Checklist, ChecklistItem, Facet, FacetPut, ItemPatch, Page, Workspace};
use crate::hex::hex;
use crate::routes::environment::Surroundings;
use crate::session::Session;

/// Files that the requirements of one workspace may take; more is a mistake in the spec.
const MOST_CLAIMED: usize = 10_000;
/// Pages of one listing.
const MOST_PAGES: usize = 1_000;
/// Facets that are written at once.
const BATCH: usize = 500;

/// What became of the required documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Documents {
    /// Each, in the order of the spec.
    pub requirements: Vec<RequirementStatus>,
    /// The last mails to people outside.
    pub reminder: Option<ReminderStatus>,
    /// The zone in which dates count.
    pub zone: String,
    /// Fingerprint of the labels that expressions saw.
    pub labels: String,
    /// Revision of the workspace's files, own changes included; `None`: the server does not count.
    pub content_revision: Option<u64>,
    /// When the clock alone changes it.
    pub next_change_at: Option<Timestamp>,
}

/// What the spec asks for, compiled; `None`: nothing. `default_zone` is the Connection's.
pub fn rules(spec: &SecureWorkspaceSpec, default_zone: Option<&str>) -> Result<Option<Rules>> {
    let Some(documents) = spec.required_documents.as_deref().filter(|documents| !documents.is_empty()) else {
        return Ok(None);
    };
    Rules::compile(documents, spec.time_zone.as_deref(), default_zone).map(Some).map_err(|invalid| refused(&invalid))
}

/// A field that cannot be used.
pub fn refused(invalid: &InvalidField) -> Error {
    let mut error = Error::new(Kind::Rejected, format!("spec.{invalid}"));
    let is_expression = invalid.why.starts_with("line ");
    error.code = if is_expression { "invalid-expression".into() } else { "invalid-spec".into() };
    error
}

/// Looks at the documents of a workspace. With `may_change`, what was found is recorded.
pub async fn look(
    pass: &Pass<'_>,
    session: &Session,
    rules: &Rules,
    workspace: &Workspace,
    may_change: bool,
) -> Result<(Documents, Judgement, Library)> {
    let surroundings = Arc::new(surroundings(pass, workspace));
    let mut asked = rules.asked(&surroundings);
    let library = read(session, rules, &mut asked, workspace, &surroundings).await?;
    let judgement = judge(rules, &asked, &library, pass.now);
    let own = if may_change { record(session, &judgement).await? } else { 0 };
    let documents = Documents {
        reminder: pass.object.status.as_ref().and_then(|status| status.documents.as_ref()?.reminder.clone()),
        zone: rules.zone_name.clone(),
        labels: fingerprint(pass.object.labels()),
        // Somebody else may have written meanwhile: then the count does not fit, and the documents are looked at again.
        content_revision: workspace.content_revision.map(|revision| revision + own),
        next_change_at: judgement.next_change_at,
        requirements: judgement.requirements.clone(),
    };
    Ok((documents, judgement, library))
}

/// Does what follows from a look: Approvals, locks, pages of upload requests, mails and reports. One failure keeps none of the others; the first is
/// returned.
pub async fn follow(
    pass: &Pass<'_>,
    session: &Arc<Session>,
    rules: &Rules,
    judgement: &Judgement,
    library: &Library,
    documents: &mut Documents,
) -> Result<()> {
    let asked = reviews::pursue(pass, session, rules, judgement, library).await;
    let locked = lock(pass, session, judgement).await;
    let told = tell_outsiders(pass, session, rules, judgement).await;
    let reported = report(pass, session, documents).await;
    let sent = reminders::send(pass, session, rules, &judgement.requirements).await;
    let sent = sent.map(|(reminder, again)| {
        documents.reminder = reminder;
        documents.next_change_at = documents.next_change_at.into_iter().chain(again).min();
    });
    let result = locked.and_then(|own| told.and(reported).and(sent).and(asked).map(|()| own));
    documents.content_revision = match &result {
        Ok(own) => documents.content_revision.map(|revision| revision + own),
        // What is left to do is found again by looking again.
        Err(_) => None,
    };
    result.map(|_| ())
}

/// What tells labels from others: whether a document is asked for may depend on them, and they move no generation.
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    hex(&Sha256::digest(json!(labels).to_string())[..8])
}

/// Whether what the status says about documents was computed from what there is now: files, labels, zone.
pub fn are_as_seen(object: &SecureWorkspace, content_revision: Option<u64>, zone: &str) -> bool {
    let Some(seen) = object.status.as_ref().and_then(|status| status.documents.as_ref()) else { return false };
    let same_files = content_revision.is_some_and(|now| i64::try_from(now).ok() == seen.content_revision);
    same_files && seen.time_zone == zone && seen.labels.as_deref() == Some(&*fingerprint(object.labels()))
}

/// Tells other systems what changed, if something did. The same twice is one event.
async fn report(pass: &Pass<'_>, session: &Arc<Session>, documents: &Documents) -> Result<()> {
    let state = |row: &RequirementStatus| (row.name.clone(), row.state, row.reason, row.file_id.clone(), row.version);
    let last = pass.object.status.as_ref();
    let last = last.filter(|status| status.documents.is_some()).map(|status| status.requirements.iter().map(state));
    if last.is_some_and(|last| last.eq(documents.requirements.iter().map(state))) {
        return Ok(());
    }
    let Some(workspace) = &pass.report.observed.workspace else { return Ok(()) };
    let told = reports::documents_changed(pass, session, &workspace.id, facts(&documents.requirements)).await;
    told.map_err(|error| error.while_doing("report the states of documents"))
}

/// What receivers of reports see as `documents`.
fn facts(rows: &[RequirementStatus]) -> Value {
    let DocumentsStatus {
        summary, required, approved, missing, expired, expiring_soon, in_review, rejected, waived, ..
    } = super::status::counted(rows);
    let requirements: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name, "state": row.state, "reason": row.reason, "fileId": row.file_id, "version": row.version,
                "validUntil": row.valid_until.map(|at| at.to_string()),
            })
        })
        .collect();
    json!({
        "summary": summary, "required": required, "approved": approved, "missing": missing, "expired": expired,
        "expiringSoon": expiring_soon, "inReview": in_review, "rejected": rejected, "waived": waived,
        "complete": rows.iter().all(|row| is_met(row.state)), "requirements": requirements,
    })
}

fn surroundings(pass: &Pass<'_>, workspace: &Workspace) -> Surroundings {
    Surroundings {
        name: pass.object.name_any(),
        labels: pass.object.labels().clone(),
        metadata: workspace.metadata.clone(),
        external_ref: workspace.key.as_ref().map(|key| (key.system.clone(), key.key.clone())),
        classification: workspace.classification.clone(),
    }
}

async fn read(
    session: &Session,
    rules: &Rules,
    asked: &mut Asked,
    workspace: &Workspace,
    surroundings: &Arc<Surroundings>,
) -> Result<Library> {
    let driver = &*session.driver;
    let mut library = Library::default();
    let mut seen = HashSet::new();
    for root in rules.roots() {
        let mut cursor = None;
        for page in 0.. {
            let listed = driver.files(&workspace.id, &root, cursor.as_deref()).await;
            let listed = match listed {
                // The folder is not there (yet). The workspace itself was just read.
                Err(error) if error.kind == Kind::NotFound && page == 0 => break,
                other => other.map_err(|error| error.while_doing(format!("look for documents below {root}")))?,
            };
            for item in listed.items {
                if let Some((rule, variables)) = rules.claim(asked, &item, surroundings)
                    && seen.insert(item.id.clone())
                {
                    let date = rules.rules[rule].date(&variables);
                    library.files.push(Claimed { rule, item, date });
                }
            }
            if library.files.len() > MOST_CLAIMED {
                return Err(too_many(format!("more than {MOST_CLAIMED} files match the required documents")));
            }
            cursor = next(cursor.as_ref(), listed.next_cursor, page)?;
            if cursor.is_none() {
                break;
            }
        }
    }
    if !library.files.is_empty() {
        library.recorded = facets(driver, REQUIREMENT, &workspace.id, &seen).await?;
        library.decisions = facets(driver, DECISION, &workspace.id, &seen).await?;
    }
    Ok(library)
}

/// Everything that the operator keeps under a name beside the versions of these files.
async fn facets<T: DeserializeOwned>(
    driver: &dyn File360,
    name: &str,
    workspace: &str,
    files: &HashSet<String>,
) -> Result<HashMap<String, BTreeMap<u64, T>>> {
    let mut found: HashMap<String, BTreeMap<u64, T>> = HashMap::new();
    let mut cursor = None;
    for page in 0.. {
        let Page { items, next_cursor } = driver.facets(name, Some(workspace), cursor.as_deref()).await?;
        for facet in items.into_iter().filter(|facet| files.contains(&facet.item_id)) {
            let value = understood(name, &facet)?;
            found.entry(facet.item_id).or_default().insert(facet.version, value);
        }
        cursor = next(cursor.as_ref(), next_cursor, page)?;
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

/// What a facet says. One that cannot be read says neither yes nor no (C5).
fn understood<T: DeserializeOwned>(name: &str, facet: &Facet) -> Result<T> {
    parse(&facet.value).ok_or_else(|| {
        let (file, version) = (&facet.item_id, facet.version);
        let message = format!("the facet {name} of file {file}, version {version} cannot be understood");
        Error::new(Kind::Conflict, crate::error::clean(&message, 300))
    })
}

/// The cursor to go on with. A listing that repeats itself is none, and one that does not end is about this workspace alone.
fn next(last: Option<&String>, next: Option<String>, page: usize) -> Result<Option<String>> {
    match next {
        Some(next) if last == Some(&next) => Err(Error::new(Kind::Malformed, "the listing of documents repeats itself")),
        Some(_) if page + 1 >= MOST_PAGES => {
            Err(too_many(format!("the listing for the required documents has more than {MOST_PAGES} pages")))
        }
        other => Ok(other),
    }
}

fn too_many(message: String) -> Error {
    let mut error = Error::new(Kind::Rejected, message);
    error.code = "invalid-spec".into();
    error
}

/// Nothing is asked for (any more): the pages of upload requests say so.
pub async fn forget(pass: &Pass<'_>, session: &Session) -> Result<()> {
    let Some(workspace) = &pass.report.observed.workspace else { return Ok(()) };
    for request in pass.report.observed.requests.iter().filter(|request| !request.checklist.is_empty()) {
        session.driver.put_checklist(&workspace.id, &request.name, &Checklist::default(), &pass.cause).await?;
    }
    Ok(())
}

/// Brings what the pages of the declared upload requests tell up to date.
async fn tell_outsiders(pass: &Pass<'_>, session: &Session, rules: &Rules, judgement: &Judgement) -> Result<()> {
    let declared = pass.report.observed.requests.iter().filter(|request| request.input.managed);
    for request in declared {
        let about = rules.rules.iter().zip(&judgement.requirements).filter(|(rule, _)| rule.reaches(&request.input.path));
        let items: Vec<ChecklistItem> = about.map(|(rule, row)| checklist_item(rules, rule, row)).collect();
        if items != request.checklist {
            let workspace = pass.report.observed.workspace.as_ref().map_or("", |workspace| &workspace.id);
            let told = session.driver.put_checklist(workspace, &request.name, &Checklist { items }, &pass.cause).await;
            told.map_err(|error| error.while_doing(format!("tell outsiders at {} about documents", request.name)))?;
        }
    }
    Ok(())
}

fn checklist_item(rules: &Rules, rule: &Rule, row: &RequirementStatus) -> ChecklistItem {
    // What ends at an instant counts on the day before, where the resource is.
    let last_day = |until: Timestamp| until.checked_sub(SignedDuration::from_nanos(1)).ok();
    let valid_to = row.valid_until.and_then(last_day).map(|at| at.to_zoned(rules.zone.clone()).date().to_string());
    let waits = row.replacement.as_ref().is_some_and(|newer| newer.state == DocumentState::InReview);
    ChecklistItem {
        name: rule.name.clone(),
        title: rule.title.clone(),
        state: row.state,
        valid_to,
        // Who waives a document, and why, is nothing for outsiders.
        message: row.message.clone().filter(|_| row.state == DocumentState::Rejected),
        renewal: waits && is_met(row.state),
        accept: rule.accept.clone(),
    }
}

/// Records what was found; how many entries of the feed that makes.
async fn record(session: &Session, judgement: &Judgement) -> Result<u64> {
    let puts: Vec<FacetPut> = judgement
        .records
        .iter()
        .map(|(file, version, record)| FacetPut {
            item_id: file.clone(),
            version: *version,
            name: REQUIREMENT.into(),
            value: serde_json::to_value(record).ok(),
            announce: true,
        })
        .collect();
    for batch in puts.chunks(BATCH) {
        // A key of its own: the same record may be right again later.
        let key = IdempotencyKey(format!("{:032x}", rand::random::<u128>()));
        session.driver.put_facets(batch, &key).await.map_err(|error| error.while_doing("record the state of documents"))?;
    }
    Ok(puts.len() as u64)
}

/// Locks what is approved; how many entries of the feed that makes.
async fn lock(pass: &Pass<'_>, session: &Session, judgement: &Judgement) -> Result<u64> {
    let mut first = Ok(());
    for (file, etag) in &judgement.locks {
        let patch = ItemPatch { locked: Some(true), ..ItemPatch::default() };
        let locked = session.driver.patch_item(file, etag, &patch, &pass.cause).await;
        first = first.and(locked.map(|_| ()).map_err(|error| error.while_doing("lock an approved document")));
    }
    first.map(|()| judgement.locks.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::record::Decision;

    #[test]
    fn c5_a_facet_that_cannot_be_understood_is_neither_there_nor_absent() {
        let facet: Facet = serde_json::from_value(
            json!({"itemId": "f1", "version": 2, "name": "decision", "etag": "e", "value": {"outcome": "Perhaps"}}),
        )
        .unwrap();
        let error = understood::<Decision>(DECISION, &facet).unwrap_err();
        assert!(error.to_string().contains("decision of file f1, version 2"), "{error}");
        assert!(!error.is_outage(), "it says nothing about the tenant");
    }

    #[test]
    fn a_listing_without_an_end_is_about_one_workspace_only() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(next(some("a").as_ref(), some("b"), 3).unwrap(), some("b"));
        assert_eq!(next(some("a").as_ref(), None, MOST_PAGES).unwrap(), None, "the last page may be the last");
        assert!(!next(some("a").as_ref(), some("b"), MOST_PAGES).unwrap_err().is_outage());
        assert!(next(some("a").as_ref(), some("a"), 1).is_err());
    }

    #[test]
    fn receivers_see_the_counts_and_each_state() {
        let row = |name: &str, state| RequirementStatus { name: name.into(), state, ..missing() };
        let facts = facts(&[row("iso", DocumentState::Approved), row("w9", DocumentState::Missing)]);
        assert_eq!((&facts["summary"], &facts["missing"], &facts["complete"]), (&json!("1/2"), &json!(1), &json!(false)));
        assert_eq!(facts["requirements"][1]["state"], "Missing");
    }

    #[test]
    fn labels_that_changed_while_nobody_looked_are_noticed() {
        let object = |labels: Value, seen: Value| -> SecureWorkspace {
            serde_json::from_value(json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
                "metadata": {"name": "acme", "labels": labels}, "spec": {"connectionRef": {"name": "c"}, "displayName": "A"},
                "status": {"documents": {"summary": "1/1", "required": 1, "approved": 1, "missing": 0, "expired": 0, "expiringSoon": 0,
                    "inReview": 0, "rejected": 0, "waived": 0, "timeZone": "UTC", "contentRevision": 7, "labels": seen}}}))
            .unwrap()
        };
        let gold = json!({"tier": "gold"});
        let seen = json!(fingerprint(object(gold.clone(), Value::Null).labels()));
        assert!(are_as_seen(&object(gold.clone(), seen.clone()), Some(7), "UTC"));
        assert!(!are_as_seen(&object(json!({"tier": "silver"}), seen.clone()), Some(7), "UTC"));
        assert!(!are_as_seen(&object(json!({}), seen.clone()), Some(7), "UTC"));
        assert!(!are_as_seen(&object(gold.clone(), Value::Null), Some(7), "UTC"), "nobody knows");
        for (revision, zone) in [(Some(8), "UTC"), (None, "UTC"), (Some(7), "Europe/Berlin")] {
            assert!(!are_as_seen(&object(gold.clone(), seen.clone()), revision, zone), "{revision:?} {zone}");
        }
    }

    fn missing() -> RequirementStatus {
        serde_json::from_value(json!({"name": "x", "state": "Missing"})).unwrap()
    }
}
