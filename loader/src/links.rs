//! Removing a host veth without making DEL wait for the kernel's grace periods.
//!
//! The kernel unlists a deleted interface at once, but the request returns only after several RCU grace periods
//! (20–50 ms at HZ=250), which a process cannot leave behind: it would not end before them. The daemon can: it lets a
//! thread wait, and answers when the kernel announces that the interface is gone.

use std::io;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use nix::net::if_::if_nametoindex;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::task::spawn_blocking;

/// The interface was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no connection to netlink.
    #[error("open a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// Another interface has the name by now.
    #[error("remove {name}: it has index {found} by now, not {index}")]
    Other {
        /// The interface.
        name: String,
        /// The index it should have had.
        index: u32,
        /// The index it has.
        found: u32,
    },
    /// The kernel refuses.
    #[error("remove {name}: {why}")]
    Refused {
        /// The interface.
        name: String,
        /// The kernel's reason.
        why: String,
    },
}

/// Removes the interface `name` if it has `index`, and returns when nobody sees it any more. Not there is success.
pub async fn remove(name: &str, index: u32) -> Result<(), RemoveError> {
    match if_nametoindex(name) {
        Ok(found) if found == index => {}
        Ok(found) => {
            return Err(RemoveError::Other {
                name: name.to_owned(),
                index,
                found,
            });
        }
        Err(_gone) => return Ok(()),
    }
    // Listening before deleting, or the announcement could be missed.
    let (connection, _handle, events) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    let listening = tokio::spawn(connection);
    let gone = events.filter(|(message, _)| {
        let ours = matches!(&message.payload, NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
            if link.header.index == index);
        std::future::ready(ours)
    });
    let mut gone = std::pin::pin!(gone);
    let outcome = tokio::select! {
        announced = gone.next() => announced.map_or_else(|| Err("netlink hung up".to_owned()), |_| Ok(())),
        deleted = spawn_blocking(move || delete(index)) => deleted.map_err(|error| error.to_string()).and_then(|done| done),
    };
    listening.abort();
    outcome.map_err(|why| RemoveError::Refused {
        name: name.to_owned(),
        why,
    })
}

/// Deletes the interface and waits for the kernel, on a runtime of its own: sending the request is what blocks.
fn delete(index: u32) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let (connection, handle, _messages) =
            rtnetlink::new_connection().map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        match handle.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -nix::libc::ENODEV =>
            {
                Ok(())
            }
            done => done.map_err(|error| error.to_string()),
        }
    })
}
