//! Why a destination has its class: only the loader knows which setting said so.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use rpc::{Classified, Reply, Request, RunDirectory, call};

use super::Step;

/// Adds the reason of the destination's class where the loader tells it.
pub(super) fn with_rule(mut steps: Vec<Step>, addr: Ipv4Addr) -> Vec<Step> {
    let Some(rule) = rule(addr) else { return steps };
    let class = steps
        .iter_mut()
        .find(|step| step.what == "classes" && step.found.starts_with(&format!("{addr} is in")));
    if let Some(step) = class {
        let file = rule.class.file.map(|file| format!(", {}", file.display()));
        let why = &rule.class.why;
        // Writing to a String cannot fail.
        let _infallible = write!(step.found, " ({why}{})", file.unwrap_or_default());
    }
    steps
}

/// What the loader says of a class; without a loader nothing.
fn rule(addr: Ipv4Addr) -> Option<Classified> {
    let addresses = vec![addr];
    let socket = RunDirectory::default().socket();
    let reply = call(
        &socket,
        &Request::Classes { addresses },
        Duration::from_secs(2),
    );
    match reply {
        Ok(Reply::Classes { classes }) => classes.into_iter().next(),
        _ => None,
    }
}
