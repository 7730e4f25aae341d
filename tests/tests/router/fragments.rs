//! Fragments in every order: what can be put together arrives, what cannot does not, and nothing else comes of it.

use std::net::{Ipv4Addr, UdpSocket};

use lab::{Ipv4, Lab, Namespace};

use crate::{Result, SOON, Scene, started};

/// Payload bytes of a fragment.
const PART: usize = 1000;
/// Data bytes of a datagram: four fragments, the last of eight bytes.
const DATA: usize = 3000;

/// A way that datagrams take, and who waits at its end.
struct Way<'a> {
    name: &'a str,
    sender: &'a Namespace,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    receiver: UdpSocket,
    /// Only what comes behind its datagram's first fragment finds the way.
    first_leads: bool,
}

impl Way<'_> {
    /// The fragments of a datagram that is full of `letter`, which also makes its identification.
    fn parts(&self, letter: u8, round: u16) -> Vec<Ipv4> {
        let mut datagram = Ipv4::udp(self.from, self.to, &[letter; DATA]);
        datagram.id = round << 8 | u16::from(letter);
        datagram.fragments(PART)
    }

    /// The letters of the datagrams that arrive, up to the one that is full of `z`.
    fn received(&self) -> Result<String> {
        self.receiver.set_read_timeout(Some(SOON))?;
        let mut letters = String::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self.receiver.recv(&mut buffer)?;
            let datagram = buffer.get(..length).unwrap_or_default();
            let letter = *datagram.first().unwrap_or(&b'?');
            assert_eq!(datagram, [letter; DATA], "{}", self.name);
            if letter == b'z' {
                return Ok(letters);
            }
            letters.push(char::from(letter));
        }
    }

    /// Sends datagrams `a` and `b` in every order of their fragments.
    fn check(&self) -> Result {
        for (round, (order, arrange, expected)) in (1..).zip(ORDERS) {
            let mut parts = arrange(&self.parts(b'a', round), &self.parts(b'b', round));
            parts.extend(self.parts(b'z', round));
            self.sender.send_packets(&parts)?;
            let received = self.received();
            let received = received.map_err(|e| e.context(format!("{}, {order}", self.name)))?;
            let lost = self.first_leads && order == "reversed";
            let expected = if lost { "" } else { expected };
            assert_eq!(received, expected, "{}, {order}", self.name);
        }
        Ok(())
    }
}

type Arrange = fn(&[Ipv4], &[Ipv4]) -> Vec<Ipv4>;

/// Order, how it is made from two datagrams, which of them arrive.
const ORDERS: [(&str, Arrange, &str); 8] = [
    ("in order", |a, _| a.to_vec(), "a"),
    ("reversed", |a, _| a.iter().rev().cloned().collect(), "a"),
    (
        "interleaved",
        |a, b| {
            a.iter()
                .zip(b)
                .flat_map(|(a, b)| [a.clone(), b.clone()])
                .collect()
        },
        "ab",
    ),
    ("one twice", |a, _| [&a[..2], &a[1..]].concat(), "a"),
    ("one missing", |a, _| [&a[..1], &a[2..]].concat(), ""),
    ("the first missing", |a, _| a[1..].to_vec(), ""),
    // As RFC 5722 for IPv6, and Linux since 4.18.12 for IPv4: an overlap spoils the whole datagram, …
    (
        "overlapping",
        |a, b| [&a[..2], &[moved(&b[1], &a[1], 124)], &a[2..]].concat(),
        "",
    ),
    // … unless the bytes are all there already: the first ones count.
    (
        "rewriting",
        |a, b| [&a[..2], &[moved(&b[1], &a[1], -1)], &a[2..]].concat(),
        "a",
    ),
];

/// A fragment as one of another's datagram, `by` units of eight bytes behind it.
fn moved(fragment: &Ipv4, other: &Ipv4, by: i16) -> Ipv4 {
    Ipv4 {
        id: other.id,
        fragment: other.fragment.wrapping_add_signed(by),
        ..fragment.clone()
    }
}

fn socket(namespace: &Namespace, port: u16) -> Result<UdpSocket> {
    namespace.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?))
}

#[test]
fn fragments_with_the_pods_own_address_arrive_in_both_directions() -> Result {
    let lab = started(&Lab::new().nodes(2))?;
    let pod = lab.node(1).add_pod("web")?;
    let (near, far) = (lab.node(1).add_pod("near")?, lab.node(2).add_pod("far")?);
    let others: [(&str, &Namespace, Ipv4Addr); 3] = [
        ("a pod of the same node", &near, near.addr()),
        ("a pod of another node", &far, far.addr()),
        ("the peered network", lab.peer(), lab.peer().addr()),
    ];
    for (port, (name, other, addr)) in (5000..).zip(others) {
        let (here, there) = ((pod.addr(), port), (addr, 6000));
        let out = Way {
            name: &format!("to {name}"),
            sender: &pod,
            from: here,
            to: there,
            receiver: socket(other, 6000)?,
            first_leads: false,
        };
        out.check()?;
        let back = Way {
            name: &format!("from {name}"),
            sender: other,
            from: there,
            to: here,
            receiver: socket(&pod, port)?,
            first_leads: false,
        };
        back.check()?;
    }
    Ok(())
}

/// Fragments to the Internet and back, of a flow whose first datagram from the pod has `first` bytes of data.
fn snated(first: usize) -> Result {
    let lab = started(&Lab::new().nodes(1))?;
    let (node, inet) = (lab.node(1), lab.inet());
    let pod = node.add_pod("web")?;
    let (here, there) = ((pod.addr(), 4000), (inet.addr(), 6000));
    let out = Way {
        name: "to the Internet",
        sender: &pod,
        from: here,
        to: there,
        receiver: socket(inet, 6000)?,
        first_leads: false,
    };
    let mut opening = Ipv4::udp(here, there, &vec![b'z'; first]);
    opening.id = 1;
    pod.send_packets(&opening.fragments(PART))?;
    out.receiver.set_read_timeout(Some(SOON))?;
    let (_, seen_as) = out.receiver.recv_from(&mut [0; 4096])?;
    assert_eq!(seen_as.ip(), node.addr());
    out.check()?;
    let back = Way {
        name: "from the Internet",
        sender: inet,
        from: there,
        to: (node.addr(), seen_as.port()),
        receiver: socket(&pod, 4000)?,
        first_leads: first < PART,
    };
    back.check()
}

#[test]
fn fragments_of_a_flow_that_the_kernel_masquerades_arrive_in_both_directions() -> Result {
    snated(DATA)
}

#[test]
fn fragments_of_a_flow_with_an_ebpf_binding_arrive_in_both_directions() -> Result {
    snated(100)
}

#[test]
fn pieces_that_never_become_whole_leave_no_trace_outside() -> Result {
    let scene = Scene::new()?;
    let capture = scene.node().capture("eth0")?;
    let marker = Ipv4::udp(
        (scene.pod.addr(), 4001),
        (scene.lab.peer().addr(), 6001),
        b"marker",
    );
    let lost = Ipv4::udp(
        (scene.pod.addr(), 4000),
        (scene.lab.peer().addr(), 6000),
        &[1; DATA],
    );
    let mut parts = lost.fragments(PART);
    parts.truncate(3);
    parts.push(marker);
    scene.pod.send_packets(&parts)?;
    crate::arrived(&capture, "the marker", |packet| {
        packet.ports() == Some((4001, 6001))
    });
    let sent = capture.frames();
    let mut packets = sent.iter().filter_map(|frame| Ipv4::of_frame(frame));
    assert!(
        packets.all(|packet| packet.fragment == 0),
        "the kernel kept the pieces"
    );
    Ok(())
}

#[test]
fn a_fragmented_answer_to_a_flow_from_the_internet_keeps_the_pods_address() -> Result {
    let scene = Scene::new()?;
    let (pod, inet) = (&scene.pod, scene.lab.inet());
    let _server = pod.serve_echo(7)?;
    let capture = scene.node().capture("eth0")?;
    // The answer is some twenty bytes longer than the question, and a fragment longer than the MTU.
    let (here, there) = ((inet.addr(), 5555), (pod.addr(), 7));
    inet.send_packets(&[Ipv4::udp(here, there, &[1; 1470])])?;
    let answer = crate::arrived(&capture, "the answer", |packet| packet.dst == inet.addr());
    assert_eq!(answer.src, pod.addr());
    Ok(())
}
