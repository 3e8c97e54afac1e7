//! The gate of a rule, compiled: what it holds back, and how another system is asked.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::environment::NAMES;
use super::route::duration;
use crate::api::approval::VoteDecision;
use crate::api::file_route::RouteRule;
use crate::api::gate::{GatePoll, GateRequest, OnApproved, TimeoutThen};
use crate::api::http_target::{HttpBody, HttpMethod, HttpTarget};
use crate::error::{Error, Kind, Result, clean};
use crate::expression::{Expression, InvalidField, Variables, from_json};
use crate::file360::model::GateAction;
use crate::hex::hex;
use crate::outbound::cloud_event::Event;
use crate::outbound::http::{Answer, Body, Surroundings, Target};

/// What a gate's expressions may use besides those of the route.
const MORE: [&str; 2] = ["approval", "ticket"];
/// The rule of what a gate holds that no route declares any more. No rule of a route has this name.
pub const ORPHANED: &str = "orphaned";
const DEFAULT_POLL: Duration = Duration::from_mins(1);

/// A gate, ready for use.
pub struct Gate {
    /// The rule that has it.
    pub rule: String,
    /// SHA-256 over the rule.
    pub policy_hash: String,
    /// What it holds back.
    pub actions: Vec<GateAction>,
    /// How many have to approve.
    pub min_approvals: u32,
    /// Who brought it cannot approve it.
    pub separates: bool,
    /// What happens when nobody decides.
    pub timeout: Option<Timeout>,
    /// An approved file is locked.
    pub locks: bool,
    /// Where rejected new files go.
    pub rejected_to: Option<String>,
    /// How long its Approvals are kept after their decision took effect.
    pub ttl: Option<Duration>,
    /// How another system is asked.
    pub request: Option<Request>,
}

/// What happens when nobody decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// When it is over.
    pub after: Duration,
    /// How often the system is reminded.
    pub remind_every: Option<Duration>,
    /// What then.
    pub then: TimeoutThen,
}

impl Timeout {
    /// How many reminders are due at `now`.
    pub fn reminders_due(&self, requested_at: Timestamp, now: Timestamp) -> u32 {
        let (Some(every), Ok(waited)) = (self.remind_every, Duration::try_from(now.duration_since(requested_at))) else {
            return 0;
        };
        let waited = if self.then == TimeoutThen::Reject { waited.min(self.after) } else { waited };
        u32::try_from(waited.as_secs().checked_div(every.as_secs()).unwrap_or_default()).unwrap_or(u32::MAX)
    }

    /// When the next reminder is due.
    pub fn next_reminder(&self, requested_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let every = self.remind_every?;
        let next = self.reminders_due(requested_at, now).saturating_add(1);
        let at = requested_at.checked_add(every.checked_mul(next)?).ok()?;
        (self.then == TimeoutThen::Wait || at < requested_at.checked_add(self.after).ok()?).then_some(at)
    }
}

/// How another system is asked.
pub struct Request {
    ask: Target,
    update: Option<Target>,
    poll: Option<Poll>,
    ticket: Expression,
    ticket_url: Option<Expression>,
    /// Callbacks are signed with the keys of this Secret.
    pub callback_secret: Option<String>,
}

struct Poll {
    target: Target,
    every: Duration,
    state: Expression,
    by: Option<Expression>,
}

/// What the other system said about its ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Its id.
    pub id: Option<String>,
    /// Its address.
    pub url: Option<String>,
}

/// What the other system decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// What.
    pub decision: VoteDecision,
    /// Who.
    pub by: String,
}

impl Gate {
    /// Compiles the gate of a rule, if it has one. Nothing is sent.
    pub fn compile(rule: &RouteRule, surroundings: &Surroundings) -> Result<Option<Self>, InvalidField> {
        let Some(gate) = &rule.gate else { return Ok(None) };
        if rule.name == ORPHANED {
            return Err(InvalidField::value(
                "name",
                "`orphaned` stands for gates that no rule declares any more; use another name",
            ));
        }
        let lasts = |field: &str, text: &str| {
            let found = span(text).filter(|found| *found >= Duration::from_secs(1));
            found.ok_or_else(|| InvalidField::value(field, "needs a duration from 1s, such as 5d or 12h"))
        };
        let timeout = match &gate.timeout {
            Some(timeout) => Some(Timeout {
                after: lasts("gate.timeout.after", &timeout.after)?,
                remind_every: timeout
                    .remind_every
                    .as_deref()
                    .map(|text| lasts("gate.timeout.remindEvery", text))
                    .transpose()?,
                then: timeout.then.unwrap_or_default(),
            }),
            None => None,
        };
        let ttl = gate.ttl_after_decision.as_deref().map(|text| lasts("gate.ttlAfterDecision", text)).transpose()?;
        let after = gate.on_approved.as_deref().unwrap_or(&[OnApproved::Release]);
        if !after.contains(&OnApproved::Release) {
            return Err(InvalidField::value("gate.onApproved", "needs Release: what is approved takes effect"));
        }
        let request = gate.request.as_ref().map(|request| Request::compile(request, surroundings)).transpose();
        let mut actions = gate.actions.clone();
        actions.sort_unstable();
        actions.dedup();
        Ok(Some(Self {
            rule: rule.name.clone(),
            policy_hash: policy_hash(rule),
            actions,
            min_approvals: gate.min_approvals.unwrap_or(1),
            separates: gate.separation_of_duties == Some(true),
            timeout,
            locks: after.contains(&OnApproved::LockVersion),
            rejected_to: gate.on_rejected.as_ref().map(|rejected| rejected.move_to.clone()),
            ttl,
            request: request.map_err(|invalid| invalid.below("gate.request"))?,
        }))
    }

    /// Whether it holds back one of these.
    pub fn holds(&self, actions: &[GateAction]) -> bool {
        actions.iter().any(|action| self.actions.contains(action))
    }
}

/// Names a version of a rule: SHA-256 over it.
pub fn policy_hash(rule: &RouteRule) -> String {
    hex(&Sha256::digest(serde_json::to_vec(rule).unwrap_or_default()))
}

impl Request {
    fn compile(spec: &GateRequest, surroundings: &Surroundings) -> Result<Self, InvalidField> {
        let names: Vec<&str> = NAMES.iter().chain(&MORE).copied().collect();
        let answered: Vec<&str> = names.iter().copied().chain(["response"]).collect();
        let compiled = |field: &str, text: &str| {
            Expression::compile(text, &answered).map_err(|invalid| InvalidField::expression(field, &invalid))
        };
        if spec.http.multipart.is_some() {
            return Err(InvalidField::value("http.multipart", "sends content; what waits for a decision is not sent"));
        }
        let ask = Target::new(&spec.http, &names, surroundings).map_err(|invalid| invalid.below("http"))?;
        let decision = spec.decision.as_ref();
        let poll = decision.and_then(|decision| decision.poll.as_ref());
        let ticket = spec.ticket.as_deref().unwrap_or("has(response.body.id) ? string(response.body.id) : ''");
        Ok(Self {
            ask,
            update: update(spec, &names, surroundings)?,
            poll: poll.map(|poll| Poll::compile(poll, &spec.http, &names, surroundings, &compiled)).transpose()?,
            ticket: compiled("ticket", ticket)?,
            ticket_url: spec.ticket_url.as_deref().map(|text| compiled("ticketUrl", text)).transpose()?,
            callback_secret: decision.and_then(|decision| Some(decision.callback.as_ref()?.hmac_ref.name.clone())),
        })
    }

    /// Asks. The same `key` is the same request, however often it is sent.
    pub async fn ask(&self, variables: &Variables, event: &Event, data: &Value, key: &str) -> Result<Ticket> {
        let body = self.ask.document(variables, || event.structured(Map::new(), data.clone()))?;
        let answer = self.ask.send(variables, body, key).await?;
        let answered = answered(variables, &answer);
        let text = |expression: &Expression, longest: usize| {
            expression.text(&answered).ok().filter(|text| !text.is_empty()).map(|text| clean(&text, longest))
        };
        Ok(Ticket { id: text(&self.ticket, 256), url: self.ticket_url.as_ref().and_then(|url| text(url, 2048)) })
    }

    /// Tells what happened since; whether there is anybody to tell.
    pub async fn update(&self, variables: &Variables, event: &Event, data: &Value, key: &str) -> Result<bool> {
        let Some(update) = &self.update else { return Ok(false) };
        let body = update.document(variables, || event.structured(Map::new(), data.clone()))?;
        update.send(variables, body, key).await.map(|_| true)
    }

    /// Whether later events are told.
    pub fn updates(&self) -> bool {
        self.update.is_some()
    }

    /// How often the system is asked for a decision; `None`: it is not.
    pub fn polls_every(&self) -> Option<Duration> {
        self.poll.as_ref().map(|poll| poll.every)
    }

    /// Asks for a decision; `None`: it is still open.
    pub async fn poll(&self, variables: &Variables, key: &str) -> Result<Option<Polled>> {
        let Some(poll) = &self.poll else { return Ok(None) };
        let answer = poll.target.send(variables, Body::Empty, key).await?;
        let variables = answered(variables, &answer);
        let state = poll.state.text(&variables);
        let state = state.map_err(|failed| Error::new(Kind::Rejected, format!("decision.poll.state: {failed}")))?;
        let decision = match state.as_str() {
            "Approved" => VoteDecision::Approve,
            "Rejected" => VoteDecision::Reject,
            _ => return Ok(None),
        };
        let by = poll.by.as_ref().and_then(|by| by.text(&variables).ok()).filter(|by| !by.is_empty());
        Ok(Some(Polled { decision, by: clean(&by.unwrap_or_else(|| poll.target.host().to_owned()), 256) }))
    }
}

impl Poll {
    fn compile(
        spec: &GatePoll,
        http: &HttpTarget,
        names: &[&str],
        surroundings: &Surroundings,
        compiled: &impl Fn(&str, &str) -> Result<Expression, InvalidField>,
    ) -> Result<Self, InvalidField> {
        let target = HttpTarget {
            method: Some(HttpMethod::Get),
            path: Some(spec.path.clone()),
            query: spec.query.clone(),
            body: None,
            template: None,
            csrf: None,
            success: None,
            ..http.clone()
        };
        let every = spec.every.as_deref().map_or(Some(DEFAULT_POLL), duration);
        let every = every.filter(|every| *every >= Duration::from_secs(1));
        Ok(Self {
            target: Target::new(&target, names, surroundings).map_err(|invalid| invalid.below("decision.poll"))?,
            every: every
                .ok_or_else(|| InvalidField::value("decision.poll.every", "needs a duration from 1s, such as 1m"))?,
            state: compiled("decision.poll.state", &spec.state)?,
            by: spec.by.as_deref().map(|by| compiled("decision.poll.by", by)).transpose()?,
        })
    }
}

/// The call that tells later events: declared, or the request itself where it sends events.
fn update(spec: &GateRequest, names: &[&str], surroundings: &Surroundings) -> Result<Option<Target>, InvalidField> {
    let sends_events = spec.http.template.is_none()
        && spec.http.body != Some(HttpBody::Template)
        && spec.http.method != Some(HttpMethod::Get);
    let target = match &spec.update {
        Some(update) => HttpTarget {
            method: update.method.or(spec.http.method),
            path: update.path.clone().or_else(|| spec.http.path.clone()),
            body: None,
            template: update.template.clone(),
            ..spec.http.clone()
        },
        None if sends_events => spec.http.clone(),
        None => return Ok(None),
    };
    Target::new(&target, names, surroundings).map(Some).map_err(|invalid| invalid.below("update"))
}

fn answered(variables: &Variables, answer: &Answer) -> Variables {
    variables.extended("response", from_json(&answer.variable()))
}

/// The variables `approval` and `ticket` for a gate's expressions.
pub fn with_approval(variables: &Variables, approval: &Value, ticket: &Ticket) -> Variables {
    let ticket = json!({"id": ticket.id.as_deref().unwrap_or_default(), "url": ticket.url.as_deref().unwrap_or_default()});
    variables.extended("approval", from_json(approval)).extended("ticket", from_json(&ticket))
}

/// A duration such as `5d` or `1h30m`.
pub fn span(text: &str) -> Option<Duration> {
    let (mut total, mut number) = (Duration::ZERO, None::<u64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or_default().checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.take()?.checked_mul(unit)?))?;
    }
    number.is_none().then_some(total).filter(|total| !total.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_may_have_days() {
        let hours = |text: &str| span(text).map(|found| found.as_secs() / 3_600);
        assert_eq!((hours("5d"), hours("1d12h"), hours("90m")), (Some(120), Some(36), Some(1)));
        for wrong in ["", "5", "d", "5w", "0s", "1.5h", "99999999999999999999d"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a4_reminders_come_in_time_and_end_with_the_timeout() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut timeout = Timeout {
            after: Duration::from_secs(100),
            remind_every: Some(Duration::from_secs(30)),
            then: TimeoutThen::Reject,
        };
        let due: Vec<u32> = [0, 29, 30, 95, 1_000].iter().map(|second| timeout.reminders_due(at(0), at(*second))).collect();
        assert_eq!(due, [0, 0, 1, 3, 3]);
        assert_eq!((timeout.next_reminder(at(0), at(31)), timeout.next_reminder(at(0), at(95))), (Some(at(60)), None));
        // A clock that jumped backwards reminds nobody.
        assert_eq!(timeout.reminders_due(at(50), at(10)), 0);
        timeout.then = TimeoutThen::Wait;
        assert_eq!(timeout.next_reminder(at(0), at(95)), Some(at(120)));
    }
}
