//! What the programs tell of a packet while somebody listens: samples in the `events` maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{DropReason, IfIndex, MAX_PODS, Path, Slot};

/// The head of a sample; the first bytes of the frame follow, as the program left it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The interface that the program works for.
    pub ifindex: IfIndex,
    /// Length of the frame, Ethernet header included; of a GSO super-packet, the whole.
    pub length: u32,
    /// How many of its bytes follow.
    pub snap: u32,
    /// [`Happening::bits`].
    pub what: u32,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A packet took a path of the pod with this slot.
    Took(Slot, Path),
    /// A packet was dropped; the interface tells whose it was.
    Dropped(DropReason),
}

impl Happening {
    /// As a number: path, reason, and slot in the upper half.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Took(slot, path) => path as u32 | slot.index() << 16,
            Self::Dropped(reason) => Path::Dropped as u32 | reason.index() << 8,
        }
    }

    /// From a number; `None` for those that this build does not know.
    pub fn of_bits(bits: u32) -> Option<Self> {
        let [path, reason, low, high] = bits.to_le_bytes();
        let path = *Path::ALL.get(usize::from(path))?;
        if path == Path::Dropped {
            let reason = *DropReason::ALL.get(usize::from(reason))?;
            return Some(Self::Dropped(reason));
        }
        Some(Self::Took(Slot::new(u16::from_le_bytes([low, high])), path))
    }
}

impl Event {
    /// Most bytes of a frame that follow.
    pub const SNAP: u32 = 256;
}

/// Index into `watch`: until which second somebody wants to hear of something. A wish that nobody renews ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Of every packet of a pod.
    Pod(Slot),
    /// Of every packet that is dropped.
    Drops,
}

impl Watch {
    /// Entries of `watch`.
    pub const CAPACITY: u32 = MAX_PODS + 1;

    /// The index.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Pod(slot) => slot.index(),
            Self::Drops => MAX_PODS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_survives_as_a_number() {
        let slot = Slot::new(1023);
        let paths = Path::ALL.into_iter().filter(|path| *path != Path::Dropped);
        let took = paths.map(|path| Happening::Took(slot, path));
        let dropped = DropReason::ALL.into_iter().map(Happening::Dropped);
        for what in took.chain(dropped) {
            assert_eq!(Happening::of_bits(what.bits()), Some(what));
        }
        assert_eq!(Happening::of_bits(9), None);
        assert_eq!(Happening::of_bits(Path::Dropped as u32 | 0xff00), None);
    }
}
