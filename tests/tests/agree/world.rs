//! The host's side: tables in memory, and the decisions on them.

use std::process::Command;

use abi::pins::program;
use abi::{
    Binding, BindingKey, BindingState, Class, Config, ConfigFlags, EndpointFlags, Flow, FlowFlags,
    IfIndex, Ip4, Mac, Pod, Port, Secret, Slot, TUNNEL_MARK, Ticks, Veth, proto,
};
use datapath::model::{Frame, Memory};
use datapath::{Seconds, Verdict, flow_key, from_pod, from_wire, to_pod, to_wire};
use nix::sched::{CloneFlags, unshare};

use crate::packets::{SYN, tcp};

pub(crate) const NIC: IfIndex = IfIndex::new(2);
/// The host veth that frames come from: it must exist for a test run.
pub(crate) const VETH: IfIndex = IfIndex::new(3);
pub(crate) const OTHER_VETH: IfIndex = IfIndex::new(77);
pub(crate) const TUNNEL_VETH: IfIndex = IfIndex::new(78);

pub(crate) const PRIMARY: Ip4 = Ip4::new([10, 240, 0, 4]);
pub(crate) const POD: Ip4 = Ip4::new([10, 240, 1, 10]);
pub(crate) const OTHER_POD: Ip4 = Ip4::new([10, 240, 1, 11]);
/// In a tunnel mode.
pub(crate) const TUNNEL_POD: Ip4 = Ip4::new([10, 240, 1, 12]);
pub(crate) const VNET: Ip4 = Ip4::new([10, 240, 2, 10]);
pub(crate) const INTERNET: Ip4 = Ip4::new([203, 0, 113, 10]);
pub(crate) const WIRESERVER: Ip4 = Ip4::new([168, 63, 129, 16]);
pub(crate) const DENIED: Ip4 = Ip4::new([169, 254, 169, 254]);
pub(crate) const SERVICE: Ip4 = Ip4::new([172, 30, 0, 1]);

pub(crate) const POD_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 10]);
pub(crate) const HOST_MAC: Mac = Mac::new([2, 0, 0, 0, 1, 10]);
pub(crate) const MARK: u32 = 0x1000;
/// The programs' clock stands still, so that both sides act at the same time.
const NOW: Seconds = Seconds(0);

/// A network namespace of the calling thread, with interfaces 2 (the NIC) and 3 (a host veth). Ends with the thread.
pub(crate) fn enter_new_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
    let done = Command::new("ip")
        .args("link add nic0 index 2 type veth peer name veth0 index 3".split(' '))
        .status();
    assert!(done.unwrap().success());
}

/// Tables, and the clock of the programs.
pub(crate) struct World {
    pub(crate) memory: Memory,
}

/// What a decision gave.
pub(crate) struct Decided {
    pub(crate) verdict: Verdict,
    pub(crate) frame: Frame,
}

impl Decided {
    /// What was decided about `frame`, in the words of the coverage.
    pub(crate) fn name(&self, frame: &Frame) -> String {
        let to_primary = frame.bytes.get(30..34) == Some(&PRIMARY.octets());
        let quotes =
            frame.bytes.get(23) == Some(&1) && matches!(frame.bytes.get(34), Some(3 | 11 | 12));
        let piece = frame.bytes.get(21) != Some(&0);
        match self.verdict {
            Verdict::Stack => "stack".into(),
            Verdict::Peer(_) if piece => "peer, fragment".into(),
            Verdict::Wire(_) | Verdict::Via(..) if piece => "wire, fragment".into(),
            Verdict::Peer(_) if to_primary && quotes => "peer, quoted answer".into(),
            Verdict::Peer(_) if to_primary => "peer, answer".into(),
            Verdict::Peer(_) => "peer".into(),
            Verdict::Wire(_) | Verdict::Via(..)
                if self.frame.bytes.get(26..30) == Some(&PRIMARY.octets()) =>
            {
                "wire, snat".into()
            }
            Verdict::Wire(_) if self.frame.mark & TUNNEL_MARK != 0 => "wire, tunnel".into(),
            Verdict::Wire(_) | Verdict::Via(..) => "wire".into(),
            Verdict::Reply(_) => "reply".into(),
            Verdict::Drop(reason) => reason.name().into(),
        }
    }
}

impl World {
    /// All ports free.
    pub(crate) fn roomy() -> Self {
        Self::new(28_976, ConfigFlags::BLOCK_WIRESERVER)
    }

    /// Three ports for everything, so that candidates collide and run out.
    pub(crate) fn cramped() -> Self {
        Self::new(3, ConfigFlags::NONE)
    }

    /// The flow table above its high-water mark.
    pub(crate) fn full() -> Self {
        Self::new(
            28_976,
            ConfigFlags::BLOCK_WIRESERVER.with(ConfigFlags::FLOWS_FULL),
        )
    }

    fn new(nat_count: u16, flags: ConfigFlags) -> Self {
        let mut memory = Memory::new();
        memory.config = Some(Config {
            nic: NIC,
            primary: PRIMARY,
            nic_mac: Mac::new([0, 0x0d, 0x3a, 0, 0, 1]),
            mtu: 1500,
            nat_first: 1024,
            nat_count,
            nat_quota: u16::MAX,
            subnet_len: 16,
            fast_mark: MARK,
            flags,
            generation: 9,
            flows_lost: 0,
            gateway: Ip4::new([10, 240, 0, 1]),
            subnet: Ip4::new([10, 240, 0, 0]),
            // From here on, what the programs keep counts.
            epoch: 1,
            ticks: Ticks::STOPPED,
        });
        memory.secret = Some(Secret {
            key: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
        });
        for (addr, ifindex, last, slot, flags) in [
            (POD, VETH, 10, 1, EndpointFlags::NONE),
            (OTHER_POD, OTHER_VETH, 11, 2, EndpointFlags::NONE),
            (TUNNEL_POD, TUNNEL_VETH, 12, 3, EndpointFlags::TUNNEL),
        ] {
            let (mac, host_mac) = (
                Mac::new([2, 0, 0, 0, 0, last]),
                Mac::new([2, 0, 0, 0, 1, last]),
            );
            let (slot, generation) = (Slot::new(slot), u16::from(last));
            memory.pods.insert(
                addr,
                Pod {
                    ifindex,
                    mac,
                    host_mac,
                    slot,
                    generation,
                    flags,
                },
            );
            memory.veths.insert(
                ifindex,
                Veth {
                    addr,
                    mac,
                    host_mac,
                    slot,
                    generation,
                    flags,
                },
            );
        }
        // SERVICE is in none of them: no match means the stack.
        memory.classes = vec![
            (PRIMARY, 32, Class::Stack),
            (WIRESERVER, 32, Class::Wireserver),
            (DENIED, 32, Class::Deny),
            (Ip4::new([10, 240, 0, 0]), 16, Class::Direct),
            (Ip4::new([203, 0, 113, 0]), 24, Class::Snat),
        ];
        let mut world = Self { memory };
        world.add_bindings();
        world.add_closed_bindings();
        world.add_flows();
        world
    }

    /// Flows that the stack owns, and one that came in from outside.
    fn add_flows(&mut self) {
        // So that the next packet has something to write.
        let a_second_ago = NOW.0.wrapping_sub(1);
        let mut flows = self.memory.flows.borrow_mut();
        let port = Port::from_u16;
        for (remote, remote_port, pod_port, flags) in [
            (OTHER_POD, 80, 40_000, FlowFlags::VIA_STACK),
            (VNET, 80, 40_000, FlowFlags::VIA_STACK),
            (INTERNET, 443, 40_001, FlowFlags::VIA_STACK),
            (INTERNET, 443, 8080, FlowFlags::INBOUND),
        ] {
            for proto in [proto::TCP, proto::UDP] {
                let key = flow_key((POD, port(pod_port)), (remote, port(remote_port)), proto);
                flows.insert(key, Flow::new(flags, a_second_ago));
            }
        }
    }

    /// Bindings that live, that expired, and whose pod is gone.
    fn add_bindings(&mut self) {
        let now = NOW.0;
        let mut bindings = self.memory.bindings.borrow_mut();
        let long_ago = now.wrapping_sub(100_000);
        for (nat_port, pod, generation, seen) in [
            (1024, POD, 10, now),
            (1025, OTHER_POD, 11, now),
            (1026, OTHER_POD, 7, now),
            (5000, POD, 10, now),
            (5001, POD, 9, now),
            (5002, POD, 10, long_ago),
        ] {
            for (proto, remote_port) in [(proto::TCP, 443), (proto::UDP, 53), (proto::ICMP, 0)] {
                let key = BindingKey::new(
                    (INTERNET, Port::from_u16(remote_port)),
                    Port::from_u16(nat_port),
                    proto,
                );
                let pod_port = Port::from_u16(40_002);
                bindings.insert(
                    key,
                    Binding::new(pod, pod_port, generation, BindingState::Established, seen),
                );
            }
        }
    }

    /// Bindings of connections that are over, on ports whose next flows are the stack's, somebody's outside, and nobody's.
    fn add_closed_bindings(&mut self) {
        for port in [40_000, 40_001, 8080] {
            self.decide(program::FROM_POD, &tcp(POD, port, INTERNET, 443, SYN));
        }
        let memory = &mut self.memory;
        for binding in memory.bindings.get_mut().values_mut() {
            if binding.state() == BindingState::New {
                binding.see(BindingState::Closed, NOW.0);
            }
        }
        memory.flows.get_mut().clear();
        memory.open.get_mut().clear();
        memory.stats.get_mut().clear();
    }

    /// What the loader changes while packets come: a class, and who has a pod's address. The epoch tells the programs.
    pub(crate) fn change(&mut self) {
        self.memory.config.as_mut().unwrap().epoch += 1;
        let vnet = &mut self.memory.classes[3].2;
        *vnet = if *vnet == Class::Direct {
            Class::Stack
        } else {
            Class::Direct
        };
        let pod = self.memory.pods.get_mut(&OTHER_POD).unwrap();
        let [a, b, c, d, e, last] = pod.mac.octets();
        pod.mac = Mac::new([a, b, c, d, e ^ 0x80, last]);
    }

    /// The interface that frames of a program come from.
    pub(crate) fn ifindex(name: &str) -> IfIndex {
        if name == program::FROM_POD || name == program::TO_POD {
            VETH
        } else {
            NIC
        }
    }

    pub(crate) fn decide(&mut self, name: &str, frame: &Frame) -> Decided {
        self.decide_at(name, VETH, frame)
    }

    /// About a frame from this veth, where the program asks for it.
    pub(crate) fn decide_at(&mut self, name: &str, veth: IfIndex, frame: &Frame) -> Decided {
        let mut frame = frame.clone();
        let (tables, now) = (&self.memory, NOW);
        let verdict = match name {
            program::FROM_POD => from_pod(&mut frame, tables, veth, || now),
            program::TO_POD => to_pod(&mut frame, tables, veth, || now),
            program::FROM_WIRE => from_wire(&mut frame, tables, || now),
            _ => to_wire(&mut frame, tables, || now),
        };
        Decided { verdict, frame }
    }
}
