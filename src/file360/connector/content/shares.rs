//! Share links and mails.

use http::Method;

use super::items::item_path;
use crate::error::Result;
use crate::file360::connector::Connector;
use crate::file360::exchange::Call;
use crate::file360::model::{Link, NewLink, NewNotification, Notification};
use crate::file360::{Cause, IdempotencyKey};

impl Connector {
    pub(super) async fn post_link(&self, item: &str, new: &NewLink, key: &IdempotencyKey, cause: &Cause) -> Result<Link> {
        let operation = "make a share link";
        let path = format!("{}/links", item_path(item));
        let call = Call::new(operation, Method::POST, path).json(new)?.key(key).cause(cause);
        self.transport.call(call).await?.json(operation)
    }

    pub(super) async fn post_notification(&self, new: &NewNotification, key: &IdempotencyKey) -> Result<Notification> {
        let operation = "ask for a mail";
        let call = Call::new(operation, Method::POST, "/v1/notifications".into()).json(new)?.key(key).mutating();
        self.transport.call(call).await?.json(operation)
    }
}
