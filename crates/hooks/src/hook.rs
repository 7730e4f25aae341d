//! Where a program belongs, and by what it is held there.

use abi::pins::program;
use aya::programs::TcAttachType;

/// Where a program belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program, which is the name of its pin too.
    pub program: &'static str,
    pub(crate) direction: Direction,
    pub(crate) mechanism: Mechanism,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Before all other programs: reverse SNAT and the source check come before anybody's logic.
    Ingress,
    /// After all other programs: they still see our mark.
    Egress,
}

/// What holds a program on an interface. Why there are two: docs/adr/0004-clsact-on-pods.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// A TCX link, pinned in bpffs: nobody else can remove it, but making it waits for an RCU grace period.
    Tcx,
    /// A filter of the clsact qdisc, which lives and dies with the interface.
    Clsact,
}

impl Hook {
    /// Host veth, ingress.
    pub const FROM_POD: Self = Self {
        program: program::FROM_POD,
        direction: Direction::Ingress,
        mechanism: Mechanism::Clsact,
    };
    /// Host veth, egress.
    pub const TO_POD: Self = Self {
        program: program::TO_POD,
        direction: Direction::Egress,
        mechanism: Mechanism::Clsact,
    };
    /// NIC, ingress.
    pub const FROM_WIRE: Self = Self {
        program: program::FROM_WIRE,
        direction: Direction::Ingress,
        mechanism: Mechanism::Tcx,
    };
    /// NIC, egress.
    pub const TO_WIRE: Self = Self {
        program: program::TO_WIRE,
        direction: Direction::Egress,
        mechanism: Mechanism::Tcx,
    };

    /// The programs of a host veth, in the order in which they are attached: learning before sending.
    pub const POD: [Self; 2] = [Self::TO_POD, Self::FROM_POD];
    /// The programs of the NIC.
    pub const NIC: [Self; 2] = [Self::TO_WIRE, Self::FROM_WIRE];
    /// Every hook.
    pub const ALL: [Self; 4] = [Self::TO_POD, Self::FROM_POD, Self::TO_WIRE, Self::FROM_WIRE];

    /// The hook that the program of this name belongs to.
    pub fn of(program: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.program == program)
    }

    pub(crate) fn attach_type(self) -> TcAttachType {
        match self.direction {
            Direction::Ingress => TcAttachType::Ingress,
            Direction::Egress => TcAttachType::Egress,
        }
    }
}
