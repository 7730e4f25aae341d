//! A node of its own for each test: the test's thread moves into new mount and network namespaces, and what it starts follows.

#![expect(
    clippy::unused_self,
    reason = "the sandbox is the thread's own state; a method can only be called in one"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::exec::{AZURE_VNET, AZURE_VNET_IPAM, Exec};

/// The test's node. Gone with the test's thread.
pub(crate) struct Sandbox {
    _only_made_here: (),
}

/// What a call may leave behind on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    interfaces: BTreeSet<String>,
    routes: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

impl Snapshot {
    /// Leaves out the loader's socket, and the tombstone for one that is away.
    pub(crate) fn forget_loader(&mut self) {
        self.files.retain(|path| {
            let name = path.file_name().unwrap_or_default();
            name != "loader.sock" && path.extension().is_none_or(|found| found != "deleted")
        });
    }

    /// Leaves out the files of a directory.
    pub(crate) fn forget_below(&mut self, directory: &str) {
        self.files.retain(|path| !path.starts_with(directory));
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests need root: each makes namespaces of its own"
        );
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        for (kind, target) in [
            ("tmpfs", "/run"),
            ("tmpfs", "/var/log"),
            ("bpf", "/sys/fs/bpf"),
        ] {
            mount(Some(kind), target, Some(kind), MsFlags::empty(), none).unwrap();
        }
        fs::create_dir("/run/netns").unwrap();
        Self {
            _only_made_here: (),
        }
    }

    /// A node with a pod's namespace at `/run/netns/pod`.
    pub(crate) fn with_pod() -> Self {
        let sandbox = Self::new();
        sandbox.add_netns("pod");
        sandbox
    }

    /// Makes `/run/netns/<name>`, as a runtime does.
    pub(crate) fn add_netns(&self, name: &str) -> PathBuf {
        let path = Path::new("/run/netns").join(name);
        fs::write(&path, "").unwrap();
        let target = path.clone();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let none: Option<&str> = None;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                none,
                MsFlags::MS_BIND,
                none,
            )
            .unwrap();
        })
        .join()
        .unwrap();
        path
    }

    /// Removes what [`Sandbox::add_netns`] made.
    pub(crate) fn ip_netns_del(&self, name: &str) {
        self.ip(&format!("netns del {name}"));
    }

    /// Acts on the node with iproute2.
    pub(crate) fn ip(&self, arguments: &str) {
        run(Command::new("ip").args(arguments.split(' ')));
    }

    /// Acts on the node's filters with iproute2.
    pub(crate) fn tc(&self, arguments: &str) {
        run(Command::new("tc").args(arguments.split(' ')));
    }

    /// Acts in the pod with iproute2.
    pub(crate) fn ip_in_pod(&self, arguments: &str) -> String {
        let output = run(Command::new("nsenter")
            .args(["--net=/run/netns/pod", "ip"])
            .args(arguments.split(' ')));
        String::from_utf8(output).unwrap()
    }

    /// The Ethernet address of an interface of the node.
    pub(crate) fn mac(&self, ifname: &str) -> String {
        link_address(Command::new("ip"), ifname)
    }

    /// The Ethernet address of an interface of the pod.
    pub(crate) fn mac_in_pod(&self, ifname: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--net=/run/netns/pod", "ip"]);
        link_address(command, ifname)
    }

    /// The interfaces inside a namespace.
    pub(crate) fn interfaces_in(&self, netns: &Path) -> BTreeSet<String> {
        let file = fs::File::open(netns).unwrap();
        std::thread::spawn(move || {
            nix::sched::setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            interfaces()
        })
        .join()
        .unwrap()
    }

    pub(crate) fn azure_vnet(&self, verb: &str) -> Exec {
        Exec::new(AZURE_VNET, verb)
    }

    pub(crate) fn ipam(&self, verb: &str) -> Exec {
        Exec::new(AZURE_VNET_IPAM, verb)
    }

    /// Puts an executable script into a directory that can be `CNI_PATH`.
    pub(crate) fn add_plugin(&self, name: &str, script: &str) -> PathBuf {
        let directory = PathBuf::from("/run/plugins");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        install(format!("#!/bin/sh\n{script}\n").as_bytes(), &path);
        directory
    }

    /// Writes the loader's pool cache: 10.240.0.0/16 with these last numbers as secondary addresses.
    pub(crate) fn cache_pools(&self, last: &[u8]) {
        let cache = pools(last);
        fs::create_dir_all("/run/azure-vnet/ipam").unwrap();
        rpc::write_json(Path::new("/run/azure-vnet/ipam/pools.json"), &cache).unwrap();
    }

    /// Links, routes and files that are there now. What the IPAM plug-in remembers of released addresses does not count.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut files = BTreeSet::new();
        collect(Path::new("/run/azure-vnet"), &mut files);
        collect(Path::new("/sys/fs/bpf"), &mut files);
        files.retain(|path| {
            let remembered = ["released", "boot", "lock"]
                .iter()
                .any(|part| path.iter().any(|name| name == *part));
            !remembered
        });
        Snapshot {
            interfaces: interfaces(),
            routes: routes(),
            files,
        }
    }
}

/// Writes an executable. By another process: one that another test's thread starts meanwhile would inherit our open file, and
/// nobody can execute a file that somebody writes.
pub(crate) fn install(content: &[u8], path: &Path) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    install.stdin.take().unwrap().write_all(content).unwrap();
    assert!(install.wait().unwrap().success());
}

fn link_address(mut ip: Command, ifname: &str) -> String {
    let links = run(ip.args(["-json", "link", "show", ifname]));
    let links: Value = serde_json::from_slice(&links).unwrap();
    links[0]["address"].as_str().unwrap().to_owned()
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// What the loader tells of the node's addresses.
pub(crate) fn pools(last: &[u8]) -> Value {
    let secondary: Vec<String> = last.iter().map(|d| format!("10.240.0.{d}")).collect();
    json!({
        "boot_id": rpc::boot_id().unwrap(),
        "source": "wireserver",
        "read_at_ms": 1,
        "interfaces": [{
            "name": "eth0",
            "mac": "00:0d:3a:f9:dc:a6",
            "is_primary": true,
            "subnets": [{"prefix": "10.240.0.0/16", "primary": "10.240.0.4", "secondary": secondary}],
        }],
    })
}

fn interfaces() -> BTreeSet<String> {
    fs::read_to_string("/proc/thread-self/net/dev")
        .unwrap()
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

fn routes() -> BTreeSet<String> {
    // The first line is a header, or missing as long as the namespace never had a route.
    fs::read_to_string("/proc/thread-self/net/route")
        .unwrap()
        .lines()
        .skip(1)
        .map(str::to_owned)
        .collect()
}

fn collect(directory: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path);
        }
    }
}
