//! SIGINT and SIGTERM: what is in hand is finished, or taken away, first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

/// Set by either from now on, for who calls this before it starts a thread. Whoever says it twice means at once. Programs that are
/// started meanwhile have their own way with them: the standard library unblocks signals for them.
pub(crate) fn ended() -> Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("block signals")?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    thread::spawn(move || {
        if signals.wait().is_ok() {
            told.store(true, Ordering::Relaxed);
        }
        // Here they end the process again.
        let _cannot_fail = signals.thread_unblock();
        loop {
            thread::park();
        }
    });
    Ok(ended)
}
