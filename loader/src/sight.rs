//! Would this process see the pods' network namespaces? One that does not must not take them for gone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rpc::{Lease, RunDirectory, View};

/// What is not seen from here proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Blind {
    /// No veth and no route of a pod is in this network namespace.
    #[error(
        "this process is in another network namespace than the CNI plug-ins, where no pod's veth and no route can be seen; run it on the node itself (a container: hostNetwork: true)"
    )]
    Network,
    /// No pod's namespace is bound to its path in this mount namespace.
    #[error(
        "this process is in another mount namespace than the CNI plug-ins, and what is mounted at {} later does not appear here; run it on the node itself (a container: mount the host's /run with mountPropagation: HostToContainer)", .0.display()
    )]
    Mounts(PathBuf),
    /// Another process has the number here, or none.
    #[error(
        "this process is in another PID namespace than the CNI plug-ins, and {} is a namespace of a process; run it on the node itself (a container: hostPID: true)", .0.display()
    )]
    Processes(PathBuf),
}

/// What this process sees.
pub(crate) struct Sight<'a> {
    run: &'a RunDirectory,
    here: View,
    mounts: String,
}

impl<'a> Sight<'a> {
    pub(crate) fn from_here(run: &'a RunDirectory) -> Self {
        Self {
            run,
            here: View::here(),
            mounts: fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default(),
        }
    }

    /// An error when the namespace of none of these leases would be seen from here. One alone was written from elsewhere.
    pub(crate) fn require(&self, leases: &[&Lease]) -> Result<(), Blind> {
        let mut blind = None;
        let with_view = leases.iter().filter(|lease| lease.view != View::default());
        for lease in with_view {
            match self.of(lease) {
                Ok(()) => return Ok(()),
                Err(why) => blind = Some(why),
            }
        }
        blind.map_or(Ok(()), Err)
    }

    /// Whether the lease's namespace would be seen from here as the plug-in saw it that wrote the lease.
    pub(crate) fn of(&self, lease: &Lease) -> Result<(), Blind> {
        let (there, netns) = (lease.view, Path::new(&lease.netns));
        if there == View::default() {
            return Ok(());
        }
        if there.net != self.here.net {
            return Err(Blind::Network);
        }
        if lease.netns.is_empty() {
            return Ok(());
        }
        if netns.starts_with("/proc") {
            if there.pids != self.here.pids {
                return Err(Blind::Processes(netns.to_owned()));
            }
        } else if there.mounts != self.here.mounts {
            let directory = netns.parent().unwrap_or(netns);
            if !is_followed(directory, self.run.root(), &self.mounts) {
                return Err(Blind::Mounts(directory.to_owned()));
            }
        }
        Ok(())
    }
}

/// Whether `directory` is the node's, as the run directory beside it is, and follows what is mounted there.
fn is_followed(directory: &Path, run: &Path, mounts: &str) -> bool {
    let Ok(directory) = fs::canonicalize(directory) else {
        return false;
    };
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    device(&directory).is_some_and(|found| device(run) == Some(found))
        && receives(&directory, mounts)
}

/// Whether the mount that `path` is in receives what is mounted in another namespace: `man 7 mount_namespaces`, "master".
fn receives(path: &Path, mounts: &str) -> bool {
    // `36 35 98:0 /mnt1 /mnt2 rw,noatime shared:5 master:1 - ext3 /dev/root rw`; of mounts at one place the last one counts.
    let found = mounts
        .lines()
        .filter_map(|line| {
            let (fields, _) = line.split_once(" - ")?;
            let at = Path::new(fields.split(' ').nth(4)?);
            path.starts_with(at)
                .then(|| (at.components().count(), fields))
        })
        .max_by_key(|(depth, _)| *depth);
    found.is_some_and(|(_, fields)| {
        fields
            .split(' ')
            .skip(6)
            .any(|field| field.starts_with("master:"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_receives_when_it_has_a_master_and_nothing_of_our_own_lies_above() {
        let mounts = "1 0 0:1 / / rw master:9 - overlay overlay rw\n\
            2 1 0:2 / /run rw,nosuid shared:3 master:2 - tmpfs tmpfs rw\n\
            3 2 0:2 /netns /run/netns rw - tmpfs tmpfs rw\n\
            4 2 0:3 / /run/shared rw shared:4 - tmpfs tmpfs rw\n\
            5 2 0:3 / /run/twice rw master:4 - tmpfs tmpfs rw\n\
            6 5 0:3 / /run/twice rw - tmpfs tmpfs rw";
        for (path, wanted) in [
            ("/run/docker/netns", true),
            ("/runner", true),
            ("/run/netns", false),
            ("/run/shared/x", false),
            ("/run/twice", false),
        ] {
            assert_eq!(receives(Path::new(path), mounts), wanted, "{path}");
        }
        assert!(!receives(Path::new("/run"), ""));
    }

    /// A pod's own view of the node, and a container's.
    #[test]
    fn who_is_in_other_namespaces_than_the_plug_ins_is_told_to_go_to_the_node() {
        let run = RunDirectory::at("/run/azure-vnet");
        let here = View::here();
        let lease = |netns: &str, view: View| -> Lease {
            let lease = serde_json::json!({"network": "azure", "container_id": "c1", "ifname": "eth0",
                "ip": "10.240.0.5", "prefix": 16, "gateway": "10.240.0.1", "boot_id": "", "netns": netns, "view": view});
            serde_json::from_value(lease).unwrap()
        };
        let sight = Sight::from_here(&run);
        let judge = |netns: &str, view: View| {
            sight
                .of(&lease(netns, view))
                .map_err(|blind| blind.to_string())
        };
        let (file, process) = ("/run/netns/x", "/proc/7/ns/net");
        for netns in [file, process, ""] {
            judge(netns, here).unwrap();
            judge(netns, View::default()).unwrap();
            let net = judge(netns, View { net: 1, ..here }).unwrap_err();
            assert!(net.contains("hostNetwork"), "{net}");
        }
        let mounts = judge("/nowhere/x", View { mounts: 1, ..here }).unwrap_err();
        assert!(mounts.contains("at /nowhere later") && mounts.contains("HostToContainer"));
        judge(process, View { mounts: 1, ..here }).unwrap();
        let pids = judge(process, View { pids: 1, ..here }).unwrap_err();
        assert!(pids.contains("hostPID"), "{pids}");
        judge(file, View { pids: 1, ..here }).unwrap();

        let odd = lease(file, View { net: 1, ..here });
        let (fine, old) = (lease(file, here), lease(file, View::default()));
        sight.require(&[&odd, &fine]).unwrap();
        sight.require(&[&old]).unwrap();
        sight.require(&[&odd, &old]).unwrap_err();
    }
}
