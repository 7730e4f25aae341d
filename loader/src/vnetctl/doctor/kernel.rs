//! Can the kernel do what is needed?

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use nix::sys::utsname::uname;

use super::node::Node;
use super::{Problem, some};
use crate::object;

/// What docs/kernel-support.md asks for.
const OPTIONS: [&str; 6] = [
    "CONFIG_BPF_SYSCALL",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_NET_CLS_BPF",
    "CONFIG_NET_SCH_INGRESS",
    "CONFIG_NF_TABLES",
    "CONFIG_VETH",
];

/// A node that tells nothing of its kernel is not blamed: `btf` and the loader say what is missing.
pub(super) fn config(_node: &Node) -> Option<Problem> {
    let text = config_text()?;
    let is_on = |option: &str| {
        let mut lines = text.lines();
        lines.any(|line| {
            [format!("{option}=y"), format!("{option}=m")]
                .iter()
                .any(|on| line == on)
        })
    };
    let off: Vec<String> = OPTIONS
        .iter()
        .filter(|option| !is_on(option))
        .map(ToString::to_string)
        .collect();
    (!off.is_empty()).then(|| {
        Problem::error(
            format!("the kernel is built without {}", some(&off)),
            "programs cannot be loaded or attached, or the kernel's own masquerading is missing",
            "boot a kernel of docs/kernel-support.md; every distribution's has these",
        )
    })
}

/// The configuration, wherever a distribution puts it.
fn config_text() -> Option<String> {
    let name = uname().ok()?.release().to_string_lossy().into_owned();
    let files = [
        format!("/boot/config-{name}"),
        format!("/lib/modules/{name}/config"),
    ];
    files
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .or_else(|| {
            let mut text = String::new();
            let packed = File::open("/proc/config.gz").ok()?;
            GzDecoder::new(packed).read_to_string(&mut text).ok()?;
            Some(text)
        })
}

pub(super) fn btf(_node: &Node) -> Option<Problem> {
    (!Path::new(object::BTF).exists()).then(|| {
        Problem::error(
            format!("the kernel has no BTF ({} is not there)", object::BTF),
            "the loader does not start without it",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (`grep BTF /boot/config-$(uname -r)`)",
        )
    })
}

pub(super) fn bpffs(_node: &Node) -> Option<Problem> {
    (!object::has_bpffs()).then(|| {
        Problem::error(
            "no BPF file system is mounted on /sys/fs/bpf",
            "programs and maps would end with the loader, so it does not start; ADD finds no programs",
            "mount -t bpf bpf /sys/fs/bpf, and restart azure-vnet-loader",
        )
    })
}

/// The newest file of ours must not be of tomorrow.
pub(super) fn clock(node: &Node) -> Option<Problem> {
    /// Adjusting a clock takes it back by less.
    const MUCH: Duration = Duration::from_mins(1);
    let folders = [node.run.ipam(), node.run.leases(), node.run.endpoints()];
    let files = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten();
    let times = files.filter_map(|file| file.ok()?.metadata().ok()?.modified().ok());
    let ahead = times
        .max()?
        .duration_since(SystemTime::now())
        .ok()
        .filter(|ahead| *ahead > MUCH)?;
    Some(Problem::warning(
        format!(
            "the clock has gone back: a file in {} is {} s ahead of it",
            node.run.root().display(),
            ahead.as_secs()
        ),
        "ages and logs lie, and certificates of the cluster may not be valid",
        "`timedatectl status`; let chrony or systemd-timesyncd set it",
    ))
}
