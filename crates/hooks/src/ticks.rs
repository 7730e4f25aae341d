//! What the programs have to be told of the kernel's clock.

use abi::Ticks;
use nix::errno::Errno;
use nix::time::{ClockId, clock_getres};

/// The kernel's ticks. They are the steps of `CLOCK_MONOTONIC_COARSE`, whatever `CONFIG_HZ` its configuration says where.
pub fn ticks() -> nix::Result<Ticks> {
    let step = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?.tv_nsec();
    let hz = (1_000_000_000 + step / 2).checked_div(step);
    hz.and_then(|hz| u32::try_from(hz).ok())
        .map(Ticks::new)
        .ok_or(Errno::ERANGE)
}
