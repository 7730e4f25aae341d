//! What does `vnetctl` tell an operator, with the loader and without it?
#![cfg(test)]

mod explain;
mod schema;
mod selftest;
mod status;
mod sysdump;
mod tables;
mod uninstall;

use lab::{Lab, Node};
use serde_json::Value;

type Result<T = ()> = anyhow::Result<T>;

/// One node with a running loader.
fn lab() -> Result<Lab> {
    let lab = Lab::new().nodes(1).build()?;
    lab.node(1).start_loader()?;
    Ok(lab)
}

/// What a command prints for programs, whatever its exit status.
fn json(node: &Node, words: &str) -> Result<Value> {
    let line: Vec<&str> = ["vnetctl", "-o", "json"]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    Ok(serde_json::from_slice(&node.feed(&line, b"")?.stdout)?)
}
