//! How often has what was there been put back?
//!
//! Counted for the whole process, because repairs happen deep below whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that was there, was gone, and was put back or cleared away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A program that did not run on an interface.
    Program,
    /// An endpoint that the maps had lost.
    Endpoint,
    /// What somebody else has written to the maps.
    Entry,
    /// An entry of the maps whose interface is gone.
    DeadEntry,
    /// What a DEL without a loader has left to do.
    Tombstone,
    /// The nftables table.
    Fallback,
}

impl Repair {
    /// Every kind, in the order of the counters.
    pub const ALL: [Self; 6] = [
        Self::Program,
        Self::Endpoint,
        Self::Entry,
        Self::DeadEntry,
        Self::Tombstone,
        Self::Fallback,
    ];

    /// As metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Endpoint => "endpoint",
            Self::Entry => "entry",
            Self::DeadEntry => "dead_entry",
            Self::Tombstone => "tombstone",
            Self::Fallback => "fallback",
        }
    }

    /// One more.
    pub fn count(self) {
        self.counter().fetch_add(1, Ordering::Relaxed);
    }

    /// How often since the loader started.
    pub fn total(self) -> u64 {
        self.counter().load(Ordering::Relaxed)
    }

    fn counter(self) -> &'static AtomicU64 {
        static PROGRAM: AtomicU64 = AtomicU64::new(0);
        static ENDPOINT: AtomicU64 = AtomicU64::new(0);
        static ENTRY: AtomicU64 = AtomicU64::new(0);
        static DEAD_ENTRY: AtomicU64 = AtomicU64::new(0);
        static TOMBSTONE: AtomicU64 = AtomicU64::new(0);
        static FALLBACK: AtomicU64 = AtomicU64::new(0);
        match self {
            Self::Program => &PROGRAM,
            Self::Endpoint => &ENDPOINT,
            Self::Entry => &ENTRY,
            Self::DeadEntry => &DEAD_ENTRY,
            Self::Tombstone => &TOMBSTONE,
            Self::Fallback => &FALLBACK,
        }
    }
}
