//! Files as events at a message broker.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Map;

use super::event::Events;
use crate::api::places::Broker;
use crate::error::{Error, Kind, Result};
use crate::expression::{Expression, InvalidField};
use crate::outbound::broker::connect::Server;
use crate::outbound::broker::subject::Subject;
use crate::outbound::broker::{Nats, Settings};
use crate::outbound::cloud_event::MEDIA_TYPE;
use crate::outbound::guard::Guard;
use crate::outbound::secrets::References;
use crate::outbound::trust::Trust;
use crate::routes::delivery::{Delivery, Destination, Receipt};
use crate::routes::environment::NAMES;

/// A NATS server with JetStream: each delivery is one CloudEvents 1.0 event. The file's content is never sent.
///
/// The idempotency key is the event's id and the message's `Nats-Msg-Id`, so a stream drops what comes twice within its duplicate window,
/// and consumers can drop what comes twice later.
pub struct BrokerDestination {
    nats: Nats,
    subject: Expression,
    events: Events,
}

impl BrokerDestination {
    /// Compiles the subject and checks the address; connects to nothing yet. Field names are below the destination.
    pub fn new(
        spec: &Broker,
        references: Arc<dyn References>,
        guard: Arc<Guard>,
        trust: Trust,
    ) -> Result<Self, InvalidField> {
        let nats = &spec.nats;
        let server =
            Server::parse(&nats.url, &guard).map_err(|why| InvalidField { field: "broker.nats.url".into(), why })?;
        let subject = Expression::compile(&nats.subject, NAMES)
            .map_err(|invalid| InvalidField::expression("broker.nats.subject", &invalid))?;
        let settings = Settings { server, auth: nats.auth.clone(), ca: nats.ca_ref.clone(), references, guard, trust };
        Ok(Self { nats: Nats::new(settings), subject, events: Events::new()? })
    }
}

#[async_trait]
impl Destination for BrokerDestination {
    fn kind(&self) -> &'static str {
        "nats"
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<Receipt> {
        let text = self
            .subject
            .text(&delivery.variables)
            .map_err(|failed| Error::new(Kind::Rejected, format!("broker.nats.subject: {failed}")))?;
        let subject = Subject::new(&text)?;
        let event = self.events.event(delivery).structured(Map::new(), self.events.data(delivery));
        let payload = serde_json::to_vec(&event).map_err(|error| Error::new(Kind::Rejected, error.to_string()))?;
        let stored = self
            .nats
            .publish(&subject, &delivery.key, MEDIA_TYPE, payload.into())
            .await
            .map_err(|error| error.while_doing(format!("publish to {subject}")))?;
        Ok(Receipt {
            reference: format!("{}:{}", stored.stream, stored.sequence),
            bytes: 0,
            duplicate: stored.duplicate,
            response: None,
        })
    }
}
