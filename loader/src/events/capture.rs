//! `vnetctl capture`: a pod's packets in a file, each with what became of it.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use abi::{Happening, Watch};
use anyhow::{Context as _, Result};
use clap::Args;
use hooks::{Maps, Pins};
use nix::time::{ClockId, clock_gettime};
use rpc::RunDirectory;

use super::describe::{Owners, word};
use super::followed::Followed;
use super::listener::{Heard, Listener};
use super::pcapng::{Block, Direction, Pcapng};
use super::{Limits, Sink, boot, follow};
use crate::vnetctl::output::Out;
use crate::{podname, reconcile};

/// What is captured.
#[derive(Clone, Debug, Args)]
pub struct Capture {
    /// The pod: its name, NAMESPACE/NAME where several have it, or its address.
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The file, in pcapng format; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub write: PathBuf,
    #[command(flatten)]
    pub limits: Limits,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Packets in the file.
    pub packets: u64,
    /// Packets that came too fast.
    pub lost: u64,
}

/// Captures until the limits are reached, or somebody ends it: the file is whole after each packet.
pub fn capture(wanted: &Capture) -> Result<Captured> {
    let pins = Pins::default();
    let maps = Maps::from_pins(&pins)?;
    let endpoints = reconcile::endpoints(&RunDirectory::default());
    let endpoint = podname::find(&endpoints, &wanted.pod)?;
    let pod = Followed::new(&wanted.pod, &maps, endpoint)?;
    let listener = Listener::open(&pins, wishes(&pod))?;
    let description = format!("{} at {}", podname::name(endpoint), endpoint.address.addr());
    let mut recorder = Recorder {
        file: Pcapng::begin(open(&wanted.write)?, &endpoint.host_ifname, &description)
            .with_context(|| format!("write {}", wanted.write.display()))?,
        pod,
        boot: boot()?,
        captured: Captured::default(),
    };
    follow(listener, &maps, wanted.limits, &mut recorder)?;
    Ok(recorder.captured)
}

fn wishes(pod: &Followed) -> Vec<Watch> {
    let pod = pod.slot().map(Watch::Pod);
    pod.into_iter().chain([Watch::Drops]).collect()
}

fn open(path: &Path) -> Result<BufWriter<Box<dyn Write>>> {
    if path == Path::new("-") {
        return Ok(BufWriter::new(Box::new(Out)));
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("make {}", path.display()))?;
    Ok(BufWriter::new(Box::new(file)))
}

struct Recorder {
    file: Pcapng<BufWriter<Box<dyn Write>>>,
    pod: Followed,
    boot: Duration,
    captured: Captured,
}

impl Sink for Recorder {
    fn take(&mut self, owners: &Owners, heard: Heard) -> Result<bool> {
        let (event, frame) = match heard {
            Heard::Packet(event, frame) => (event, frame),
            Heard::Lost(count) => {
                self.captured.lost += count;
                return Ok(false);
            }
        };
        let what = Happening::of_bits(event.what);
        let Some(what) = what.filter(|what| self.pod.is_at(owners.address(&event, *what))) else {
            return Ok(false);
        };
        let (direction, comment) = match what {
            Happening::Took(_, path) if path.name().starts_with("from_") => {
                (Direction::Received, word(what).to_owned())
            }
            Happening::Took(..) => (Direction::Sent, word(what).to_owned()),
            Happening::Dropped(_) => (Direction::Sent, format!("DROPPED {}", word(what))),
        };
        self.file.packet(&Block {
            time: self.boot + Duration::from_nanos(event.time),
            length: event.length,
            frame: &frame,
            direction,
            comment: &comment,
        })?;
        self.captured.packets += 1;
        Ok(true)
    }

    fn look(&mut self, owners: &Owners) -> Option<Vec<Watch>> {
        self.pod.look(owners).then(|| wishes(&self.pod))
    }

    fn pause(&mut self, at_the_end: bool) -> Result<()> {
        if at_the_end {
            let Captured { packets, lost } = self.captured;
            let now = clock_gettime(ClockId::CLOCK_REALTIME).context("read the clock")?;
            self.file.statistics(now.into(), packets, lost)?;
        }
        Ok(self.file.flush()?)
    }
}
