//! `vnetctl sysdump`: all that helps, nothing that is secret, in time, whatever the loader does.

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);
/// In the loader's environment, in a conflist, in a configuration, in logs; beside its name, and behind an argument.
const SECRETS: [&str; 7] = [
    "s3cret-of-env",
    "s3cret-of-cni",
    "s3cret-of-yaml",
    "s3cret-of-log",
    "s3cret-of-rotated-log",
    "s3cret-of-pair",
    "s3cret-of-argument",
];

fn node_with_secrets() -> Result<Lab> {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let [env, cni, yaml, log, rotated, pair, argument] = SECRETS;
    node.write(
        "/etc/cni/net.d/99-other.conflist",
        &format!(r#"{{"name": "other", "plugins": [{{"type": "x", "etcd_password": "{cni}", "kept": 7,
            "env": [{{"name": "TOKEN", "value": "{pair}"}}], "args": ["--token", "{argument}"]}}]}}"#),
    )?;
    node.write(
        "/etc/azure-vnet/other.yaml",
        &format!("token: {yaml}\nkept: here\n"),
    )?;
    node.loader()
        .start_with(&[], &[("AZURE_CLIENT_SECRET", env)])?;
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    node.add_pod("web")?.tcp(lab.inet().addr(), 8080)?;
    let line = format!(r#"{{"verb":"ADD","args":"K8S_POD_NAME=kept;TOKEN={log}"}}"#);
    node.exec(&[
        "sh",
        "-c",
        &format!("echo '{line}' >> /var/log/azure-vnet.log"),
    ])?;
    // As long as it may be; what was last is in it.
    let old = r#"{"verb":"DEL","args":"TOKEN=x"}"#.to_owned() + "\n";
    let last = format!("{{\"verb\":\"DEL\",\"rotated\":\"kept\",\"token\":\"{rotated}\"}}\n");
    for number in 1..8 {
        let path = format!("/var/log/azure-vnet.log.{number}");
        node.write(&path, &(old.repeat(5_000_000 / old.len()) + &last))?;
    }
    Ok(lab)
}

/// Makes a dump, and returns all of it as text, each file behind its name.
fn dump(node: &Node) -> Result<String> {
    // Programs there, if any, come before the node's.
    let line = "PATH=/tmp/bin:$PATH exec vnetctl sysdump --file /tmp/dump.tar.gz -o json";
    let done = node.feed(&["sh", "-c", line], b"")?;
    println!("a dump took {:?}", done.elapsed);
    assert!(done.elapsed < LIMIT, "{:?}", done.elapsed);
    let told: Value = serde_json::from_str(&done.success()?)?;
    assert_eq!(told["file"], "/tmp/dump.tar.gz");
    assert_eq!(
        node.exec(&["stat", "-c", "%a", "/tmp/dump.tar.gz"])?,
        "600\n"
    );
    node.exec(&[
        "sh",
        "-c",
        "mkdir /tmp/dump && tar -C /tmp/dump --strip-components=1 -xzf /tmp/dump.tar.gz",
    ])?;
    node.exec(&["sh", "-c", "cd /tmp/dump && grep -r '' ."])
}

/// The key of the SNAT port hash, as a number and as bytes.
fn hash_key(node: &Node) -> Result<Vec<String>> {
    let map = hooks::Pins::default().map("secret");
    let dumped = node.exec(&[
        "bpftool",
        "-j",
        "map",
        "dump",
        "pinned",
        &map.display().to_string(),
    ])?;
    let dumped: Value = serde_json::from_str(&dumped)?;
    let bytes: Vec<u8> = dumped[0]["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|byte| {
            let text = byte.as_str().unwrap().trim_start_matches("0x");
            u8::from_str_radix(text, 16).unwrap()
        })
        .collect();
    assert_eq!(bytes.len(), 16);
    Ok(bytes
        .chunks(8)
        .flat_map(|half| {
            let number = u64::from_le_bytes(half.try_into().unwrap());
            let spaced: Vec<String> = half.iter().map(|byte| format!("{byte:02x}")).collect();
            let prefixed: Vec<String> = half.iter().map(|byte| format!("0x{byte:02x}")).collect();
            [
                number.to_string(),
                format!("{number:x}"),
                spaced.join(" "),
                prefixed.join("\",\""),
            ]
        })
        .collect())
}

#[test]
fn a_dump_tells_everything_but_secrets() -> Result {
    let lab = node_with_secrets()?;
    let node = lab.node(1);
    let text = dump(node)?;
    for expected in [
        "./vnetctl/status.json:",
        "./vnetctl/doctor.json:",
        "./vnetctl/snat.json:",
        "./files/etc/cni/net.d/10-azure.conflist:",
        "./files/run/azure-vnet/endpoints/azure:",
        "./files/var/log/azure-vnet.log:",
        "./files/var/log/azure-vnet.log.1:",
        "./files/var/log/azure-vnet.log.7:{\"rotated\":\"kept\",\"token\":\"<redacted>\"",
        "./commands/nft_list_ruleset:table ip azure-vnet {",
        "./commands/bpftool_prog_show:",
        "from_pod",
        "default/web",
        "K8S_POD_NAME=kept;TOKEN=<redacted>",
        "\"kept\": 7",
        "kept: here",
    ] {
        assert!(text.contains(expected), "{expected}");
    }
    for secret in SECRETS
        .into_iter()
        .map(str::to_owned)
        .chain(hash_key(node)?)
    {
        assert!(
            !text.contains(&secret),
            "{secret}: {:?}",
            text.lines().find(|line| line.contains(&secret))
        );
    }
    let again = node.feed(&["vnetctl", "sysdump", "--file", "/tmp/dump.tar.gz"], b"")?;
    assert_eq!(again.status.code(), Some(1), "it replaces nothing");
    assert!(
        again.stderr.contains("--file names another"),
        "{}",
        again.stderr
    );
    Ok(())
}

#[test]
fn a_dead_loader_keeps_nobody_from_a_dump() -> Result {
    let lab = node_with_secrets()?;
    let node = lab.node(1);
    node.loader().kill9()?;
    let text = dump(node)?;
    assert!(text.contains("./vnetctl/status.json:not to be had: connect to the loader"));
    assert!(text.contains("default/web") && text.contains("systemctl restart azure-vnet-loader"));
    Ok(())
}

#[test]
fn programs_that_hang_and_pins_that_are_not_there_keep_nobody_from_a_dump() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.write("/tmp/bin/nft", "#!/bin/sh\nexec tail -f /dev/null\n")?;
    node.exec(&["chmod", "+x", "/tmp/bin/nft"])?;
    let text = dump(node)?;
    assert!(text.contains("nft: it hangs"));
    for table in ["endpoints", "snat", "snat-top", "flows"] {
        let why = format!("./vnetctl/{table}.json:not to be had: ");
        assert!(text.contains(&why), "{table}");
    }
    Ok(())
}

#[test]
fn a_loader_that_hangs_keeps_nobody_from_a_dump() -> Result {
    let lab = node_with_secrets()?;
    let node = lab.node(1);
    node.loader().signal(Signal::SIGSTOP)?;
    let text = dump(node);
    node.loader().signal(Signal::SIGCONT)?;
    assert!(text?.contains("./vnetctl/status.json:not to be had: talk to the loader"));
    Ok(())
}

/// So many ask one that hangs that the kernel lets nobody wait any more.
#[test]
fn a_loader_that_lets_nobody_in_keeps_nobody_from_a_dump() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    node.loader().signal(Signal::SIGSTOP)?;
    let text = node
        .run(|| {
            let mut waiting = Vec::new();
            loop {
                let kind = (AddressFamily::Unix, SockType::Stream);
                let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
                let stream = socket(kind.0, kind.1, flags, None)?;
                let address = UnixAddr::new("/run/azure-vnet/loader.sock")?;
                if connect(stream.as_raw_fd(), &address).is_err() {
                    return Ok(waiting);
                }
                waiting.push(stream);
            }
        })
        .and_then(|_waiting| dump(node));
    node.loader().signal(Signal::SIGCONT)?;
    assert!(text?.contains("./vnetctl/status.json:not to be had: connect to the loader"));
    Ok(())
}
