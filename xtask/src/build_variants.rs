//! `cargo xtask build-variants`: the product with other programs, one folder each, for `bench experiments` and for the test that a slow
//! program is noticed.
//!
//! Only the BPF object differs, by a feature of the package `ebpf`; but `dynamic` is the product's code linked otherwise, and the
//! plug-ins of `never-free` have an allocator that takes nothing back. The loaders are built in the profile of the tests, `plain` too,
//! so that the object is all that differs between two of them; the plug-ins are links to the product's own.

use crate::{build, build_ebpf, build_next, command, workspace};
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
/// The folder of plug-ins with another allocator, and their feature.
const NEVER_FREE: (&str, &str) = ("never-free", "cni/never-free");
const PLUGINS: [(&str, &str); 2] = [("cni", "azure-vnet"), ("cni", "azure-vnet-ipam")];
/// What is as it is in the product.
const SAME: [&str; 3] = ["azure-vnet", "azure-vnet-ipam", "vnetctl"];

/// Builds those that are named, or all.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let known = |name: &String| {
        let mut programs = VARIANTS.iter();
        [DYNAMIC, NEVER_FREE.0].contains(&name.as_str()) || programs.any(|(one, _)| one == name)
    };
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
    if wanted(NEVER_FREE.0) {
        never_free()?;
    }
    Ok(())
}

/// The plug-ins with the C library loaded at run time, as `cargo build` makes them by itself.
fn dynamic() -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--release", "--package", "cni", "--bins"]);
    command::run(&mut cargo).context("build the plug-ins dynamically linked")?;
    plugins_of(DYNAMIC, &workspace::target_dir().join("release"))
}

/// The plug-ins as the product's are, beside those of the product.
fn never_free() -> Result<()> {
    let (name, feature) = NEVER_FREE;
    let folder = workspace::target_dir().join(name);
    let mut cargo = build::statically(&PLUGINS);
    cargo.args(["--features", feature, "--target-dir"]);
    command::run(cargo.arg(&folder)).context("build the plug-ins that never free")?;
    plugins_of(name, &folder.join(workspace::triple()).join("release"))
}

/// A variant with these plug-ins and the rest of the product.
fn plugins_of(name: &str, built: &Path) -> Result<()> {
    let folder = workspace::variants_dir().join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let product = workspace::product_dir();
    for (file, from) in [
        ("azure-vnet", built),
        ("azure-vnet-ipam", built),
        ("azure-vnet-loader", &product),
        ("vnetctl", &product),
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
