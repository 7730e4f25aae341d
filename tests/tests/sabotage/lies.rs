//! A pod that never stops sending in another's name.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use abi::SOURCE_CHECKED;
use anyhow::Result;
use lab::{Ipv4, pass};

use crate::scene::Scene;

/// In each packet that claims another's address.
pub(crate) const FORGED: &[u8] = b"somebody else sent this";
/// In one that does not.
pub(crate) const HONEST: &[u8] = b"this is really mine";
/// Between two of them.
const PACE: Duration = Duration::from_millis(5);

impl Scene {
    /// Returns by how long it was late at most.
    pub(crate) fn lie_until(&self, over: &AtomicBool) -> Result<Duration> {
        let mut late = Duration::ZERO;
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.send(self.near.addr(), FORGED)?;
            pass(PACE);
            late = late.max(began.elapsed());
        }
        Ok(late)
    }

    /// Sends to all who watch in somebody's name, as if `from_pod` had found nothing wrong with it.
    pub(crate) fn send(&self, from: Ipv4Addr, mark: &[u8]) -> Result<()> {
        let (host, own) = self.pod.macs()?;
        for to in [self.lab.inet().addr(), self.near.addr()] {
            let packet = Ipv4::udp((from, 4000), (to, 7777), mark);
            let sender = self.pod.sender("eth0")?.with_priority(SOURCE_CHECKED)?;
            match sender.send(&packet.framed(host, own)) {
                Ok(()) => {}
                // The veth is down, or was a moment ago.
                Err(error)
                    if ["ENETDOWN", "ENOBUFS"]
                        .iter()
                        .any(|errno| format!("{error:#}").contains(errno)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub(crate) fn carries(frame: &[u8], mark: &[u8]) -> bool {
    frame.windows(mark.len()).any(|window| window == mark)
}
