//! Where things are in this workspace.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Oldest compiler that builds this workspace, the manifest's `rust-version`.
pub(crate) const MINIMUM_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// The folder of the root manifest.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or `target` in the root.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The triple that product binaries are built for: this machine's, with GNU's C library.
pub(crate) fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Where `cargo xtask build` leaves the product binaries.
pub(crate) fn product_dir() -> PathBuf {
    target_dir().join(triple()).join("release")
}

/// Where `cargo xtask build-next` leaves the loader of the next version.
pub(crate) fn next_dir() -> PathBuf {
    target_dir().join("next")
}

/// Where `cargo xtask build-variants` leaves its folders.
pub(crate) fn variants_dir() -> PathBuf {
    target_dir().join("variants")
}

/// Where `cargo xtask build-ebpf` leaves the eBPF object; `loader/build.rs` embeds it from there.
///
/// Always in the root's `target`, so that it is found whatever `CARGO_TARGET_DIR` says.
pub(crate) fn bpf_object() -> PathBuf {
    root().join("target/ebpf/azure-vnet.bpf.o")
}

/// Leaves a file alone, modification time included, when it already has this content: what embeds it is then not
/// built again. True when it was written.
pub(crate) fn write_if_changed(path: &Path, content: &[u8]) -> Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let folder = path
        .parent()
        .with_context(|| format!("{} has no folder", path.display()))?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("make the folder {}", folder.display()))?;
    let new = path.with_extension("new");
    std::fs::write(&new, content).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, path)
        .with_context(|| format!("move {} to {}", new.display(), path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_left_alone_when_nothing_changes() {
        let folder = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        let path = folder.join("deep/object.o");
        assert!(write_if_changed(&path, b"one").unwrap());
        let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let first = modified();
        assert!(!write_if_changed(&path, b"one").unwrap());
        assert_eq!(modified(), first);
        assert!(write_if_changed(&path, b"two").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
