//! What counts as a repair, and what does not? What was lost and is there again; not what is new, and not what was tried.
#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, METRICS_ON, Stop, eventually, pass};
use nix::sys::signal::Signal;
use serde_json::Value;

const CONFIG: &str = "/etc/azure-vnet/loader.yaml";
const SOON: Duration = Duration::from_secs(10);

/// As an ADD's is between its record and its registration.
#[test]
fn a_pod_that_was_never_registered_is_registered_and_not_counted_as_lost() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.write(CONFIG, METRICS_ON).unwrap();
    node.start_loader().unwrap();
    let pod = node.add_pod("pod").unwrap();
    let has = |name: &str, labels: &[(&str, &str)], count: f64| {
        let is = || Some(node.scrape().ok()?.value(name, labels));
        eventually(SOON, || (is()? == count).then_some(()))
            .unwrap_or_else(|| panic!("{name} {labels:?} is {:?}", is()));
    };
    let lost = |count| has("azure_vnet_repairs_total", &[("what", "endpoint")], count);
    let id = &pod.attachment().container_id;
    let record = node.read(&format!("/run/azure-vnet/endpoints/azure:{id}:eth0.json"));
    // Behind its checksum.
    let record = record.unwrap().split_once('\n').unwrap().1.to_owned();
    let mut request: Value = serde_json::from_str(&record).unwrap();
    request["request"] = "unregister".into();
    let connect = || Ok(UnixStream::connect("/run/azure-vnet/loader.sock")?);
    let mut loader = node.run(connect).unwrap();
    loader.write_all(request.to_string().as_bytes()).unwrap();
    loader.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    loader.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("done"), "{answer}");
    has("azure_vnet_pods", &[], 1.0);
    lost(0.0);
    let key = pod.addr().octets().map(|octet| octet.to_string()).join(" ");
    let remove = format!("bpftool map delete pinned /sys/fs/bpf/azure-vnet/v1/maps/pods key {key}");
    node.exec(&["sh", "-c", &remove]).unwrap();
    lost(1.0);
}

/// What does not exist is not masqueraded, and the kernel checks no sources.
#[test]
fn a_table_of_the_kernels_that_cannot_be_made_is_told_and_no_repair_before_it_is_made() {
    const BROKEN: &str = "/run/nft-is-broken";
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.write(CONFIG, METRICS_ON).unwrap();
    node.loader().start_with_nft_that_breaks(BROKEN).unwrap();
    let network = node.network().unwrap().in_version("1.1.0");
    let is = |trouble: f64, repairs: f64| {
        let page = node.scrape().ok()?;
        let told = page.value("azure_vnet_trouble", &[("topic", "fallback")]);
        let mended = page.value("azure_vnet_repairs_total", &[("what", "fallback")]);
        let good = network.status(node, 1).is_ok();
        ((told, mended, good) == (trouble, repairs, trouble == 0.0)).then_some(())
    };
    eventually(SOON, || is(0.0, 0.0)).expect("it is well");
    node.write(BROKEN, "").unwrap();
    node.exec(&["nft", "delete", "table", "ip", "azure-vnet"])
        .unwrap();
    eventually(SOON, || is(1.0, 0.0)).unwrap_or_else(|| panic!("{}", node.loader().log()));
    node.exec(&["rm", BROKEN]).unwrap();
    // Which the kernel announces.
    node.exec(&["nft", "add", "table", "ip", "azure-vnet"])
        .unwrap();
    eventually(SOON, || is(0.0, 1.0)).unwrap_or_else(|| panic!("{}", node.loader().log()));
}

/// Two periods, and one that had begun before.
const A_FIGHT: Duration = Duration::from_mins(2);

#[test]
fn who_undoes_each_repair_is_told_and_a_storm_of_announcements_does_not_end_that() {
    let lab = Lab::new().nodes(1).build().unwrap();
    let node = lab.node(1);
    node.write(CONFIG, METRICS_ON).unwrap();
    node.start_loader().unwrap();
    let pod = node.add_pod("pod").unwrap();
    let told = || {
        node.scrape()
            .ok()?
            .find("azure_vnet_trouble", &[("topic", "fight")])
    };
    let over = AtomicBool::new(false);
    let undo = || {
        while !over.load(Ordering::Relaxed) {
            // Not there yet again is fine.
            drop(node.ip(&format!("route del {}\n", pod.addr())));
            pass(Duration::from_millis(200));
        }
    };
    let routes = |verb: &str| {
        let route = |n| format!("route {verb} 198.18.{}.{}/32 dev eth0\n", n / 250, n % 250);
        (0..2500).map(route).collect::<String>()
    };
    let stays = thread::scope(|scope| {
        let _stop = Stop(&over);
        scope.spawn(undo);
        let began = Instant::now();
        let fight = eventually(A_FIGHT, || (told()? == 1.0).then_some(()));
        println!("told after {:?}: {fight:?}", began.elapsed());
        // Each more than its sockets take while it sleeps.
        for verb in ["add", "del"] {
            node.loader().signal(Signal::SIGSTOP).unwrap();
            node.ip(&routes(verb)).unwrap();
            node.loader().signal(Signal::SIGCONT).unwrap();
            pass(Duration::from_secs(4));
        }
        fight.and_then(|()| told())
    });
    assert_eq!(stays, Some(1.0), "{}", node.loader().log());
    assert!(
        node.status().unwrap()["warnings"]
            .to_string()
            .contains("(way)")
    );
}
