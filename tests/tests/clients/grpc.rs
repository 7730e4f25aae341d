//! One gRPC call: a request, a response, a deadline. Generated clients need `protoc` and minutes to build.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use lab::Namespace;
use prost::Message;

/// Length of the prefix of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What the server answered instead of a response.
#[derive(Debug, thiserror::Error)]
#[error("gRPC status {code}: {message}")]
pub(crate) struct Status {
    pub(crate) code: u32,
    pub(crate) message: String,
}

/// The code when the deadline passed.
pub(crate) const DEADLINE_EXCEEDED: u32 = 4;

/// Calls `method` of the server that listens on `socket` in the node.
pub(crate) fn call<T: Message + Default>(
    node: &Namespace,
    socket: &str,
    method: &str,
    request: &impl Message,
    limit: Duration,
) -> Result<T> {
    let stream = node.run(|| UnixStream::connect(socket).context("connect to the runtime"))?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exchange = exchange(stream, method, request, limit);
    let answered = runtime.block_on(async { tokio::time::timeout(limit, exchange).await });
    let late = || Status {
        code: DEADLINE_EXCEEDED,
        message: format!("no answer within {limit:?}"),
    };
    let body = answered
        .map_err(|_elapsed| late())
        .map_err(anyhow::Error::from)
        .and_then(|done| done)
        .with_context(|| method.to_owned())?;
    T::decode(body).with_context(|| format!("decode the answer of {method}"))
}

async fn exchange(
    stream: UnixStream,
    method: &str,
    request: &impl Message,
    limit: Duration,
) -> Result<Bytes> {
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let (client, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await?;
    let head = Request::post(format!("http://runtime{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", limit.as_millis()))
        .body(())?;
    let (response, mut sending) = client.send_request(head, false)?;
    sending.send_data(framed(request)?, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut received = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        received.put(chunk);
    }
    let trailers = body.trailers().await?;
    driver.abort();
    // An answer without a message has its status in the head.
    judge(trailers.as_ref().unwrap_or(&head.headers))?;
    ensure!(received.len() >= PREFIX, "an answer without a message");
    Ok(received.split_off(PREFIX).freeze())
}

fn framed(message: &impl Message) -> Result<Bytes> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut frame)?;
    Ok(frame.freeze())
}

fn judge(headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some(code) => Err(Status {
            code: code.parse()?,
            message: text("grpc-message").unwrap_or_default().to_owned(),
        }
        .into()),
        None => bail!("an answer without a status: {headers:?}"),
    }
}
