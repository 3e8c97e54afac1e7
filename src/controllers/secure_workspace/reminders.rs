//! Mails to people outside about documents that they have to send.
//!
//! The mails go before the status that counts them. Each has a key that stands for its recipient and its number, so a crash in between sends
//! no second one: File 360 answers the repeat with what it did the first time.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use sha2::{Digest, Sha256};

use super::desired::a_label;
use super::pass::Pass;
use crate::api::connection::MaxSharing;
use crate::api::documents::{DocumentState, MailLanguage, ReminderStatus, Reminders, RequirementStatus};
use crate::controllers::grants;
use crate::documents::calendar;
use crate::documents::rules::Rules;
use crate::error::{Error, Kind, Result, clean};
use crate::expression::InvalidField;
use crate::file360::content::IdempotencyKey;
use crate::file360::model::{ExternalSharing, NewNotification, SharingRules};
use crate::hex::hex;
use crate::session::Session;

/// How often recipients are reminded, when the spec does not say.
const EVERY: &str = "P7D";
/// Longest list of documents in a mail.
const LONGEST: usize = 1800;

/// How often recipients are reminded of the same.
pub fn every(reminders: &Reminders) -> Result<Span, InvalidField> {
    let text = reminders.every.as_deref().unwrap_or(EVERY);
    let wrong =
        || InvalidField::value("reminders.every", format!("{text} is no ISO 8601 period of at least a day, such as P7D"));
    calendar::period(text).filter(|span| !span.is_zero()).ok_or_else(wrong)
}

/// What there is to write, and when the clock alone makes it due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing is asked for: what was written before is forgotten.
    Nothing,
    /// Not before then.
    Later(Timestamp),
    /// Now.
    Now,
}

/// Whether the recipients are written to at `now`: at once about what is new to them, again after a while about the rest.
pub fn due(last: Option<&ReminderStatus>, asked: &[String], every: Span, zone: &TimeZone, now: Timestamp) -> Due {
    if asked.is_empty() {
        return Due::Nothing;
    }
    let Some(last) = last else { return Due::Now };
    if asked.iter().any(|one| !last.documents.contains(one)) {
        return Due::Now;
    }
    // A clock that went back makes nobody write twice, and one that stands far ahead makes nobody wait for ever.
    match calendar::shift(last.last_at.min(now), every, zone) {
        Some(next) if next <= now => Due::Now,
        Some(next) => Due::Later(next),
        None => Due::Later(Timestamp::MAX),
    }
}

/// Whether somebody outside has to send something.
fn is_asked_for(row: &RequirementStatus) -> bool {
    use DocumentState as S;
    let waits = row.replacement.as_ref().is_some_and(|newer| matches!(newer.state, S::InReview | S::Received));
    matches!(row.state, S::Missing | S::Rejected | S::Expired) || row.state == S::ExpiringSoon && !waits
}

/// Writes what is due; what the status remembers of it, and when more is due.
pub async fn send(
    pass: &Pass<'_>,
    session: &Session,
    rules: &Rules,
    rows: &[RequirementStatus],
) -> Result<(Option<ReminderStatus>, Option<Timestamp>)> {
    let Some(reminders) = &pass.object.spec.reminders else { return Ok((None, None)) };
    let last = pass.object.status.as_ref().and_then(|status| status.documents.as_ref()?.reminder.as_ref());
    let asked: Vec<&RequirementStatus> = rows.iter().filter(|row| is_asked_for(row)).collect();
    let names: Vec<String> = asked.iter().map(|row| format!("{}:{:?}", row.name, row.state)).collect();
    let every = every(reminders).map_err(|invalid| super::documents::refused(&invalid))?;
    match due(last, &names, every, &rules.zone, pass.now) {
        Due::Nothing => return Ok((last.cloned().map(|last| ReminderStatus { documents: Vec::new(), ..last }), None)),
        Due::Later(at) => {
            // What is not asked for any more is new again once it is.
            let mut last = last.cloned();
            last.iter_mut().for_each(|last| last.documents.retain(|name| names.contains(name)));
            return Ok((last, Some(at)));
        }
        Due::Now => {}
    }
    let count = last.map_or(0, |last| last.count) + 1;
    let mail = mail(pass, reminders, rules, &asked, count);
    for to in &reminders.to {
        let key = key(&pass.cause.0, to, count);
        let new = NewNotification { to: to.clone(), ..mail.clone() };
        match session.driver.notify(&new, &key).await {
            // It was sent before a crash, when other documents were missing.
            Err(error) if error.code == "idempotency-mismatch" => {}
            // One recipient keeps nobody else from a mail, and no document from its state.
            Err(error) if error.kind == Kind::Rejected => {
                let note = format!("File 360 does not write to {} about documents: {error}", clean(to, 254));
                pass.ctx.event(&*pass.object, true, "ReminderRefused", &note).await;
            }
            sent => drop(sent.map_err(|error: Error| error.while_doing("write to people outside about documents"))?),
        }
    }
    let again = calendar::shift(pass.now, every, &rules.zone);
    Ok((Some(ReminderStatus { count, last_at: pass.now, documents: names }), again))
}

fn mail(pass: &Pass<'_>, reminders: &Reminders, rules: &Rules, asked: &[&RequirementStatus], count: i64) -> NewNotification {
    let observed = &pass.report.observed;
    let named = |name: &String| observed.requests.iter().find(|request| request.name == *name);
    let address = reminders.upload_request.as_ref().and_then(named).and_then(|request| request.url.clone());
    let address = address.or_else(|| observed.workspace.as_ref().map(|workspace| workspace.url.clone()));
    let listed: Vec<String> = asked.iter().map(|row| one(rules, row, reminders.language)).collect();
    let params = BTreeMap::from([
        ("workspace".to_owned(), clean(&pass.object.spec.display_name, 255)),
        ("url".to_owned(), clean(&address.unwrap_or_default(), 2000)),
        ("documents".to_owned(), clean(&listed.join("; "), LONGEST)),
    ]);
    let template = if count == 1 { "document-request" } else { "document-reminder" };
    let locale = match reminders.language.unwrap_or_default() {
        MailLanguage::En => "en",
        MailLanguage::De => "de",
    };
    NewNotification { template: template.into(), locale: Some(locale.into()), to: String::new(), params }
}

/// One document, for whoever has to send it.
fn one(rules: &Rules, row: &RequirementStatus, language: Option<MailLanguage>) -> String {
    let title = rules.rules.iter().find(|rule| rule.name == row.name).map_or(row.name.as_str(), |rule| &rule.title);
    let german = language == Some(MailLanguage::De);
    let state = match (row.state, german) {
        (DocumentState::Rejected, false) => "rejected",
        (DocumentState::Rejected, true) => "abgelehnt",
        (DocumentState::Expired, false) => "expired",
        (DocumentState::Expired, true) => "abgelaufen",
        (DocumentState::ExpiringSoon, false) => "expires soon",
        (DocumentState::ExpiringSoon, true) => "läuft bald ab",
        _ => return title.to_owned(),
    };
    match row.message.as_deref().filter(|_| row.state == DocumentState::Rejected) {
        Some(why) => format!("{title} ({state}: {})", clean(why, 300)),
        None => format!("{title} ({state})"),
    }
}

fn key(uid: &str, to: &str, count: i64) -> IdempotencyKey {
    let mut hash = Sha256::new();
    for part in [uid, to, &count.to_string()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    IdempotencyKey(format!("documents-{}", hex(&hash.finalize()[..16])))
}

/// What is wrong with the fields, before anything is done. Where outsiders may come from listed domains only, mails go there only (R9).
pub fn check(reminders: Option<&Reminders>, sharing: Option<&SharingRules>, ceiling: Option<&MaxSharing>) -> Result<()> {
    let Some(reminders) = reminders else { return Ok(()) };
    every(reminders).map_err(|invalid| super::documents::refused(&invalid))?;
    let own = sharing.filter(|rules| rules.external == ExternalSharing::AllowListed).map(|rules| &rules.allowed_domains);
    let above = ceiling.and_then(|max| max.allowed_domains.as_ref());
    for to in &reminders.to {
        let refused = |code: &str, why: &str| {
            let mut error = Error::new(Kind::Rejected, format!("spec.reminders.to: {} {why}", clean(to, 254)));
            error.code = code.into();
            error
        };
        let domain = domain(to).ok_or_else(|| refused("invalid-spec", "is no e-mail address that can be written to"))?;
        if own.is_some_and(|domains| !grants::lists(domains, &domain)) {
            return Err(refused("invalid-spec", "is not allowed by this workspace's own sharing.allowedDomains"));
        }
        if above.is_some_and(|domains| !grants::lists(domains, &domain)) {
            return Err(refused("sharing-ceiling-exceeded", "is not among the domains of the Connection's ceiling"));
        }
    }
    Ok(())
}

/// The domain of an address that File 360 writes to, as A-label; `None`: it does not.
fn domain(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c);
    let local_fits = (1..=64).contains(&local.len())
        && local.chars().all(plain)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    let domain = a_label(domain).ok()?;
    let label_fits = |label: &str| {
        let ends = !label.starts_with('-') && !label.ends_with('-');
        (1..=63).contains(&label.len()) && ends && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    (local_fits && domain.len() <= 253 && domain.contains('.') && domain.split('.').all(label_fits)).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    fn last(at_text: &str, documents: &[&str]) -> ReminderStatus {
        ReminderStatus { count: 1, last_at: at(at_text), documents: names(documents) }
    }

    #[test]
    fn people_are_told_at_once_what_is_new_and_reminded_of_the_rest_in_time() {
        let week = calendar::period("P7D").unwrap();
        let due = |last: Option<&ReminderStatus>, asked: &[&str], now: &str| {
            due(last, &names(asked), week, &TimeZone::UTC, at(now))
        };
        assert_eq!(due(None, &[], "2027-01-01T00:00:00Z"), Due::Nothing);
        assert_eq!(due(None, &["a"], "2027-01-01T00:00:00Z"), Due::Now);
        let told = last("2027-01-01T00:00:00Z", &["a", "b"]);
        let next = at("2027-01-08T00:00:00Z");
        assert_eq!(due(Some(&told), &["a"], "2027-01-02T00:00:00Z"), Due::Later(next));
        assert_eq!(due(Some(&told), &["a", "c"], "2027-01-02T00:00:00Z"), Due::Now);
        assert_eq!(due(Some(&told), &["a"], "2027-01-08T00:00:00Z"), Due::Now);
        assert_eq!(due(Some(&told), &[], "2027-01-08T00:00:00Z"), Due::Nothing);
    }

    #[test]
    fn a_clock_that_goes_back_makes_nobody_write_at_once_and_nobody_wait_for_ever() {
        let week = calendar::period("P7D").unwrap();
        let told = last("2037-01-01T00:00:00Z", &["a"]);
        let now = at("2027-01-01T00:00:00Z");
        let due = due(Some(&told), &names(&["a"]), week, &TimeZone::UTC, now);
        assert_eq!(due, Due::Later(at("2027-01-08T00:00:00Z")));
    }

    #[test]
    fn what_goes_from_bad_to_worse_is_told_at_once() {
        let week = calendar::period("P7D").unwrap();
        let now = at("2027-01-02T00:00:00Z");
        for (before, after) in [("iso:Missing", "iso:Rejected"), ("iso:ExpiringSoon", "iso:Expired")] {
            let told = last("2027-01-01T00:00:00Z", &[before]);
            assert_eq!(due(Some(&told), &names(&[after]), week, &TimeZone::UTC, now), Due::Now, "{before} to {after}");
        }
    }

    fn checked(to: &str, sharing: Option<&SharingRules>, ceiling: Option<&MaxSharing>) -> Result<()> {
        let reminders: Reminders = serde_json::from_value(serde_json::json!({"to": [to]})).unwrap();
        check(Some(&reminders), sharing, ceiling)
    }

    #[test]
    fn addresses_that_file_360_refuses_are_refused_before_anything_is_done() {
        for good in ["a@acme.example", "a.b+c@Bücher.example"] {
            assert!(checked(good, None, None).is_ok(), "{good}");
        }
        for bad in
            ["a", "a@localhost", "a@", "@acme.example", "a..b@acme.example", "ä@acme.example", "a@-x.example", "a b@x.y"]
        {
            assert_eq!(checked(bad, None, None).unwrap_err().code, "invalid-spec", "{bad}");
        }
    }

    #[test]
    fn r9_mails_go_no_further_than_sharing_may() {
        let listed = SharingRules {
            external: ExternalSharing::AllowListed,
            allowed_domains: names(&["acme.example", "*.acme.example"]),
            ..SharingRules::default()
        };
        assert!(checked("a@acme.example", Some(&listed), None).is_ok());
        assert!(checked("a@mail.acme.example", Some(&listed), None).is_ok());
        assert_eq!(checked("a@other.example", Some(&listed), None).unwrap_err().code, "invalid-spec");
        let max = MaxSharing { allowed_domains: Some(names(&["acme.example"])), ..MaxSharing::default() };
        assert!(checked("a@acme.example", None, Some(&max)).is_ok());
        assert_eq!(checked("a@other.example", None, Some(&max)).unwrap_err().code, "sharing-ceiling-exceeded");
    }

    #[test]
    fn a_key_stands_for_one_mail_to_one_person() {
        let all = [key("u", "a@x", 1), key("u", "a@x", 2), key("u", "b@x", 1), key("v", "a@x", 1)];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert_eq!(key("u", "a@x", 1), all[0]);
    }
}
