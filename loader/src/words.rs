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

/// `a, b and 3 more`: enough to begin with.
pub(crate) fn some(things: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = things.iter().take(SHOWN).map(String::as_str).collect();
    match things.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let things: Vec<String> = (1..=6).map(|n| n.to_string()).collect();
        assert_eq!(some(&things), "1, 2, 3, 4 and 2 more");
    }
}
