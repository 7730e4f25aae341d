//! SIGTERM and SIGINT: a call that is told to end finishes what it is at, so that nothing is left half-made.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// Notes the signals from now on. A handler, unlike a mask, is not inherited by the IPAM plug-in.
pub(crate) fn hold_off() {
    let note = SigAction::new(
        SigHandler::Handler(note),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: the handler only stores into an atomic, which is safe in a signal handler.
        let installed = unsafe { sigaction(signal, &note) };
        debug_assert!(installed.is_ok(), "a signal that can be caught");
    }
}

/// Whether one came.
pub(crate) fn told_to_end() -> bool {
    TOLD_TO_END.load(Ordering::Relaxed)
}

extern "C" fn note(_signal: c_int) {
    TOLD_TO_END.store(true, Ordering::Relaxed);
}
