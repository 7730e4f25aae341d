//! Do udev or systemd-networkd change what is ours?

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Problem;
use super::node::Node;

/// Where systemd looks, the first decides.
const FOLDERS: [&str; 4] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
];
/// A host veth's name.
const VETH: &str = "azv0123456789a";

/// An `[Section] key=value` of systemd's.
type Setting = (String, String, String);

/// The distribution's own default leaves addresses alone that somebody has set, and ours are; a file that an administrator
/// wrote says that pods' interfaces are meant.
pub(super) fn udev(_node: &Node) -> Option<Problem> {
    let (path, settings) = files("network", "link")
        .into_values()
        .map(|path| (settings(&path), path))
        .find(|(settings, _)| matches_veth(settings))
        .map(|(settings, path)| (path, settings))?;
    let policy = last(&settings, "Link", "MACAddressPolicy")?;
    let is_ours = path.starts_with("/usr");
    (!is_ours && ["persistent", "random"].contains(&policy)).then(|| {
        Problem::warning(
            format!("{} sets MACAddressPolicy={policy} for pods' host veths", path.display()),
            "udev that changes a host veth's Ethernet address cuts the pod off",
            "add /etc/systemd/network/05-azv.link with [Match] OriginalName=azv* and [Link] MACAddressPolicy=none",
        )
    })
}

/// Whether a `.link` file's `[Match]` takes pods' host veths. What else it asks for, a veth has not.
fn matches_veth(settings: &[Setting]) -> bool {
    let mut asked = settings
        .iter()
        .filter(|(section, ..)| section == "Match")
        .peekable();
    asked.peek().is_some()
        && asked.all(|(_, key, value)| {
            let mut patterns = value.split_whitespace();
            match key.as_str() {
                "OriginalName" => patterns.any(|pattern| glob(pattern, VETH)),
                "Driver" | "Kind" => patterns.any(|pattern| glob(pattern, "veth")),
                "Type" => patterns.any(|pattern| glob(pattern, "ether")),
                _ => false,
            }
        })
}

/// It takes what it does not know for left over when it starts, or reconfigures the NIC.
pub(super) fn networkd(_node: &Node) -> Option<Problem> {
    if !Path::new("/run/systemd/netif/state").exists() {
        return None;
    }
    let mut all = Vec::new();
    for folder in FOLDERS.iter().take(4) {
        let main = Path::new(folder).join("networkd.conf");
        if main.exists() {
            all = settings(&main);
            break;
        }
    }
    for path in files("networkd.conf.d", "conf").into_values() {
        all.extend(settings(&path));
    }
    let keys = ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"];
    let is_off = |key: &&str| {
        let value = last(&all, "Network", key).unwrap_or("yes").to_lowercase();
        ["no", "false", "off", "0", "n", "f"].contains(&value.as_str())
    };
    let on: Vec<&str> = keys.into_iter().filter(|key| !is_off(key)).collect();
    (!on.is_empty()).then(|| {
        Problem::warning(
            format!("systemd-networkd runs, and {} is not `no`", on.join(" and ")),
            "when it starts anew it removes routes and rules that it does not know: pods' and those of the tunnel modes",
            "write /etc/systemd/networkd.conf.d/azure-vnet.conf with [Network], ManageForeignRoutes=no and \
             ManageForeignRoutingPolicyRules=no; systemctl restart systemd-networkd",
        )
    })
}

/// Files of a kind by name: each name once, where it is found first.
fn files(folder: &str, extension: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for root in FOLDERS {
        let entries = fs::read_dir(Path::new(root).join(folder))
            .into_iter()
            .flatten();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name
                && path.extension().is_some_and(|known| known == extension)
            {
                found.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    found
}

fn settings(path: &Path) -> Vec<Setting> {
    parse(&fs::read_to_string(path).unwrap_or_default())
}

fn parse(text: &str) -> Vec<Setting> {
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=')
            && !line.starts_with(['#', ';'])
        {
            settings.push((
                section.clone(),
                key.trim().to_owned(),
                value.trim().to_owned(),
            ));
        }
    }
    settings
}

fn last<'a>(settings: &'a [Setting], section: &str, key: &str) -> Option<&'a str> {
    let mut all = settings.iter().rev();
    all.find(|(of, name, _)| of == section && name == key)
        .map(|(.., value)| value.as_str())
}

/// Shell patterns as far as interface names need them: `*` only.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| glob(tail, rest)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_file_is_for_veths_when_all_that_it_asks_for_fits() {
        for (text, fits) in [
            ("[Match]\nOriginalName=*\n[Link]\n", true),
            ("[Match]\nOriginalName=eth* azv*\n", true),
            ("[Match]\nDriver=veth\nType=ether\n", true),
            ("[Match]\nOriginalName=eth0\n", false),
            (
                "[Match]\nOriginalName=*\nMACAddress=00:0d:3a:00:00:01\n",
                false,
            ),
            ("[Link]\nMACAddressPolicy=persistent\n", false),
        ] {
            assert_eq!(matches_veth(&parse(text)), fits, "{text}");
        }
    }

    #[test]
    fn the_last_setting_counts_and_comments_do_not() {
        let settings = parse(
            "[Network]\nManageForeignRoutes = yes\n#ManageForeignRoutes=maybe\n[Network]\nManageForeignRoutes=no\n",
        );
        assert_eq!(
            last(&settings, "Network", "ManageForeignRoutes"),
            Some("no")
        );
        assert_eq!(last(&settings, "Other", "ManageForeignRoutes"), None);
    }
}
