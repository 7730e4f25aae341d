//! Giving an attachment's address back.

use rpc::Key;

use super::Node;
use crate::delegate::Delegate;
use crate::error::Error;
use crate::program::Call;
use crate::record::Record;
use netconf::Leaving;

/// The IPAM plug-in that gave the address takes it back, with the configuration that it gave it by: what `ipam` says by now
/// may be of another plug-in, another range, or another directory. Only with no record the current one must do.
pub(super) fn give_back(
    call: &mut Call,
    node: &Node,
    current: Option<&Leaving<'_>>,
    key: &Key,
    record: Option<&Record>,
) -> Result<(), Error> {
    let stored = record.and_then(|record| Leaving::parse(record.netconf.as_bytes()).ok());
    let stored = stored.as_ref().filter(|stored| stored.plugin.is_some());
    let trusted = stored.or(current.filter(|current| current.complaint.is_none()));
    let Some(conf) = trusted.or(current) else {
        return Ok(());
    };
    let Some(plugin) = &conf.plugin else {
        return Ok(());
    };
    let given_back = Delegate::find(call, plugin, &conf.stdin)
        .and_then(|delegate| delegate.of(key).del(&node.runtime));
    match given_back {
        // With this configuration there was never an ADD; were that an error, there would never be an end.
        Err(error) if trusted.is_none() => call.warn(&format_args!("passed over at DEL: {error}")),
        other => other?,
    }
    Ok(())
}
