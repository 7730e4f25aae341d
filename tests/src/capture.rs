//! Which frames pass an interface? A bounded recording through an `AF_PACKET` socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::PollFlags;
use nix::sys::socket::sockopt::Priority;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, bind, recv, send,
    setsockopt, socket,
};

use crate::namespace::Namespace;
use crate::wait::{Deadline, lock, ready};

/// Frames kept, the newest ones.
const FRAMES: usize = 4096;
/// Bytes kept of each frame: segments that the kernel has not cut yet have up to 64 KiB.
const SNAP_LENGTH: usize = 2048;

#[derive(Debug, Default)]
struct Ring {
    frames: Mutex<Recorded>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Recorded {
    newest: VecDeque<Vec<u8>>,
    total: usize,
}

/// A running recording of frames in both directions. Stops on drop.
#[derive(Debug)]
pub struct Capture {
    ring: Arc<Ring>,
    stop: Option<io::PipeWriter>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Capture {
    pub(crate) fn on(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::start(open(namespace, Some(interface))?)
    }

    /// On all interfaces of the namespace.
    pub(crate) fn everywhere(namespace: &Namespace) -> Result<Self> {
        Self::start(open(namespace, None)?)
    }

    fn start(socket: OwnedFd) -> Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let ring = Arc::new(Ring::default());
        let filled = Arc::clone(&ring);
        let thread = thread::Builder::new()
            .name("capture".into())
            .spawn(move || record(&socket, &stopped, &filled))?;
        Ok(Self {
            ring,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The first recorded frame that `like` accepts, waiting for one if need be.
    pub fn wait_for(&self, within: Duration, like: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Deadline::after(within);
        let mut looked_at = 0;
        let mut recorded = lock(&self.ring.frames);
        loop {
            let unseen = recorded.total - looked_at;
            let old = recorded.newest.len().saturating_sub(unseen);
            let mut candidates = recorded.newest.iter().skip(old);
            if let Some(frame) = candidates.find(|frame| like(frame)) {
                return Some(frame.clone());
            }
            looked_at = recorded.total;
            if deadline.passed() {
                return None;
            }
            let waited = self.ring.more.wait_timeout(recorded, deadline.remaining());
            recorded = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What `find` finds in the newest frames, oldest of them first.
    pub fn find<T>(&self, find: impl Fn(&[u8]) -> Option<T>) -> Vec<T> {
        let recorded = lock(&self.ring.frames);
        let frames = recorded.newest.iter();
        frames.filter_map(|frame| find(frame)).collect()
    }

    /// The newest frames, oldest of them first, each cut to 2048 bytes.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        lock(&self.ring.frames).newest.iter().cloned().collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

fn record(socket: &OwnedFd, stopped: &io::PipeReader, ring: &Ring) {
    let mut buffer = vec![0; SNAP_LENGTH];
    let watched = [
        (socket.as_fd(), PollFlags::POLLIN),
        (stopped.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        match ready(&watched, None).as_deref() {
            Ok([_, true]) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else {
            continue; // the interface went down, or the frame was for another reader
        };
        let mut recorded = lock(&ring.frames);
        if recorded.newest.len() == FRAMES {
            recorded.newest.pop_front();
        }
        let frame = buffer.iter().take(length).copied().collect();
        recorded.newest.push_back(frame);
        recorded.total += 1;
        ring.more.notify_all();
    }
}

/// A packet socket that is bound before it is returned, so that no later frame is missed.
fn open(namespace: &Namespace, interface: Option<&str>) -> Result<OwnedFd> {
    namespace.run(|| {
        // Protocol 0: nothing arrives before the bind says from which interface.
        let raw = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .context("open a packet socket")?;
        let index = interface.map_or(Ok(0), |name| {
            if_nametoindex(name).with_context(|| format!("find interface {name}"))
        })?;
        bind(raw.as_raw_fd(), &all_protocols(i32::try_from(index)?)?)
            .context("bind the packet socket")?;
        Ok(raw)
    })
}

fn all_protocols(index: i32) -> Result<LinkAddr> {
    let all = u16::try_from(libc::ETH_P_ALL)?.to_be();
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: all,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = u32::try_from(size_of_val(&address))?;
    // SAFETY: the pointer is to a live, initialised sockaddr_ll whose family says so and whose size is
    // given; from_raw copies it.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    address.context("a link-layer address")
}

impl Namespace {
    /// Starts to record the frames of an interface, in both directions.
    pub fn capture(&self, interface: &str) -> Result<Capture> {
        Capture::on(self, interface)
    }

    /// A socket that sends frames, Ethernet header included, out of an interface.
    pub fn sender(&self, interface: &str) -> Result<Sender> {
        Ok(Sender(open(self, Some(interface))?))
    }

    /// Sends one frame, Ethernet header included, out of `eth0`.
    pub fn send_raw(&self, frame: &[u8]) -> Result<()> {
        self.sender("eth0")?.send(frame)
    }
}

/// Sends frames as they are.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// Gives its frames this `skb->priority`.
    pub fn with_priority(self, priority: u32) -> Result<Self> {
        setsockopt(&self.0, Priority, &i32::try_from(priority)?).context("set SO_PRIORITY")?;
        Ok(self)
    }

    /// Sends a frame, Ethernet header included.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.0.as_raw_fd(), frame, MsgFlags::empty()).context("send the frame")?;
        anyhow::ensure!(
            sent == frame.len(),
            "only {sent} bytes of the frame were sent"
        );
        Ok(())
    }
}
