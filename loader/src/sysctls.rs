//! The kernel's settings that pods' traffic needs, and who flips them finds them flipped back.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use tracing::{debug, warn};

use crate::daemon::Daemon;
use crate::devconf::Devices;
use crate::nic::Names;
use crate::repairs::Repair;
use crate::stack::Known;
use crate::trouble::{Topic, WrongLinks};

/// A setting cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("set {path} to {value}: {source}; pods need it")]
pub struct SysctlError {
    /// The file below /proc/sys.
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// Turns IPv4 forwarding on. `true`: it was off.
pub fn enable_forwarding() -> Result<bool, SysctlError> {
    Settings::below("/proc/sys/net/ipv4").ensure("ip_forward", "1")
}

/// The settings of interfaces.
///
/// All network namespaces of a machine have their own `/proc/sys/net/ipv4` in one and the same directory of the kernel's, which compares
/// all of them whenever that name is looked up: with 250 pods most of what an idle loader would do.
pub(crate) struct Interfaces {
    ipv4: Settings,
    ipv6: Settings,
}

impl Interfaces {
    /// To be opened for one look.
    pub(crate) fn open() -> Self {
        Self {
            ipv4: Settings::below("/proc/sys/net/ipv4/conf"),
            ipv6: Settings::below("/proc/sys/net/ipv6/conf"),
        }
    }

    /// Turns forwarding of what comes in by the NIC on. `true`: it was off.
    pub(crate) fn ensure_nic(&self, nic: &str) -> Result<bool, SysctlError> {
        self.ipv4.ensure(&of(nic, "forwarding"), "1")
    }

    /// A host veth's: forwarding, and what ADD has set (`cni/src/sysctl.rs`). `true`: one of them was another.
    pub(crate) fn ensure_veth(&self, veth: &str) -> Result<bool, SysctlError> {
        let settings = [
            (&self.ipv4, "forwarding", "1"),
            (&self.ipv4, "accept_redirects", "0"),
            (&self.ipv6, "disable_ipv6", "1"),
        ];
        let set = settings.map(|(below, name, value)| below.ensure(&of(veth, name), value));
        // All of them, whatever comes of the first.
        set.into_iter()
            .try_fold(false, |changed, set| Ok(changed | set?))
    }
}

impl Daemon {
    /// Asks about all pods at once, and sets those that differ; where the kernel does not tell, all.
    pub(crate) fn repair_settings(&self, pods: &[Known]) {
        let nic = self.node.borrow().nic.clone();
        let interfaces = Interfaces::open();
        let mut looks = vec![
            (0, "the node".to_owned(), enable_forwarding()),
            (
                nic.nic_ifindex,
                nic.nic.clone(),
                interfaces.ensure_nic(&nic.nic),
            ),
        ];
        let look = Devices::take();
        if let Err(error) = &look {
            debug!(%error, "ask for the settings of all interfaces");
        }
        let names = Names::open();
        let is_suspect = |ifindex: &u32| match &look {
            Ok(look) => look.differing.contains(ifindex),
            Err(_) => true,
        };
        let ifindexes = pods.iter().map(|(_, pod)| pod.ifindex.get());
        for ifindex in ifindexes.filter(is_suspect) {
            if let Some(veth) = names.of(ifindex) {
                let set = interfaces.ensure_veth(&veth);
                looks.push((ifindex, veth, set));
            }
        }
        let (mut changed, mut wrong) = (Vec::new(), WrongLinks::new());
        for (ifindex, name, set) in looks {
            match set {
                Ok(false) => {}
                Ok(true) => changed.push(name),
                Err(error) => drop(wrong.insert(ifindex, error.to_string())),
            }
        }
        if !changed.is_empty() {
            warn!(of = ?changed, "settings below /proc/sys/net were changed: set again");
            Repair::Setting.add(changed.len());
        }
        let clash = self.configuration.borrow().clash();
        self.judge(Topic::Ports, clash);
        self.judge_links(Topic::Settings, &wrong);
    }
}

fn of(interface: &str, name: &str) -> String {
    format!("{interface}/{name}")
}

/// A directory of settings.
struct Settings {
    path: &'static str,
    directory: nix::Result<OwnedFd>,
}

impl Settings {
    fn below(path: &'static str) -> Self {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Self {
            path,
            directory: open(path, flags, Mode::empty()),
        }
    }

    /// An interface that is gone and a kernel without the protocol have nothing to be told.
    fn ensure(&self, name: &str, value: &'static str) -> Result<bool, SysctlError> {
        match self.set(name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map_err(|source| SysctlError {
                path: Path::new(self.path).join(name),
                value,
                source,
            }),
        }
    }

    fn set(&self, name: &str, value: &str) -> io::Result<bool> {
        let mut found = [0; 16];
        let length = self.file(name, OFlag::O_RDONLY)?.read(&mut found)?;
        let found = found.get(..length).unwrap_or_default();
        if found.trim_ascii() == value.as_bytes() {
            return Ok(false);
        }
        self.file(name, OFlag::O_WRONLY)?
            .write_all(value.as_bytes())?;
        Ok(true)
    }

    fn file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let directory = self.directory.as_ref().map_err(|errno| *errno)?;
        let file = openat(directory, name, flags | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(file.into())
    }
}
