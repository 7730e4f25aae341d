//! `vnetctl monitor` and `vnetctl capture`: who listens sees what happens, and harms nobody.
#![cfg(test)]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Ipv4, Lab, Node, Pod, Process, VIRTUAL_MAC, WIRESERVER, eventually, frame};
use nix::sys::signal::Signal;
use pcap_parser::{Block, PcapBlockOwned, PcapNGSlice};
use serde_json::Value;

type Result<T = ()> = anyhow::Result<T>;

const SOON: Duration = Duration::from_secs(20);

fn lab() -> Result<Lab> {
    let lab = Lab::new().nodes(1).build()?;
    lab.node(1).start_loader()?;
    Ok(lab)
}

/// A monitor that listens already, and writes where the lab keeps what it says.
fn monitor(node: &Node, arguments: &str) -> Result<Process> {
    let line = format!("exec vnetctl monitor {arguments} >&2");
    let monitor = node.start(&["sh", "-c", &line])?;
    eventually(SOON, || monitor.log().contains("PACKET").then_some(()))
        .with_context(|| format!("it listens: {}", monitor.log()))?;
    Ok(monitor)
}

/// Waits until the log says something, and gives the line.
fn line_with(monitor: &Process, words: &[&str]) -> Result<String> {
    let like = |line: &&str| words.iter().all(|word| line.contains(word));
    let line = || monitor.log().lines().find(like).map(str::to_owned);
    eventually(SOON, line).with_context(|| format!("{words:?} in:\n{}", monitor.log()))
}

/// Frames that claim to be from somebody else, which are dropped; longer than what is shown of them.
fn forge(pod: &Pod, count: usize) -> Result {
    let (host, own) = pod.macs()?;
    let forged = Ipv4::udp(
        (Ipv4Addr::new(10, 9, 9, 9), 1234),
        (WIRESERVER, 53),
        &[0; 1000],
    );
    let frame = forged.framed(host, own);
    let sender = pod.sender("eth0")?;
    (0..count).try_for_each(|_| sender.send(&frame))
}

/// Packets of which a monitor has told: by a line each, as too many, and as lost.
fn told(monitor: &Process) -> u64 {
    let log = monitor.log();
    let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
    let missing = log.lines().filter_map(|line| line.strip_prefix("... "));
    let missing = missing.filter_map(|rest| {
        let (_, lost) = rest.split_once("and ")?;
        Some(number(rest)? + number(lost)?)
    });
    let lines = log
        .lines()
        .filter(|line| line.contains("DROPPED source_address"));
    u64::try_from(lines.count()).unwrap_or(0) + missing.sum::<u64>()
}

#[test]
fn every_monitor_sees_every_drop_with_pod_reason_and_ends() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let pod = node.add_pod("web")?;
    let monitors = [
        monitor(node, "")?,
        monitor(node, "--drops")?,
        monitor(node, "--pod web --drops")?,
    ];
    let refused = pod.within(Duration::from_millis(200)).tcp(WIRESERVER, 80);
    assert!(refused.is_err());
    forge(&pod, 3)?;
    for monitor in &monitors {
        let own = format!("tcp {}:", pod.addr());
        line_with(
            monitor,
            &[
                "pod default/web",
                "DROPPED wireserver",
                &own,
                "> 168.63.129.16:80",
            ],
        )?;
        line_with(
            monitor,
            &[
                "pod default/web",
                "DROPPED source_address",
                "udp 10.9.9.9:1234 > 168.63.129.16:53",
            ],
        )?;
        eventually(SOON, || (told(monitor) == 3).then_some(())).context("each of the three")?;
    }
    Ok(())
}

#[test]
fn a_monitor_sees_what_the_guard_drops_on_the_wire() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.write("/etc/azure-vnet/loader.yaml", "xdp: guard\n")?;
    node.start_loader()?;
    let monitor = monitor(node, "--drops")?;
    let (martian, own) = (Ipv4Addr::LOCALHOST, node.addr());
    let forged = frame::udp(
        (node.mac(), own, 4000),
        (VIRTUAL_MAC, martian, 4001),
        b"forged",
    );
    lab.fabric().sender(node.name())?.send(&forged)?;
    line_with(
        &monitor,
        &[
            "eth0",
            "DROPPED martian",
            "udp 127.0.0.1:4001 > 10.240.0.4:4000",
        ],
    )?;
    Ok(())
}

#[test]
fn a_monitor_of_a_pod_tells_the_path_of_its_packets_and_of_no_others() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let (pod, other) = (node.add_pod("web")?, node.add_pod("db")?);
    let monitor = monitor(node, "--pod default/web")?;
    let (_echo, _other_echo) = (pod.serve_echo(80)?, other.serve_echo(80)?);
    let port = pod.tcp(lab.inet().addr(), 8080)?.peer_addr().port();
    other.udp(lab.inet().addr(), 7)?;
    pod.tcp(other.addr(), 80)?;
    node.tcp(pod.addr(), 80)?;
    let translated = format!("tcp {}:{port} > {}:8080", node.addr(), lab.inet().addr());
    line_with(&monitor, &["pod default/web", "to_internet", &translated])?;
    let answer = format!("tcp {}:8080 > {}:", lab.inet().addr(), pod.addr());
    line_with(&monitor, &["from_internet", &answer])?;
    for path in ["to_pod", "from_pod", "to_stack", "from_stack"] {
        line_with(&monitor, &["pod default/web", path])?;
    }
    let log = monitor.log();
    assert!(!log.contains("default/db"), "{log}");

    let json = node.feed(
        &[
            "vnetctl",
            "monitor",
            "--seconds",
            "1",
            "-o",
            "json",
            "--pod",
            "web",
        ],
        b"",
    )?;
    let json = String::from_utf8(json.stdout)?;
    let parsed: std::result::Result<Vec<Value>, _> =
        json.lines().map(serde_json::from_str).collect();
    assert!(parsed.is_ok(), "{json}");
    Ok(())
}

#[test]
fn what_has_no_line_is_counted_and_a_reader_that_stands_still_harms_nobody() -> Result {
    const FLOOD: usize = 20_000;
    let lab = lab()?;
    let node = lab.node(1);
    let pod = node.add_pod("web")?;
    let (brisk, stalled) = (monitor(node, "--rate 5")?, monitor(node, "--rate 5")?);
    stalled.signal(Signal::SIGSTOP)?;
    forge(&pod, FLOOD)?;
    assert_eq!(pod.tcp(lab.inet().addr(), 8080)?.peer_ip(), node.addr());
    stalled.signal(Signal::SIGCONT)?;
    let dropped = node.drops("source_address")?;
    assert_eq!(dropped, u64::try_from(FLOOD)?);
    for monitor in [&brisk, &stalled] {
        // What the kernel has not put into the buffer it tells with the next packet that fits.
        let all = eventually(SOON, || {
            forge(&pod, 1).ok()?;
            let lines = monitor.log().lines().count();
            (told(monitor) >= dropped && lines < 500).then_some(())
        });
        all.with_context(|| format!("{} of {dropped}: {}", told(monitor), monitor.log()))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", monitor.pid()))?;
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .context("a peak")?;
        let kib: u64 = peak
            .split_whitespace()
            .nth(1)
            .context("a number")?
            .parse()?;
        println!("{peak}");
        assert!(kib < 32 << 10, "{peak}");
    }
    Ok(())
}

#[test]
fn four_may_listen_and_one_that_is_killed_makes_room() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let pod = node.add_pod("web")?;
    // Listening needs no loader.
    node.loader().kill9()?;
    let mut monitors = Vec::new();
    for _ in 0..4 {
        monitors.push(monitor(node, "")?);
    }
    let fifth = node.feed(&["vnetctl", "monitor", "--seconds", "1"], b"")?;
    assert!(
        fifth.stderr.contains("4 others listen already"),
        "{}",
        fifth.stderr
    );
    monitors[1].kill9()?;
    monitors[1] = monitor(node, "")?;
    forge(&pod, 1)?;
    for monitor in &monitors {
        line_with(monitor, &["DROPPED source_address"])?;
    }
    for wrong in [["monitor", "--pod", "wbe"], ["capture", "wbe", "-w/tmp/x"]] {
        let done = node.feed(&[&["vnetctl"][..], &wrong].concat(), b"")?;
        assert!(
            done.stderr.contains("there are: default/web"),
            "{}",
            done.stderr
        );
    }
    Ok(())
}

#[test]
fn a_pod_that_is_made_anew_is_followed() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let pod = node.add_pod("web")?;
    let seen = monitor(node, "--pod default/web")?;
    pod.delete()?;
    line_with(&seen, &["default/web is gone"])?;
    // Others take its place first.
    let _other = node.add_pod("other")?;
    let pod = node.add_pod("web")?;
    line_with(&seen, &[&format!("default/web is at {} now", pod.addr())])?;
    let talks = || pod.udp(lab.inet().addr(), 7).is_ok();
    eventually(SOON, || {
        (talks() && seen.log().contains("to_internet")).then_some(())
    })
    .with_context(|| format!("its packets: {}", seen.log()))
}

#[test]
fn a_capture_that_is_ended_tells_what_it_has_and_the_file_does_too() -> Result {
    const FILE: &str = "/tmp/web.pcapng";
    let lab = lab()?;
    let node = lab.node(1);
    let pod = node.add_pod("web")?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // Before, and not by the shell: the file of the capture before is none of this one's.
        node.exec(&["rm", "-f", FILE])?;
        let line = format!("exec vnetctl capture web -w {FILE} >&2");
        let capture = node.start(&["sh", "-c", &line])?;
        let bytes = || node.run(|| Ok(std::fs::read(FILE)?));
        let count = || Some(packets(&bytes().ok()?)?.len());
        eventually(SOON, || count().is_some().then_some(())).context("it listens")?;
        eventually(SOON, || {
            forge(&pod, 1).ok()?;
            count().is_some_and(|count| count > 0).then_some(())
        })
        .context("a packet")?;
        capture.signal(signal)?;
        line_with(&capture, &["packets captured, ", " came too fast"])?;
        // The last block: statistics of the interface.
        let bytes = bytes()?;
        let length = bytes
            .last_chunk::<4>()
            .map(|last| u32::from_le_bytes(*last));
        let start = bytes.len() - usize::try_from(length.context("a length")?)?;
        assert_eq!(bytes[start..start + 4], [5, 0, 0, 0], "{signal}");
    }
    Ok(())
}

#[test]
fn a_capture_holds_each_packet_with_its_verdict_as_other_programs_read_it() -> Result {
    const FILE: &str = "/tmp/web.pcapng";
    let lab = lab()?;
    let node = lab.node(1);
    let pod = node.add_pod("web")?;
    let capture = node.start(&["vnetctl", "capture", "web", "-w", FILE])?;
    let size = || node.run(|| Ok(std::fs::metadata(FILE)?.len())).unwrap_or(0);
    eventually(SOON, || (size() > 0).then_some(())).context("it listens")?;
    let port = pod.udp(lab.inet().addr(), 7)?.peer_addr().port();
    forge(&pod, 1)?;
    let bytes = || node.run(|| Ok(std::fs::read(FILE)?));
    let packets = eventually(SOON, || {
        let packets = packets(&bytes().ok()?)?;
        (packets.len() == 3).then_some(packets)
    });
    let packets = packets.with_context(|| format!("three packets; {}", capture.log()))?;
    let comments: Vec<&str> = packets.iter().map(|packet| packet.0.as_str()).collect();
    assert_eq!(
        comments,
        ["to_internet", "from_internet", "DROPPED source_address"]
    );
    let sent = Ipv4::of_frame(&packets[0].1).context("an IPv4 packet")?;
    assert_eq!((sent.src, sent.ports()), (node.addr(), Some((port, 7))));
    println!("{}", frame::describe(&packets[0].1));
    capture.kill9()?;

    let done = node.feed(&["tcpdump", "-nr", FILE], b"");
    if let Some(done) = done.ok().filter(|done| done.status.success()) {
        let text = String::from_utf8(done.stdout)?;
        println!("{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains(&format!(
                "{}.{port} > {}.7: UDP",
                node.addr(),
                lab.inet().addr()
            )),
            "{text}"
        );
    }
    Ok(())
}

/// Comments and bytes of a whole file's packets.
fn packets(file: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let blocks = PcapNGSlice::from_slice(file).ok()?;
    let mut packets = Vec::new();
    for block in blocks {
        let PcapBlockOwned::NG(Block::EnhancedPacket(packet)) = block.ok()? else {
            continue;
        };
        let mut comments = packet.options.iter().filter(|option| option.code.0 == 1);
        let comment = comments.next()?.as_str().ok()?.to_owned();
        let length = usize::try_from(packet.caplen).ok()?;
        packets.push((comment, packet.data.get(..length)?.to_vec()));
    }
    Some(packets)
}

/// `| head` has seen enough: nobody is to be told of it, and who still listens is gone.
#[test]
fn a_reader_who_has_seen_enough_ends_it_quietly() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let pod = node.add_pod("web")?;
    for command in [
        "monitor",
        "monitor -o json",
        "capture web --write -",
        "status",
        "classes",
        "explain",
        "endpoints -o json",
        "completions bash",
    ] {
        // The shell tells the status of the first of the two; the reader takes a byte at most, and goes.
        let line = format!(
            "{{ vnetctl {command}; echo status $? >&2; }} | dd bs=1 count=1 status=none >/dev/null"
        );
        let told = node.start(&["sh", "-c", &line])?;
        let ended = eventually(SOON, || {
            forge(&pod, 1).ok()?;
            told.log().contains("status ").then_some(())
        });
        ended.with_context(|| format!("{command} ends: {}", told.log()))?;
        assert_eq!(told.log(), "status 0\n", "{command}");
    }
    // Without any packet, too.
    let line = "{ vnetctl monitor; echo status $? >&2; } | head -1";
    let told = node.feed(&["sh", "-c", line], b"")?;
    assert_eq!(told.stderr, "status 0\n");
    Ok(())
}
