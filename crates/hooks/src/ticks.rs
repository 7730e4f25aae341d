//! What the programs have to be told of the kernel's clock.

use abi::Ticks;
use nix::time::{ClockId, clock_getres};

/// The kernel's ticks. They are the steps of `CLOCK_MONOTONIC_COARSE`, whatever `CONFIG_HZ` its configuration says where.
pub fn ticks() -> Ticks {
    let step = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |step| step.tv_nsec());
    let step = u32::try_from(step).unwrap_or(0).max(1);
    Ticks::new((1_000_000_000 + step / 2) / step)
}
