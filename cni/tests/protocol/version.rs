//! VERSION and odd commands.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::mount::{MsFlags, mount};

use crate::exec::{AZURE_VNET_IPAM, BOTH, Exec, netconf, run_with_open_stdin};
use crate::full::node;
use crate::loader::Manner;
use crate::sandbox::Sandbox;

const SUPPORTED: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// Rows 1, 2, 5.
#[test]
fn version_lists_every_version_whatever_else_is_said() {
    for program in BOTH {
        let bare = || Exec::bare(program).env("CNI_COMMAND", "VERSION");
        let dummies = ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]
            .into_iter()
            .fold(bare(), |exec, name| exec.env(name, "dummy"));
        for exec in [
            bare(),
            dummies.env("CNI_CONTAINERID", ""),
            bare().conf(&netconf()),
        ] {
            let answer = exec.run().document();
            assert_eq!(answer["supportedVersions"], serde_json::json!(SUPPORTED));
            assert!(SUPPORTED.contains(&answer["cniVersion"].as_str().unwrap()));
        }
    }
}

/// Row 3.
#[test]
fn version_does_not_wait_for_standard_input() {
    for program in BOTH {
        let exec = Exec::bare(program).env("CNI_COMMAND", "VERSION");
        let answer = run_with_open_stdin(exec, Duration::from_millis(200));
        assert!(answer.is_some_and(|text| text.contains("supportedVersions")));
    }
}

/// Row 4.
#[test]
fn version_creates_nothing_and_is_quick() {
    let _sandbox = Sandbox::new();
    for program in BOTH {
        let answer = Exec::new(program, "VERSION").run();
        answer.document();
        assert!(answer.took < Duration::from_millis(50), "{:?}", answer.took);
    }
    assert_eq!(fs::read_dir("/var/log").unwrap().count(), 0);
    assert!(!fs::exists("/run/azure-vnet").unwrap());
}

/// Row 6.
#[test]
fn without_a_command_it_tells_about_itself_on_standard_error() {
    for program in BOTH {
        let answer = Exec::bare(program).run();
        answer.silence();
        assert!(
            answer
                .stderr
                .contains("CNI protocol versions supported: 0.1.0, "),
            "{answer}"
        );
    }
}

/// Row 7, and what only the main plug-in does.
#[test]
fn an_unknown_command_is_told_by_name() {
    let _sandbox = Sandbox::new();
    for program in BOTH {
        for command in ["FOO", "add", "ADD ", "gc"] {
            Exec::new(program, command)
                .run()
                .error_saying(4, &["CNI_COMMAND", command.trim(), "ADD, CHECK, DEL, GC"]);
        }
    }
    for command in ["UPDATE", "GET_ENDPOINT_STATE"] {
        Exec::new(AZURE_VNET_IPAM, command)
            .run()
            .error_saying(4, &["CNI_COMMAND", command]);
    }
}

/// Row 9: CNS splits the line into exactly four words.
#[test]
fn the_version_flag_prints_four_words_and_the_help_flag_usage() {
    let _sandbox = Sandbox::new();
    for program in BOTH {
        for flag in ["-v", "--version"] {
            let mut exec = Exec::bare(program);
            exec.command.arg(flag);
            let text = exec.run().stdout;
            let words: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(words[..3], ["Azure", "CNI", "Version"]);
            assert_eq!(words[3..], [concat!("v", env!("CARGO_PKG_VERSION"))]);
        }
        for flag in ["-h", "--help"] {
            let mut exec = Exec::bare(program);
            exec.command.arg(flag);
            assert!(exec.run().stdout.contains("Usage: "));
        }
        let mut exec = Exec::bare(program);
        exec.command.arg("--nonsense");
        assert_eq!(exec.run().status.code(), Some(1));
    }
}

/// What root starts afterwards has no capability.
fn drop_capabilities(exec: &mut Exec) {
    let drop_all = || {
        // The kernel refuses the number after its last one.
        for capability in 0..64 {
            // SAFETY: only a system call, between fork and exec.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                let error = io::Error::last_os_error();
                return match error.raw_os_error() {
                    Some(libc::EINVAL) if capability > 0 => Ok(()),
                    _ => Err(error),
                };
            }
        }
        Ok(())
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { exec.command.pre_exec(drop_all) };
}

/// Row 4, where nothing can be written, by somebody who may do nothing.
#[test]
fn version_needs_no_directory_to_write_to_and_no_capability() {
    let _sandbox = Sandbox::new();
    fs::create_dir("/run/azure-vnet").unwrap();
    for target in ["/run", "/var/log", "/sys/fs/bpf"] {
        let none: Option<&str> = None;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, target, none, flags, none).unwrap();
    }
    assert!(fs::write("/run/azure-vnet/x", "").is_err() && fs::write("/var/log/x", "").is_err());
    let mut proof = Exec::bare("/bin/grep");
    let none = "CapEff:\t0000000000000000";
    proof.command.args([none, "/proc/self/status"]);
    drop_capabilities(&mut proof);
    assert!(proof.run().stdout.contains(none));
    for program in BOTH {
        let mut exec = Exec::new(program, "VERSION");
        drop_capabilities(&mut exec);
        let usual = Exec::new(program, "VERSION").run().document();
        assert_eq!(exec.run().document(), usual);
    }
}

/// Row 10; as with `env -i`, nothing but the variables of CNI is in the environment.
#[test]
fn a_symlink_and_a_deleted_working_directory_change_nothing() {
    let (sandbox, _loader) = node(Manner::Helpful);
    let links = Path::new("/run/links");
    fs::create_dir(links).unwrap();
    for program in BOTH {
        let link = links.join(Path::new(program).file_name().unwrap());
        symlink(program, &link).unwrap();
        let odd = |verb| {
            let gone = "/run/gone";
            fs::create_dir(gone).unwrap();
            let mut exec = Exec::new("/bin/sh", verb);
            exec.command
                .args(["-c", "rmdir \"$PWD\" && exec \"$0\""])
                .arg(&link)
                .current_dir(gone);
            exec.run()
        };
        let usual = |verb| Exec::new(program, verb).run();
        assert_eq!(odd("VERSION").document(), usual("VERSION").document());
        let before = sandbox.snapshot();
        // The same attachment, so the same answer.
        assert_eq!(odd("ADD").document(), usual("ADD").document());
        odd("DEL").silence();
        assert_eq!(sandbox.snapshot(), before);
    }
}
