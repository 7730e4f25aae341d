//! What did a process say? Its standard error, collected on a thread.

use std::fmt;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::wait::lock;

/// The newest megabyte that a process wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    text: Mutex<Text>,
    end: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
}

impl Log {
    const KEPT: usize = 1 << 20;

    pub(crate) fn of(mut source: impl Read + Send + 'static) -> Result<Self> {
        let log = Self::default();
        let filled = log.clone();
        thread::Builder::new().name("log".into()).spawn(move || {
            let mut chunk = vec![0; 4096];
            while let Ok(read @ 1..) = source.read(&mut chunk) {
                let mut text = lock(&filled.0.text);
                text.bytes.extend(chunk.iter().take(read));
                let excess = text.bytes.len().saturating_sub(Self::KEPT);
                text.bytes.drain(..excess);
            }
            lock(&filled.0.text).ended = true;
            filled.0.end.notify_all();
        })?;
        Ok(log)
    }

    /// After the end of the process: waits until its last words are here. Gives up after the time, because
    /// a child of the process may hold the pipe.
    pub(crate) fn complete(&self, within: Duration) {
        let text = lock(&self.0.text);
        let waited = self
            .0
            .end
            .wait_timeout_while(text, within, |text| !text.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&lock(&self.0.text).bytes))
    }
}
