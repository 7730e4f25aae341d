//! Clocks: one that never jumps for state, the wall's for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`, milliseconds: goes on during suspend and does not care who sets the clock.
pub(crate) fn boottime_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        u64::try_from(Duration::from(time).as_millis()).unwrap_or(u64::MAX)
    })
}

/// The wall clock in UTC, `2026-11-21T01:40:01.123Z` (RFC 3339).
pub(crate) fn utc() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    rpc::utc(since.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_goes_forward() {
        let before = boottime_ms();
        assert!(before > 0 && boottime_ms() >= before);
    }
}
