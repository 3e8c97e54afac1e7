//! The change feed.

use std::time::Duration;

use http::Method;

use super::Connector;
use crate::error::Result;
use crate::file360::exchange::Call;
use crate::file360::model::ChangePage;

/// Time that a long poll may take beyond what it asked for.
const SLACK: Duration = Duration::from_secs(15);

impl Connector {
    pub(super) async fn read_changes(&self, cursor: &str, wait: Duration) -> Result<ChangePage> {
        let operation = "read the change feed";
        let wait_seconds = wait.as_secs().to_string();
        let query = [("cursor", cursor), ("limit", "1000"), ("wait", wait_seconds.as_str())];
        let mut call = Call::new(operation, Method::GET, "/v1/changes".into()).query(&query);
        call.timeout = wait + SLACK;
        call.is_long_poll = true;
        self.transport.call(call).await?.json(operation)
    }
}
