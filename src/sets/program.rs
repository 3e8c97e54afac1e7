//! A SecureWorkspaceSet, compiled: its generators and its template. Nothing is read or called when it is made.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::child::{self, Child, Origin, Set};
use super::fingerprint;
use super::template::Template;
use crate::api::SecureWorkspaceSetSpec;
use crate::api::http_target::{HttpMethod, HttpTarget};
use crate::api::secure_workspace_set::{EventsGenerator, Generator, HttpGenerator};
use crate::expression::{Expression, Failed, InvalidField, Variables, from_json, string};
use crate::outbound::http::{Surroundings, Target};

/// How often a listing is read, when the spec does not say.
const DEFAULT_EVERY: Duration = Duration::from_mins(1);
/// Not more often than this.
const LEAST_EVERY: Duration = Duration::from_secs(1);
/// Largest item of an event, in bytes of JSON.
const LARGEST_ITEM: usize = 32 * 1024;

/// A compiled set.
pub struct Program {
    /// Generators, in their order.
    pub generators: Vec<Compiled>,
    /// Changes with everything that decides what is made of an item.
    pub fingerprint: String,
    template: Template,
}

/// A compiled generator.
pub struct Compiled {
    /// Kind and name, such as `http/crm`: what stands on its workspaces.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub source: Source,
}

/// Where items come from.
pub enum Source {
    /// A listing over HTTP.
    Http(Box<Listing>),
    /// Events.
    Events(Box<Events>),
    /// The spec itself.
    List {
        /// The items.
        items: Vec<Value>,
        /// What gives their keys.
        key: Expression,
    },
}

/// A listing over HTTP.
pub struct Listing {
    /// What is called.
    pub target: Target,
    /// How often.
    pub every: Duration,
    items: Expression,
    key: Expression,
    next: Option<Expression>,
}

/// Events that are pushed.
pub struct Events {
    when: Option<Expression>,
    key: Expression,
    item: Option<Expression>,
}

/// One page of a listing.
pub struct Page {
    /// Its items; one that is too large or too deep is none.
    pub items: Vec<Result<Value, String>>,
    /// Where the next one is.
    pub next: Option<String>,
}

impl Program {
    /// Compiles `spec`; the first field that cannot be used is named below `spec`.
    pub fn compile(spec: &SecureWorkspaceSetSpec, surroundings: &Surroundings) -> Result<Self, InvalidField> {
        let template = Template::compile(&spec.template, &spec.connection_ref, &["item", "key"]);
        let template = template.map_err(|invalid| invalid.below("template"))?;
        let generators = spec.generators.iter().enumerate().map(|(at, generator)| {
            Compiled::of(generator, surroundings).map_err(|invalid| invalid.below(&format!("generators[{at}]")))
        });
        let mut paths = std::collections::HashSet::new();
        for (at, generator) in spec.generators.iter().enumerate() {
            if generator.events.as_ref().is_some_and(|events| !paths.insert(&events.path)) {
                let why = "two generators cannot have one path";
                return Err(InvalidField::value(format!("generators[{at}].events.path"), why));
            }
        }
        let decides = serde_json::to_vec(&(&spec.template, &spec.connection_ref)).unwrap_or_default();
        Ok(Self { generators: generators.collect::<Result<_, _>>()?, fingerprint: fingerprint(&[&decides]), template })
    }

    /// The SecureWorkspace of an item.
    pub fn child(
        &self,
        set: Set<'_>,
        generator: &str,
        key: &str,
        item: &Value,
        origin: Option<&Origin<'_>>,
    ) -> Result<Child, String> {
        let variables = Variables::default().with("item", from_json(item)).with("key", string(key));
        let rendered = self.template.render(&variables).map_err(|unfit| unfit.to_string())?;
        Child::new(set, generator, key, rendered, origin)
    }

    /// The generator with this id.
    pub fn generator(&self, id: &str) -> Option<&Compiled> {
        self.generators.iter().find(|generator| generator.id == id)
    }
}

impl Compiled {
    fn of(generator: &Generator, surroundings: &Surroundings) -> Result<Self, InvalidField> {
        let (kind, source) = match (&generator.http, &generator.events, &generator.list) {
            (Some(http), None, None) => ("http", Source::Http(Box::new(listing(http, surroundings)?))),
            (None, Some(events), None) => ("events", Source::Events(Box::new(Events::of(events)?))),
            (None, None, Some(list)) => {
                ("list", Source::List { items: list.items.clone(), key: compiled("list.key", &list.key, &["item"])? })
            }
            _ => return Err(InvalidField::value("name", "a generator needs exactly one of http, events and list")),
        };
        Ok(Self { id: format!("{kind}/{}", generator.name), name: generator.name.clone(), source })
    }

    /// Whether its items can go by absence.
    pub fn lists(&self) -> bool {
        !matches!(self.source, Source::Events(_))
    }
}

fn compiled(field: &str, text: &str, known: &[&str]) -> Result<Expression, InvalidField> {
    Expression::compile(text, known).map_err(|invalid| InvalidField::expression(field, &invalid))
}

fn listing(http: &HttpGenerator, surroundings: &Surroundings) -> Result<Listing, InvalidField> {
    let target = HttpTarget {
        url: http.url.clone(),
        method: Some(HttpMethod::Get),
        path: None,
        query: http.query.clone(),
        headers: http.headers.clone(),
        body: None,
        template: None,
        multipart: None,
        auth: http.auth.clone(),
        csrf: None,
        tls: http.tls.clone(),
        timeout: http.timeout.clone(),
        success: Some(vec!["200-299".into(), "304".into()]),
    };
    let every = match http.every.as_deref().map(str::parse::<SignedDuration>) {
        None => DEFAULT_EVERY,
        Some(every) => every
            .ok()
            .and_then(|every| Duration::try_from(every).ok())
            .filter(|every| *every >= LEAST_EVERY)
            .ok_or_else(|| InvalidField::value("http.every", "needs a duration of at least 1s, such as 5m"))?,
    };
    let page = ["body", "response"];
    Ok(Listing {
        target: Target::new(&target, &[], surroundings).map_err(|invalid| invalid.below("http"))?,
        every,
        items: compiled("http.items", &http.items, &page)?,
        key: compiled("http.key", &http.key, &["item"])?,
        next: http.next.as_deref().map(|text| compiled("http.next", text, &page)).transpose()?,
    })
}

impl Listing {
    /// Takes a page apart. `response` is what expressions see of it.
    pub fn page(&self, response: &Value) -> Result<Page, String> {
        let body = from_json(&response["body"]);
        let variables = Variables::default().with("body", body).with("response", from_json(response));
        let items = self.items.list(&variables).map_err(|failed| format!("items: {failed}"))?;
        let items = items.into_iter().map(|item| item.map_err(|failed| failed.message)).collect();
        let next = match self.next.as_ref().map(|next| next.json(&variables)).transpose() {
            Ok(None | Some(Value::Null)) => None,
            Ok(Some(Value::String(text))) => Some(text).filter(|text| !text.is_empty()),
            Ok(Some(_)) => return Err("next: the result is no text and not null".into()),
            Err(failed) if failed.is_missing_key => None,
            Err(failed) => return Err(format!("next: {failed}")),
        };
        Ok(Page { items, next })
    }

    /// The key of an item.
    pub fn key(&self, item: &Value) -> Result<String, String> {
        key_of(&self.key, item)
    }
}

/// The key of an item by an expression over `item`.
pub fn key_of(expression: &Expression, item: &Value) -> Result<String, String> {
    let variables = Variables::default().with("item", from_json(item));
    expression.text(&variables).map_err(|failed| format!("key: {failed}")).and_then(child::key)
}

impl Events {
    fn of(events: &EventsGenerator) -> Result<Self, InvalidField> {
        let known = ["event"];
        let optional =
            |field: &str, text: &Option<String>| text.as_deref().map(|text| compiled(field, text, &known)).transpose();
        Ok(Self {
            when: optional("events.when", &events.when)?,
            key: compiled("events.key", &events.key, &known)?,
            item: optional("events.item", &events.item)?,
        })
    }

    /// Key and item of an event; `None` for one that does not count.
    pub fn take(&self, event: &Value) -> Result<Option<(String, Value)>, String> {
        let variables = Variables::default().with("event", from_json(event));
        match self.when.as_ref().map(|when| when.holds(&variables)) {
            // What an event lacks it cannot be known by.
            Some(Ok(false) | Err(Failed { is_missing_key: true, .. })) => return Ok(None),
            Some(Err(failed)) => return Err(format!("when: {failed}")),
            None | Some(Ok(true)) => {}
        }
        let key = self.key.text(&variables).map_err(|failed| format!("key: {failed}")).and_then(child::key)?;
        let item = match &self.item {
            Some(item) => item.json(&variables).map_err(|failed| format!("item: {failed}"))?,
            None => event["data"].clone(),
        };
        if item.to_string().len() > LARGEST_ITEM {
            return Err(format!("the item has more than {LARGEST_ITEM} bytes of JSON"));
        }
        Ok(Some((key, item)))
    }
}
