//! Calls that end otherwise than they should: told to, unheard, without room.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::exec::{AZURE_VNET, netconf, pass};
use crate::full::node;
use crate::loader::Manner;

/// Row 92: Rust would open `/dev/null` in the place of a closed standard output, and nobody would ever see the result.
#[test]
fn a_result_for_a_closed_standard_output_is_taken_back() {
    let (sandbox, _loader) = node(Manner::Helpful);
    fs::write("/run/conf", netconf().to_string()).unwrap();
    let before = sandbox.snapshot();
    let run = |script: &str| {
        let exec = sandbox.azure_vnet("ADD");
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().envs(
            exec.command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        shell.args(["-c", script, AZURE_VNET]).output().unwrap()
    };
    let ended = run("exec \"$0\" < /run/conf >&-");
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(
        told.contains("write to standard output: Bad file descriptor"),
        "{told}"
    );
    assert_eq!(sandbox.snapshot(), before);
    // Whoever throws the result away on purpose may.
    assert!(run("exec \"$0\" < /run/conf > /dev/null").status.success());
    sandbox.azure_vnet("DEL").run().silence();
}

/// Row 93: done as a whole, or undone as a whole, and told.
#[test]
fn a_call_that_is_told_to_end_is_done_or_undone() {
    let (sandbox, _loader) = node(Manner::Helpful);
    fs::write("/run/conf", netconf().to_string()).unwrap();
    let before = sandbox.snapshot();
    let mut ends = [0; 3];
    for round in 0..40_u64 {
        let signal = [Signal::SIGTERM, Signal::SIGINT][usize::from(round % 2 == 0)];
        let mut exec = sandbox.azure_vnet("ADD");
        let child = exec
            .command
            .stdin(fs::File::open("/run/conf").unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        pass(Duration::from_millis(round));
        // It may have ended by itself.
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap_or_default();
        let ended = child.wait_with_output().unwrap();
        match ended.status.code() {
            Some(0) => {
                ends[0] += 1;
                let result: Value = serde_json::from_slice(&ended.stdout).unwrap();
                assert_eq!(sandbox.azure_vnet("ADD").run().document(), result);
            }
            Some(1) => {
                ends[1] += 1;
                let error: Value = serde_json::from_slice(&ended.stdout).unwrap();
                assert_eq!(error["code"], 11, "{error}");
                assert_eq!(sandbox.snapshot(), before);
            }
            // Before the first thing was done.
            code => {
                ends[2] += 1;
                assert_eq!(code, None);
                assert_eq!(sandbox.snapshot(), before);
            }
        }
        sandbox.azure_vnet("DEL").run().silence();
        assert_eq!(sandbox.snapshot(), before, "round {round}");
    }
    println!(
        "done {}, undone {}, not begun {}",
        ends[0], ends[1], ends[2]
    );
}

/// The same, where it is certain that something was made.
#[test]
fn a_call_that_is_told_to_end_in_its_middle_says_so_with_code_11() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let before = sandbox.snapshot();
    let script = r#"[ $CNI_COMMAND = ADD ] || exit 0
kill -TERM $PPID; echo '{"ips":[{"address":"10.240.0.5/16"}]}'"#;
    let plugins = sandbox.add_plugin("azure-vnet-ipam", script);
    sandbox
        .azure_vnet("ADD")
        .env("CNI_PATH", plugins)
        .env("PATH", "/usr/bin:/bin")
        .run()
        .error_saying(11, &["SIGTERM", "failed at step `print`"]);
    assert_eq!(sandbox.snapshot(), before);
}

/// What a writer that was killed has left is taken away by the next call; another attachment's is not.
#[test]
fn half_written_files_of_killed_calls_are_swept() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let endpoints = "/run/azure-vnet/endpoints";
    sandbox.azure_vnet("ADD").run().document();
    sandbox.azure_vnet("DEL").run().silence();
    for path in ["leases/10.240.0.77.tmp", "owners/77.77.tmp"] {
        fs::write(format!("/run/azure-vnet/ipam/{path}"), "half").unwrap();
    }
    for name in ["azure:c1:eth0.77.tmp", "azure:c1:eth0.7.77.tmp"] {
        fs::write(format!("{endpoints}/{name}"), "half").unwrap();
    }
    fs::write("/run/azure-vnet/locks/azure:c1:eth0", "{}\n").unwrap();
    sandbox.azure_vnet("DEL").run().silence();
    let left: Vec<String> = fs::read_dir(endpoints)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["azure:c1:eth0.7.77.tmp"]);
    for directory in ["leases", "owners"] {
        let path = format!("/run/azure-vnet/ipam/{directory}");
        assert_eq!(fs::read_dir(path).unwrap().count(), 0, "{directory}");
    }
}

pub(crate) fn mount_small(path: &str, options: &str) {
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options),
    )
    .unwrap();
}

fn mount_full(path: &str) {
    mount_small(path, "size=8k");
    fs::write(format!("{path}/filler"), vec![0; 8192]).unwrap_or_default();
}

/// Rows 53 and 94: no room, or no right to write, for state, locks and log.
#[test]
fn a_full_or_read_only_directory_is_named_and_all_is_undone() {
    for (directory, is_full) in [
        ("endpoints", true),
        ("endpoints", false),
        ("locks", true),
        ("locks", false),
        ("ipam/leases", true),
        ("ipam/leases", false),
        ("ipam/owners", true),
    ] {
        let (sandbox, _loader) = node(Manner::Helpful);
        sandbox.azure_vnet("ADD").run().document();
        sandbox.azure_vnet("DEL").run().silence();
        let path = format!("/run/azure-vnet/{directory}");
        let none: Option<&str> = None;
        if is_full {
            mount_full(&path);
        } else {
            mount(
                Some("tmpfs"),
                path.as_str(),
                Some("tmpfs"),
                MsFlags::MS_RDONLY,
                none,
            )
            .unwrap();
        }
        let before = sandbox.snapshot();
        sandbox
            .azure_vnet("ADD")
            .run()
            .error_saying(5, &[&path, "failed at step"]);
        assert_eq!(sandbox.snapshot(), before, "{directory}");
        nix::mount::umount(path.as_str()).unwrap();
        sandbox.azure_vnet("ADD").run().document();
        sandbox.azure_vnet("DEL").run().silence();
    }
}

/// Row 94: a log that cannot be written is nobody's business.
#[test]
fn a_full_or_read_only_log_fails_nothing() {
    let (sandbox, _loader) = node(Manner::Helpful);
    mount_full("/var/log");
    sandbox.azure_vnet("ADD").run().document();
    let none: Option<&str> = None;
    mount(
        Some("tmpfs"),
        "/var/log",
        Some("tmpfs"),
        MsFlags::MS_RDONLY,
        none,
    )
    .unwrap();
    sandbox.azure_vnet("DEL").run().silence();
}
