//! The life of a node: the loader dies and comes back, a hundred pods come and go, the last one leaves.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::libcni::{self, Network, Verb};
use lab::{Pod, percentiles};

use super::scene::{PORT, Scene};
use super::table::Table;

/// ADD and DEL of `azure-vnet` alone, exec and IPAM included; the chained portmap is not ours.
const PODS: usize = 100;
const LIMIT: Duration = Duration::from_millis(15);
/// Datagrams a second and their number, while the loader dies and comes back.
const RATE: u32 = 500;
const DATAGRAMS: u32 = 750;

pub(crate) fn survive(scene: &Scene, table: &mut Table) {
    let to = (scene.api.addr(), PORT);
    let stream = scene.web.stream(to.0, to.1);
    let internet = scene.web.stream(scene.internet(), 8080);
    let (paced, adopted) = std::thread::scope(|scope| {
        let paced = scope.spawn(|| scene.web.udp_paced(to.0, to.1, RATE, DATAGRAMS));
        let adopted = kill_and_restart(scene);
        (paced.join(), adopted)
    });
    table.equal(
        "loader killed with -9 and started again: takes over",
        "adopted",
        adopted,
    );
    let paced = paced
        .map_err(|_panic| anyhow::anyhow!("the datagrams' thread panicked"))
        .and_then(|paced| paced);
    let lost = paced.map(|paced| format!("{} of {DATAGRAMS} lost", paced.sent - paced.received));
    table.equal(
        "  meanwhile: datagrams to a pod across nodes",
        format!("0 of {DATAGRAMS} lost"),
        lost,
    );
    table.holds(
        "  meanwhile: a TCP stream to a pod across nodes",
        "0 broken",
        unbroken(stream),
    );
    table.holds(
        "  meanwhile: a TCP stream to the Internet (SNAT)",
        "0 broken",
        unbroken(internet),
    );
}

fn kill_and_restart(scene: &Scene) -> Result<&'static str> {
    let node = scene.node();
    node.loader().kill9()?;
    ensure!(
        scene.web.tcp(scene.internet(), 8080).is_ok(),
        "without a loader, no new connection to the Internet"
    );
    ensure!(
        scene.status().is_err(),
        "the loader is dead, but vnetctl gets an answer"
    );
    node.start_loader()?;
    let adopted = scene
        .status()?
        .pointer("/adopted")
        .and_then(serde_json::Value::as_bool);
    Ok(if adopted == Some(true) {
        "adopted"
    } else {
        "NOT adopted"
    })
}

fn unbroken(stream: Result<lab::Stream>) -> Result<(bool, String)> {
    let report = stream?.finish()?;
    let text = format!(
        "{} broken, {} kB, longest pause {:.1} ms{}",
        report.resets,
        report.bytes / 1000,
        report.longest_gap.as_secs_f64() * 1000.0,
        report
            .error
            .map(|error| format!(" ({error})"))
            .unwrap_or_default()
    );
    Ok((report.resets == 0 && report.bytes > 0, text))
}

/// A hundred ADDs and DELs, each with a namespace of its own.
pub(crate) fn hurry(scene: &Scene, table: &mut Table) {
    let times = timed(scene);
    for (verb, pick) in [("ADD", 0), ("DEL", 1)] {
        let what = format!("{verb}, exec and IPAM included: median of {PODS}");
        let seen = times
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))
            .and_then(|times| {
                let [median, p99] = times.get(pick).copied().context("no times")?;
                let ms = |time: Duration| time.as_secs_f64() * 1000.0;
                Ok((
                    median <= LIMIT,
                    format!("{:.1} ms (p99 {:.1} ms)", ms(median), ms(p99)),
                ))
            });
        table.holds(&what, &format!("≤ {} ms", LIMIT.as_millis()), seen);
    }
}

/// Median and 99th percentile of ADD and of DEL.
fn timed(scene: &Scene) -> Result<[[Duration; 2]; 2]> {
    let network = scene.node().network()?;
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| scene.node().new_netns(&format!("load{number}")))
        .collect::<Result<_>>()?;
    let adds = pods
        .iter()
        .map(|pod| exec(&network, pod, Verb::Add))
        .collect::<Result<Vec<_>>>()?;
    let dels = pods
        .iter()
        .map(|pod| exec(&network, pod, Verb::Del))
        .collect::<Result<Vec<_>>>()?;
    pods.into_iter().try_for_each(Pod::remove_netns)?;
    Ok([adds, dels].map(|times| percentiles(times, [50, 99])))
}

fn exec(network: &Network, pod: &Pod, verb: Verb) -> Result<Duration> {
    let done = pod.call(network, verb)?;
    libcni::outcome("azure-vnet", &done)?;
    Ok(done.elapsed)
}

/// DEL of all pods, and what differs from before the first one.
pub(crate) fn leave(scene: Scene, table: &mut Table) {
    table.holds(
        "DEL leaves nothing: links, routes, rules, maps, pins, files",
        "as before",
        left(scene),
    );
}

fn left(scene: Scene) -> Result<(bool, String)> {
    let Scene {
        lab,
        web,
        db,
        before,
        ..
    } = scene;
    web.delete()?;
    db.delete()?;
    let left = before.left(&lab.node(1).snapshot()?);
    let as_before = left.is_empty();
    Ok((
        as_before,
        if as_before {
            "as before".into()
        } else {
            left.join(", ")
        },
    ))
}
