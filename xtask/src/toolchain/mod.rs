//! The tools that build for BPF: a Rust toolchain with `rust-src`, and a `bpf-linker` of the same LLVM major.

mod linker;
mod rust;

use anyhow::{Result, bail};
pub(crate) use linker::{Linker, cargo_bin};
pub(crate) use rust::{Rust, rust_toolchains, version};

/// A set that fits together.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) rust: Rust,
    pub(crate) linker: Linker,
}

/// Finds a set that fits together, or says which part is missing.
pub(crate) fn find() -> Result<Toolchain> {
    let rusts = rust_toolchains();
    let linkers = linker::linkers();
    for rust in &rusts {
        if let Some(linker) = linkers
            .iter()
            .find(|linker| linker.llvm_major == Some(rust.llvm_major))
        {
            return Ok(Toolchain {
                rust: rust.clone(),
                linker: linker.clone(),
            });
        }
    }
    let list = |items: Vec<String>| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join(", ")
        }
    };
    bail!(
        "no Rust toolchain with rust-src and bpf-linker of the same LLVM; Rust: {}; bpf-linker: {}",
        list(rusts.iter().map(ToString::to_string).collect()),
        list(linkers.iter().map(ToString::to_string).collect()),
    )
}
