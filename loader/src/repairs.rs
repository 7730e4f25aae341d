//! How often has what was there been put back?
//!
//! Counted for the whole process, because repairs happen deep below whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that was there, was gone or another, and was put back or cleared away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A program that did not run on an interface.
    Program,
    /// The pin of a program, a map or a link.
    Pin,
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
    /// A setting below /proc/sys/net.
    Setting,
    /// A link, a route or a neighbour of a pod.
    Way,
    /// A record or a lease.
    File,
    /// The loader's socket.
    Socket,
    /// The loader's lock.
    Lock,
}

impl Repair {
    /// Every kind, in the order of the counters.
    pub const ALL: [Self; 12] = [
        Self::Program,
        Self::Pin,
        Self::Endpoint,
        Self::Entry,
        Self::DeadEntry,
        Self::Tombstone,
        Self::Fallback,
        Self::Setting,
        Self::Way,
        Self::File,
        Self::Socket,
        Self::Lock,
    ];

    /// As metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Pin => "pin",
            Self::Endpoint => "endpoint",
            Self::Entry => "entry",
            Self::DeadEntry => "dead_entry",
            Self::Tombstone => "tombstone",
            Self::Fallback => "fallback",
            Self::Setting => "setting",
            Self::Way => "way",
            Self::File => "file",
            Self::Socket => "socket",
            Self::Lock => "lock",
        }
    }

    /// One more.
    pub fn count(self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(self, repairs: usize) {
        let repairs = u64::try_from(repairs).unwrap_or(u64::MAX);
        self.counter().fetch_add(repairs, Ordering::Relaxed);
    }

    /// How often since the loader started.
    pub fn total(self) -> u64 {
        self.counter().load(Ordering::Relaxed)
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many as kinds")]
    fn counter(self) -> &'static AtomicU64 {
        static COUNTERS: [AtomicU64; Repair::ALL.len()] =
            [const { AtomicU64::new(0) }; Repair::ALL.len()];
        &COUNTERS[self as usize]
    }
}
