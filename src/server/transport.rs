//! Connections: HTTP or HTTPS, with a limit on how long a client may take to say what it wants.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use http::{Request, Response};
use hyper_util::rt::TokioTimer;
use tower_service::Service;

use super::http::{DropConnection, Peer};

/// How long a client may take for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);

/// Serves connections until the handle stops it.
pub async fn serve(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    handle: Handle<SocketAddr>,
    router: Router,
) -> std::io::Result<()> {
    let make = MakePerConnection(router);
    if let Some(tls) = tls {
        let mut server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle);
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
        server.http_builder().http2().max_concurrent_streams(128);
        server.serve(make).await
    } else {
        let mut server = axum_server::from_tcp(listener)?.handle(handle);
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
        server.http_builder().http2().max_concurrent_streams(128);
        server.serve(make).await
    }
}

#[derive(Clone)]
struct MakePerConnection(Router);

impl Service<SocketAddr> for MakePerConnection {
    type Response = PerConnection;
    type Error = Infallible;
    type Future = Ready<Result<PerConnection, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        ready(Ok(PerConnection { router: self.0.clone(), peer }))
    }
}

/// The router for one connection: it knows the peer, and can close the connection instead of answering.
#[derive(Clone)]
struct PerConnection {
    router: Router,
    peer: SocketAddr,
}

impl<B> Service<Request<B>> for PerConnection
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.peer));
        let answer = self.router.call(request);
        Box::pin(async move {
            let Ok(response) = answer.await;
            if response.extensions().get::<DropConnection>().is_some() {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            Ok(response)
        })
    }
}
