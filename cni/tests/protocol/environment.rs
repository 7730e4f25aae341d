//! What the environment may say, and what not.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

use serde_json::json;

use crate::exec::{AZURE_VNET, AZURE_VNET_IPAM, BOTH, Exec, netconf_with};
use crate::full::node;
use crate::loader::{Loader, Manner};
use crate::sandbox::{Sandbox, install};

/// Rows 11 and 12.
#[test]
fn every_missing_variable_is_named_at_once() {
    const MAIN: [&str; 4] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
    let _sandbox = Sandbox::new();
    let del = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"];
    for (program, verb, missing) in [
        (AZURE_VNET, "ADD", MAIN.as_slice()),
        (AZURE_VNET, "CHECK", &MAIN),
        (AZURE_VNET, "DEL", &del),
        (AZURE_VNET_IPAM, "ADD", &MAIN[..3]),
        (AZURE_VNET_IPAM, "DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
    ] {
        let exec = MAIN
            .iter()
            .fold(Exec::new(program, verb), |exec, name| exec.unset(name));
        exec.run().error_saying(4, missing);
    }
}

/// Rows 13, 15 and 16.
#[test]
fn ids_and_interface_names_that_break_the_rules_touch_nothing() {
    let sandbox = Sandbox::with_pod();
    let before = sandbox.snapshot();
    for program in BOTH {
        for verb in ["ADD", "DEL", "CHECK"] {
            for bad in ["../../etc", "a/b", "-x", ".x", "a b", "a\nb", "é", ""] {
                let answer = Exec::new(program, verb).env("CNI_CONTAINERID", bad).run();
                let shown: String = bad.chars().flat_map(char::escape_debug).collect();
                answer.error_saying(4, &["CNI_CONTAINERID", &shown]);
                assert!(!answer.error(4).contains('\n'));
            }
            for bad in [
                "abcdefghijklmnop",
                ".",
                "..",
                "a/b",
                "a:b",
                "a b",
                "a;b",
                "",
            ] {
                Exec::new(program, verb)
                    .env("CNI_IFNAME", bad)
                    .run()
                    .error_saying(4, &["CNI_IFNAME"]);
            }
            for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"] {
                let broken = OsStr::from_bytes(b"\xff\x01");
                Exec::new(program, verb)
                    .env(name, broken)
                    .run()
                    .error_saying(4, &[name]);
            }
        }
    }
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 14.
#[test]
fn a_long_id_works_and_never_collides_with_another() {
    let sandbox = Sandbox::with_pod();
    sandbox.cache_pools(&[5, 6, 7, 8, 9, 10, 11, 12]);
    let mut given = Vec::new();
    for length in [64, 253, 4096, 100_000] {
        for last in ["a", "b"] {
            let id = format!("{}{last}", "x".repeat(length - 1));
            let answer = sandbox
                .ipam("ADD")
                .env("CNI_CONTAINERID", &id)
                .run()
                .document();
            given.push(answer["ips"][0]["address"].to_string());
            sandbox
                .azure_vnet("ADD")
                .env("CNI_CONTAINERID", &id)
                .run()
                .error(11);
            sandbox
                .azure_vnet("DEL")
                .env("CNI_CONTAINERID", &id)
                .unset("CNI_NETNS")
                .run()
                .silence();
            sandbox
                .ipam("DEL")
                .env("CNI_CONTAINERID", &id)
                .run()
                .silence();
        }
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 8);
}

/// Rows 17, 18 and 19; a FIFO must not block, and nothing is changed.
#[test]
fn what_is_no_foreign_network_namespace_is_refused_before_anything_is_done() {
    let sandbox = Sandbox::new();
    let loader = Loader::start(Manner::Helpful);
    fs::write("/run/file", "").unwrap();
    nix::unistd::mkfifo("/run/fifo", Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/nowhere", "/run/dangling").unwrap();
    fs::write("/run/own", "").unwrap();
    let (own, none) = ("/proc/thread-self/ns/net", None::<&str>);
    mount(Some(own), "/run/own", none, MsFlags::MS_BIND, none).unwrap();
    let before = sandbox.snapshot();
    // In a PID namespace where the first process has the plug-in's network namespace.
    let mut first = Exec::new("/usr/bin/unshare", "ADD").env("CNI_NETNS", "/proc/1/ns/net");
    let arguments = ["--pid", "--fork", "--mount-proc", AZURE_VNET];
    first.command.args(arguments);
    first.run().error_saying(8, &["/proc/1/ns/net", "own"]);
    for path in [
        "/run/own",
        "/nowhere",
        "/run/file",
        "/run",
        "/run/fifo",
        "/run/azure-vnet/loader.sock",
        "/dev/null",
        "/proc/self/ns/mnt",
        "/run/dangling",
        "/proc/self/ns/net",
        "relative",
    ] {
        let answer = sandbox.azure_vnet("ADD").env("CNI_NETNS", path).run();
        answer.error_saying(8, &[path]);
        assert!(answer.took < Duration::from_secs(1));
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(loader.requests().is_empty());
}

/// Row 21: `ctr` passes `/proc/<pid>/ns/net`. Row 20: DEL does not care.
#[test]
fn a_namespace_of_a_process_is_fine_and_del_wants_none() {
    let sandbox = Sandbox::with_pod();
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("60");
    // SAFETY: only a system call between fork and exec.
    unsafe {
        sleeper.pre_exec(|| Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?));
    }
    let mut sleeper = sleeper.spawn().unwrap();
    let path = format!("/proc/{}/ns/net", sleeper.id());
    let before = sandbox.snapshot();
    // No loader: the namespace was accepted.
    sandbox
        .azure_vnet("ADD")
        .env("CNI_NETNS", &path)
        .run()
        .error(11);
    for netns in ["/proc/self/ns/net", "/nowhere", "", "/dev/null"] {
        sandbox
            .azure_vnet("DEL")
            .env("CNI_NETNS", netns)
            .run()
            .silence();
    }
    assert_eq!(sandbox.snapshot(), before);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

/// Row 25. Past the arguments, the next thing that is missed is the loader.
#[test]
fn a_runtime_without_kubernetes_needs_a_key_of_the_configuration() {
    let sandbox = Sandbox::with_pod();
    for (allowed, code, word) in [
        (json!(false), 100, "allowNonKubernetes"),
        (json!(true), 11, "loader"),
        (json!("yes"), 7, "allowNonKubernetes"),
    ] {
        let add = sandbox.azure_vnet("ADD").env("CNI_ARGS", "");
        add.conf(&netconf_with(json!({"allowNonKubernetes": allowed})))
            .run()
            .error_saying(code, &[word]);
    }
}

/// Rows 22 to 26.
#[test]
fn cni_args_are_read_strictly_and_the_pod_is_required() {
    let sandbox = Sandbox::with_pod();
    let pod = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web";
    for (args, code, word) in [
        (format!("{pod};X=1"), 4, "unknown args X"),
        (format!("X=1;{pod};IgnoreUnknown=1"), 11, "loader"),
        (format!("IgnoreUnknown=True;{pod};X=1"), 11, "loader"),
        ("A".into(), 4, "invalid pair"),
        ("A=B=C".into(), 4, "invalid pair"),
        (";".into(), 4, "invalid pair"),
        ("A=1;".into(), 4, "invalid pair"),
        (
            String::new(),
            100,
            "Pod Namespace not specified in CNI Args",
        ),
        (
            "K8S_POD_NAMESPACE=ns".into(),
            100,
            "Pod Name not specified in CNI Args",
        ),
        (
            format!(
                "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=%s$(reboot)\n{}",
                "x".repeat(253)
            ),
            11,
            "loader",
        ),
    ] {
        sandbox
            .azure_vnet("ADD")
            .env("CNI_ARGS", &args)
            .run()
            .error_saying(code, &[word]);
        sandbox
            .azure_vnet("DEL")
            .env("CNI_ARGS", &args)
            .run()
            .silence();
    }
    let log = fs::read_to_string("/var/log/azure-vnet.log").unwrap();
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// Rows 27 and 48.
#[test]
fn a_hostile_environment_changes_nothing() {
    let (sandbox, _loader) = node(Manner::Helpful);
    // One that rests is given to nobody who does not ask for it.
    let ipam = json!({"type": "azure-vnet-ipam", "ipAddress": "10.240.0.5"});
    let conf = netconf_with(json!({"cniVersion": "1.0.0", "ipam": ipam}));
    let main = |verb| sandbox.azure_vnet(verb).conf(&conf);
    let before = sandbox.snapshot();
    let undisturbed = main("ADD").run().document();
    main("DEL").run().silence();
    for (name, value) in [
        ("LD_PRELOAD", "/nonexistent.so"),
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "full"),
        ("PATH", ""),
        ("TMPDIR", "/nonexistent"),
        ("LC_ALL", "xx"),
        ("TZ", "bad"),
    ] {
        let added = main("ADD").env(name, value).run().document();
        assert_eq!(added, undisturbed, "{name}");
        main("DEL").env(name, value).run().silence();
        let ipam = |verb| sandbox.ipam(verb).conf(&conf).env(name, value);
        let answer = ipam("ADD").run().document();
        assert_eq!(answer["ips"][0]["address"], "10.240.0.5/16");
        ipam("DEL").run().silence();
        assert_eq!(sandbox.snapshot(), before, "{name}");
    }
}

/// Row 28.
#[test]
fn few_files_little_memory_and_any_umask_are_enough_and_files_keep_their_modes() {
    let (sandbox, _loader) = node(Manner::Helpful);
    for mask in [0o777, 0] {
        let limited = |mut exec: Exec| {
            // SAFETY: only system calls between fork and exec.
            unsafe {
                exec.command.pre_exec(move || {
                    // Of somebody who left files open.
                    for inherited in 20..26 {
                        Errno::result(libc::dup2(0, inherited))?;
                    }
                    setrlimit(Resource::RLIMIT_NOFILE, 32, 32)?;
                    setrlimit(Resource::RLIMIT_AS, 128 << 20, 128 << 20)?;
                    umask(Mode::from_bits_truncate(mask));
                    Ok(())
                });
            }
            exec.run()
        };
        for directory in ["endpoints", "locks", "ipam/leases", "ipam/owners"] {
            drop(fs::remove_dir_all(
                Path::new("/run/azure-vnet").join(directory),
            ));
        }
        let result = limited(sandbox.azure_vnet("ADD")).document();
        let address = result["ips"][0]["address"].as_str().unwrap();
        let lease = address.split('/').next().unwrap();
        for (path, mode) in [
            ("/run/azure-vnet/endpoints", 0o700),
            ("/run/azure-vnet/endpoints/azure:c1:eth0.json", 0o600),
            ("/run/azure-vnet/locks", 0o700),
            ("/run/azure-vnet/ipam/leases", 0o700),
            (&format!("/run/azure-vnet/ipam/leases/{lease}"), 0o600),
            ("/var/log/azure-vnet.log", 0o600),
            ("/var/log/azure-vnet-ipam.log", 0o600),
        ] {
            let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}, umask {mask:o}");
        }
        limited(sandbox.azure_vnet("DEL")).silence();
        limited(sandbox.ipam("ADD")).document();
        limited(sandbox.ipam("DEL")).silence();
    }
}

/// Row 99.
#[test]
fn without_root_nothing_is_tried() {
    let sandbox = Sandbox::with_pod();
    let before = sandbox.snapshot();
    for program in BOTH {
        for verb in ["ADD", "DEL"] {
            let copy = "/run/plug-in";
            install(&fs::read(program).unwrap(), Path::new(copy));
            fs::set_permissions("/run", fs::Permissions::from_mode(0o755)).unwrap();
            let plugins = sandbox.add_plugin("azure-vnet-ipam", "exit 1");
            let mut exec = Exec::new(copy, verb).env("CNI_PATH", plugins);
            exec.command.uid(65_534).gid(65_534);
            exec.run()
                .error_saying(101, &["root", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        }
    }
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 95, as far as it can be shown without setting the machine's clock: whoever does not look cannot be misled.
#[test]
fn only_the_log_looks_at_the_wall_clock() {
    fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let cni = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for directory in ["src", "../crates/netconf/src", "../crates/rpc/src"] {
        sources(&cni.join(directory), &mut found);
    }
    assert!(found.len() > 40);
    let looks = |text: &str| {
        ["SystemTime", ".modified()", ".mtime", "CLOCK_REALTIME"]
            .iter()
            .any(|word| text.contains(word))
    };
    found.retain(|path| looks(&fs::read_to_string(path).unwrap()));
    assert_eq!(found, [cni.join("src/clock.rs")]);
    let calls = |path: &str| {
        fs::read_to_string(cni.join(path))
            .unwrap()
            .matches("clock::utc")
            .count()
    };
    assert_eq!(calls("src/program.rs"), 1);
}
