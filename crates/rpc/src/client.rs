//! The blocking client.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Reply, Request};

/// The loader could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens on the socket.
    #[error(
        "connect to the loader at {socket}: {source}; is azure-vnet-loader running? (systemctl status azure-vnet-loader)"
    )]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The loader did not answer in time, or hung up.
    #[error(
        "talk to the loader at {socket}: {source}; see the loader's log (journalctl -u azure-vnet-loader)"
    )]
    Exchange {
        /// The socket's path.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The answer is not one that this build understands.
    #[error("read the loader's answer: {source}; loader and plug-in must be of the same version")]
    Answer {
        /// The parser's reason.
        source: serde_json::Error,
    },
}

/// Asks the loader at `socket`, waiting at most `limit` for each step of the exchange.
pub fn call(socket: &Path, request: &Request, limit: Duration) -> Result<Reply, CallError> {
    let connect = |source| CallError::Connect {
        socket: socket.to_owned(),
        source,
    };
    let exchange = |source| CallError::Exchange {
        socket: socket.to_owned(),
        source,
    };

    let mut stream = UnixStream::connect(socket).map_err(connect)?;
    stream.set_read_timeout(Some(limit)).map_err(exchange)?;
    stream.set_write_timeout(Some(limit)).map_err(exchange)?;

    let question = serde_json::to_vec(request).map_err(|source| CallError::Answer { source })?;
    stream.write_all(&question).map_err(exchange)?;
    stream.shutdown(Shutdown::Write).map_err(exchange)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(exchange)?;
    if answer.is_empty() {
        return Err(exchange(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&answer).map_err(|source| CallError::Answer { source })
}
