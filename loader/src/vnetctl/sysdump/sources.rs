//! What a dump is made of: files, and what other programs say. Nothing here has an environment in it, or the map `secret`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::utsname::uname;

use super::Entry;
use crate::bounded::bounded;

/// Of a file or an output, the last so many bytes.
const MOST: u64 = 2 << 20;
/// Files of a folder.
const FILES: usize = 2000;

/// Our logs and their rotated files are in this folder, and begin like this.
const LOGS: (&str, &str) = ("/var/log", "azure-vnet");

const PATHS: [&str; 18] = [
    "/etc/azure-vnet",
    "/etc/azure-vnet/masq",
    "/etc/cni/net.d",
    "/etc/os-release",
    "/etc/systemd/networkd.conf",
    "/etc/systemd/networkd.conf.d",
    "/etc/systemd/network",
    "/proc/cmdline",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/net/softnet_stat",
    "/proc/net/snmp",
    "/run/azure-vnet",
    "/run/azure-vnet.json",
    "/run/azure-vnet-ipam.json",
    "/run/azure-vnet/endpoints",
    "/run/azure-vnet/ipam",
    "/run/azure-vnet/ipam/leases",
];

const COMMANDS: [&str; 22] = [
    "bpftool map show",
    "bpftool net",
    "bpftool prog show",
    "conntrack -S",
    "df -h /run /var/log",
    "dmesg -T",
    "ip -d -s link",
    "ip address",
    "ip neigh",
    "ip route show table all",
    "ip rule",
    "iptables-save",
    "journalctl -u azure-vnet-loader -n 2000 --no-pager",
    "ls -lR /opt/cni/bin /sys/fs/bpf/azure-vnet /run/azure-vnet",
    "nft list ruleset",
    "ss -s",
    "sysctl -a -r ^net.(core.bpf|ipv4.(ip_|conf))",
    "systemctl status azure-vnet-loader --no-pager -n 0",
    "tc -s qdisc",
    "timedatectl status",
    "uname -a",
    "uptime",
];

pub(super) fn all() -> Vec<Entry> {
    let mut entries: Vec<Entry> = PATHS
        .iter()
        .flat_map(|path| files(Path::new(path)))
        .chain(logs())
        .collect();
    thread::scope(|scope| {
        let running: Vec<_> = COMMANDS
            .iter()
            .map(|line| scope.spawn(move || command(line)))
            .collect();
        entries.extend(running.into_iter().filter_map(|thread| thread.join().ok()));
    });
    entries
}

pub(super) fn node_name() -> String {
    let name = uname().map(|name| name.nodename().to_string_lossy().into_owned());
    name.unwrap_or_else(|_| "node".to_owned())
}

/// A file, or the plain files of a folder.
fn files(path: &Path) -> Vec<Entry> {
    if path.is_dir() {
        let mut paths = listed(path);
        paths.truncate(FILES);
        read(paths)
    } else {
        read(vec![path.to_owned()])
    }
}

fn logs() -> Vec<Entry> {
    let (folder, prefix) = LOGS;
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.starts_with(prefix))
    };
    let all = listed(Path::new(folder)).into_iter();
    read(all.filter(is_ours).collect())
}

/// What is in a folder, in the order of the names.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}

fn read(mut paths: Vec<PathBuf>) -> Vec<Entry> {
    paths.retain(|path| path.is_file());
    paths.iter().map(PathBuf::as_path).map(file).collect()
}

fn file(path: &Path) -> Entry {
    let end = || {
        let mut file = File::open(path)?;
        let before = file.metadata()?.len().saturating_sub(MOST);
        file.seek(SeekFrom::Start(before))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        std::io::Result::Ok(whole_lines(&bytes, before > 0))
    };
    Entry {
        name: format!("files{}", path.display()),
        text: end().unwrap_or_else(|error| format!("not to be had: {error}\n")),
    }
}

/// What is left of a line that was cut may be half a secret, whose name is gone.
fn whole_lines(bytes: &[u8], is_cut: bool) -> String {
    let half = if is_cut {
        let newline = bytes.iter().position(|byte| *byte == b'\n');
        newline.map_or(bytes.len(), |at| at + 1)
    } else {
        0
    };
    String::from_utf8_lossy(bytes.get(half..).unwrap_or_default()).into_owned()
}

/// What a program says, or why it does not. `timeout` ends one that hangs.
fn command(line: &str) -> Entry {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let run = bounded(program).args(words).output();
    let text = match run {
        Ok(done) => {
            let of = |bytes: &[u8]| {
                let most = usize::try_from(MOST).unwrap_or(usize::MAX);
                let before = bytes.len().saturating_sub(most);
                whole_lines(bytes.get(before..).unwrap_or_default(), before > 0)
            };
            let ended = if done.status.success() {
                String::new()
            } else {
                format!("{}\n", done.status)
            };
            of(&done.stdout) + &of(&done.stderr) + &ended
        }
        Err(error) => format!("not to be had: {error}\n"),
    };
    let name = line.replace([' ', '/'], "_");
    Entry {
        name: format!("commands/{name}"),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_begins_with_a_whole_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let most = usize::try_from(MOST).unwrap();
        let long = "x".repeat(most - "et\"}\nkept\n".len());
        // The cut is in the first line's value.
        let text = format!("{{\"token\":\"s3cret\"}}\nkept\n{long}");
        fs::write(file.path(), &text).unwrap();
        assert!(text[text.len() - most..].starts_with("et\"}"));
        assert_eq!(super::file(file.path()).text, format!("kept\n{long}"));
        fs::write(file.path(), "short\nkept").unwrap();
        assert_eq!(super::file(file.path()).text, "short\nkept");
    }

    #[test]
    fn an_output_that_is_too_long_begins_with_a_whole_line() {
        assert_eq!(whole_lines(b"ret\"}\nkept\nend", true), "kept\nend");
        assert_eq!(whole_lines(b"one endless line", true), "");
        assert_eq!(whole_lines(b"a\nb", false), "a\nb");
    }
}
