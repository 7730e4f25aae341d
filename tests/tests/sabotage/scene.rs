//! Where is it done, who watches, and what must have come of it?

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hooks::{Hook, Pins};
use lab::libcni::CniError;
use lab::{Capture, Deadline, Lab, Node, Pod, Stop, eventually, pass};
use nix::sys::signal::Signal;

use crate::lies::{FORGED, HONEST, carries};
use crate::{Deed, Outcome, Row, Stream};

/// What the issue grants.
const SOON: Duration = Duration::from_secs(5);
/// In which the loader looks at each thing again that nobody announces.
const LOOKS: Duration = Duration::from_secs(5);
/// Later than that nobody is who has a CPU now and then.
const STOOD_STILL: Duration = Duration::from_millis(500);
/// The conflist's plug-ins that know STATUS.
const OURS: usize = 1;

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    /// Suffers, and lies.
    pub(crate) pod: Pod,
    /// In whose name it lies, and to whom.
    pub(crate) near: Pod,
    /// Loses its veth.
    ghost: Pod,
    seen: [Capture; 2],
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        Self::with("bridge")
    }

    /// Where another pod is in a tunnel mode.
    pub(crate) fn with_tunnel() -> Result<Self> {
        Self::with("tunnel")
    }

    fn with(mode: &str) -> Result<Self> {
        let lab = Lab::new().nodes(1).build()?;
        lab.node(1).start_loader()?;
        let pod = lab.node(1).add_pod("web")?;
        let near = lab.node(1).add_pod("near")?;
        let mut ghost = lab.node(1).new_netns("ghost")?;
        let network = lab.node(1).network()?.with("mode", mode.into());
        ghost.add(&network)?;
        let seen = [lab.inet().capture("eth0")?, near.capture("eth0")?];
        let scene = Self {
            lab,
            pod,
            near,
            ghost,
            seen,
        };
        scene.send(scene.pod.addr(), HONEST)?;
        for capture in &scene.seen {
            let arrived = capture.wait_for(SOON, |frame| carries(frame, HONEST));
            arrived.context("the instrument does not see what gets through")?;
        }
        Ok(scene)
    }

    pub(crate) fn node(&self) -> &Node {
        self.lab.node(1)
    }

    /// One row after the other; all that fail are told.
    pub(crate) fn suffer(&self, rows: &[Row]) {
        let (mut failed, mut again) = (Vec::new(), 0);
        for row in rows {
            let mut told = self.row(row);
            // What a machine that stood still did not do within five seconds is nobody's fault.
            for _again in 0..3 {
                if told.1.is_ok() || told.0 < STOOD_STILL {
                    break;
                }
                again += 1;
                println!(
                    "sabotage: {}: once more: the machine stood still for {:.1?}",
                    row.name, told.0
                );
                drop(row.undo.map(|undo| self.sh(undo)));
                drop(self.until_served(Deadline::after(Duration::from_mins(1))));
                told = self.row(row);
            }
            match told.1 {
                Ok(told) => println!("sabotage: {}: {told}", row.name),
                Err(error) => {
                    println!("sabotage: {}: FAILED: {error:#}", row.name);
                    failed.push(format!("{}: {error:#}", row.name));
                }
            }
        }
        println!(
            "sabotage: {} ways, {again} tried again because the machine stood still, {} failed",
            rows.len(),
            failed.len()
        );
        assert!(
            failed.is_empty(),
            "{}\n{}",
            failed.join("\n"),
            self.node().loader().log()
        );
    }

    /// By how long the liar was late at most, and what came of it all.
    fn row(&self, row: &Row) -> (Duration, Result<String>) {
        let mut late = Duration::ZERO;
        let told = self.suffer_one(row, &mut late);
        (late, told)
    }

    fn suffer_one(&self, row: &Row, late: &mut Duration) -> Result<String> {
        if row.outcome == Outcome::Followed {
            ensure!(!self.is_whole(row), "it is so already");
        }
        let stream = self.pod.stream(self.lab.inet().addr(), 8080)?;
        let over = AtomicBool::new(false);
        let told = thread::scope(|scope| {
            let lies = scope.spawn(|| self.lie_until(&over));
            let told = {
                let _stop = Stop(&over);
                self.act(row)
            };
            *late = lies
                .join()
                .map_err(|_panic| anyhow::anyhow!("the liar panicked"))??;
            told
        })?;
        let report = stream.finish()?;
        let broken = report.resets > 0 || report.error.is_some();
        match row.stream {
            Stream::MayBreak => {}
            Stream::Stalls => ensure!(!broken, "the connection broke: {report:?}"),
            Stream::Flows => ensure!(
                !broken && report.longest_gap < Duration::from_secs(1),
                "the connection suffered: {report:?}"
            ),
        }
        for capture in &self.seen {
            ensure!(
                capture
                    .find(|frame| carries(frame, FORGED).then_some(()))
                    .is_empty(),
                "a packet with another's source got through"
            );
        }
        let gap = report.longest_gap.as_millis();
        let life = if broken { "broken" } else { "alive" };
        Ok(format!(
            "{told}; its connection is {life}, longest wait {gap} ms"
        ))
    }

    /// The deed, what comes of it, and how long that takes.
    fn act(&self, row: &Row) -> Result<String> {
        let loader = self.node().loader();
        loader.signal(Signal::SIGSTOP)?;
        let done = self.commit(row);
        // The loader would have to tell what it has followed.
        let harmed = row.outcome == Outcome::Followed || !self.is_whole(row);
        let began = Instant::now();
        loader.signal(Signal::SIGCONT)?;
        done?;
        let within = Deadline::after(SOON);
        let mut took = None;
        match row.outcome {
            Outcome::Harmless => ensure!(!harmed, "it harms"),
            Outcome::Mended | Outcome::Followed | Outcome::Limited(_) | Outcome::Warned(_) => {
                ensure!(harmed, "the instrument sees no damage");
            }
        }
        let what = match row.outcome {
            Outcome::Harmless => "harmless",
            Outcome::Mended | Outcome::Followed => {
                self.until_whole(row, within)?;
                if row.again {
                    took = Some(began.elapsed());
                    self.commit(row)?;
                    self.until_whole(row, Deadline::after(SOON))?;
                }
                if row.outcome == Outcome::Mended {
                    "mended"
                } else {
                    "followed"
                }
            }
            Outcome::Limited(words) => {
                let words = self.fill_in(words)?;
                self.until_told(&words, Some(51), within)?;
                took = Some(began.elapsed());
                self.keeps_telling(&words)?;
                "told, with STATUS 51,"
            }
            Outcome::Warned(words) => {
                self.until_told(words, None, within)?;
                "told"
            }
        };
        let took = took.unwrap_or_else(|| began.elapsed()).as_millis();
        if let Some(meanwhile) = row.meanwhile {
            self.sh(meanwhile)
                .context("the rest was not mended meanwhile")?;
        }
        let mut after = String::new();
        if let Some(undo) = row.undo {
            let began = Instant::now();
            self.sh(undo)?;
            if row.outcome != Outcome::Followed {
                self.until_whole(row, Deadline::after(SOON))?;
            }
            self.until_served(Deadline::after(SOON))?;
            after = format!(
                ", and well {} ms after it was undone",
                began.elapsed().as_millis()
            );
        } else {
            self.until_served(within)?;
        }
        Ok(format!("{what} within {took} ms{after}"))
    }

    fn commit(&self, row: &Row) -> Result<()> {
        match row.deed {
            Deed::Shell(script) => self.sh(script).map(drop),
            Deed::Call(call) => call(self),
        }
    }

    fn until_whole(&self, row: &Row, within: Deadline) -> Result<()> {
        let whole = eventually(within.remaining(), || self.is_whole(row).then_some(()));
        whole.with_context(|| format!("not whole after {SOON:?}: {}", row.whole))
    }

    fn is_whole(&self, row: &Row) -> bool {
        let runs = row.runs_on.is_none_or(|nic| {
            let pins = Pins::default();
            let both = || {
                Ok(Hook::NIC
                    .into_iter()
                    .all(|hook| hooks::runs(&pins, hook, nic)))
            };
            self.node().run(both).unwrap_or(false)
        });
        runs && self.sh(row.whole).is_ok()
    }

    fn until_told(&self, words: &str, code: Option<u64>, within: Deadline) -> Result<()> {
        let told = eventually(within.remaining(), || {
            let warnings = self.node().status().ok()?["warnings"].to_string();
            (warnings.contains(words) && self.code().ok()? == code).then_some(())
        });
        told.with_context(|| {
            let status = self
                .node()
                .status()
                .map(|status| status["warnings"].clone());
            format!(
                "`{words}` not told after {SOON:?}; STATUS {:?}, warnings {status:?}",
                self.code()
            )
        })?;
        ensure!(
            self.node().loader().log().contains(words),
            "the log has no `{words}`"
        );
        Ok(())
    }

    /// Looks of the loader that find nothing new, or look elsewhere, do not end what still is.
    fn keeps_telling(&self, words: &str) -> Result<()> {
        let until = Deadline::after(LOOKS);
        while !until.passed() {
            let warnings = self.node().status()?["warnings"].to_string();
            let code = self.code()?;
            ensure!(
                warnings.contains(words) && code == Some(51),
                "`{words}` was told and then not any more: STATUS {code:?}, warnings {warnings}"
            );
            pass(Duration::from_millis(50));
        }
        Ok(())
    }

    /// STATUS succeeds, the status warns of nothing, and the pod reaches the Internet and its neighbour.
    fn until_served(&self, within: Deadline) -> Result<()> {
        let look = || -> Result<()> {
            let code = self.code()?;
            ensure!(code.is_none(), "STATUS says {code:?}");
            let warnings = self.node().status()?["warnings"].to_string();
            ensure!(warnings == "[]", "the status warns: {warnings}");
            let patience = self.pod.within(Duration::from_millis(500));
            let seen = patience.tcp(self.lab.inet().addr(), 8080)?.peer_ip();
            ensure!(seen == self.node().addr(), "the Internet sees {seen}");
            patience.ping(self.near.addr())?;
            self.node()
                .within(Duration::from_millis(500))
                .ping(self.pod.addr())?;
            Ok(())
        };
        loop {
            match look() {
                Ok(()) => return Ok(()),
                Err(error) if within.passed() => {
                    return Err(error.context(format!("not served after {SOON:?}")));
                }
                Err(_not_yet) => pass(Duration::from_millis(20)),
            }
        }
    }

    /// What STATUS fails with; `None`: it succeeds.
    fn code(&self) -> Result<Option<u64>> {
        let network = self.node().network()?.in_version("1.1.0");
        match network.status(self.node(), OURS) {
            Ok(()) => Ok(None),
            Err(error) => match error.downcast_ref::<CniError>() {
                Some(error) => Ok(Some(error.code)),
                None => bail!(error),
            },
        }
    }

    /// Runs a script in the node.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        self.node().exec(&["sh", "-ec", &self.fill_in(script)?])
    }

    /// With the names of those who suffer.
    fn fill_in(&self, script: &str) -> Result<String> {
        let mac = self.pod.macs()?.1.to_string();
        let hex = |addr: std::net::Ipv4Addr| addr.octets().map(|octet| octet.to_string()).join(" ");
        let attachment = self.pod.attachment();
        let record = format!(
            "/run/azure-vnet/endpoints/azure:{}:eth0.json",
            attachment.container_id
        );
        Ok(script
            .replace("NEARADDR", &self.near.addr().to_string())
            .replace("GHOSTADDR", &self.ghost.addr().to_string())
            .replace("VETH", self.pod.host_veth()?)
            .replace("ADDR", &self.pod.addr().to_string())
            .replace("NICMAC", &self.node().mac().to_string())
            .replace("MAC", &mac)
            .replace("PRIMARY", &self.node().addr().to_string())
            .replace("GHOSTKEY", &hex(self.ghost.addr()))
            .replace("GHOST", self.ghost.host_veth()?)
            .replace("KEY", &hex(self.pod.addr()))
            .replace("RECORD", &record)
            .replace("PINS", "/sys/fs/bpf/azure-vnet/v1"))
    }
}
