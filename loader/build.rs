//! Finds the BPF object that `cargo xtask build-ebpf` made, for `object.rs` to embed.
//!
//! Without it (a plain `cargo check` on a fresh clone) an empty file takes its place, and the loader refuses to start.

use std::path::{Path, PathBuf};
use std::{env, fs};

const OBJECT: &str = "target/ebpf/azure-vnet.bpf.o";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let workspace = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..");
    let object =
        env::var_os("AZURE_VNET_BPF_OBJECT").map_or_else(|| workspace.join(OBJECT), PathBuf::from);
    println!("cargo::rerun-if-env-changed=AZURE_VNET_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());

    let embedded = Path::new(&env::var("OUT_DIR")?).join("azure-vnet.bpf.o");
    match fs::read(&object) {
        Ok(bytes) => fs::write(&embedded, bytes)?,
        Err(error) => {
            println!(
                "cargo::warning=no BPF object at {} ({error}); run `cargo xtask build-ebpf`",
                object.display()
            );
            fs::write(&embedded, [])?;
        }
    }
    println!("cargo::rustc-env=BPF_OBJECT={}", embedded.display());
    Ok(())
}
