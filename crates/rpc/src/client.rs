//! The blocking client.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect as begin, setsockopt, socket as open,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

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
        "talk to the loader at {socket}: {source}; is azure-vnet-loader running? (systemctl status azure-vnet-loader; journalctl -u azure-vnet-loader)"
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

impl CallError {
    /// Whether the loader is there, but had no answer within the limit.
    pub fn is_late(&self) -> bool {
        let (Self::Connect { source, .. } | Self::Exchange { source, .. }) = self else {
            return false;
        };
        // A socket's own time limit is told as the former.
        matches!(
            source.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        )
    }
}

/// Asks the loader at `socket`; the whole takes `limit` at most, however slowly it answers.
pub fn call(socket: &Path, request: &Request, limit: Duration) -> Result<Reply, CallError> {
    let connect = |source| CallError::Connect {
        socket: socket.to_owned(),
        source,
    };
    let exchange = |source| CallError::Exchange {
        socket: socket.to_owned(),
        source,
    };

    let deadline = Instant::now() + limit;
    let mut stream = connect_within(socket, limit).map_err(connect)?;

    let question = serde_json::to_vec(request).map_err(|source| CallError::Answer { source })?;
    // The limit that is set is that of `connect`.
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left.max(Duration::from_micros(1));
    stream.set_write_timeout(Some(left)).map_err(exchange)?;
    stream.write_all(&question).map_err(exchange)?;
    stream.shutdown(Shutdown::Write).map_err(exchange)?;
    let mut answer = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(exchange(io::ErrorKind::TimedOut.into()));
        }
        stream.set_read_timeout(Some(left)).map_err(exchange)?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend(part.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(exchange(error)),
        }
    }
    if answer.is_empty() {
        return Err(exchange(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&answer).map_err(|source| CallError::Answer { source })
}

/// Connects to the loader; std's own waits for ever for one that accepts no more.
pub fn connect_within(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let kind = SockType::Stream;
    let stream = open(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let micros = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    // Zero would be no limit.
    let limit = TimeVal::microseconds(micros.max(1));
    setsockopt(&stream, sockopt::SendTimeout, &limit)?;
    begin(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::{scope, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a slow loader is what is tested")]
    fn a_loader_that_answers_byte_by_byte_or_accepts_nobody_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader.sock");
        let listener = UnixListener::bind(&path).unwrap();
        scope(|scope| {
            scope.spawn(|| {
                let (mut slow, _) = listener.accept().unwrap();
                while slow.write_all(b" ").is_ok() {
                    sleep(LIMIT / 4);
                }
            });
            let begun = Instant::now();
            let late = call(&path, &Request::Health, LIMIT);
            assert!(matches!(late, Err(CallError::Exchange { .. })), "{late:?}");
            assert!(late.unwrap_err().is_late());
            assert!(begun.elapsed() < LIMIT * 5, "{:?}", begun.elapsed());
        });
        // Nobody accepts: at some point the queue is full.
        let waiting = (0..100_000).map_while(|_| connect_within(&path, LIMIT).ok());
        let waiting: Vec<_> = waiting.collect();
        assert!(waiting.len() > 10);
        let begun = Instant::now();
        let late = call(&path, &Request::Health, LIMIT);
        assert!(matches!(late, Err(CallError::Connect { .. })), "{late:?}");
        assert!(late.unwrap_err().is_late());
        assert!(begun.elapsed() < LIMIT * 5, "{:?}", begun.elapsed());
    }
}
