//! Filters of the clsact qdisc. They belong to the interface, so there is nothing to pin and nothing to clean up.

use std::io;
use std::mem;

use aya::programs::ProgramError;
use aya::programs::tc::{
    NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcError, TcHandle,
    qdisc_add_clsact,
};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcFilterBpfOption, TcHandle as Parent, TcMessage, TcOption,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::attach::refused;
use crate::hook::Direction;
use crate::{AttachError, Hook, Outcome};

/// Before every other filter of the host veth.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);

pub(crate) fn attach(
    hook: Hook,
    program: &mut SchedClassifier,
    ifname: &str,
) -> Result<Outcome, AttachError> {
    let failed = |source: TcError| refused(hook, ifname, source);
    match qdisc_add_clsact(ifname) {
        Ok(()) => {}
        Err(error) if errno(&error) == Some(Errno::EEXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    let options = NlOptions {
        priority: PRIORITY,
        handle: HANDLE,
        classid: None,
    };
    let (id, outcome) = match program.attach_with_options(
        ifname,
        hook.attach_type(),
        TcAttachOptions::Netlink(options),
    ) {
        Ok(id) => (id, Outcome::Attached),
        Err(ProgramError::TcError(error)) if errno(&error) == Some(Errno::EEXIST) => {
            let old =
                SchedClassifierLink::attached(ifname, hook.attach_type(), PRIORITY, HANDLE, None)
                    .map_err(|source| refused(hook, ifname, source))?;
            let id = program
                .attach_to_link(old)
                .map_err(|source| refused(hook, ifname, source))?;
            (id, Outcome::Replaced)
        }
        Err(source) => return Err(refused(hook, ifname, source)),
    };
    let link = program
        .take_link(id)
        .map_err(|source| refused(hook, ifname, source))?;
    #[expect(
        clippy::mem_forget,
        reason = "dropping the link removes the filter, which shall outlive this process"
    )]
    mem::forget(link);
    Ok(outcome)
}

pub(crate) fn runs(hook: Hook, program: u32, ifname: &str) -> bool {
    programs(ifname, hook.direction).is_ok_and(|programs| programs.contains(&program))
}

fn errno(error: &TcError) -> Option<Errno> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error().map(Errno::from_raw),
        TcError::IoError(error) => error.raw_os_error().map(Errno::from_raw),
        TcError::AlreadyAttached => Some(Errno::EEXIST),
        TcError::NulError(_) | TcError::InvalidTcxAttach(_) | TcError::InvalidLinkOperation => None,
    }
}

/// Ids of the BPF programs that clsact filters of `ifname` run.
fn programs(ifname: &str, direction: Direction) -> io::Result<Vec<u32>> {
    let mut request = TcMessage::default();
    request.header.index = i32::try_from(if_nametoindex(ifname)?).map_err(io::Error::other)?;
    request.header.parent = Parent {
        major: Parent::CLSACT.major,
        minor: match direction {
            Direction::Ingress => Parent::MIN_INGRESS,
            Direction::Egress => Parent::MIN_EGRESS,
        },
    };
    let mut ids = Vec::new();
    for filter in dump(request)? {
        for attribute in filter.attributes {
            let TcAttribute::Options(options) = attribute else {
                continue;
            };
            for option in options {
                if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
                    ids.push(id);
                }
            }
        }
    }
    Ok(ids)
}

/// Asks the kernel for filters and reads its answer to the end.
fn dump(request: TcMessage) -> io::Result<Vec<TcMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        RouteNetlinkMessage::GetTrafficFilter(request).into(),
    );
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;

    let mut filters = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).map_err(io::Error::other)?;
            if let NetlinkPayload::Done(_) = message.payload {
                return Ok(filters);
            } else if let NetlinkPayload::Error(error) = message.payload {
                return Err(error.to_io());
            } else if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(
                filter,
            )) = message.payload
            {
                filters.push(filter);
            }
            // Messages are aligned to four bytes.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
