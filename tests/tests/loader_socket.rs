//! Whoever talks nonsense to the loader's socket is told so, or hung up on; everybody else is served meanwhile.
#![cfg(test)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lab::{Lab, Node};

const SOCKET: &str = "/run/azure-vnet/loader.sock";
/// Longer than the loader waits for anybody.
const PATIENCE: Duration = Duration::from_secs(20);

fn connect(node: &Node) -> UnixStream {
    let stream = node.run(|| Ok(UnixStream::connect(SOCKET)?)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What the loader answers; nothing if it has hung up.
fn answer(stream: &mut UnixStream) -> String {
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Sends it all, as far as the loader reads, and its answer.
fn say(node: &Node, bytes: &[u8]) -> String {
    let mut stream = connect(node);
    match stream.write_all(bytes) {
        Ok(()) => stream.shutdown(Shutdown::Write).unwrap(),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => panic!("{error}"),
    }
    answer(&mut stream)
}

fn lab() -> Lab {
    let lab = Lab::new().nodes(1).build().unwrap();
    lab.node(1).start_loader().unwrap();
    lab
}

#[test]
fn garbage_and_halves_and_giants_are_refused() {
    let lab = lab();
    let node = lab.node(1);
    let register = br#"{"request":"register","key":{"network":"azure""#;
    let deep = [&br#"{"x":"#[..], &vec![b'['; 100_000]].concat();
    let giant = [&br#"{"request":""#[..], &vec![b'x'; 8 << 20], br#""}"#].concat();
    let refused: [(&str, &[u8], &str); 9] = [
        ("nothing", b"", "EOF"),
        ("no JSON", b"GET / HTTP/1.1\r\n\r\n", "expected value"),
        ("no text", &[0xff, 0xfe, 0, 0x80], "expected value"),
        ("no request", b"{}", "request"),
        (
            "an unknown request",
            br#"{"request":"reboot"}"#,
            "unknown variant",
        ),
        ("half a request", register, "EOF"),
        (
            "a wrong type",
            br#"{"request":"remove_link","name":1,"index":"x"}"#,
            "invalid type",
        ),
        (
            "two requests",
            br#"{"request":"node"}{"request":"node"}"#,
            "trailing",
        ),
        ("deep", &deep, "recursion limit"),
    ];
    for (what, bytes, why) in refused {
        let reply = say(node, bytes);
        for word in [
            r#""reply":"refused""#,
            "understand the request",
            why,
            "azure-vnet of the loader's version",
        ] {
            assert!(reply.contains(word), "{what}: `{word}` is not in: {reply}");
        }
    }
    let reply = say(node, &giant);
    assert!(
        reply.is_empty() || reply.contains("longer than 1048576 bytes"),
        "a giant: {reply}"
    );
    assert!(say(node, br#"{"request":"node"}"#).contains("eth0"));
}

#[test]
fn who_is_slow_or_does_not_listen_keeps_nobody_waiting() {
    let lab = lab();
    let node = lab.node(1);
    // And a few that it opens after its start.
    let enough = node.loader().descriptors().unwrap() + 20;
    let mut slow: Vec<UnixStream> = (0..200).map(|_| connect(node)).collect();
    for stream in &mut slow {
        stream.write_all(br#"{"request":"#).unwrap();
    }
    let deaf: Vec<UnixStream> = (0..200)
        .map(|_| {
            let mut stream = connect(node);
            stream.write_all(br#"{"request":"status"}"#).unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
            stream
        })
        .collect();
    let asked = Instant::now();
    node.add_pod("meanwhile").unwrap().delete().unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    for stream in &mut slow {
        let reply = answer(stream);
        assert!(reply.contains("did not end within 5s"), "{reply}");
    }
    drop((slow, deaf));
    let left = || Some(()).filter(|()| node.loader().descriptors().unwrap() <= enough);
    lab::eventually(PATIENCE, left).expect("the loader closes what others have left");
}
