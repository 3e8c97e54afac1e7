//! Delivers to another system's HTTP API: the file itself, an address to fetch it from, or what is known about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::event::Events;
use crate::api::file_route::{DestinationSpec, Send};
use crate::error::Result;
use crate::expression::{Expression, InvalidField, Variables, from_json};
use crate::file360::content::ByteStream;
use crate::outbound::http::{Answer, Body, Source, Surroundings, Target, Upload};
use crate::routes::delivery::{Content, Delivery, Destination, Receipt};
use crate::routes::environment::{NAMES, NAMES_WITH_RESPONSE};

/// The variable with the address of the content, for `send: Reference`.
const REFERENCE: &str = "reference";
const DEFAULT_REFERENCE_FOR: Duration = Duration::from_mins(15);
const LONGEST_REFERENCE_FOR: Duration = Duration::from_hours(24);

/// Makes addresses under which anybody who has them can fetch a file's content for a while.
#[async_trait]
pub trait Addresses: std::marker::Send + Sync {
    /// An address of the delivery's file that works for this long.
    async fn address(&self, delivery: &Delivery, works_for: Duration) -> Result<String>;
}

/// An HTTP destination of a route.
pub struct HttpDestination {
    target: Target,
    sends: Sends,
    events: Events,
}

enum Sends {
    Content,
    Reference { addresses: Arc<dyn Addresses>, works_for: Duration },
    Metadata,
}

impl HttpDestination {
    /// Compiles the `http` destination of `spec`.
    pub fn new(
        spec: &DestinationSpec,
        surroundings: &Surroundings,
        addresses: Arc<dyn Addresses>,
    ) -> Result<Self, InvalidField> {
        let http = spec.http.as_ref().ok_or_else(|| InvalidField::value("http", "is missing"))?;
        let send = spec.send.unwrap_or_default();
        let names: Vec<&str> = NAMES.iter().copied().chain((send == Send::Reference).then_some(REFERENCE)).collect();
        let target = Target::new(http, &names, surroundings).map_err(|invalid| invalid.below("http"))?;
        let wrong = |field: &str, why: &str| Err(InvalidField::value(field, why));
        if send == Send::Content {
            if !target.has_body() {
                return wrong("http.method", "send: Content needs a method with a body");
            }
            if http.multipart.is_none() && http.template.is_some() {
                return wrong(
                    "http.template",
                    "with send: Content the content is the body; http.multipart.json sends a document beside it",
                );
            }
            if http.multipart.is_none() && http.body.is_some() {
                return wrong("http.body", "with send: Content the content is the body");
            }
        } else if http.multipart.is_some() {
            return wrong("http.multipart", "goes with send: Content");
        }
        let sends = match send {
            Send::Content => Sends::Content,
            Send::Reference => Sends::Reference { addresses, works_for: works_for(spec)? },
            Send::Metadata => Sends::Metadata,
        };
        if send != Send::Reference && spec.reference_for.is_some() {
            return wrong("referenceFor", "goes with send: Reference");
        }
        Ok(Self { target, sends, events: Events::new()? })
    }

    async fn reference(&self, delivery: &Delivery, addresses: &dyn Addresses, works_for: Duration) -> Result<Answer> {
        let address = addresses.address(delivery, works_for).await?;
        let until = Timestamp::now() + works_for;
        let reference = json!({"url": address, "expiresAt": until.to_string()});
        let variables = delivery.variables.extended(REFERENCE, from_json(&reference));
        let body = self.target.document(&variables, || {
            let mut data = self.events.data(delivery);
            data["reference"] = reference.clone();
            // The extension that CloudEvents has for data that lies elsewhere.
            self.events.event(delivery).structured(Map::from_iter([("dataref".to_owned(), address.into())]), data)
        })?;
        self.target.send(&variables, body, &delivery.key).await
    }

    async fn metadata(&self, delivery: &Delivery) -> Result<Answer> {
        let body = self.target.document(&delivery.variables, || {
            self.events.event(delivery).structured(Map::new(), self.events.data(delivery))
        })?;
        self.target.send(&delivery.variables, body, &delivery.key).await
    }

    async fn content(&self, delivery: &Delivery) -> Result<Answer> {
        let file = &delivery.file;
        let upload = Upload {
            source: Arc::new(Opens(delivery.content.clone())),
            mime_type: file.mime_type.clone(),
            file_name: file.name.clone(),
            sha256: file.sha256.clone(),
            event: self.events.event(delivery),
        };
        self.target.send(&delivery.variables, Body::Stream(upload), &delivery.key).await
    }
}

#[async_trait]
impl Destination for HttpDestination {
    fn kind(&self) -> &'static str {
        "http"
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<Receipt> {
        let (answer, bytes) = match &self.sends {
            Sends::Content => (self.content(delivery).await?, delivery.file.size),
            Sends::Reference { addresses, works_for } => {
                (self.reference(delivery, addresses.as_ref(), *works_for).await?, 0)
            }
            Sends::Metadata => (self.metadata(delivery).await?, 0),
        };
        Ok(Receipt {
            reference: place(&answer).unwrap_or_else(|| format!("{} {}", self.target.host(), answer.status)),
            bytes,
            // Who declares these a success says that they mean: it was there.
            duplicate: matches!(answer.status, 208 | 409),
            response: Some(answer.variable()),
        })
    }
}

/// Compiles `writeBack`: names of metadata with expressions over the answer.
pub fn compile_write_back(spec: &DestinationSpec) -> Result<Vec<(String, Expression)>, InvalidField> {
    let compiled = spec.write_back.iter().flatten().map(|(name, text)| {
        let field = format!("writeBack.{name}");
        if name.is_empty() || name.len() > 63 {
            return Err(InvalidField::value("writeBack", "a metadata key has 1 to 63 characters"));
        }
        let expression = Expression::compile(text, NAMES_WITH_RESPONSE);
        Ok((name.clone(), expression.map_err(|invalid| InvalidField::expression(field, &invalid))?))
    });
    compiled.collect()
}

/// Evaluates `writeBack` with the answer of a delivery: metadata to set on the file.
pub fn write_back(
    compiled: &[(String, Expression)],
    variables: &Variables,
    response: &Value,
) -> std::result::Result<BTreeMap<String, String>, InvalidField> {
    let variables = variables.extended("response", from_json(response));
    let evaluated = compiled.iter().map(|(name, expression)| {
        let value = expression.text(&variables);
        Ok((name.clone(), value.map_err(|failed| InvalidField::value(format!("writeBack.{name}"), failed.to_string()))?))
    });
    evaluated.collect()
}

fn works_for(spec: &DestinationSpec) -> Result<Duration, InvalidField> {
    let Some(text) = &spec.reference_for else { return Ok(DEFAULT_REFERENCE_FOR) };
    let works_for = text.parse::<SignedDuration>().ok().and_then(|works_for| Duration::try_from(works_for).ok());
    works_for
        .filter(|works_for| !works_for.is_zero() && *works_for <= LONGEST_REFERENCE_FOR)
        .ok_or_else(|| InvalidField::value("referenceFor", "needs a duration of up to 24h, such as 15m"))
}

/// Where the other side says that it has the file; without a query, which could let people in.
fn place(answer: &Answer) -> Option<String> {
    let location = answer.headers.get("location").or_else(|| answer.headers.get("content-location"))?;
    location.split(['?', '#']).next().filter(|place| !place.is_empty()).map(str::to_owned)
}

/// The content of a delivery, as a call opens it.
struct Opens(Arc<dyn Content>);

#[async_trait]
impl Source for Opens {
    async fn open(&self) -> Result<(u64, ByteStream)> {
        let opened = self.0.open().await?;
        Ok((opened.size, opened.content))
    }
}
