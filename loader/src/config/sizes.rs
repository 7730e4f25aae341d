//! How large the great tables are.

use std::ops::RangeInclusive;

use abi::{MAX_BINDINGS, MAX_FLOWS};

/// Capacities of the tables that hold an entry per connection. They are fixed when a table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Of `flows`.
    pub flows: u32,
    /// Of `snat`.
    pub bindings: u32,
}

impl Default for TableSizes {
    fn default() -> Self {
        Self {
            flows: MAX_FLOWS,
            bindings: MAX_BINDINGS,
        }
    }
}

impl TableSizes {
    /// What a table may be told to hold: some 100 bytes an entry, allocated at once.
    pub(super) const RANGE: RangeInclusive<u32> = 1024..=1_048_576;
}
