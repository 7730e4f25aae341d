//! What the loader costs on a full node, and what its sweeps cost the data path.
#![cfg(test)]

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use abi::{Binding, BindingKey, BindingState, Ip4, Pod as PodEntry, Port, proto};
use hooks::{Abi, Maps, Pins};
use lab::libcni::{Verb, outcome};
use lab::{Lab, METRICS_ON, Node, Pod, Stop, eventually, pass, percentiles};
use nix::time::{ClockId, clock_gettime};

const CONFIG: &str = "/etc/azure-vnet/loader.yaml";
const SCRAPES: u32 = 100;
const SWEPT: Duration = Duration::from_mins(2);

fn lab(secondaries: u16) -> Lab {
    let lab = Lab::new().nodes(1).secondaries(secondaries).record(false);
    let lab = lab.build().unwrap();
    let node = lab.node(1);
    node.write(CONFIG, METRICS_ON).unwrap();
    let log = ["--log", "info,loader::gc=debug"];
    node.loader().start_with(&log, &[]).unwrap();
    lab
}

/// Puts so many bindings of all pods into the table: open ones, or closed ones that are dead.
fn fill(node: &Node, count: u32, state: BindingState) {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    let now = u32::try_from(now.tv_sec()).unwrap();
    let seen = if state == BindingState::Closed {
        now - 90
    } else {
        now
    };
    let work = || {
        let mut maps = Maps::from_pins(&Pins::default())?;
        let pods: Vec<(Abi<Ip4>, Abi<PodEntry>)> = maps.pods.iter().collect::<Result<_, _>>()?;
        for (number, (addr, pod)) in (0..count).zip(pods.iter().cycle()) {
            let [_, _, high, low] = (number / 20).to_be_bytes();
            let remote = Ip4::from(Ipv4Addr::new(198, 51, high, low));
            let port = Port::from_u16(1024 + u16::try_from(number % 20_000)?);
            let key = BindingKey::new((remote, Port::from_u16(443)), port, proto::TCP);
            let binding = Binding::new(addr.0, port, pod.0.generation, state, seen);
            maps.snat.insert(Abi(key), Abi(binding), 0)?;
        }
        Ok(())
    };
    node.run(work).unwrap();
}

/// The loader's memory: now, and the most it ever was; kB.
fn memory(node: &Node) -> [u32; 2] {
    let status = format!("/proc/{}/status", node.loader().pid().unwrap());
    let status = fs::read_to_string(status).unwrap();
    ["VmRSS:", "VmHWM:"].map(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().trim_end_matches("kB").trim().parse().unwrap()
    })
}

/// Anonymous memory and mapped pages of the program.
fn memory_by_kind(node: &Node) -> String {
    let status = format!("/proc/{}/status", node.loader().pid().unwrap());
    let status = fs::read_to_string(status).unwrap();
    let lines = status.lines().filter(|line| line.starts_with("Rss"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// Processor time of the loader, seconds.
fn cpu(node: &Node) -> f64 {
    node.scrape()
        .unwrap()
        .value("process_cpu_seconds_total", &[])
}

/// Processor time of the programs that the loader has run (`nft`, a plug-in), to their ends; seconds. `cutime` and `cstime` of
/// `man 5 proc_pid_stat`, in hundredths.
fn cpu_of_children(node: &Node) -> f64 {
    let stat = format!("/proc/{}/stat", node.loader().pid().unwrap());
    let stat = fs::read_to_string(stat).unwrap();
    // The name may hold anything but is the last thing in brackets; the state behind it is field 3.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let times = fields.split(' ').skip(13).take(2);
    times.map(|time| time.parse::<f64>().unwrap() / 100.0).sum()
}

/// A sweep, as the loader's log tells it; seconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    from: f64,
    until: f64,
    cpu: Duration,
    removed: u32,
    entries: u32,
}

impl Sweep {
    fn took(&self) -> Duration {
        Duration::from_secs_f64(self.until - self.from)
    }
}

/// `2026-11-21T14:26:32.828737Z DEBUG loader::gc: swept took_us=123 bindings=5 removed=4 …`
fn sweeps(node: &Node) -> Vec<Sweep> {
    let log = node.loader().log();
    let lines = log
        .lines()
        .filter(|line| line.contains("loader::gc: swept"));
    let today = now().div_euclid(86_400.0) * 86_400.0;
    lines
        .map(|line| {
            let field = |name: &str| -> u32 {
                let rest = line.split_once(&format!(" {name}=")).unwrap().1;
                rest.split_whitespace().next().unwrap().parse().unwrap()
            };
            let clock = line.split_once('T').unwrap().1.split_once('Z').unwrap().0;
            let parts = clock.split(':').map(|part| part.parse::<f64>().unwrap());
            let until = today + parts.fold(0.0, |sum, part| sum * 60.0 + part);
            Sweep {
                from: until - f64::from(field("took_us")) / 1e6,
                until,
                cpu: Duration::from_micros(field("cpu_us").into()),
                removed: field("bindings_removed"),
                entries: field("bindings"),
            }
        })
        .collect()
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// The first sweep that ended after `since` and that saw what it should.
fn next_sweep(node: &Node, since: f64, saw: impl Fn(&Sweep) -> bool) -> Sweep {
    let found = || {
        sweeps(node)
            .into_iter()
            .find(|sweep| sweep.from >= since && saw(sweep))
    };
    eventually(SWEPT, found).expect("a sweep")
}

/// Pods that live in so many namespaces.
fn pods(node: &Node, count: u16) -> Vec<Pod> {
    (0..count)
        .map(|number| node.add_pod(&format!("pod{number}")).unwrap())
        .collect()
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn the_loader_is_small_and_idle_with_250_pods_and_a_hundred_thousand_bindings() {
    let lab = lab(300);
    let node = lab.node(1);
    let _pods = pods(node, 250);
    let filled = now();
    fill(node, 100_000, BindingState::Established);
    let sweep = next_sweep(node, filled, |sweep| sweep.entries >= 100_000);
    println!(
        "sweep over {} bindings: {:.1?} (CPU {:.1?})",
        sweep.entries,
        sweep.took(),
        sweep.cpu
    );

    let before = cpu(node);
    let scrapes: Vec<Duration> = (0..SCRAPES)
        .map(|_| {
            let started = Instant::now();
            node.scrape().unwrap();
            started.elapsed()
        })
        .collect();
    let scrape_ms = (cpu(node) - before) * 1000.0 / f64::from(SCRAPES);
    let [p50, longest] = percentiles(scrapes, [50, 100]);
    println!("scrape: p50 {p50:.2?}, longest {longest:.2?} (CPU {scrape_ms:.1} ms)");

    let (before, started) = ([cpu(node), cpu_of_children(node)], Instant::now());
    // Two rounds of repairs, six sweeps.
    pass(Duration::from_mins(1));
    let after = [cpu(node), cpu_of_children(node)];
    let share = |of: usize| (after[of] - before[of]) / started.elapsed().as_secs_f64() * 100.0;
    let (own, percent) = (share(0), share(0) + share(1));
    let [now, most] = memory(node);
    println!("{}", memory_by_kind(node));
    println!("memory {now} kB, at most {most} kB; idle CPU {percent:.2} %, its own {own:.2} %");
    assert!(most <= 30 << 10, "{most} kB");
    assert!(percent <= 0.5, "{percent:.2} %");
    assert!(scrape_ms <= 10.0, "{scrape_ms:.1} ms");
}

#[test]
#[ignore = "slow: minutes; cargo xtask test load"]
fn descriptors_are_flat_over_a_thousand_pairs_of_add_and_del() {
    let lab = lab(1000);
    let node = lab.node(1);
    let network = node.network().unwrap();
    let pod = node.new_netns("pod").unwrap();
    let pairs = |count: usize| {
        for round in 0..count {
            if round % 200 == 0 {
                node.end_rest().unwrap();
            }
            for verb in [Verb::Add, Verb::Del] {
                let done = pod.call(&network, verb).unwrap();
                outcome("azure-vnet", &done).unwrap_or_else(|error| panic!("{round}: {error:#}"));
            }
        }
        node.end_rest().unwrap();
    };
    let descriptors = || node.loader().descriptors().unwrap();
    pairs(100);
    let (open, [before, _]) = (descriptors(), memory(node));
    pairs(1000);
    eventually(Duration::from_secs(10), || {
        (descriptors() <= open).then_some(())
    })
    .unwrap_or_else(|| panic!("{} descriptors, not {open}", descriptors()));
    let [after, most] = memory(node);
    println!(
        "1000 pairs: {open} descriptors as before; memory {before} kB, then {after} kB, at most {most} kB"
    );
    assert!(most <= 30 << 10, "{most} kB");
}

/// Requests and responses of a byte over one TCP connection, until told to stop: when each began, and how long it took.
fn ask_until(
    client: &Pod,
    (server, port): (Ipv4Addr, u16),
    stop: &AtomicBool,
) -> Vec<(f64, Duration)> {
    let mut conversation = client.converse(0, server, port).unwrap();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (at, started) = (now(), Instant::now());
        conversation.say("x").unwrap();
        times.push((at, started.elapsed()));
    }
    times
}

/// Sweeps over `count` bindings, of which all live or all are dead, beside a conversation that goes by `way`.
fn sweeps_leave_alone(
    way: &str,
    client: &Pod,
    server: (Ipv4Addr, u16),
    node: &Node,
    state: BindingState,
) {
    const COUNT: u32 = 200_000;
    let stop = AtomicBool::new(false);
    let mut filled = Vec::new();
    let mut found = Vec::new();
    let times = thread::scope(|scope| {
        let asked = scope.spawn(|| ask_until(client, server, &stop));
        let _stop = Stop(&stop);
        for _ in 0..12 {
            let from = now();
            if found.is_empty() || state == BindingState::Closed {
                fill(node, COUNT, state);
            }
            filled.push((from, now()));
            let sweep = next_sweep(node, now(), |sweep| {
                sweep.removed >= COUNT / 2
                    || (state != BindingState::Closed && sweep.entries >= COUNT)
            });
            found.push(sweep);
            // As long without sweeps.
            pass(sweep.took());
        }
        stop.store(true, Ordering::Relaxed);
        asked.join().unwrap()
    });
    let within = |at: f64, from: f64, until: f64| at >= from && at <= until;
    let (mut during, mut beside) = (Vec::new(), Vec::new());
    let all = sweeps(node);
    for (at, took) in times {
        if filled
            .iter()
            .any(|(from, until)| within(at, *from - 0.01, *until + 0.01))
        {
            continue;
        }
        if all.iter().any(|sweep| within(at, sweep.from, sweep.until)) {
            during.push(took);
        } else {
            beside.push(took);
        }
    }
    let longest = found.iter().map(Sweep::took).max().unwrap();
    let busiest = found.iter().map(|sweep| sweep.cpu).max().unwrap();
    let counts = (during.len(), beside.len());
    let [p50, p99] = percentiles(during, [50, 99]);
    let [still50, still99] = percentiles(beside, [50, 99]);
    let ratio = p99.as_secs_f64() / still99.as_secs_f64();
    println!(
        "{way}, {state:?}: sweep of {COUNT} at most {longest:.0?} (CPU {busiest:.0?}); request/response during sweeps p50 {p50:.1?} p99 {p99:.1?}, \
         else p50 {still50:.1?} p99 {still99:.1?} {counts:?}: {ratio:.2}"
    );
    assert!(longest <= Duration::from_millis(500), "{longest:?}");
    assert!(ratio <= 1.1, "{ratio}");
}

fn sweep_beside_traffic(state: BindingState) {
    let lab = lab(60);
    let node = lab.node(1);
    let pods = pods(node, 20);
    let _echo = pods[1].serve_echo(80).unwrap();
    let neighbour = (pods[1].addr(), 80);
    sweeps_leave_alone("to a pod", &pods[0], neighbour, node, state);
    let internet = (lab.inet().addr(), 8080);
    sweeps_leave_alone("to the Internet", &pods[0], internet, node, state);
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn a_sweep_over_200_000_bindings_that_live_disturbs_nobody() {
    sweep_beside_traffic(BindingState::Established);
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn a_sweep_that_removes_200_000_bindings_disturbs_nobody() {
    sweep_beside_traffic(BindingState::Closed);
}
