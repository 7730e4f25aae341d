//! How are ages, protocols and reasons said to people?

use abi::proto;
use rpc::ClassView;

/// The name of an IP protocol that is translated.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        proto::ICMP => "icmp".to_owned(),
        other => other.to_string(),
    }
}

/// So long, in the unit that fits.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Why a class is what it is.
pub(crate) fn why(class: &ClassView) -> String {
    reason(class, "")
}

/// Where a class comes from: `serviceCidrs 10.0.0.0/16 (/etc/azure-vnet/loader.yaml)`.
pub(crate) fn reason(class: &ClassView, prefix: &str) -> String {
    let file = class.file.as_ref();
    let file = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
    format!("{}{prefix}{file}", class.why)
}
