//! What this machine is and has.

use super::Needs;
use std::path::{Path, PathBuf};

/// A program that demo and tests use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Name in `PATH`, or absolute path.
    pub(crate) file: &'static str,
    /// Debian's package.
    pub(crate) package: &'static str,
}

const TOOLS: [Tool; 17] = [
    Tool {
        file: "ip",
        package: "iproute2",
    },
    Tool {
        file: "tc",
        package: "iproute2",
    },
    Tool {
        file: "nft",
        package: "nftables",
    },
    Tool {
        file: "iptables",
        package: "iptables",
    },
    Tool {
        file: "conntrack",
        package: "conntrack",
    },
    Tool {
        file: "bpftool",
        package: "bpftool",
    },
    Tool {
        file: "ping",
        package: "iputils-ping",
    },
    Tool {
        file: "tcpdump",
        package: "tcpdump",
    },
    Tool {
        file: "traceroute",
        package: "traceroute",
    },
    Tool {
        file: "nsenter",
        package: "util-linux",
    },
    Tool {
        file: "/usr/lib/cni/portmap",
        package: "containernetworking-plugins",
    },
    Tool {
        file: "containerd",
        package: "containerd",
    },
    Tool {
        file: "runc",
        package: "runc",
    },
    Tool {
        file: "podman",
        package: "podman",
    },
    Tool {
        file: "busybox",
        package: "busybox-static",
    },
    Tool {
        file: "jq",
        package: "jq",
    },
    Tool {
        file: "shellcheck",
        package: "shellcheck",
    },
];

/// What `vm` uses beside them.
const VM_TOOLS: [Tool; 6] = [
    Tool {
        file: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    Tool {
        file: "virtiofsd",
        package: "qemu-system-common",
    },
    Tool {
        file: "depmod",
        package: "kmod",
    },
    Tool {
        file: "ipset",
        package: "ipset",
    },
    Tool {
        file: "ipvsadm",
        package: "ipvsadm",
    },
    Tool {
        file: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
    },
];

/// What `bench` uses beside them.
const BENCH_TOOLS: [Tool; 4] = [
    Tool {
        file: "ethtool",
        package: "ethtool",
    },
    Tool {
        file: "iperf3",
        package: "iperf3",
    },
    Tool {
        file: "sockperf",
        package: "sockperf",
    },
    Tool {
        file: "ebtables",
        package: "ebtables",
    },
];

/// Those that are needed and not here.
pub(crate) fn missing_tools(needs: Needs) -> Vec<&'static Tool> {
    let tools = if needs.run_time { &TOOLS[..] } else { &[] };
    let vm_tools = if needs.vm { &VM_TOOLS[..] } else { &[] };
    let bench_tools = if needs.bench { &BENCH_TOOLS[..] } else { &[] };
    tools
        .iter()
        .chain(vm_tools)
        .chain(bench_tools)
        .filter(|tool| find_program(tool.file).is_none())
        .collect()
}

/// Looks in `PATH`, in cargo's `bin`, where administrators' programs are though a user's `PATH` lacks it, and where
/// Debian has virtiofsd.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(crate::toolchain::cargo_bin());
    let folders =
        folders.chain(["/usr/sbin", "/sbin", "/usr/lib/qemu", "/usr/libexec"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// How software gets onto this system.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian, Ubuntu and their kin.
    Apt,
    /// Anything else, by its own name.
    Other(String),
}

impl System {
    pub(crate) fn detect() -> Self {
        let release = std::fs::read_to_string("/etc/os-release");
        let release = release
            .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        let system = Self::parse(&release);
        if system == Self::Apt && !Path::new("/usr/bin/apt-get").exists() {
            return Self::Other("a Debian without apt-get".to_owned());
        }
        system
    }

    fn parse(release: &str) -> Self {
        let field = |name| {
            let value = release.lines().find_map(|line| line.strip_prefix(name))?;
            Some(value.trim().trim_matches(['"', '\'']))
        };
        let like = field("ID_LIKE=").unwrap_or_default();
        let id = field("ID=").unwrap_or_default();
        if like
            .split_whitespace()
            .chain([id])
            .any(|id| id == "debian" || id == "ubuntu")
        {
            return Self::Apt;
        }
        Self::Other(
            field("PRETTY_NAME=")
                .unwrap_or("a system without /etc/os-release")
                .to_owned(),
        )
    }
}

/// The candidate's version from the output of `apt-cache policy NAME`, without Debian's epoch.
pub(crate) fn candidate(policy: &str) -> Option<&str> {
    let value = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    let value = value
        .split_once(':')
        .map_or(value, |(_epoch, version)| version);
    (value != "(none)").then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_told_apart() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n";
        let mint = "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
        let fedora = "NAME=\"Fedora Linux\"\nID=fedora\nPRETTY_NAME=\"Fedora Linux 43\"\n";
        assert_eq!(System::parse(debian), System::Apt);
        assert_eq!(System::parse(mint), System::Apt);
        assert_eq!(
            System::parse(fedora),
            System::Other("Fedora Linux 43".into())
        );
        assert_eq!(
            System::parse(""),
            System::Other("a system without /etc/os-release".into())
        );
    }

    #[test]
    fn the_candidate_is_read() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate(policy), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(
            candidate("llvm-22-dev:\n  Candidate: 1:22.1.8-1~deb12u1\n"),
            Some("22.1.8-1~deb12u1")
        );
        assert_eq!(
            candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(candidate(""), None);
    }
}
