//! The frames whose cost is bounded: one for each thing that programs decide.

use std::time::Duration;

use abi::pins::program;
use abi::{BindingKey, DropReason, IfIndex, Ip4, Port, Slot, proto};
use datapath::model::Frame;
use datapath::xdp_guard;

use crate::kernel::Kernel;
use crate::packets::{
    ACK, ECHO, ECHO_REPLY, FIRST, LAST, REDIRECT, SYN, UNREACHABLE, arp, echo, foreign, icmp,
    malformed, marked, piece, sent_by, tcp, udp,
};
use crate::world::{
    DENIED, HOST_MAC, INTERNET, MARK, NIC, OTHER_POD, POD, PRIMARY, SERVICE, TUNNEL_POD, VNET,
    WIRESERVER, World,
};

/// Whom the guard does not let in.
const REFUSED: Ip4 = Ip4::new([198, 51, 100, 7]);
/// A datagram in pieces from a server to a binding of the pod's, and from the pod in answer to whoever found it by its own address.
const TO_BINDING: [(Ip4, u16); 2] = [(INTERNET, 53), (PRIMARY, 1024)];
const ANSWER: [(Ip4, u16); 2] = [(POD, 8080), (INTERNET, 443)];

/// A program and one of its verdicts.
pub(crate) struct Case {
    pub(crate) program: &'static str,
    pub(crate) what: &'static str,
    /// In the words of the agreement test's coverage.
    pub(crate) verdict: &'static str,
    pub(crate) frame: Frame,
    ifindex: IfIndex,
    /// Of a connection that is to be new each time.
    forgotten: Option<BindingKey>,
}

impl Case {
    /// One run, as the kernel times it.
    pub(crate) fn run(&self, kernel: &mut Kernel) -> Duration {
        if self.program == program::XDP_GUARD {
            return kernel.guard_run(&self.frame).duration;
        }
        let ran = kernel.run(self.program, &self.frame, self.ifindex);
        if let Some(key) = self.forgotten {
            kernel.maps.snat.remove(&hooks::Abi(key)).unwrap();
            let slot = Slot::new(1).get().into();
            kernel.maps.snat_open.set(slot, 0, 0).unwrap();
        }
        ran.time
    }
}

/// A name, the verdict that it has, and a frame that gets it.
type Named = (&'static str, &'static str, Frame);

/// What packets meet. That each frame gets the verdict of its name is asked of the decisions on the host first, which also opens
/// the connection that is established later.
pub(crate) fn cases(kernel: &mut Kernel, world: &mut World) -> Vec<Case> {
    world.memory.denied = vec![(REFUSED, 32)];
    kernel.fill(world);
    let established = nat_port(kernel, world, 50_000);
    let forgotten = nat_port(kernel, world, 50_010);
    for frame in [
        udp((POD, 50_000), (INTERNET, 53)),
        echo(ECHO, POD, INTERNET, 50_000),
        piece(FIRST, ANSWER[0], ANSWER[1]),
    ] {
        met(kernel, world, program::FROM_POD, &frame);
    }
    let first = piece(FIRST, TO_BINDING[0], TO_BINDING[1]);
    met(kernel, world, program::FROM_WIRE, &first);
    let key = BindingKey::new(
        (INTERNET, Port::from_u16(443)),
        Port::from_u16(forgotten),
        proto::TCP,
    );
    let with = |program| move |named| (program, named);
    let from_pod = [fast(), slow(), refused()].concat().into_iter();
    let all = from_pod
        .map(with(program::FROM_POD))
        .chain(
            from_wire(established)
                .into_iter()
                .map(with(program::FROM_WIRE)),
        )
        .chain(learned());
    let decided = all.map(|(program, (what, verdict, frame))| {
        let ifindex = if verdict == DropReason::UnknownVeth.name() {
            NIC
        } else {
            World::ifindex(program)
        };
        let decided = world.decide_at(program, ifindex, &frame);
        assert_eq!(decided.name(&frame), verdict, "{program}, {what}");
        Case {
            program,
            what,
            verdict,
            frame,
            ifindex,
            forgotten: (what == "SNAT, new").then_some(key),
        }
    });
    let mut decided: Vec<Case> = decided.collect();
    decided.extend(guarded(kernel, world));
    decided
}

fn from_pod(dst: Ip4, port: u16, flags: u8) -> Frame {
    tcp(POD, 50_000, dst, port, flags)
}

/// What a pod sends that passes the stack by.
fn fast() -> Vec<Named> {
    let new = tcp(POD, 50_010, INTERNET, 443, SYN);
    let local = || from_pod(OTHER_POD, 80, ACK);
    vec![
        ("local", "peer", local()),
        ("local, marked", "peer", marked(MARK, local())),
        ("VNet", "wire", from_pod(VNET, 80, ACK)),
        ("tunnel", "wire, tunnel", from_pod(TUNNEL_POD, 80, ACK)),
        (
            "SNAT, established",
            "wire, snat",
            from_pod(INTERNET, 443, ACK),
        ),
        ("SNAT, new", "wire, snat", new),
        (
            "SNAT, UDP",
            "wire, snat",
            udp((POD, 50_000), (INTERNET, 53)),
        ),
        (
            "SNAT, echo",
            "wire, snat",
            echo(ECHO, POD, INTERNET, 50_000),
        ),
        ("first fragment", "wire", piece(FIRST, ANSWER[0], ANSWER[1])),
        (
            "later fragment",
            "wire, fragment",
            piece(LAST, ANSWER[0], ANSWER[1]),
        ),
    ]
}

/// What is answered, or left to the stack.
fn slow() -> Vec<Named> {
    vec![
        ("stack (Service)", "stack", from_pod(SERVICE, 443, ACK)),
        ("reply (ARP)", "reply", arp(POD)),
    ]
}

/// What a pod may not send.
fn refused() -> Vec<Named> {
    let sent = from_pod(VNET, 80, ACK);
    vec![
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
        (
            "drop (source MAC)",
            "source_mac",
            sent_by(HOST_MAC, sent.clone()),
        ),
        ("drop (ARP sender)", "arp_sender", arp(OTHER_POD)),
        ("drop (EtherType)", "ethertype", foreign()),
        ("drop (denied)", "denied", from_pod(DENIED, 80, SYN)),
        ("drop (malformed)", "malformed", malformed()),
        (
            "drop (ICMP redirect)",
            "icmp_redirect",
            icmp(REDIRECT, POD, VNET, 1024),
        ),
        ("drop (unknown veth)", "unknown_veth", sent),
    ]
}

fn from_wire(established: u16) -> Vec<Named> {
    let [from, to] = TO_BINDING;
    vec![
        ("VNet to pod", "peer", tcp(VNET, 80, POD, 50_000, ACK)),
        (
            "SNAT, answer",
            "peer, answer",
            tcp(INTERNET, 443, PRIMARY, established, ACK),
        ),
        ("SNAT, answer by UDP", "peer, answer", udp(from, to)),
        (
            "SNAT, echo reply",
            "peer, answer",
            echo(ECHO_REPLY, INTERNET, PRIMARY, 1024),
        ),
        (
            "SNAT, first fragment",
            "peer, answer",
            piece(FIRST, from, to),
        ),
        (
            "SNAT, later fragment",
            "peer, fragment",
            piece(LAST, from, to),
        ),
        (
            "SNAT, ICMP error",
            "peer, quoted answer",
            icmp(UNREACHABLE, INTERNET, PRIMARY, established),
        ),
        (
            "stack (the node's own)",
            "stack",
            tcp(VNET, 80, PRIMARY, 50_000, ACK),
        ),
        (
            "drop (ICMP redirect)",
            "icmp_redirect",
            icmp(REDIRECT, INTERNET, POD, established),
        ),
    ]
}

/// What the stack sends.
fn learned() -> [(&'static str, Named); 3] {
    let sent = || tcp(POD, 50_001, VNET, 80, ACK);
    [
        (
            program::TO_POD,
            ("learn", "stack", tcp(VNET, 80, POD, 50_001, ACK)),
        ),
        (program::TO_WIRE, ("learn", "stack", sent())),
        (
            program::TO_WIRE,
            ("fast (its mark is cleared)", "stack", marked(MARK, sent())),
        ),
    ]
}

fn guarded(kernel: &Kernel, world: &World) -> Vec<Case> {
    let to_pod = |src| tcp(src, 80, POD, 50_000, ACK);
    let named = [
        ("pass", "pass", to_pod(VNET)),
        ("pass (by way of a tunnel)", "pass", to_pod(TUNNEL_POD)),
        ("drop (deny list)", "deny_list", to_pod(REFUSED)),
        (
            "drop (martian)",
            "martian",
            to_pod(Ip4::new([127, 0, 0, 1])),
        ),
        ("drop (own source)", "own_source", to_pod(OTHER_POD)),
        ("drop (malformed)", "malformed", malformed()),
    ];
    let case = |(what, verdict, frame): Named| {
        let dropped = xdp_guard(&frame, &world.memory);
        assert_eq!(dropped.map_or("pass", DropReason::name), verdict, "{what}");
        let code = if dropped.is_some() { 1 } else { 2 };
        assert_eq!(kernel.guard_run(&frame).return_value, code, "{what}");
        Case {
            program: program::XDP_GUARD,
            what,
            verdict,
            frame,
            ifindex: NIC,
            forgotten: None,
        }
    };
    named.map(case).into()
}

/// The node's port of a new connection, which is open in the kernel and in the world from then on.
fn nat_port(kernel: &Kernel, world: &mut World, port: u16) -> u16 {
    let syn = tcp(POD, port, INTERNET, 443, SYN);
    let opened = met(kernel, world, program::FROM_POD, &syn);
    u16::from_be_bytes([opened.bytes[34], opened.bytes[35]])
}

/// Lets both sides meet a frame, and remember it. What became of it.
fn met(kernel: &Kernel, world: &mut World, program: &str, frame: &Frame) -> Frame {
    let ran = kernel.run(program, frame, World::ifindex(program));
    let decided = world.decide(program, frame);
    assert_eq!(ran.frame.bytes, decided.frame.bytes);
    ran.frame
}
