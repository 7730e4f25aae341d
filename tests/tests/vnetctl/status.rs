//! `vnetctl status` in one line, on one screen, and as something to wait for.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Pod, Wireserver, eventually};

use super::*;

/// A repair is due within five seconds; the machine may be busy.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn one_line_says_whether_pods_can_be_added_and_the_exit_status_agrees() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let _pod = node.add_pod("web")?;
    node.exec(&["vnetctl", "status", "--wait=10"])?;
    let brief = node.exec(&["vnetctl", "status", "--brief"])?;
    assert_eq!(brief, "ok, 1 pods, 0 warnings\n");

    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    lab.platform().imds(false);
    lab.platform().wireserver(Wireserver::Garbage)?;
    node.start_loader()?;
    let brief = node.feed(&["vnetctl", "status", "--brief"], b"")?;
    let text = String::from_utf8_lossy(&brief.stdout).into_owned();
    assert_eq!(brief.status.code(), Some(1), "{text}");
    assert!(text.starts_with("NOT OK, 0 pods, "), "{text}");
    assert!(text.contains("there are no address pools: "), "{text}");
    Ok(())
}

#[test]
fn a_node_without_a_free_address_or_with_pods_that_lack_something_is_not_well() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let brief = || node.feed(&["vnetctl", "status", "--brief"], b"");
    let pods: Vec<Pod> = (0..node.secondaries()?.len())
        .map(|n| node.add_pod(&format!("web-{n}")))
        .collect::<Result<_>>()?;
    let full = brief()?;
    assert_eq!(full.status.code(), Some(1));
    let text = String::from_utf8_lossy(&full.stdout).into_owned();
    assert!(text.contains("no address is left for a pod"), "{text}");
    for screen in [
        &["vnetctl", "status"][..],
        &["vnetctl", "status", "-o", "wide"],
    ] {
        let text = node.exec(screen)?;
        assert!(
            text.contains("NOT READY   no address is left for a pod"),
            "{text}"
        );
    }
    let late = node.feed(&["vnetctl", "status", "--wait=0"], b"")?;
    assert!(
        late.stderr.contains("no address is left"),
        "{}",
        late.stderr
    );
    for pod in pods {
        pod.delete()?;
    }
    node.exec(&["vnetctl", "status", "--wait", "--brief"])?;
    node.exec(&["ip", "route", "del", "default"])?;
    let limited = || {
        let done = brief().ok()?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        (done.status.code() == Some(1)).then_some(text)
    };
    let text = eventually(Duration::from_secs(10), limited);
    assert!(
        text.as_ref().is_some_and(|text| text.contains("default")),
        "{text:?}"
    );
    Ok(())
}

#[test]
fn waiting_ends_when_the_loader_has_come_and_not_before() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let early = node.feed(&["vnetctl", "status", "--wait=0"], b"")?;
    assert_eq!(early.status.code(), Some(1));
    assert!(
        early
            .stderr
            .contains("not well after 0 s: connect to the loader"),
        "{}",
        early.stderr
    );
    thread::scope(|scope| {
        let waiting = scope.spawn(|| node.feed(&["vnetctl", "status", "--wait", "--brief"], b""));
        node.start_loader()?;
        let done = waiting.join().unwrap()?;
        assert_eq!(done.success()?, "ok, 0 pods, 0 warnings\n");
        Ok(())
    })
}

#[test]
fn a_status_of_many_classes_fits_on_a_screen_and_the_wide_one_has_them_all() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let cidrs: Vec<String> = (0..40).map(|n| format!("10.{}.0.0/16", 100 + n)).collect();
    let yaml = format!("vnetCidrs: [{}]\n", cidrs.join(", "));
    node.write("/etc/azure-vnet/loader.yaml", &yaml)?;
    node.start_loader()?;
    let short = node.exec(&["vnetctl", "status"])?;
    assert!(short.contains("more: vnetctl classes\n"), "{short}");
    assert!(short.lines().count() <= 50, "{short}");
    let wide = node.exec(&["vnetctl", "status", "-o", "wide"])?;
    assert!(cidrs.iter().all(|cidr| wide.contains(cidr)), "{wide}");
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() -> Result {
    let lab = lab()?;
    let line = "set -o pipefail; vnetctl explain | head -n 1";
    lab.node(1).exec(&["bash", "-c", line])?;
    let status = json(lab.node(1), "status")?;
    assert_eq!(status["node"]["nic"], "eth0");
    Ok(())
}

#[test]
fn one_pods_trouble_names_the_pod_and_what_to_do_in_status_and_in_code_51() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let (web, db) = (node.add_pod("web")?, node.add_pod("db")?);
    // A setting that nobody can set back.
    let settings = format!("/proc/sys/net/ipv4/conf/{}", web.host_veth()?);
    let lock = format!(
        "echo 0 > {settings}/forwarding; mount --bind {settings} {settings}; mount -o remount,ro,bind {settings}"
    );
    node.exec(&["sh", "-ec", &lock])?;
    let told = eventually(SOON, || {
        let warnings = node.status().ok()?["warnings"].to_string();
        warnings.contains("forwarding").then_some(warnings)
    });
    let told = told.with_context(|| node.loader().log())?;
    for part in ["default/web", "delete the pod"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!told.contains("default/db"), "{told}");
    let network = node.network()?.in_version("1.1.0");
    let refused = format!("{:#}", network.status(node, 1).unwrap_err());
    assert!(
        refused.contains("51") && refused.contains("default/web"),
        "{refused}"
    );
    db.tcp(lab.inet().addr(), 8080)?;

    node.exec(&["umount", &settings])?;
    let is_over = || (node.status().ok()?["warnings"] == serde_json::json!([])).then_some(());
    eventually(SOON, is_over).with_context(|| node.loader().log())
}
