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
        "nothing is known about leaked addresses: this process is in another network namespace than the CNI plug-ins, where no pod's veth and no route can be seen; run it on the node itself (a container: hostNetwork: true)"
    )]
    Network,
    /// No pod's namespace is bound to its path in this mount namespace.
    #[error(
        "nothing is known about leaked addresses: this process is in another mount namespace than the CNI plug-ins, and what is mounted at {} later does not appear here; run it on the node itself (a container: mount the host's /run with mountPropagation: HostToContainer)", .0.display()
    )]
    Mounts(PathBuf),
    /// Another process has the number here, or none.
    #[error(
        "nothing is known about leaked addresses: this process is in another PID namespace than the CNI plug-ins, and {} is a namespace of a process; run it on the node itself (a container: hostPID: true)", .0.display()
    )]
    Processes(PathBuf),
}

/// Whether the namespaces of these leases would be seen from here as the plug-ins saw them that wrote the leases.
pub(crate) fn require(run: &RunDirectory, leases: &[&Lease]) -> Result<(), Blind> {
    let here = View::here();
    let mut mounts = None;
    for lease in leases {
        let (there, netns) = (lease.view, Path::new(&lease.netns));
        if there == View::default() {
            continue;
        }
        if there.net != here.net {
            return Err(Blind::Network);
        }
        if lease.netns.is_empty() {
            continue;
        }
        if netns.starts_with("/proc") {
            if there.pids != here.pids {
                return Err(Blind::Processes(netns.to_owned()));
            }
        } else if there.mounts != here.mounts {
            let mounts = mounts.get_or_insert_with(|| {
                fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default()
            });
            let directory = netns.parent().unwrap_or(netns);
            if !is_followed(directory, run.root(), mounts) {
                return Err(Blind::Mounts(directory.to_owned()));
            }
        }
    }
    Ok(())
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
        let judge = |netns: &str, view: View| {
            let lease = serde_json::json!({"network": "azure", "container_id": "c1", "ifname": "eth0",
                "ip": "10.240.0.5", "prefix": 16, "gateway": "10.240.0.1", "boot_id": "", "netns": netns, "view": view});
            let lease: Lease = serde_json::from_value(lease).unwrap();
            require(&run, &[&lease]).map_err(|blind| blind.to_string())
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
    }
}
