//! Bodies of calls that are refused before they were read.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::{Stream, StreamExt};

/// How much more is read, and for how long, after a call is over.
const MOST: usize = 32 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// A body whose sender hears the answer even if nobody reads the body to its end: the rest is read and thrown away for a
/// while. Closing at once would reset the connection, and the answer would be lost with it.
pub fn lingering(body: Body) -> Body {
    Body::from_stream(Lingering(Some(body.into_data_stream())))
}

struct Lingering(Option<BodyDataStream>);

impl Stream for Lingering {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(PATIENCE, drain(body)));
        }
    }
}

async fn drain(mut body: BodyDataStream) {
    let mut read = 0;
    while let Some(Ok(chunk)) = body.next().await {
        read += chunk.len();
        if read > MOST {
            return;
        }
    }
}
