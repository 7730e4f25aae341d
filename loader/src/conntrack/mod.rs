//! Which flows are the kernel's connection tracking's? Asked at start, before any program is attached, and before a flow
//! table that was full counts as complete again.
//!
//! Programs whose table `flows` lacks a translated flow would take its answers past netfilter, which then cannot translate
//! them back: every open connection to a Service or through masquerading would break. So would one that somebody on the
//! Internet has opened to a pod's own address while the table was full: the programs would translate the pod's answers,
//! which the kernel does not. It stays with the kernel, where the programs themselves leave it when they have room to say
//! so: a connection that changes sides loses what else netfilter knows of it, such as its window.

mod entry;

use std::collections::BTreeSet;
use std::io;

use abi::{Class, Flow, Ip4};
use aya::maps::MapError;
use hooks::Abi;
use nix::errno::Errno;
use rpc::RunDirectory;
use rtnetlink::packet_core::{DecodeError, NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use tracing::{info, warn};

use crate::registry::{Registry, RegistryError, map_error};
use crate::{gc, reconcile};
use entry::{Entry, Message};

/// Bytes of one `recv`; the kernel fills at most 32 KiB of it.
const BUFFER: usize = 64 * 1024;
/// `BPF_NOEXIST` of `linux/bpf.h`.
const NO_EXIST: u64 = 1;

/// The kernel's flows cannot be learnt.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// No netlink socket of nfnetlink, or it breaks.
    #[error("{doing}: {source}; is the kernel module nf_conntrack_netlink there?")]
    Netlink {
        /// What was attempted.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel answers what is no netlink.
    #[error("read the kernel's connection tracking: {0}")]
    Malformed(#[from] DecodeError),
    /// The table cannot be read or written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl ConntrackError {
    /// Whether this kernel will never tell: it was built without `nf_conntrack_netlink`, or does not load it.
    fn is_lasting(&self) -> bool {
        matches!(self, Self::Netlink { source, .. } if matches!(
            source.raw_os_error().map(Errno::from_raw),
            Some(Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP)
        ))
    }
}

/// What a preload did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Preloaded {
    /// Entries of connection tracking that are for the programs to know.
    known: u32,
    /// Flows that were added.
    added: u32,
    /// Flows that found no room: until there is, whatever is not in the table takes the stack.
    lost: u32,
}

/// Adds the kernel's connections to `flows`, and says what came of it.
///
/// `false`: the table must count as full, because some found no room or could not be read. A kernel without the interface
/// is no reason: it has none to offer at any later time, and only connections that are open now may break.
pub fn take_over(registry: &mut Registry, run: &RunDirectory) -> bool {
    let known = registry.pods().unwrap_or_default().into_iter();
    let recorded = reconcile::endpoints(run).into_iter();
    let pods = known
        .map(|(addr, _)| addr)
        .chain(recorded.map(|endpoint| endpoint.address.addr().into()))
        .collect();
    match preload(registry, &pods) {
        Ok(done) if done.lost > 0 => {
            warn!(
                ?done,
                "the flow table has no room for all connections of the kernel: until it has, flows that are not in it take \
                 the kernel's path"
            );
            false
        }
        Ok(done) => {
            info!(?done, "connections of the kernel taken over");
            true
        }
        Err(error) => {
            warn!(
                %error,
                "the kernel's connections are not known: those of pods to Services, host ports or through \
                 masquerading that are open now may break"
            );
            error.is_lasting()
        }
    }
}

/// Writes a flow that takes the stack for every connection of `pods` that must. What the table says already stays.
fn preload(registry: &mut Registry, pods: &BTreeSet<Ip4>) -> Result<Preloaded, ConntrackError> {
    let mut done = Preloaded::default();
    // Nothing to ask for on a fresh node.
    if pods.is_empty() {
        return Ok(done);
    }
    let now = gc::now().0;
    dump(|entry| {
        if let Some((src, dst)) = entry.untranslated()
            && (!pods.contains(&dst) || registry.class_of(src.into())? != Class::Snat)
        {
            return Ok(());
        }
        done.known += 1;
        let value = Abi(Flow::new(entry.flags(), now));
        for key in entry.flows() {
            if !is_asked_for(registry, pods, key.low, key.high)? {
                continue;
            }
            match registry.maps.flows.insert(Abi(key), value, NO_EXIST) {
                Ok(()) => done.added += 1,
                Err(error) if is(&error, io::ErrorKind::AlreadyExists) => {}
                // E2BIG of a full hash table.
                Err(error) if is(&error, io::ErrorKind::ArgumentListTooLong) => done.lost += 1,
                Err(error) => return Err(map_error("add a flow", "flows")(error).into()),
            }
        }
        Ok(())
    })?;
    Ok(done)
}

/// Whether a program will look for the flow: one end is a pod of this node, and the other is none to which everything
/// takes the stack anyway.
fn is_asked_for(
    registry: &Registry,
    pods: &BTreeSet<Ip4>,
    low: Ip4,
    high: Ip4,
) -> Result<bool, RegistryError> {
    let other = match (pods.contains(&low), pods.contains(&high)) {
        (true, true) => return Ok(true),
        (true, false) => high,
        (false, true) => low,
        (false, false) => return Ok(false),
    };
    Ok(registry.class_of(other.into())? != Class::Stack)
}

fn is(error: &MapError, kind: io::ErrorKind) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.kind() == kind)
}

/// Hands over every IPv4 entry of this network namespace that is translated or answered, and goes on.
fn dump(mut each: impl FnMut(&Entry) -> Result<(), ConntrackError>) -> Result<(), ConntrackError> {
    let failed = |doing| move |source| ConntrackError::Netlink { doing, source };
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open nfnetlink"))?;
    socket.bind_auto().map_err(failed("open nfnetlink"))?;
    let ask = failed("ask for the tracked connections");
    socket
        .send_to(&question(), &SocketAddr::new(0, 0), 0)
        .map_err(ask)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        socket
            .recv(&mut buffer, 0)
            .map_err(failed("receive the tracked connections"))?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<Message>::deserialize(rest)?;
            match message.payload {
                NetlinkPayload::InnerMessage(Message::Entry(entry)) => each(&entry)?,
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    let refused = failed("ask for the tracked connections");
                    return Err(refused(error.to_io()));
                }
                NetlinkPayload::Noop
                | NetlinkPayload::Overrun(_)
                | NetlinkPayload::InnerMessage(Message::Ask | Message::Other)
                | _ => {}
            }
            let length = message.header.length.next_multiple_of(4);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn question() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(Message::Ask));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
