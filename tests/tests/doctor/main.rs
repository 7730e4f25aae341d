//! `vnetctl doctor` finds what is wrong with a node, and finds nothing wrong with a healthy one.
#![cfg(test)]

mod full;
mod healthy;
mod seeds;
mod sown;

use lab::{Lab, Node};
use serde_json::Value;

type Result<T = ()> = anyhow::Result<T>;

/// What the doctor says: names of checks and texts; its exit status agrees.
fn findings(node: &Node) -> Result<Vec<Finding>> {
    let done = node.feed(&["vnetctl", "doctor", "-o", "json"], b"")?;
    let report: Value = serde_json::from_slice(&done.stdout)?;
    let found = report["findings"].as_array().unwrap();
    assert_eq!(
        done.status.code(),
        Some(i32::from(!found.is_empty())),
        "{}",
        done.stderr
    );
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let finding = |finding: &Value| Finding {
        name: text(finding, "name"),
        what: text(finding, "what"),
        why: text(finding, "why"),
        remedy: text(finding, "remedy"),
    };
    Ok(found.iter().map(finding).collect())
}

#[derive(Debug)]
struct Finding {
    name: String,
    what: String,
    why: String,
    remedy: String,
}
