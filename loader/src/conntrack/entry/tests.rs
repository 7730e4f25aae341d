//! Entries as the kernel writes them, and the keys that come of them.

use std::net::Ipv4Addr;

use abi::Flow;
use datapath::Seconds;

use super::*;

const POD: &str = "10.240.1.10:4000";
const SERVICE: &str = "10.0.0.10:80";
const BACKEND: &str = "10.240.2.11:8080";
const NODE: &str = "10.240.0.4:61001";
const REMOTE: &str = "203.0.113.10:443";

const SRC_NAT: u32 = 1 << 4;
const DST_NAT: u32 = 1 << 5;
/// Confirmed, assured, seen reply, and that NAT has been looked into.
const ALIVE: u32 = 8 | 4 | 2 | 1 << 7 | 1 << 8;

/// An attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | 0x8000, &parts.concat())
}

fn end(text: &str) -> (Ip4, Port) {
    let (addr, port) = text.split_once(':').unwrap();
    (
        Ip4::from(addr.parse::<Ipv4Addr>().unwrap()),
        Port::from_u16(port.parse().unwrap()),
    )
}

fn addresses(src: &str, dst: &str) -> Vec<u8> {
    let of = |text| end(text).0.octets();
    nested(
        CTA_TUPLE_IP,
        &[
            attribute(CTA_IP_V4_SRC, &of(src)),
            attribute(CTA_IP_V4_DST, &of(dst)),
        ],
    )
}

fn tuple(kind: u16, src: &str, dst: &str, number: u8) -> Vec<u8> {
    let ports = nested(
        CTA_TUPLE_PROTO,
        &[
            attribute(CTA_PROTO_NUM, &[number]),
            attribute(CTA_PROTO_SRC_PORT, &end(src).1.bytes()),
            attribute(CTA_PROTO_DST_PORT, &end(dst).1.bytes()),
        ],
    );
    nested(kind, &[addresses(src, dst), ports])
}

fn echo(kind: u16, src: &str, dst: &str, id: u16, message: u8) -> Vec<u8> {
    let icmp = nested(
        CTA_TUPLE_PROTO,
        &[
            attribute(CTA_PROTO_NUM, &[proto::ICMP]),
            attribute(CTA_PROTO_ICMP_ID, &id.to_be_bytes()),
            attribute(CTA_PROTO_ICMP_TYPE, &[message]),
            attribute(6, &[0]),
        ],
    );
    nested(kind, &[addresses(src, dst), icmp])
}

fn state(state: u8) -> Vec<u8> {
    let tcp = nested(
        CTA_PROTOINFO_TCP,
        &[
            attribute(CTA_PROTOINFO_TCP_STATE, &[state]),
            attribute(2, &[7]),
        ],
    );
    nested(CTA_PROTOINFO, &[tcp])
}

fn status(bits: u32) -> Vec<u8> {
    attribute(CTA_STATUS, &(ALIVE | bits).to_be_bytes())
}

fn entry(attributes: &[Vec<u8>]) -> Option<Entry> {
    Entry::read(&attributes.concat()).unwrap()
}

/// The flows of an entry with these attributes.
fn flows(attributes: &[Vec<u8>]) -> BTreeSet<FlowKey> {
    entry(attributes)
        .map(|entry| entry.flows())
        .unwrap_or_default()
}

fn tcp(original: (&str, &str), reply: (&str, &str), bits: u32, tcp_state: u8) -> BTreeSet<FlowKey> {
    flows(&tcp_attributes(original, reply, status(bits), tcp_state))
}

fn tcp_attributes(
    original: (&str, &str),
    reply: (&str, &str),
    status: Vec<u8>,
    tcp_state: u8,
) -> [Vec<u8>; 7] {
    [
        tuple(CTA_TUPLE_ORIG, original.0, original.1, proto::TCP),
        tuple(CTA_TUPLE_REPLY, reply.0, reply.1, proto::TCP),
        status,
        // A time-out, a mark and an id, which nobody reads.
        attribute(7, &[0, 1, 0x51, 0x80]),
        attribute(8, &[0; 4]),
        state(tcp_state),
        attribute(12, &[1, 2, 3, 4]),
    ]
}

fn keys(flows: &[(&str, &str)], number: u8) -> BTreeSet<FlowKey> {
    let key = |(a, b): &(&str, &str)| datapath::flow_key(end(a), end(b), number);
    flows.iter().map(key).collect()
}

#[test]
fn of_a_cluster_ip_the_side_behind_the_translation_is_kept() {
    let found = tcp((POD, SERVICE), (BACKEND, POD), DST_NAT, 3);
    assert_eq!(found, keys(&[(POD, SERVICE), (BACKEND, POD)], proto::TCP));
}

#[test]
fn of_masquerading_the_pods_side_is_kept() {
    let found = tcp((POD, REMOTE), (REMOTE, NODE), SRC_NAT, 3);
    assert_eq!(found, keys(&[(POD, REMOTE), (REMOTE, NODE)], proto::TCP));
}

#[test]
fn both_directions_of_a_flow_find_the_key() {
    let found = tcp((POD, SERVICE), (BACKEND, POD), DST_NAT, 3);
    assert!(found.contains(&datapath::flow_key(end(POD), end(BACKEND), proto::TCP)));
}

#[test]
fn of_what_is_answered_and_not_translated_both_ends_are_told() {
    let from_outside = |status| tcp_attributes((REMOTE, POD), (POD, REMOTE), status, 3);
    let found = entry(&from_outside(status(0))).unwrap();
    assert_eq!(found.untranslated(), Some((end(REMOTE).0, end(POD).0)));
    assert_eq!(found.flows(), keys(&[(REMOTE, POD)], proto::TCP));
    let unanswered = attribute(CTA_STATUS, &(1_u32 << 3).to_be_bytes());
    assert_eq!(entry(&from_outside(unanswered)), None);
    let masqueraded = tcp_attributes((POD, REMOTE), (REMOTE, NODE), status(SRC_NAT), 3);
    assert_eq!(entry(&masqueraded).unwrap().untranslated(), None);
}

#[test]
fn each_state_is_remembered_for_as_long_as_conntrack_does_beside_kube_proxy() {
    const OPENING: u32 = 120;
    const HALF_CLOSED: u32 = 3600;
    const ESTABLISHED: u32 = 86_400;
    for (state, lasts) in [
        (1, OPENING),
        (2, OPENING),
        (3, ESTABLISHED),
        (4, HALF_CLOSED),
        (5, HALF_CLOSED),
        (6, HALF_CLOSED),
        (9, OPENING),
    ] {
        let attributes = tcp_attributes((POD, SERVICE), (BACKEND, POD), status(DST_NAT), state);
        let flow = Flow::new(entry(&attributes).unwrap().flags(), 1000);
        let expired = |after| datapath::flow_expired(&flow, proto::TCP, Seconds(1000 + after));
        assert!(!expired(lasts), "state {state}");
        assert!(expired(lasts + 1), "state {state}");
    }
}

#[test]
fn what_is_over_is_left_out_and_what_is_opening_or_closing_is_not() {
    for (state, kept) in [
        (1, true),
        (2, true),
        (3, true),
        (4, true),
        (6, true),
        (7, false),
        (8, false),
    ] {
        let found = tcp((POD, SERVICE), (BACKEND, POD), DST_NAT, state);
        assert_eq!(!found.is_empty(), kept, "state {state}");
    }
}

#[test]
fn udp_has_no_state() {
    let found = flows(&[
        tuple(CTA_TUPLE_ORIG, POD, SERVICE, proto::UDP),
        tuple(CTA_TUPLE_REPLY, BACKEND, POD, proto::UDP),
        status(DST_NAT),
    ]);
    assert_eq!(found, keys(&[(POD, SERVICE), (BACKEND, POD)], proto::UDP));
}

#[test]
fn echo_has_an_identifier_on_each_side_and_other_icmp_is_no_flow() {
    let ping = |message| {
        flows(&[
            echo(CTA_TUPLE_ORIG, POD, REMOTE, 77, message),
            echo(CTA_TUPLE_REPLY, REMOTE, NODE, 61_009, 0),
            status(SRC_NAT),
        ])
    };
    let expected = [
        ("10.240.1.10:77", "203.0.113.10:77"),
        ("10.240.0.4:61009", "203.0.113.10:61009"),
    ];
    assert_eq!(ping(8), keys(&expected, proto::ICMP));
    assert!(ping(13).is_empty(), "a timestamp request");
}

#[test]
fn other_protocols_and_ipv6_are_left_out() {
    let sctp = flows(&[
        tuple(CTA_TUPLE_ORIG, POD, SERVICE, 132),
        tuple(CTA_TUPLE_REPLY, BACKEND, POD, 132),
        status(DST_NAT),
    ]);
    assert!(sctp.is_empty());
    let v6 = nested(
        CTA_TUPLE_IP,
        &[attribute(3, &[0; 16]), attribute(4, &[1; 16])],
    );
    let ports = nested(CTA_TUPLE_PROTO, &[attribute(CTA_PROTO_NUM, &[proto::TCP])]);
    let tuple = |kind| nested(kind, &[v6.clone(), ports.clone()]);
    assert!(
        flows(&[
            tuple(CTA_TUPLE_ORIG),
            tuple(CTA_TUPLE_REPLY),
            status(DST_NAT)
        ])
        .is_empty()
    );
}

#[test]
fn what_is_cut_short_is_an_error_or_nothing_but_never_a_panic() {
    let whole = [
        tuple(CTA_TUPLE_ORIG, POD, SERVICE, proto::TCP),
        tuple(CTA_TUPLE_REPLY, BACKEND, POD, proto::TCP),
        status(DST_NAT),
        state(3),
    ]
    .concat();
    assert!(Entry::read(&whole).unwrap().is_some());
    for length in 0..whole.len() {
        for position in 0..length {
            let mut bytes = whole[..length].to_vec();
            bytes[position] ^= 0xff;
            let _any = Entry::read(&bytes);
        }
    }
}

#[test]
fn the_question_is_for_ipv4_entries() {
    let mut bytes = vec![0; Message::Ask.buffer_len()];
    Message::Ask.serialize(&mut bytes);
    assert_eq!(
        (Message::Ask.message_type(), bytes.as_slice()),
        (0x0101, &[2, 0, 0, 0][..])
    );
}
