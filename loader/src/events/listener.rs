//! How does a process hear of packets? It takes one of the few `events` maps for itself, and says of what it wants to hear.
//!
//! The kernel takes our buffers out of the map when this process ends, however it does, and the wish in `watch` ends by
//! itself. Nobody else has to be there, or to tidy up.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use abi::pins::map;
use abi::{Event, Watch};
use anyhow::{Context as _, Result, bail};
use aya::maps::perf::{PerfEvent, PerfEventArrayBuffer};
use aya::maps::{Array, Map, MapData, PerfEventArray};
use aya::util::online_cpus;
use hooks::{MapsError, Pins};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use rpc::RunDirectory;
use zerocopy::FromBytes as _;

/// Pages of a buffer, of which there is one for each CPU: 256 KiB, about 800 events.
const PAGES: usize = 64;
/// Seconds that a wish lives.
const LEASE: u32 = 3;
/// How often it is renewed.
const RENEW: Duration = Duration::from_millis(500);

/// One that hears of packets.
pub(super) struct Listener {
    buffers: Vec<PerfEventArrayBuffer<MapData>>,
    watch: Array<MapData, u32>,
    wishes: Vec<Watch>,
    _place: Flock<std::fs::File>,
}

/// What a listener hears.
pub(super) enum Heard {
    /// Of a packet; its first bytes, as the program left it.
    Packet(Event, Vec<u8>),
    /// That so many were lost because it read too slowly.
    Lost(u64),
}

impl Heard {
    /// Of losses nobody knows when.
    pub(super) fn time(&self) -> u64 {
        match self {
            Self::Packet(event, _) => event.time,
            Self::Lost(_) => 0,
        }
    }
}

impl Listener {
    /// Begins to listen.
    pub(super) fn open(pins: &Pins, wishes: Vec<Watch>) -> Result<Self> {
        let (number, place) = place()?;
        let map = |name| {
            let path = pins.map(name);
            MapData::from_pin(&path)
                .and_then(Map::from_map_data)
                .map_err(|source| MapsError::Pin { path, source })
        };
        let watch = Array::try_from(map(map::WATCH)?)?;
        let name = map::EVENTS.get(number).copied().unwrap_or_default();
        let mut events = PerfEventArray::try_from(map(name)?)?;
        let cpus = online_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        let buffers: Result<Vec<_>, _> = cpus
            .into_iter()
            .map(|cpu| events.open(cpu, Some(PAGES)))
            .collect();
        let mut listener = Self {
            buffers: buffers.context("make buffers for events")?,
            watch,
            wishes,
            _place: place,
        };
        listener.renew()?;
        Ok(listener)
    }

    /// From now on it wants to hear of these.
    pub(super) fn wish(&mut self, wishes: Vec<Watch>) {
        self.wishes = wishes;
    }

    /// Waits for a moment, and hands everything on that has happened meanwhile, in the order of each CPU.
    pub(super) fn hear(&mut self, mut tell: impl FnMut(Heard)) -> Result<()> {
        self.renew()?;
        let mut fds: Vec<PollFd<'_>> = self
            .buffers
            .iter()
            .map(|buffer| PollFd::new(buffer.as_fd(), PollFlags::POLLIN))
            .collect();
        let timeout = PollTimeout::try_from(RENEW).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        for buffer in &mut self.buffers {
            buffer.for_each(|event| match event {
                PerfEvent::Sample { head, tail } => {
                    if let Some((event, bytes)) = parse(&[head, tail].concat()) {
                        tell(Heard::Packet(event, bytes));
                    }
                }
                PerfEvent::Lost { count } => tell(Heard::Lost(count)),
            });
        }
        Ok(())
    }

    /// Somebody else may wish for the same, so nobody takes a wish back.
    fn renew(&mut self) -> Result<()> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("read the clock")?;
        let until = u32::try_from(now.tv_sec())?.saturating_add(LEASE);
        for wish in &self.wishes {
            self.watch
                .set(wish.index(), until, 0)
                .context("write map watch")?;
        }
        Ok(())
    }
}

/// An event and the bytes of its frame; the kernel pads both.
fn parse(sample: &[u8]) -> Option<(Event, Vec<u8>)> {
    let (event, bytes) = Event::read_from_prefix(sample).ok()?;
    let snap = usize::try_from(event.snap).ok()?;
    Some((event, bytes.get(..snap)?.to_vec()))
}

/// The number of an `events` map that nobody has, and the lock that says that we have it.
fn place() -> Result<(usize, Flock<std::fs::File>)> {
    let run = RunDirectory::default();
    for number in 0..map::EVENTS.len() {
        let path = run.root().join(format!("listener{number}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok((number, lock)),
            Err((_, Errno::EWOULDBLOCK)) => {}
            Err((_, error)) => {
                return Err(io::Error::from(error))
                    .with_context(|| format!("lock {}", path.display()));
            }
        }
    }
    bail!(
        "{} others listen already (vnetctl monitor or capture); end one of them",
        map::EVENTS.len()
    )
}
