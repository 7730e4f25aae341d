//! Who may read metrics and health, and how: HTTP/1 on the address that `metrics` in loader.yaml says, and nowhere by default.
//!
//! One request per connection, a few at a time, each within seconds: who is slow or sends garbage keeps nobody waiting.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, info, warn};

use crate::daemon::Daemon;

/// For one connection, from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time; others wait.
const MOST: usize = 16;
/// Before an address that is taken is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// `OpenMetrics` 1.0.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves on the address that is configured, and moves when it changes.
pub(crate) async fn serve(daemon: Rc<Daemon>, mut address: watch::Receiver<Option<SocketAddrV4>>) {
    loop {
        let wanted = *address.borrow_and_update();
        let changed = tokio::select! {
            changed = address.changed() => changed,
            () = listen(wanted, &daemon) => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Never ends.
async fn listen(address: Option<SocketAddrV4>, daemon: &Rc<Daemon>) {
    let Some(address) = address else {
        return pending().await;
    };
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "metrics are served");
                accept(&listener, daemon).await;
            }
            Err(error) => warn!(%address, %error, "listen for metrics: tried again in {RETRY:?}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Until nothing can be accepted: out of descriptors, most likely.
async fn accept(listener: &TcpListener, daemon: &Rc<Daemon>) {
    let room = Arc::new(Semaphore::new(MOST));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, from)) => {
                let daemon = Rc::clone(daemon);
                tokio::task::spawn_local(async move {
                    let done = tokio::time::timeout(PATIENCE, answer(stream, daemon)).await;
                    if !matches!(done, Ok(Ok(()))) {
                        debug!(%from, ?done, "a reader of metrics hung up");
                    }
                    drop(permit);
                });
            }
            Err(error) => return warn!(%error, "accept a reader of metrics"),
        }
    }
}

async fn answer(stream: TcpStream, daemon: Rc<Daemon>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &daemon);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(16 << 10);
    http.serve_connection(TokioIo::new(stream), service).await
}

fn respond(method: &Method, path: &str, daemon: &Daemon) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".into());
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match path {
        "/metrics" => match daemon.exposition() {
            Ok(text) => plain(StatusCode::OK, METRICS, text),
            Err(error) => {
                warn!(%error, "gather the metrics");
                plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    format!("{error}\n"),
                )
            }
        },
        "/healthz" => verdict(daemon.health()),
        "/readyz" => verdict(daemon.readiness()),
        _ => {
            let known = "/metrics, /healthz or /readyz\n";
            plain(StatusCode::NOT_FOUND, TEXT, known.into())
        }
    }
}

fn verdict(found: Result<(), String>) -> Response<Full<Bytes>> {
    match found {
        Ok(()) => plain(StatusCode::OK, TEXT, "ok\n".into()),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    }
}

fn plain(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
