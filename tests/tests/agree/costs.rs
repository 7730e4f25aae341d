//! The frames whose cost is bounded: one for each thing that programs decide.

use std::time::Duration;

use abi::pins::program;
use abi::{BindingKey, Ip4, Port, Slot, proto};
use datapath::model::Frame;

use crate::frames::ip_header;
use crate::kernel::Kernel;
use crate::world::{
    HOST_MAC, INTERNET, OTHER_POD, POD, POD_MAC, PRIMARY, SERVICE, TUNNEL_POD, VNET, WIRESERVER,
    World,
};

const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
/// Whom the guard does not let in.
const REFUSED: Ip4 = Ip4::new([198, 51, 100, 7]);

/// A program and one of its verdicts.
pub(crate) struct Case {
    pub(crate) program: &'static str,
    pub(crate) what: &'static str,
    pub(crate) frame: Frame,
    /// Of a connection that is to be new each time.
    forgotten: Option<BindingKey>,
}

impl Case {
    /// One run, as the kernel times it.
    pub(crate) fn run(&self, kernel: &mut Kernel) -> Duration {
        if self.program == program::XDP_GUARD {
            return kernel.guard_run(&self.frame).duration;
        }
        let ran = kernel.run(self.program, &self.frame, World::ifindex(self.program));
        if let Some(key) = self.forgotten {
            kernel.maps.snat.remove(&hooks::Abi(key)).unwrap();
            let slot = Slot::new(1).get().into();
            kernel.maps.snat_open.set(slot, 0, 0).unwrap();
        }
        ran.time
    }
}

/// What packets meet. That each frame gets the verdict of its name is asked of the decisions on the host first, which also opens
/// the connection that is established later.
pub(crate) fn cases(kernel: &mut Kernel, world: &mut World) -> Vec<Case> {
    world.memory.denied = vec![(REFUSED, 32)];
    kernel.fill(world);
    let established = nat_port(kernel, world, 50_000);
    let forgotten = nat_port(kernel, world, 50_010);
    let key = BindingKey::new(
        (INTERNET, Port::from_u16(443)),
        Port::from_u16(forgotten),
        proto::TCP,
    );
    let from_pod = |dst, port, flags| tcp(POD, 50_000, dst, port, flags);
    let from_pod = [
        ("local", "peer", from_pod(OTHER_POD, 80, ACK)),
        ("VNet", "wire", from_pod(VNET, 80, ACK)),
        ("tunnel", "wire, tunnel", from_pod(TUNNEL_POD, 80, ACK)),
        (
            "SNAT, established",
            "wire, snat",
            from_pod(INTERNET, 443, ACK),
        ),
        (
            "SNAT, new",
            "wire, snat",
            tcp(POD, 50_010, INTERNET, 443, SYN),
        ),
        ("stack (Service)", "stack", from_pod(SERVICE, 443, ACK)),
        ("reply (ARP)", "reply", arp()),
        (
            "drop (wireserver)",
            "wireserver",
            from_pod(WIRESERVER, 80, SYN),
        ),
        (
            "drop (source)",
            "source_address",
            tcp(VNET, 50_000, VNET, 80, ACK),
        ),
    ];
    let from_wire = [
        ("VNet to pod", "peer", tcp(VNET, 80, POD, 50_000, ACK)),
        (
            "SNAT, answer",
            "peer, answer",
            tcp(INTERNET, 443, PRIMARY, established, ACK),
        ),
        (
            "SNAT, ICMP error",
            "peer, quoted answer",
            icmp(3, PRIMARY, established),
        ),
        (
            "stack (the node's own)",
            "stack",
            tcp(VNET, 80, PRIMARY, 50_000, ACK),
        ),
        (
            "drop (ICMP redirect)",
            "icmp_redirect",
            icmp(5, POD, established),
        ),
    ];
    let others = [
        (
            program::TO_POD,
            "learn",
            "stack",
            tcp(VNET, 80, POD, 50_001, ACK),
        ),
        (
            program::TO_WIRE,
            "learn",
            "stack",
            tcp(POD, 50_001, VNET, 80, ACK),
        ),
    ];
    let with = |program| move |(what, verdict, frame)| (program, what, verdict, frame);
    let decided = from_pod.map(with(program::FROM_POD)).into_iter();
    let decided = decided
        .chain(from_wire.map(with(program::FROM_WIRE)))
        .chain(others);
    let decided = decided.map(|(program, what, verdict, frame)| {
        let decided = world.decide(program, &frame);
        assert_eq!(decided.name(&frame), verdict, "{program}, {what}");
        let forgotten = (what == "SNAT, new").then_some(key);
        Case {
            program,
            what,
            frame,
            forgotten,
        }
    });
    decided.chain(guarded(kernel)).collect()
}

fn guarded(kernel: &Kernel) -> [Case; 2] {
    [("pass", VNET, 2), ("drop (deny list)", REFUSED, 1)].map(|(what, src, code)| {
        let frame = tcp(src, 80, POD, 50_000, ACK);
        assert_eq!(kernel.guard_run(&frame).return_value, code, "{what}");
        Case {
            program: program::XDP_GUARD,
            what,
            frame,
            forgotten: None,
        }
    })
}

/// The node's port of a new connection, which is open in the kernel and in the world from then on.
fn nat_port(kernel: &Kernel, world: &mut World, port: u16) -> u16 {
    let syn = tcp(POD, port, INTERNET, 443, SYN);
    let opened = kernel.run(program::FROM_POD, &syn, World::ifindex(program::FROM_POD));
    let decided = world.decide(program::FROM_POD, &syn);
    assert_eq!(opened.frame.bytes, decided.frame.bytes);
    u16::from_be_bytes([opened.frame.bytes[34], opened.frame.bytes[35]])
}

pub(crate) fn tcp(src: Ip4, src_port: u16, dst: Ip4, dst_port: u16, flags: u8) -> Frame {
    let mut bytes = [HOST_MAC.octets(), POD_MAC.octets()].concat();
    bytes.extend([8, 0]);
    bytes.extend(ip_header(0x45, 40, 0x4000, 64, proto::TCP, src, dst));
    bytes.extend([src_port.to_be_bytes(), dst_port.to_be_bytes()].concat());
    bytes.extend([
        0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0x12, 0x34, 0, 0,
    ]);
    Frame::new(bytes)
}

/// An error about a packet that left through a binding, or what has the form of one.
fn icmp(kind: u8, dst: Ip4, nat_port: u16) -> Frame {
    let mut bytes = [HOST_MAC.octets(), POD_MAC.octets()].concat();
    bytes.extend([8, 0]);
    bytes.extend(ip_header(0x45, 56, 0, 64, proto::ICMP, INTERNET, dst));
    bytes.extend([kind, 1, 0x12, 0x34, 0, 0, 0, 0]);
    bytes.extend(ip_header(
        0x45,
        40,
        0x4000,
        1,
        proto::TCP,
        PRIMARY,
        INTERNET,
    ));
    bytes.extend([nat_port, 443].map(u16::to_be_bytes).concat());
    bytes.extend([0, 0, 0, 1]);
    Frame::new(bytes)
}

/// A pod asks who has its gateway.
fn arp() -> Frame {
    let mut bytes = [0xff; 6].to_vec();
    bytes.extend(POD_MAC.octets());
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(POD_MAC.octets());
    bytes.extend(POD.octets());
    bytes.extend([0; 6]);
    bytes.extend([169, 254, 1, 1]);
    bytes.resize(60, 0);
    Frame::new(bytes)
}
