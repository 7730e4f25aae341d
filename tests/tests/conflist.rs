//! The runtime's configuration: there when pods can be added, as the operator wants it, and gone before anything else is.
#![cfg(test)]

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{AZURE_CONFLIST, CONFLIST, Lab, Node, Wireserver, eventually};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

const SOURCE: &str = "/etc/azure-vnet/10-azure.conflist";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// A repair is due within five seconds; the machine may be busy.
const SOON: Duration = Duration::from_secs(20);

/// A node whose operator wants the loader to install this conflist, and whose runtime has none yet.
fn node_with(conflist: &str) -> Result<Lab> {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.exec(&["rm", CONFLIST])?;
    node.write(SOURCE, conflist)?;
    let config = format!("conflist: {SOURCE}\n");
    node.write("/etc/azure-vnet/loader.yaml", &config)?;
    Ok(lab)
}

fn becomes(node: &Node, expected: &str) -> Result<()> {
    let is_so = || (node.read(CONFLIST).ok()? == expected).then_some(());
    eventually(SOON, is_so).with_context(|| node.loader().log())
}

fn warns(node: &Node, part: &str) -> Result<()> {
    let is_told = || {
        let warnings = node.status().ok()?["warnings"].to_string();
        warnings.contains(part).then_some(())
    };
    eventually(SOON, is_told).with_context(|| node.loader().log())
}

/// The loader looks at the conflist in each round of repairs, after this.
fn rounds_of_repairs(node: &Node, count: usize) -> Result<()> {
    for _round in 0..count {
        node.write(FORWARDING, "0")?;
        let is_mended = || (node.read(FORWARDING).ok()?.trim() == "1").then_some(());
        eventually(SOON, is_mended).with_context(|| node.loader().log())?;
    }
    Ok(())
}

/// The names that files had in the runtime's directory since somebody began to watch it.
fn names(watch: &Inotify) -> Result<Vec<String>> {
    let names = watch
        .read_events()?
        .into_iter()
        .filter_map(|event| event.name);
    Ok(names
        .map(|name| name.to_string_lossy().into_owned())
        .collect())
}

#[test]
fn the_runtime_gets_it_when_pods_can_be_added_and_again_when_somebody_takes_it_away() -> Result<()>
{
    let lab = node_with(AZURE_CONFLIST)?;
    let node = lab.node(1);
    lab.platform().wireserver(Wireserver::Status(500))?;
    lab.platform().imds(false);
    node.start_loader()?;
    warns(node, "waits until pods can be added")?;
    ensure!(
        node.read(CONFLIST).is_err(),
        "without addresses no pod can be added"
    );

    let watch = node.run(|| {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let directory = Path::new(CONFLIST).parent().context("a directory")?;
        let events =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        watch.add_watch(directory, events)?;
        Ok(watch)
    })?;
    lab.platform().wireserver(Wireserver::Normal)?;
    becomes(node, AZURE_CONFLIST)?;
    node.add_pod("web")?.delete()?;
    assert_eq!(node.status()?["warnings"].to_string(), "[]");
    // Nobody who reads *.conflist has seen half of it.
    let seen = names(&watch)?;
    let is_read = |name: &&String| Path::new(name).extension() != Some(OsStr::new("tmp"));
    let read: Vec<&String> = seen.iter().filter(is_read).collect();
    assert_eq!(read, ["10-azure.conflist"], "{seen:?}");

    node.exec(&["rm", CONFLIST])?;
    becomes(node, AZURE_CONFLIST)?;
    let other = AZURE_CONFLIST.replace("0.3.0", "1.0.0");
    node.write(SOURCE, &other)?;
    becomes(node, &other)?;
    // What is as it should be is not written again.
    names(&watch)?;
    rounds_of_repairs(node, 2)?;
    let before = node.exec(&["stat", "-c", "%i %Y", CONFLIST])?;
    rounds_of_repairs(node, 2)?;
    assert_eq!(node.exec(&["stat", "-c", "%i %Y", CONFLIST])?, before);
    Ok(())
}

#[test]
fn what_cannot_be_used_and_what_is_somebody_elses_is_told_and_nothing_is_replaced() -> Result<()> {
    let lab = node_with(AZURE_CONFLIST)?;
    let node = lab.node(1);
    let others = AZURE_CONFLIST.replace("\"azure-vnet\"", "\"calico\"");
    node.write(CONFLIST, &others)?;
    node.start_loader()?;
    warns(node, "its first plug-in is calico")?;
    assert_eq!(node.read(CONFLIST)?, others);

    node.exec(&["rm", CONFLIST])?;
    becomes(node, AZURE_CONFLIST)?;
    node.write(SOURCE, &AZURE_CONFLIST.replace("bridge\",", "bridgge\","))?;
    warns(node, "cannot be used: line 7")?;
    assert_eq!(node.read(CONFLIST)?, AZURE_CONFLIST);
    // Pods are served as before, so STATUS is good.
    node.add_pod("web")?.delete()
}

#[test]
fn a_node_that_is_left_gets_it_no_more() -> Result<()> {
    let lab = node_with(AZURE_CONFLIST)?;
    let node = lab.node(1);
    node.start_loader()?;
    becomes(node, AZURE_CONFLIST)?;
    // As `uninstall` begins, and the loader lives on for a while.
    let mut loader = node.run(|| Ok(UnixStream::connect("/run/azure-vnet/loader.sock")?))?;
    loader.write_all(br#"{"request":"leave"}"#)?;
    loader.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    loader.read_to_string(&mut answer)?;
    assert!(answer.contains("done"), "{answer}");
    node.exec(&["rm", CONFLIST])?;
    rounds_of_repairs(node, 2)?;
    ensure!(node.read(CONFLIST).is_err(), "the loader has put it back");

    node.loader().terminate()?;
    node.start_loader()?;
    becomes(node, AZURE_CONFLIST)?;
    let told = node.exec(&["vnetctl", "uninstall"])?;
    let first = told.lines().find(|line| line.starts_with("removed"));
    assert!(first.is_some_and(|line| line.contains(CONFLIST)), "{told}");
    ensure!(node.read(CONFLIST).is_err(), "the loader has put it back");
    Ok(())
}
