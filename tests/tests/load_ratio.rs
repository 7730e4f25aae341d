//! What our programs cost and gain, as ratios of rates that are measured in turns in one run.
//!
//! On demand: a figure that somebody else's build disturbs is none.
#![cfg(test)]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use hooks::Pins;
use lab::{Lab, Loader, Namespace, Node, Pod, Proxy, Ratio, Service, eventually, pass};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const PORT: u16 = 9000;
/// Rounds of a third of a second scatter by three percent each, so the median of fifty by half a percent.
const ROUNDS: usize = 50;
const TIME: Duration = Duration::from_millis(350);
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// Client and server each have a CPU, as on two machines. Where the scheduler would put them decides more than what is measured.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Binds this thread, and what it starts from now on, to a CPU.
fn run_on(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}

/// Connections per second; none may fail.
fn rate(client: &Namespace, server: Ipv4Addr) -> anyhow::Result<f64> {
    let counted = client.connect_close(server, PORT, TIME)?;
    anyhow::ensure!(counted.failed == 0, "{counted:?}");
    Ok(counted.rate())
}

/// Takes every program of ours away from the node, whose own routing goes on, while its loader looks elsewhere.
fn take_programs_away(node: &Node, pod: &Pod) -> anyhow::Result<()> {
    node.loader().signal(Signal::SIGSTOP)?;
    node.exec(&["tc", "qdisc", "del", "dev", pod.host_veth()?, "clsact"])?;
    node.run(|| Ok(hooks::remove(&Pins::default(), "eth0")?))?;
    // As long as the other side waits.
    pass(REST);
    Ok(())
}

/// The rules that check and masquerade where the programs are gone.
const RULES: [&str; 3] = ["table", "ip", "azure-vnet"];

/// In which a loader that has nothing to do gets no tick.
const REST: Duration = Duration::from_millis(100);

/// The loader does, and its rules too if they are gone. What else it has missed it makes up for before anything is measured: the
/// row is about programs, not about repairs.
fn put_programs_back(node: &Node) -> anyhow::Result<()> {
    node.loader().signal(Signal::SIGCONT)?;
    let back = eventually(Duration::from_secs(20), || {
        let rules = node.exec(&[&["nft", "list"], &RULES[..]].concat());
        (attached(node) == 4 && rules.is_ok()).then_some(())
    });
    back.context("the programs or the rules do not come back")?;
    let rests = eventually(Duration::from_secs(20), || rests(node.loader()).transpose());
    rests.context("the loader does not come to rest")?
}

/// Whether the loader neither does anything for a while, nor waits for what somebody else does.
fn rests(loader: &Loader) -> anyhow::Result<Option<()>> {
    let before = loader.cpu()?;
    pass(REST);
    Ok((loader.cpu()? == before && !loader.runs_others()?).then_some(()))
}

fn attached(node: &Node) -> usize {
    node.status().unwrap()["attached"]
        .as_array()
        .map_or(0, Vec::len)
}

#[test]
#[ignore = "slow: a measurement; cargo xtask test load"]
fn connect_and_close_through_a_service_costs_at_most_three_percent() {
    let lab = Lab::new().nodes(2).record(false).build().unwrap();
    for node in lab.nodes() {
        node.start_loader().unwrap();
    }
    let node = lab.node(1);
    let client = node.add_pod("client").unwrap();
    let far = lab.node(2).add_pod("far").unwrap();
    run_on(SERVER);
    let _server = far.serve_connect_close(PORT).unwrap();
    let service = Service::new("web", CLUSTER_IP, PORT).backend(far.addr(), PORT);
    node.proxy(Proxy::Iptables, &[service]).unwrap();
    // The kernel forgets closed connections slowly; here, faster than the load makes them.
    node.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1")
        .unwrap();

    run_on(CLIENT);
    let kernel_only = || {
        take_programs_away(node, &client)?;
        rate(&client, CLUSTER_IP)
    };
    let bare = || {
        take_programs_away(node, &client)?;
        node.exec(&[&["nft", "delete"], &RULES[..]].concat())?;
        rate(&client, CLUSTER_IP)
    };
    let ours = || {
        put_programs_back(node)?;
        rate(&client, CLUSTER_IP)
    };
    let ratio = Ratio::measure(ROUNDS, kernel_only, ours).unwrap();
    println!("ClusterIP, connect/close per second: kernel only, with programs, ratio: {ratio}");
    let of_all = Ratio::measure(ROUNDS, bare, ours).unwrap();
    println!("The same without our nftables table, too, which is not judged: {of_all}");
    assert!(ratio.median >= 0.97, "{ratio}");
}

#[test]
#[ignore = "slow: a measurement; cargo xtask test load"]
fn connect_and_close_with_snat_costs_at_most_six_percent_of_the_hosts_own() {
    let lab = Lab::new().nodes(1).record(false).build().unwrap();
    let (node, inet) = (lab.node(1), lab.inet());
    node.start_loader().unwrap();
    let pod = node.add_pod("client").unwrap();
    run_on(SERVER);
    let _server = inet.serve_connect_close(PORT).unwrap();
    run_on(CLIENT);
    let ratio = Ratio::measure(
        ROUNDS,
        || rate(node, inet.addr()),
        || rate(&pod, inet.addr()),
    )
    .unwrap();
    println!("Internet, connect/close per second: host, pod with SNAT, ratio: {ratio}");
    assert!(ratio.median >= 0.94, "{ratio}");
}
