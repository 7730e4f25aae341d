//! What does a node see as its file system?
//!
//! A tmpfs with the host's programs mounted read-only and everything that the product writes to private.
//! The functions run on a thread that has just got its own mount namespace, so nothing shows on the host.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;

/// The directory that the node's root covers until `pivot_root`: the one from which nothing is taken.
const STAGE: &str = "/sys";

/// The CNI binaries of the product; they live in `/opt/cni/bin`.
pub(crate) const CNI_BINARIES: [&str; 2] = ["azure-vnet", "azure-vnet-ipam"];
/// The other binaries of the product; they live in `/opt/azure-vnet/bin`, which is on the node's PATH.
pub(crate) const BINARIES: [&str; 2] = ["azure-vnet-loader", "vnetctl"];

/// What of the product there is in the next version, too; it lives in `/opt/azure-vnet/next`.
const NEXT: &str = "azure-vnet-loader";

const PROGRAM_DIRS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const ETC_DIRS: [&str; 5] = [
    "alternatives",
    "iproute2",
    "ld.so.conf.d",
    "ssl",
    "security",
];
const ETC_FILES: [&str; 10] = [
    "ethertypes",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "netconfig",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "protocols",
    "services",
];
const PRIVATE_DIRS: [&str; 19] = [
    "dev",
    "etc/azure-vnet",
    "etc/cni/net.d",
    "home",
    "mnt",
    "old",
    "opt/azure-vnet/bin",
    "opt/azure-vnet/next",
    "opt/cni/bin",
    "proc",
    "root",
    "run/lock",
    "run/netns",
    "sys",
    "tmp",
    "var/cache",
    "var/lib/cni",
    "var/log",
    "var/tmp",
];
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// What is particular to one node.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) address: std::net::Ipv4Addr,
    pub(crate) binaries: &'a Path,
    pub(crate) next: &'a Path,
    pub(crate) conflist: &'a str,
}

/// Builds the root and makes it the calling thread's.
pub(crate) fn make(contents: &Contents<'_>) -> Result<()> {
    let stage = Path::new(STAGE);
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("make mounts private")?;
    special("tmpfs", stage, MsFlags::empty(), Some("mode=0755"))?;
    for dir in PRIVATE_DIRS {
        make_dir(&stage.join(dir))?;
    }
    let open = fs::Permissions::from_mode(0o1777);
    for dir in ["tmp", "var/tmp"] {
        fs::set_permissions(stage.join(dir), open.clone())?;
    }
    programs(stage)?;
    etc(stage, contents)?;
    product(stage, contents)?;
    link("../run", &stage.join("var/run"))?;
    bind(Path::new("/dev"), &stage.join("dev"), MsFlags::MS_REC)?;
    kernel(stage)?;

    pivot_root(STAGE, &stage.join("old")).context("pivot_root")?;
    std::env::set_current_dir("/").context("chdir to the new root")?;
    umount2("/old", MntFlags::MNT_DETACH).context("unmount the old root")?;
    fs::remove_dir("/old").context("remove /old")
}

/// The host's programs and libraries, read-only.
fn programs(stage: &Path) -> Result<()> {
    for dir in PROGRAM_DIRS {
        let (host, node) = (Path::new("/").join(dir), stage.join(dir));
        match fs::symlink_metadata(&host) {
            Ok(meta) if meta.is_symlink() => link(fs::read_link(&host)?, &node)?,
            Ok(_) => {
                make_dir(&node)?;
                bind_read_only(&host, &node)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look at {}", host.display())),
        }
    }
    Ok(())
}

fn etc(stage: &Path, contents: &Contents<'_>) -> Result<()> {
    let (host, node) = (Path::new("/etc"), stage.join("etc"));
    for dir in ETC_DIRS.iter().filter(|dir| host.join(dir).is_dir()) {
        make_dir(&node.join(dir))?;
        bind_read_only(&host.join(dir), &node.join(dir))?;
    }
    for file in ETC_FILES.iter().filter(|file| host.join(file).is_file()) {
        fs::copy(host.join(file), node.join(file)).with_context(|| format!("copy /etc/{file}"))?;
    }
    let Contents {
        hostname, address, ..
    } = contents;
    let hosts = format!("127.0.0.1 localhost\n{address} {hostname}\n");
    for (file, text) in [
        ("hostname", format!("{hostname}\n").as_str()),
        ("hosts", &hosts),
        ("resolv.conf", "nameserver 168.63.129.16\n"),
        ("cni/net.d/10-azure.conflist", contents.conflist),
    ] {
        fs::write(node.join(file), text).with_context(|| format!("write /etc/{file}"))?;
    }
    Ok(())
}

/// The product's binaries and the next version's loader, as far as they are built, and the reference plug-ins.
fn product(stage: &Path, contents: &Contents<'_>) -> Result<()> {
    let cni = stage.join("opt/cni/bin");
    let own = stage.join("opt/azure-vnet/bin");
    let next = stage.join("opt/azure-vnet/next");
    let places = CNI_BINARIES.map(|name| (name, contents.binaries, &cni));
    let own = BINARIES.map(|name| (name, contents.binaries, &own));
    let next = [(NEXT, contents.next, &next)];
    for (name, binaries, place) in places.into_iter().chain(own).chain(next) {
        let built = binaries.join(name);
        if built.is_file() {
            let node = place.join(name);
            fs::write(&node, "").with_context(|| format!("create {}", node.display()))?;
            bind_read_only(&built, &node)?;
        }
    }
    let Ok(plugins) = fs::read_dir(REFERENCE_PLUGINS) else {
        return Ok(()); // containernetworking-plugins is not installed; tests that need it will say so
    };
    for plugin in plugins {
        let plugin = plugin?;
        link(plugin.path(), &cni.join(plugin.file_name()))?;
    }
    Ok(())
}

/// `/proc` whose only writable sysctls are those of the node's own network, `/sys` of that network, and a bpffs of its own.
fn kernel(stage: &Path) -> Result<()> {
    let proc = stage.join("proc");
    special("proc", &proc, MsFlags::empty(), None)?;
    bind_read_only_except(&proc.join("sys"), &proc.join("sys/net"))?;
    let sys = stage.join("sys");
    special("sysfs", &sys, MsFlags::empty(), None)?;
    special(
        "bpf",
        &sys.join("fs/bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
}

/// Makes `dir` read-only except for `writable` below it.
fn bind_read_only_except(dir: &Path, writable: &Path) -> Result<()> {
    bind_read_only(dir, dir)?;
    bind(writable, writable, MsFlags::empty())?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(None::<&str>, writable, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("make {} writable", writable.display()))
}

/// Binds the calling thread's network namespace to `path` in its mount namespace.
pub(crate) fn bind_netns(path: &Path) -> Result<()> {
    fs::write(path, "").with_context(|| format!("create {}", path.display()))?;
    bind(
        Path::new("/proc/thread-self/ns/net"),
        path,
        MsFlags::empty(),
    )
}

/// Undoes [`bind_netns`].
pub(crate) fn unbind_netns(path: &Path) -> Result<()> {
    umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", path.display()))?;
    fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

fn special(kind: &str, target: &Path, flags: MsFlags, options: Option<&str>) -> Result<()> {
    mount(Some(kind), target, Some(kind), flags, options)
        .with_context(|| format!("mount {kind} on {}", target.display()))
}

fn bind(source: &Path, target: &Path, extra: MsFlags) -> Result<()> {
    let flags = MsFlags::MS_BIND | extra;
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("bind {} to {}", source.display(), target.display()))
}

fn bind_read_only(source: &Path, target: &Path) -> Result<()> {
    bind(source, target, MsFlags::empty())?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("make {} read-only", target.display()))
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))
}

fn link(to: impl Into<PathBuf>, at: &Path) -> Result<()> {
    symlink(to.into(), at).with_context(|| format!("link {}", at.display()))
}
