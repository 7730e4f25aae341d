//! The main plug-in and an IPAM plug-in that may do anything.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::exec::{Exec, netconf_with};
use crate::full::node;
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

/// ADD with `script` as its IPAM plug-in, which notes each verb that it is asked for.
fn add(sandbox: &Sandbox, script: &str) -> Exec {
    let noting =
        format!("echo $CNI_COMMAND >> /run/verbs; [ $CNI_COMMAND = ADD ] || exit 0\n{script}");
    let plugins = sandbox.add_plugin("fake", &noting);
    sandbox
        .azure_vnet("ADD")
        .env("CNI_PATH", plugins)
        .env("PATH", "/usr/bin:/bin")
        .conf(&netconf_with(
            json!({"ipam": {"type": "fake", "ranges": [[{"subnet": "10.0.0.0/24"}]]}}),
        ))
}

/// Row 54.
#[test]
fn an_error_of_the_ipam_plugin_comes_out_as_it_is_and_it_is_deleted() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Helpful);
    let before = sandbox.snapshot();
    let script =
        r#"echo '{"cniVersion":"0.3.0","code":11,"msg":"no luck","details":"today"}'; exit 1"#;
    add(&sandbox, script)
        .run()
        .error_saying(11, &["no luck; today"]);
    assert_eq!(fs::read_to_string("/run/verbs").unwrap(), "ADD\nDEL\n");
    assert_eq!(sandbox.snapshot(), before);
}

/// Row 55, all that ends by itself.
#[test]
fn whatever_the_ipam_plugin_answers_nothing_is_left() {
    let sandbox = Sandbox::with_pod();
    let loader = Loader::start(Manner::Helpful);
    let before = sandbox.snapshot();
    for (script, word) in [
        ("echo '{}'", "no IPv4 address"),
        (r#"echo '{"ips":[]}'"#, "no IPv4 address"),
        (r#"echo '{"ips":[{"address":"10.0.0.5"}]}'"#, "10.0.0.5"),
        (
            r#"echo '{"ips":[{"address":"10.0.0.5/77"}]}'"#,
            "10.0.0.5/77",
        ),
        (
            r#"echo '{"ips":[{"address":"fd00::5/64"}]}'"#,
            "no IPv4 address",
        ),
        (r#"echo '{"ip4":{"ip":"127.0.0.1/8"}}'"#, "127.0.0.1/8"),
        (
            r#"echo '{"ips":[{"address":"10.0.0.5/16","interface":0}]}'"#,
            "has `interface`",
        ),
        ("echo nonsense", "fake"),
        ("true", "fake"),
        ("echo nonsense; exit 3", "`nonsense"),
        ("exit 1", "exit status: 1"),
        ("kill -9 $$", "signal: 9"),
        ("head -c 10000000 /dev/zero | tr '\\0' x", "killed"),
        ("exec cat /dev/zero", "killed"),
    ] {
        let answer = add(&sandbox, script).run();
        answer.error_saying(104, &[word]);
        assert!(
            fs::read_to_string("/run/verbs")
                .unwrap()
                .ends_with("ADD\nDEL\n"),
            "{script}"
        );
        assert!(answer.took < Duration::from_secs(5), "{script}");
    }
    assert_eq!(sandbox.snapshot(), before);
    assert!(loader.requests().iter().all(|request| request == "node"));
}

/// Row 55, a live pod's address once more: that pod keeps it, and only the IPAM plug-in is told that we do not.
#[test]
fn an_address_that_another_pod_has_is_refused_and_stays_that_pods() {
    let (sandbox, _loader) = node(Manner::Helpful);
    sandbox.add_netns("second");
    let script = r#"echo '{"ips":[{"address":"10.240.0.5/16"}]}'"#;
    let first = add(&sandbox, script).run().document();
    let before = sandbox.snapshot();
    add(&sandbox, script)
        .env("CNI_CONTAINERID", "c2")
        .env("CNI_NETNS", "/run/netns/second")
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=second")
        .run()
        .error_saying(100, &["10.240.0.5", "the pod ns/web (azure:c1:eth0)"]);
    assert_eq!(sandbox.snapshot(), before);
    assert_eq!(add(&sandbox, script).run().document(), first);
}

/// Row 55, the one that hangs: it is killed, and so is what it holds.
#[test]
fn an_ipam_plugin_that_hangs_is_killed() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Helpful);
    let before = sandbox.snapshot();
    let answer = add(&sandbox, "echo $$ > /run/pid; exec sleep 1000").run();
    answer.error_saying(104, &["no end within 10 s"]);
    assert!(answer.took < Duration::from_secs(15));
    let pid = fs::read_to_string("/run/pid").unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
    assert_eq!(sandbox.snapshot(), before);
}

/// Contract 1.6: a runtime that loses patience kills only us; the IPAM plug-in must not go on and take an address.
#[test]
fn an_ipam_plugin_dies_with_us() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Helpful);
    let script = "echo $$ > /run/pid.new; mv /run/pid.new /run/pid; exec sleep 1000";
    let mut exec = add(&sandbox, script);
    let mut child = exec
        .command
        .stdin(std::process::Stdio::from(
            fs::File::open(conf_file()).unwrap(),
        ))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = eventually(|| fs::read_to_string("/run/pid").ok());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually(|| (!is_running(pid.trim())).then_some(()));
}

fn conf_file() -> &'static str {
    let conf = netconf_with(json!({"ipam": {"type": "fake"}}));
    fs::write("/run/conf", conf.to_string()).unwrap();
    "/run/conf"
}

fn is_running(pid: &str) -> bool {
    fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

/// Asks again until there is an answer; what is waited for takes no longer than an exec.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "in vain");
        std::thread::yield_now();
    }
}

/// Row 56; `PATH` is never searched.
#[test]
fn a_missing_ipam_plugin_is_named_with_the_places_searched() {
    let sandbox = Sandbox::with_pod();
    let loader = Loader::start(Manner::Helpful);
    let conf = netconf_with(json!({"ipam": {"type": "true"}}));
    for (verb, code) in [("ADD", 104), ("DEL", 11)] {
        sandbox
            .azure_vnet(verb)
            .env("CNI_PATH", "/nowhere:/run")
            .env("PATH", "/usr/bin:/bin")
            .conf(&conf)
            .run()
            .error_saying(code, &["`true`", "/nowhere:/run"]);
    }
    assert!(loader.requests().is_empty());
}

/// Row 57.
#[test]
fn the_ipam_plugin_gets_all_that_we_got_and_its_words_are_passed_on() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Helpful);
    let stdin = br#"{ "cniVersion":"0.3.0","name":"azure" , "type":"azure-vnet","x":[1.50],"ipam":{"type":"fake","ranges":[]} }"#;
    let script = "env | sort > /run/env; cat > /run/stdin; echo secret words >&2; exit 1";
    let answer = add(&sandbox, script).env("EXTRA", "1").stdin(stdin).run();
    answer.error(104);
    assert!(answer.stderr.contains("secret words"), "{answer}");
    assert_eq!(fs::read("/run/stdin").unwrap(), stdin);
    let env = fs::read_to_string("/run/env").unwrap();
    for line in [
        "CNI_CONTAINERID=c1",
        "CNI_IFNAME=eth0",
        "CNI_NETNS=/run/netns/pod",
        "EXTRA=1",
        "CNI_PATH=/run/plugins",
    ] {
        assert!(
            env.lines().any(|found| found == line),
            "{line} is not in {env}"
        );
    }
    assert!(env.contains("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web"));
}
