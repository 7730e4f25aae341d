//! What does ours need of a node's memory?

use anyhow::{Context as _, Result};
use hooks::Pins;
use lab::Node;
use serde_json::Value;

/// Bytes of memory that the loader has now.
pub(super) fn resident(node: &Node) -> Result<u64> {
    let path = format!("/proc/{}/status", node.loader().pid()?);
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib
        .with_context(|| format!("no VmRSS in {path}"))?
        .parse()?;
    Ok(kib * 1024)
}

/// Bytes of memory that the maps have, filled or not.
pub(super) fn locked(node: &Node) -> Result<u64> {
    let maps = Pins::default().maps();
    let script = format!(
        "for map in {}/*; do bpftool -j map show pinned \"$map\" || exit; done",
        maps.display()
    );
    let shown = node.exec(&["sh", "-c", &script])?;
    let maps = serde_json::Deserializer::from_str(&shown).into_iter::<Value>();
    let bytes = |map: serde_json::Result<Value>| -> Result<u64> {
        let map = map.with_context(|| format!("read {shown}"))?;
        let locked = map.get("bytes_memlock").and_then(Value::as_u64);
        locked.with_context(|| format!("no bytes_memlock in {map}"))
    };
    maps.map(bytes).sum()
}
