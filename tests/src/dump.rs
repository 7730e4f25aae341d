//! What was the state of the lab when a test failed?

use std::fmt::Write as _;
use std::path::Path;

use crate::frame;
use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::node::Node;

/// Frames shown, the newest.
const FRAMES: usize = 40;

/// What is asked of every node.
const NODE_COMMANDS: [&[&str]; 8] = [
    &["ip", "-d", "-br", "link"],
    &["ip", "-br", "address"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "neigh"],
    &["nft", "list", "ruleset"],
    &["bpftool", "net"],
    &["bpftool", "map", "list"],
    &[
        "find",
        "/sys/fs/bpf",
        "/run/azure-vnet",
        "/var/log",
        "-mindepth",
        "1",
    ],
];

/// Prints the dump where the test's other output goes.
#[expect(
    clippy::print_stderr,
    reason = "the reader of a failed test needs it there"
)]
pub(crate) fn print(lab: &Lab) {
    eprintln!("{}", lab.dump());
}

impl Lab {
    /// Everything that helps to understand what the lab is doing, as text.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            dump_node(&mut text, node);
        }
        section(&mut text, "fabric: drops other than 0");
        match self.fabric().dropped() {
            Ok(dropped) => {
                for (counter, packets) in dropped.iter().filter(|(_, packets)| **packets > 0) {
                    line(&mut text, &format!("{counter} {packets}"));
                }
            }
            Err(error) => line(&mut text, &format!("{error:#}")),
        }
        section(&mut text, "fabric: the last frames, in and out");
        let frames = self.fabric().frames();
        for frame in frames.iter().skip(frames.len().saturating_sub(FRAMES)) {
            line(&mut text, &frame::describe(frame));
        }
        text
    }
}

fn dump_node(text: &mut String, node: &Node) {
    for command in NODE_COMMANDS {
        show(text, node, command);
    }
    let vnetctl = Path::new("/opt/azure-vnet/bin/vnetctl");
    if node.run(|| Ok(vnetctl.exists())).unwrap_or(false) {
        show(text, node, &["vnetctl", "status", "-o", "json"]);
    }
    section(text, &format!("{}: log of the loader", node.name()));
    line(text, &node.loader().log());
    section(text, &format!("{}: log of the plug-in", node.name()));
    line(
        text,
        &node.read("/var/log/azure-vnet.log").unwrap_or_default(),
    );
}

fn show(text: &mut String, namespace: &Namespace, command: &[&str]) {
    section(
        text,
        &format!("{}: {}", namespace.name(), command.join(" ")),
    );
    match namespace.feed(command, b"") {
        Ok(finished) => {
            line(text, &String::from_utf8_lossy(&finished.stdout));
            line(text, &finished.stderr);
        }
        Err(error) => line(text, &format!("{error:#}")),
    }
}

fn section(text: &mut String, title: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "\n--- {title}").unwrap_or_default();
}

fn line(text: &mut String, content: &str) {
    let content = content.trim_end();
    if !content.is_empty() {
        writeln!(text, "{content}").unwrap_or_default();
    }
}
