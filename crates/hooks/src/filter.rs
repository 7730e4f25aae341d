//! Filters of the clsact qdisc. They belong to the interface, so there is nothing to pin and nothing to clean up.

use std::io;
use std::mem;

use aya::programs::tc::{
    NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact,
};
use aya::programs::{Link as _, ProgramError};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcFilterBpfOption, TcHandle as Parent, TcMessage, TcOption,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::net::if_::{if_nameindex, if_nametoindex};

use crate::attach::refused;
use crate::hook::{Direction, Place};
use crate::netlink::Asker;
use crate::{AttachError, Hook, Outcome};

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
    let Place { priority, handle } = hook.place();
    let options = NlOptions {
        priority,
        handle,
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
                SchedClassifierLink::attached(ifname, hook.attach_type(), priority, handle, None)
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

/// The ids of the filters' programs on one side of an interface, in the order in which they run.
pub(crate) fn programs(asker: &Asker, ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let filters = filters(asker, ifindex, direction)?;
    let id = |option: &TcFilterBpfOption| {
        if let TcFilterBpfOption::ProgId(id) = option {
            Some(*id)
        } else {
            None
        }
    };
    Ok(filters.iter().flat_map(options).filter_map(id).collect())
}

/// The interfaces on which filters hold the NIC's programs.
pub(crate) fn nics() -> Result<Vec<String>, AttachError> {
    let interfaces = if_nameindex().map_err(|error| unreadable("every interface", error))?;
    let mut found = Vec::new();
    for interface in &interfaces {
        let Ok(ifname) = interface.name().to_str() else {
            continue;
        };
        for hook in Hook::NIC {
            match is_there(hook, ifname) {
                Ok(true) => found.push(ifname.to_owned()),
                Ok(false) => {}
                // Gone since it was listed.
                Err(_) if if_nametoindex(ifname).is_err() => {}
                Err(error) => return Err(unreadable(ifname, error)),
            }
        }
    }
    Ok(found)
}

/// Removes the NIC's filters from `ifname`. The qdisc stays: others may use it.
pub(crate) fn remove(ifname: &str) -> Result<(), AttachError> {
    for hook in Hook::NIC {
        if if_nametoindex(ifname).is_err() {
            return Ok(());
        }
        if !is_there(hook, ifname).map_err(|error| unreadable(ifname, error))? {
            continue;
        }
        let Place { priority, handle } = hook.place();
        SchedClassifierLink::attached(ifname, hook.attach_type(), priority, handle, None)
            .map_err(ProgramError::IOError)
            .and_then(SchedClassifierLink::detach)
            .map_err(|error| unreadable(ifname, io::Error::other(error)))?;
    }
    Ok(())
}

/// Whether a filter that is ours by its place and by its program's name holds `hook` on `ifname`.
fn is_there(hook: Hook, ifname: &str) -> io::Result<bool> {
    let ours = TcFilterBpfOption::ProgName(hook.program.to_owned());
    let place = hook.place();
    let asker = Asker::open(NETLINK_ROUTE)?;
    let filters = filters(&asker, if_nametoindex(ifname)?, hook.direction)?;
    Ok(filters.iter().any(|filter| {
        let header = &filter.header;
        // The lower half of `info` is the protocol.
        header.info >> 16 == u32::from(place.priority)
            && u32::from(header.handle) == u32::from(place.handle)
            && options(filter).any(|option| *option == ours)
    }))
}

fn unreadable(ifname: &str, source: impl Into<io::Error>) -> AttachError {
    AttachError::Filters {
        ifname: ifname.to_owned(),
        source: source.into(),
    }
}

fn errno(error: &TcError) -> Option<Errno> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error().map(Errno::from_raw),
        TcError::IoError(error) => error.raw_os_error().map(Errno::from_raw),
        TcError::AlreadyAttached => Some(Errno::EEXIST),
        TcError::NulError(_) | TcError::InvalidTcxAttach(_) | TcError::InvalidLinkOperation => None,
    }
}

/// The clsact filters of an interface; none when there is no such qdisc.
fn filters(asker: &Asker, ifindex: u32, direction: Direction) -> io::Result<Vec<TcMessage>> {
    let mut request = TcMessage::default();
    request.header.index = i32::try_from(ifindex).map_err(io::Error::other)?;
    request.header.parent = Parent {
        major: Parent::CLSACT.major,
        minor: match direction {
            Direction::Ingress => Parent::MIN_INGRESS,
            Direction::Egress => Parent::MIN_EGRESS,
        },
    };
    let mut filters = Vec::new();
    let question = RouteNetlinkMessage::GetTrafficFilter(request);
    asker.dump(question, |answer| {
        if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer {
            filters.push(filter);
        }
        io::Result::Ok(())
    })?;
    Ok(filters)
}

/// What makes a filter a BPF filter.
fn options(filter: &TcMessage) -> impl Iterator<Item = &TcFilterBpfOption> {
    let options = filter.attributes.iter().filter_map(|attribute| {
        if let TcAttribute::Options(options) = attribute {
            Some(options)
        } else {
            None
        }
    });
    options.flatten().filter_map(|option| {
        if let TcOption::Bpf(option) = option {
            Some(option)
        } else {
            None
        }
    })
}
