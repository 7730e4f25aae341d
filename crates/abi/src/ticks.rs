//! The kernel's ticks as seconds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How the programs make seconds of `jiffies_64`, the one clock that costs them a load instead of a call.
///
/// Seconds are those of `CLOCK_MONOTONIC`, but for what the kernel lost of its first ticks at boot, and for its own rounding of
/// the length of a tick, which is below 2·10⁻⁷ (six seconds a year, with 300 ticks a second; none with 100, 250 and 1000).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Ticks {
    /// `jiffies_64` at boot: five minutes before its lower half wraps (`INITIAL_JIFFIES` of linux/jiffies.h).
    first: u32,
    /// 2³⁶ divided by the ticks of a second: exact to 10⁻⁸, and no overflow within eight years of uptime.
    per_second: u32,
}

const SHIFT: u32 = 36;

impl Ticks {
    /// It is always second 0, for tests.
    pub const STOPPED: Self = Self {
        first: 0,
        per_second: 0,
    };

    /// For a kernel with `hz` ticks a second (`CONFIG_HZ`: 100, 250, 300 or 1000).
    #[expect(clippy::cast_possible_truncation, reason = "2³⁶ divided by 24 or more")]
    pub const fn new(hz: u32) -> Self {
        // The least that any architecture has, so that the factor fits.
        let hz = if hz < 24 { 24 } else { hz };
        let per_second = ((1 << SHIFT) + hz as u64 / 2) / hz as u64;
        Self {
            first: hz.wrapping_mul(300).wrapping_neg(),
            per_second: per_second as u32,
        }
    }

    /// Whole seconds since boot at `jiffies`, a value of `jiffies_64`.
    #[inline(always)]
    pub const fn seconds(self, jiffies: u64) -> u32 {
        let since_boot = jiffies.wrapping_sub(self.first as u64);
        (since_boot.wrapping_mul(self.per_second as u64) >> SHIFT) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_as_long_as_its_ticks() {
        for hz in [100, 250, 300, 1000] {
            let ticks = Ticks::new(hz);
            let boot = (1_u64 << 32) - 300 * u64::from(hz);
            assert_eq!(ticks.seconds(boot), 0, "{hz}");
            for seconds in [1, 10, 300, 301, 86_400] {
                let exact = boot + u64::from(seconds) * u64::from(hz);
                let (before, after) = (ticks.seconds(exact - 2), ticks.seconds(exact + 2));
                assert_eq!((before, after), (seconds - 1, seconds), "{hz}");
            }
        }
    }
}
