//! Datagrams around and above the MTU, small and large ones mixed on one flow.

use std::net::{Ipv4Addr, UdpSocket};

use lab::{Lab, Namespace, Pod};

use crate::{Result, SOON, started};

/// The pod, and what it talks to, by name.
fn with_targets(work: impl Fn(&Pod, &[(&str, Ipv4Addr)]) -> Result) -> Result {
    let lab = started(&Lab::new().nodes(2))?;
    let pod = lab.node(1).add_pod("web")?;
    let (near, far) = (lab.node(1).add_pod("near")?, lab.node(2).add_pod("far")?);
    let _servers = [near.serve_echo(7)?, far.serve_echo(7)?];
    work(
        &pod,
        &[
            ("near pod", near.addr()),
            ("far pod", far.addr()),
            ("peered network", lab.peer().addr()),
            ("Internet", lab.inet().addr()),
        ],
    )
}

/// Sends datagrams of these sizes from one socket, one after the other; each must be echoed. The senders that the server
/// saw, one for each datagram.
fn echoed(from: &Namespace, server: Ipv4Addr, sizes: &[usize]) -> Result<Vec<String>> {
    from.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((server, 7))?;
        socket.set_read_timeout(Some(SOON))?;
        let mut buffer = vec![0; 1 << 16];
        let mut senders = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let sent = vec![u8::try_from(number)?; *size];
            socket.send(&sent)?;
            let length = socket.recv(&mut buffer);
            let length = length.map_err(|e| anyhow::anyhow!("{size} bytes to {server}: {e}"))?;
            let answer = buffer.get(..length).unwrap_or_default();
            let sender = answer.strip_suffix(sent.as_slice());
            let sender = sender.unwrap_or_else(|| panic!("{size} bytes to {server}"));
            senders.push(String::from_utf8(sender.to_vec())?);
        }
        Ok(senders)
    })
}

#[test]
fn small_and_large_datagrams_mix_on_one_flow() -> Result {
    with_targets(|pod, targets| {
        for (name, target) in targets {
            let sizes = [100, 4000, 100, 4000, 4000, 100, 60_000, 100];
            let mut senders = echoed(pod, *target, &sizes)?.split_off(1);
            senders.dedup();
            assert_eq!(
                senders.len(),
                1,
                "{name}: from the first fragment on, one port: {senders:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn an_answer_larger_than_the_mtu_follows_a_question_that_is_not() -> Result {
    // The echo server's answer is some twenty bytes longer than the question.
    with_targets(|pod, targets| {
        for (_, target) in targets {
            echoed(pod, *target, &[100, 1460, 1472, 100])?;
        }
        Ok(())
    })
}

#[test]
fn pings_of_every_size_around_the_mtu_and_far_above_are_answered() -> Result {
    with_targets(|pod, targets| {
        for (name, target) in targets {
            for size in ["1471", "1472", "1473", "1474", "1475", "8000"] {
                let line = ["ping", "-c1", "-W2", "-s", size, &target.to_string()];
                let answer = pod.exec(&line);
                assert!(answer.is_ok(), "{size} bytes to the {name}: {answer:?}");
            }
        }
        Ok(())
    })
}
