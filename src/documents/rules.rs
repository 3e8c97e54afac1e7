//! What a spec asks for, compiled: expressions, paths, limits, periods, the zone.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use sha2::{Digest, Sha256};

use super::calendar::{self, Moment, NoDate};
use super::machine::Term;
use crate::api::documents::{DocumentAccept, DocumentValidity, DocumentWaiver, RequiredDocument};
use crate::api::file_route::FileEvent;
use crate::expression::{Expression, Failed, InvalidField, Variables};
use crate::file360::model::{Accept, Item, ItemKind};
use crate::hex::hex;
use crate::routes::environment::{Facts, Surroundings, workspace_value};
use crate::routes::items;
use crate::routes::paths::PathPattern;
use crate::routes::route::bytes;

/// What expressions about a file see.
pub const FILE_NAMES: &[&str] = &["file", "uploader", "uploadRequest", "workspace"];
/// What `requiredWhen` sees.
pub const WORKSPACE_NAMES: &[&str] = &["workspace"];
/// How long before its end a document expires soon, when the spec does not say.
const WARN_BEFORE: &str = "P30D";

/// Everything that a spec says about required documents.
#[derive(Debug)]
pub struct Rules {
    /// The zone in which dates count.
    pub zone: TimeZone,
    /// Its name.
    pub zone_name: String,
    /// The documents, in the order of the spec.
    pub rules: Vec<Rule>,
}

/// One required document.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What people outside read.
    pub title: String,
    /// What a file must be.
    pub accept: Accept,
    /// Somebody decides about each version.
    pub review: bool,
    /// How many have to approve.
    pub min_approvals: u32,
    /// Who uploaded it cannot approve it.
    pub separates: bool,
    /// SHA-256 over what the spec says about it.
    pub policy_hash: String,
    /// What is approved is locked.
    pub lock: bool,
    /// The waiver that ends last.
    pub waiver: Option<(Timestamp, DocumentWaiver)>,
    path: PathPattern,
    required_when: Option<Expression>,
    when: Option<Expression>,
    validity: Option<Validity>,
}

#[derive(Debug)]
struct Validity {
    date: Expression,
    period: Option<Span>,
    warn_before: Span,
    grace: Span,
}

/// The limits that a spec states; `None`: its size is none.
pub fn accept_of(spec: Option<&DocumentAccept>) -> Option<Accept> {
    let Some(spec) = spec else { return Some(Accept::default()) };
    let max_size = match &spec.max_size {
        Some(text) => Some(bytes(text)?),
        None => None,
    };
    Some(Accept { mime_types: spec.mime_types.clone().unwrap_or_default(), max_size })
}

/// Which documents a workspace is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For each document: whether.
    pub required: Vec<bool>,
    /// For each document: why that could not be told.
    pub failures: Vec<Option<String>>,
}

impl Rules {
    /// Compiles what a spec asks for; `default_zone` counts where it names none.
    pub fn compile(
        documents: &[RequiredDocument],
        zone: Option<&str>,
        default_zone: Option<&str>,
    ) -> Result<Self, InvalidField> {
        let (field, zone_name) = match (zone, default_zone) {
            (Some(own), _) => ("timeZone", own),
            (None, Some(default)) => ("the Connection's timeZone", default),
            (None, None) => ("timeZone", "UTC"),
        };
        let zone = calendar::zone(zone_name).ok_or_else(|| {
            InvalidField::value(field, format!("{zone_name} is no time zone; use an IANA name such as Europe/Berlin"))
        })?;
        let rules = documents.iter().enumerate();
        let rules = rules
            .map(|(at, one)| Rule::compile(one, &zone).map_err(|error| error.below(&format!("requiredDocuments[{at}]"))));
        Ok(Self { rules: rules.collect::<Result<_, _>>()?, zone_name: zone_name.to_owned(), zone })
    }

    /// Which documents a workspace is asked for. What cannot be told is.
    pub fn asked(&self, workspace: &Surroundings) -> Asked {
        let variables = Variables::default().with("workspace", workspace_value(workspace));
        let answers = self.rules.iter().map(|rule| rule.required_when.as_ref().map(|when| when.holds(&variables)));
        let (required, failures) = answers
            .map(|answer| match answer {
                None => (true, None),
                Some(Ok(required)) => (required, None),
                Some(Err(failed)) => (true, Some(format!("requiredWhen: {failed}"))),
            })
            .unzip();
        Asked { required, failures }
    }

    /// The first document that takes a file, with what expressions see of it. An expression that fails takes nothing, and says so in
    /// `failures` unless the file merely lacks what it asks for.
    pub fn claim(&self, asked: &mut Asked, item: &Item, workspace: &Arc<Surroundings>) -> Option<(usize, Variables)> {
        let fits = |rule: &Rule| rule.path.matches(&item.path);
        if item.kind != ItemKind::File || !self.rules.iter().any(fits) {
            return None;
        }
        let variables = variables(item, workspace);
        for (at, rule) in self.rules.iter().enumerate().filter(|(_, rule)| fits(rule)) {
            if !asked.required[at] {
                continue;
            }
            match rule.when.as_ref().map(|when| when.holds(&variables)) {
                None | Some(Ok(true)) => return Some((at, variables)),
                Some(Ok(false)) => {}
                Some(Err(failed)) => note(&mut asked.failures[at], &failed),
            }
        }
        None
    }

    /// The folders below which all files are looked at; none is below another.
    pub fn roots(&self) -> Vec<String> {
        roots(self.rules.iter().map(|rule| rule.path.root()))
    }

    /// Somebody decides about some of them.
    pub fn have_reviews(&self) -> bool {
        self.rules.iter().any(|rule| rule.review)
    }
}

/// Folders that contain all of `all`; none is below another.
pub fn roots(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut sorted: Vec<String> = all.collect();
    sorted.sort_unstable();
    let mut roots: Vec<String> = Vec::new();
    for root in sorted {
        if !roots.iter().any(|above| is_below(&root, above)) {
            roots.push(root);
        }
    }
    roots
}

/// Whether a path is a folder, or below it.
pub fn is_below(path: &str, folder: &str) -> bool {
    folder == "/" || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn note(failure: &mut Option<String>, failed: &Failed) {
    if !failed.is_missing_key && failure.is_none() {
        *failure = Some(format!("match.when: {failed}"));
    }
}

fn variables(item: &Item, workspace: &Arc<Surroundings>) -> Variables {
    let facts = Facts {
        file: Arc::new(items::file(item.clone(), &workspace.name)),
        uploader: item.created_by.as_ref().map(items::uploader).unwrap_or_default(),
        upload_request: item.upload_request.clone(),
        folder: Arc::default(),
        workspace: workspace.clone(),
        event: FileEvent::Uploaded,
        actor: String::new(),
        requirement: None,
    };
    facts.variables(item.modified_at)
}

fn expression(field: &str, text: &str, names: &[&str]) -> Result<Expression, InvalidField> {
    Expression::compile(text, names).map_err(|invalid| InvalidField::expression(field, &invalid))
}

impl Rule {
    fn compile(spec: &RequiredDocument, zone: &TimeZone) -> Result<Self, InvalidField> {
        let optional =
            |field: &str, text: Option<&String>, names| text.map(|text| expression(field, text, names)).transpose();
        let accept = accept_of(spec.accept.as_ref());
        Ok(Self {
            name: spec.name.clone(),
            title: spec.title.clone().unwrap_or_else(|| spec.name.clone()),
            review: spec.review.as_ref().is_some_and(|review| review.required == Some(true)),
            min_approvals: spec.review.as_ref().and_then(|review| review.min_approvals).unwrap_or(1).max(1),
            separates: spec.review.as_ref().is_some_and(|review| review.separation_of_duties == Some(true)),
            policy_hash: hex(&Sha256::digest(serde_json::to_vec(spec).unwrap_or_default())),
            lock: spec.on_approved.as_ref().is_some_and(|then| then.lock == Some(true)),
            waiver: last_waiver(spec.waivers.iter().flatten(), zone)?,
            path: PathPattern::new(&spec.matching.path),
            required_when: optional("requiredWhen", spec.required_when.as_ref(), WORKSPACE_NAMES)?,
            when: optional("match.when", spec.matching.when.as_ref(), FILE_NAMES)?,
            accept: accept.ok_or_else(|| InvalidField::value("accept.maxSize", "is no size such as 20Mi"))?,
            validity: spec.validity.as_ref().map(|validity| Validity::compile(validity, spec)).transpose()?,
        })
    }

    /// Whether files of a folder, or below it, can be meant.
    pub fn reaches(&self, folder: &str) -> bool {
        let root = self.path.root();
        is_below(folder, &root) || is_below(&root, folder)
    }

    /// What is wrong with a file, for people.
    pub fn refuses(&self, item: &Item) -> Option<String> {
        self.accept.refuses(item.mime_type.as_deref().unwrap_or_default(), item.size.unwrap_or_default())
    }

    /// The date that decides how long a file counts, as it is written now; `None`: it counts for ever. Empty: there is none.
    pub fn date(&self, variables: &Variables) -> Option<Result<String, Failed>> {
        let validity = self.validity.as_ref()?;
        Some(match validity.date.text(variables) {
            Err(failed) if failed.is_missing_key => Ok(String::new()),
            // What is no date is bounded before it is kept.
            other => other.map(|text| text.trim().chars().take(80).collect()),
        })
    }

    /// How long a file with this date counts; `None`: for ever.
    pub fn term(&self, date: &str, zone: &TimeZone) -> Result<Option<Term>, NoDate> {
        let Some(validity) = &self.validity else { return Ok(None) };
        let moment = Moment::parse(date)?;
        let valid_until = match validity.period {
            Some(period) => moment.end_after(period, zone)?,
            None => moment.end(zone)?,
        };
        let warn_at = calendar::shift(valid_until, validity.warn_before.negate(), zone).unwrap_or(Timestamp::MIN);
        let ends_at = calendar::shift(valid_until, validity.grace, zone).ok_or(NoDate::OutOfRange)?;
        Ok(Some(Term::new(warn_at, valid_until, ends_at)))
    }
}

impl Validity {
    fn compile(spec: &DocumentValidity, document: &RequiredDocument) -> Result<Self, InvalidField> {
        let (field, text) = match (&spec.from, &spec.expires_on) {
            (Some(from), None) => ("validity.from", from),
            (None, Some(expires_on)) => ("validity.expiresOn", expires_on),
            _ => return Err(InvalidField::value("validity", "needs period with from, or expiresOn")),
        };
        let period = |field: &str, text: &str| {
            calendar::period(text)
                .ok_or_else(|| InvalidField::value(field, format!("{text} is no ISO 8601 period such as P24M")))
        };
        Ok(Self {
            date: expression(field, text, FILE_NAMES)?,
            period: spec.period.as_deref().map(|text| period("validity.period", text)).transpose()?,
            warn_before: period("warnBefore", document.warn_before.as_deref().unwrap_or(WARN_BEFORE))?,
            grace: period("grace", document.grace.as_deref().unwrap_or("P0D"))?,
        })
    }
}

fn last_waiver<'a>(
    waivers: impl Iterator<Item = &'a DocumentWaiver>,
    zone: &TimeZone,
) -> Result<Option<(Timestamp, DocumentWaiver)>, InvalidField> {
    let mut last: Option<(Timestamp, DocumentWaiver)> = None;
    for (at, waiver) in waivers.enumerate() {
        let until = Moment::parse(&waiver.until).and_then(|moment| moment.end(zone));
        let until = until.map_err(|why| InvalidField::value(format!("waivers[{at}].until"), why.to_string()))?;
        if last.as_ref().is_none_or(|(latest, _)| until > *latest) {
            last = Some((until, waiver.clone()));
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(documents: serde_json::Value) -> Result<Rules, String> {
        let documents: Vec<RequiredDocument> = serde_json::from_value(documents).unwrap();
        Rules::compile(&documents, None, None).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_place() {
        let with = |more: serde_json::Value| {
            let mut one = json!({"name": "w9", "match": {"path": "/Inbox/**"}});
            for (name, value) in more.as_object().unwrap() {
                one[name] = value.clone();
            }
            compile(json!([one])).unwrap_err()
        };
        for (more, message) in [
            (json!({"requiredWhen": "workspace."}), "requiredDocuments[0].requiredWhen: line 1"),
            (json!({"requiredWhen": "file.name == 'x'"}), "requiredDocuments[0].requiredWhen: line 1"),
            (json!({"match": {"path": "/a", "when": "now > file.createdAt"}}), "requiredDocuments[0].match.when: line 1"),
            (json!({"validity": {"expiresOn": "nothing.here"}}), "requiredDocuments[0].validity.expiresOn: line 1"),
            (json!({"accept": {"maxSize": "99999999999999Gi"}}), "requiredDocuments[0].accept.maxSize"),
            (
                json!({"waivers": [{"until": "2027-02-30", "by": "a", "reason": "b"}]}),
                "requiredDocuments[0].waivers[0].until: the date cannot be read",
            ),
        ] {
            let error = with(more);
            assert!(error.starts_with(message), "{error}");
        }
        let error = Rules::compile(&[], Some("Europe/Atlantis"), None).unwrap_err().to_string();
        assert!(error.starts_with("timeZone: Europe/Atlantis is no time zone"), "{error}");
    }

    #[test]
    fn one_listing_serves_rules_about_one_folder() {
        let of = |paths: &[&str]| roots(paths.iter().map(|path| PathPattern::new(path).root()));
        assert_eq!(of(&["/Inbox/**", "/Inbox/tax/*.pdf", "/Inboxes/x"]), ["/Inbox", "/Inboxes"]);
        assert_eq!(of(&["/Inbox/**", "/**"]), ["/"]);
    }
}
