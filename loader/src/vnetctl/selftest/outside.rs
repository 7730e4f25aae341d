//! The way of whatever is not in the VNet, unless it is configured away: SNAT. Nothing but the metadata service is asked for an
//! answer, and that speaks TCP alone; the answer to what else is sent there is made here, and shown to the program on the NIC.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use abi::{BindingKey, Class, Config, ConfigFlags, DropReason, Ip4, proto};
use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::lpm_trie::Key;
use datapath::model::Frame;
use datapath::{Bytes as _, Verdict};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use hooks::Hook;
use hooks::model::{action, test_run};

use super::Selftest;
use super::paths::dropped;
use super::place::{Place, TestPod};
use super::probe::{NEVER, PING, bound, connect, ping};
use crate::vnetctl::pinned::Pinned;

const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const HTTP: u16 = 80;
const PAYLOAD: &[u8] = b"vnetctl selftest";
/// The Ethernet address of who forwards in Azure; nobody looks at it.
const FABRIC: [u8; 6] = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
/// Where an IPv4 packet in a frame says where it goes (RFC 791).
const DESTINATION: usize = 30;
/// A packet is sent so often until it is seen, and waited for so long each time.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// A pod, and what its packets are translated by.
struct Outside<'a> {
    pinned: &'a Pinned,
    config: &'a Config,
    from: Place<'a>,
    pod: Ipv4Addr,
}

impl Selftest {
    pub(super) fn outside(&mut self, pinned: &Pinned, config: &Config, pod: &TestPod) {
        let Ok(address) = pod.address() else { return };
        let outside = Outside {
            pinned,
            config,
            from: Place::Pod(pod),
            pod: address,
        };
        self.step("pod a to the metadata service", || outside.tcp());
        self.step("pod a out through SNAT, UDP", || outside.udp());
        self.step("pod a out through SNAT, ping", || outside.ping());
    }
}

impl Outside<'_> {
    fn tcp(&self) -> Result<String> {
        let at = SocketAddr::from((IMDS, HTTP));
        if self.is_denied() {
            return dropped(self.pinned, DropReason::Denied, || {
                self.from.run(move || connect(at, NEVER)).map(drop)
            });
        }
        let limit = Duration::from_secs(1);
        let stream = self.from.run(move || connect(at, limit))?;
        let port = stream.local_addr()?.port();
        if self.is_kernels() {
            let binding = self.binding(proto::TCP, port);
            ensure!(
                binding.is_none(),
                "it has a binding in the map `snat`, in spite of datapath: stack"
            );
            return Ok("masqueraded by the kernel".to_owned());
        }
        let key = self.binding(proto::TCP, port);
        let key = key.context("it answers, but without a binding in the map `snat`")?;
        Ok(format!("SNAT to port {}", key.nat_port))
    }

    fn udp(&self) -> Result<String> {
        let socket = self.from.run(|| bound(Ipv4Addr::UNSPECIFIED))?;
        socket.set_read_timeout(Some(PAUSE))?;
        let port = socket.local_addr()?.port();
        let send = || {
            socket.send_to(PAYLOAD, (IMDS, HTTP)).context("send")?;
            let _nobody_need_answer = socket.recv(&mut [0; 16]);
            Ok(())
        };
        self.out(proto::UDP, port, send, |answer, to| {
            let mut bytes = Vec::new();
            answer.udp(HTTP, to).write(&mut bytes, PAYLOAD)?;
            Ok(bytes)
        })
    }

    fn ping(&self) -> Result<String> {
        let send = || {
            let _nobody_need_answer = ping(self.from, IMDS, PAUSE);
            Ok(())
        };
        self.out(proto::ICMP, PING, send, |answer, to| {
            let mut bytes = Vec::new();
            answer.icmpv4_echo_reply(to, 1).write(&mut bytes, PAYLOAD)?;
            Ok(bytes)
        })
    }

    /// Sends until there is a binding, and then shows an answer to the program on the NIC.
    fn out(
        &self,
        protocol: u8,
        port: u16,
        send: impl Fn() -> Result<()>,
        answer: impl Fn(PacketBuilderStep<IpHeaders>, u16) -> Result<Vec<u8>>,
    ) -> Result<String> {
        if self.is_denied() {
            return dropped(self.pinned, DropReason::Denied, || {
                send()?;
                bail!("nobody answers")
            });
        }
        let mut found = None;
        for _ in 0..TRIES {
            send()?;
            found = self.binding(protocol, port);
            if found.is_some() || self.is_kernels() {
                break;
            }
        }
        if self.is_kernels() {
            ensure!(
                found.is_none(),
                "it has a binding in the map `snat`, in spite of datapath: stack"
            );
            return Ok("left to the kernel".to_owned());
        }
        let key = found.context("it has no binding in the map `snat`")?;
        let nat_port = key.nat_port.get();
        let wire = PacketBuilder::ethernet2(FABRIC, self.config.nic_mac.octets());
        let primary = Ipv4Addr::from(self.config.primary);
        let bytes = answer(wire.ipv4(IMDS.octets(), primary.octets(), 64), nat_port)?;
        self.finds_back(bytes)?;
        Ok(format!("SNAT to port {nat_port}, and an answer finds back"))
    }

    /// Whether the program on the NIC sends the answer to the pod. It goes nowhere.
    fn finds_back(&self, answer: Vec<u8>) -> Result<()> {
        let program = hooks::open(&self.pinned.pins, Hook::FROM_WIRE)?;
        let ran = test_run(&program, &Frame::new(answer), self.config.nic, 1)?;
        let to = ran.frame.read(DESTINATION).map(Ipv4Addr::from);
        ensure!(
            ran.code != action(Verdict::Stack) && to == Some(self.pod),
            "from_wire does not send the answer to the pod: it returns {}, to {to:?}",
            ran.code
        );
        Ok(())
    }

    fn binding(&self, protocol: u8, port: u16) -> Option<BindingKey> {
        let bindings = self.pinned.maps.snat.iter().filter_map(Result::ok);
        let mut own = bindings.filter(|(key, binding)| {
            (binding.0.pod, binding.0.pod_port.get()) == (Ip4::from(self.pod), port)
                && key.0.proto == protocol
        });
        own.next().map(|(key, _)| key.0)
    }

    fn is_denied(&self) -> bool {
        let key = Key::new(32, hooks::Abi(Ip4::from(IMDS)));
        let class = self.pinned.maps.dst4.get(&key, 0);
        class.is_ok_and(|entry| entry.0.class() == Class::Deny)
    }

    fn is_kernels(&self) -> bool {
        self.config.flags.contains(ConfigFlags::STACK)
    }
}
