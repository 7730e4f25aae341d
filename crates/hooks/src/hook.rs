//! Where a program belongs, and by what it is held there.

use abi::pins::program;
use aya::programs::TcAttachType;
use aya::programs::tc::TcHandle;

use crate::{AttachError, link};

/// Where a program belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program, which is the name of its pin too.
    pub program: &'static str,
    pub(crate) direction: Direction,
    pub(crate) interface: Interface,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Before all other programs: reverse SNAT and the source check come before anybody's logic.
    Ingress,
    /// After all other programs: they still see our mark.
    Egress,
}

/// Kinds of interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    /// A pod's host veth: ours alone.
    Pod,
    /// The node's NIC: others may have programs there, too.
    Nic,
}

/// What holds a program on an interface. Why there are two: docs/adr/0004-clsact-on-pods.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A TCX link, pinned in bpffs: nobody else can remove it, but making it waits for an RCU grace period.
    Tcx,
    /// A filter of the clsact qdisc, which lives and dies with the interface.
    Clsact,
}

/// Where a filter stands among the others of its qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The lowest runs first.
    pub(crate) priority: u16,
    /// Tells filters of the same priority apart.
    pub(crate) handle: TcHandle,
}

/// "az" in ASCII: others use handle 1, and theirs on the NIC must not be taken for ours.
const NIC_HANDLE: TcHandle = TcHandle::new(0, 0x617a);

impl Hook {
    /// Host veth, ingress.
    pub const FROM_POD: Self = Self {
        program: program::FROM_POD,
        direction: Direction::Ingress,
        interface: Interface::Pod,
    };
    /// Host veth, egress.
    pub const TO_POD: Self = Self {
        program: program::TO_POD,
        direction: Direction::Egress,
        interface: Interface::Pod,
    };
    /// NIC, ingress.
    pub const FROM_WIRE: Self = Self {
        program: program::FROM_WIRE,
        direction: Direction::Ingress,
        interface: Interface::Nic,
    };
    /// NIC, egress.
    pub const TO_WIRE: Self = Self {
        program: program::TO_WIRE,
        direction: Direction::Egress,
        interface: Interface::Nic,
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

    /// What holds the program on this kernel: on the NIC a TCX link where the kernel has them (6.6 and newer, and what
    /// distributions have backported), else a filter. Asked of the kernel, whose version number tells nothing certain.
    pub fn mechanism(self) -> Result<Mechanism, AttachError> {
        match self.interface {
            Interface::Nic if link::supported()? => Ok(Mechanism::Tcx),
            Interface::Nic | Interface::Pod => Ok(Mechanism::Clsact),
        }
    }

    /// Before every other filter on the way in, after them on the NIC's way out. 65535 is the highest priority there is.
    pub(crate) fn place(self) -> Place {
        let (priority, handle) = match (self.interface, self.direction) {
            (Interface::Pod, _) => (1, TcHandle::new(0, 1)),
            (Interface::Nic, Direction::Ingress) => (1, NIC_HANDLE),
            (Interface::Nic, Direction::Egress) => (u16::MAX, NIC_HANDLE),
        };
        Place { priority, handle }
    }

    pub(crate) fn attach_type(self) -> TcAttachType {
        match self.direction {
            Direction::Ingress => TcAttachType::Ingress,
            Direction::Egress => TcAttachType::Egress,
        }
    }
}
