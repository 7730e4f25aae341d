//! `cargo xtask build-variants`: the product with other programs, one folder each, for `bench experiments` and for the test that a slow
//! program is noticed.
//!
//! Only the BPF object differs, by a feature of the package `ebpf`; but `dynamic` is the product's code linked otherwise. The loaders are built in the profile of the tests, `plain` too,
//! so that the object is all that differs between two of them; the plug-ins are links to the product's own.

use crate::{build_ebpf, build_next, command, workspace};
use anyhow::{Context as _, Result, bail};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Folders, and features of the package `ebpf`.
const VARIANTS: [(&str, Option<&str>); 6] = [
    ("plain", None),
    ("direct-mac", Some("ebpf/direct-mac")),
    ("fifty-look-ups", Some("ebpf/fifty-look-ups")),
    ("keep-mark", Some("ebpf/keep-mark")),
    ("no-caches", Some("ebpf/no-caches")),
    ("no-prealloc", Some("ebpf/no-prealloc")),
];
/// The folder of what is linked otherwise.
const DYNAMIC: &str = "dynamic";
/// What is as it is in the product.
const SAME: [&str; 3] = ["azure-vnet", "azure-vnet-ipam", "vnetctl"];

/// Builds those that are named, or all.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let known = |name: &String| name == DYNAMIC || VARIANTS.iter().any(|(one, _)| one == name);
    if let Some(name) = names.iter().find(|name| !known(name)) {
        bail!("there is no variant `{name}`; see xtask/src/build_variants.rs");
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|one| one == name);
    for (name, feature) in VARIANTS.into_iter().filter(|(name, _)| wanted(name)) {
        let object = workspace::root().join(format!("target/ebpf/azure-vnet-{name}.bpf.o"));
        let features = feature.map_or_else(Vec::new, |feature| vec!["--features", feature]);
        build_ebpf::make(&features, &object)?;
        let folder = workspace::variants_dir().join(name);
        let loader = folder.join("azure-vnet-loader");
        build_next::loader_with(&object, "loader/variant", &loader)?;
        for file in SAME {
            link(&workspace::product_dir().join(file), &folder.join(file))?;
        }
    }
    if wanted(DYNAMIC) {
        dynamic()?;
    }
    Ok(())
}

/// The plug-ins with the C library loaded at run time, as `cargo build` makes them by itself.
fn dynamic() -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--release", "--package", "cni", "--bins"]);
    command::run(&mut cargo).context("build the plug-ins dynamically linked")?;
    let folder = workspace::variants_dir().join(DYNAMIC);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let built = workspace::target_dir().join("release");
    for (file, from) in [
        ("azure-vnet", &built),
        ("azure-vnet-ipam", &built),
        ("azure-vnet-loader", &workspace::product_dir()),
        ("vnetctl", &workspace::product_dir()),
    ] {
        link(&from.join(file), &folder.join(file))?;
    }
    Ok(())
}

/// Makes `link` lead to `file`, wherever it led before.
fn link(file: &Path, link: &Path) -> Result<()> {
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => symlink(file, link),
    }
    .with_context(|| format!("link {} to {}", link.display(), file.display()))
}
