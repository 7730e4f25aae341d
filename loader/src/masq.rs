//! ip-masq-agent's files, `ip-masq*` in `/etc/azure-vnet/masq/`: which destinations keep the pod's own address?
//!
//! As azure-ip-masq-agent-v2 reads them: YAML or JSON, names of keys in any case, lists united, flags OR'd, at most 64
//! prefixes a file. A file without prefixes counts as an empty list; no file at all means the defaults.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};

use crate::document::{self, ConfigError, Document, nearest};

/// Where the files are; a `ConfigMap` may be mounted here.
pub const MASQ_DIRECTORY: &str = "/etc/azure-vnet/masq";
/// Names of the files begin so.
const PREFIX: &str = "ip-masq";
/// As in ip-masq-agent, "to protect against really bad mistakes".
const MOST_PREFIXES: usize = 64;
/// Together they must fit into `dst4`.
const MOST_FILES: usize = 16;

const KEYS: [&str; 4] = [
    "nonMasqueradeCIDRs",
    "masqLinkLocal",
    "masqLinkLocalIPv6",
    "resyncInterval",
];

/// What all files together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masq {
    /// The files, by name.
    pub files: Vec<PathBuf>,
    /// Destinations without SNAT, each with the first file that names it.
    pub prefixes: Vec<(Ipv4Net, PathBuf)>,
    /// The first file that wants link-local destinations masqueraded.
    pub link_local: Option<PathBuf>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl Masq {
    /// Reads every file in `directory`; the defaults when there is none. One bad file is an error.
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        let mut masq = Self::default();
        for path in files(directory)? {
            // Gone since the directory was listed.
            if let Some(text) = document::read(&path)? {
                masq.add(&path, &text)?;
            }
        }
        if !masq.files.is_empty() && masq.prefixes.is_empty() {
            let directory = directory.display();
            masq.warnings.push(format!(
                "no file in {directory} names nonMasqueradeCIDRs: all private ranges outside the VNet are masqueraded"
            ));
        }
        Ok(masq)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        for entry in Document::parse(path, text)?.entries() {
            // Go's JSON takes keys in any case, and configurations in the wild rely on it.
            match entry.key.to_lowercase().as_str() {
                "nonmasqueradecidrs" => {
                    let prefixes = entry.prefixes_of_both_families()?;
                    if prefixes.len() > MOST_PREFIXES {
                        return Err(entry.refuse(
                            &format!("{} prefixes", prefixes.len()),
                            &format!("are more than {MOST_PREFIXES}"),
                            "write wider prefixes, or a second file",
                        ));
                    }
                    for prefix in prefixes {
                        self.add_prefix(prefix, path);
                    }
                }
                "masqlinklocal" => {
                    if entry.boolean()? {
                        self.link_local.get_or_insert_with(|| path.to_owned());
                    }
                }
                // Pods have no IPv6.
                "masqlinklocalipv6" => {
                    entry.boolean()?;
                }
                // Changes are seen at once.
                "resyncinterval" => {
                    let example = "one such as 60s";
                    let text = entry.text("a duration", example)?;
                    if !is_duration(text) {
                        let remedy = format!("write {example}");
                        return Err(entry.refuse(text, "is not a duration", &remedy));
                    }
                }
                _ => self.warnings.push(format!(
                    "{}: unknown key `{}` is ignored; did you mean `{}`?",
                    path.display(),
                    entry.key,
                    nearest(entry.key, &KEYS)
                )),
            }
        }
        self.files.push(path.to_owned());
        Ok(())
    }

    fn add_prefix(&mut self, prefix: IpNet, path: &Path) {
        if let IpNet::V4(prefix) = prefix
            && !self.prefixes.iter().any(|(known, _)| *known == prefix)
        {
            self.prefixes.push((prefix, path.to_owned()));
        }
    }
}

/// The files, by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |why: String| ConfigError::Read {
        path: directory.to_owned(),
        why,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed(error.to_string()))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            files.push(entry.path());
        }
    }
    if files.len() > MOST_FILES {
        return Err(failed(format!(
            "{} files {PREFIX}* are more than {MOST_FILES}",
            files.len()
        )));
    }
    files.sort();
    Ok(files)
}

/// Whether Go's `time.ParseDuration` takes it and it is not negative: `60s`, `1m0s`, `1.5h`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let digits = rest.get(..rest.len() - number.len()).unwrap_or_default();
        // The longer units first: `ms` is not minutes and an `s`.
        let after = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"]
            .into_iter()
            .find_map(|unit| number.strip_prefix(unit));
        match after {
            Some(after) if digits.parse::<f64>().is_ok() => rest = after,
            _ => return false,
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What files with these texts say together.
    fn load(texts: &[&str]) -> Result<Masq, String> {
        let directory = tempfile::tempdir().unwrap();
        for (number, text) in texts.iter().enumerate() {
            fs::write(directory.path().join(format!("ip-masq-{number}")), text).unwrap();
        }
        Masq::load(directory.path()).map_err(|error| error.to_string())
    }

    fn prefixes(masq: &Masq) -> Vec<String> {
        masq.prefixes
            .iter()
            .map(|(prefix, _)| prefix.to_string())
            .collect()
    }

    #[test]
    fn lists_are_united_and_flags_are_ored() {
        let masq = load(&[
            "nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12]\nmasqLinkLocal: false\nresyncInterval: 60s\n",
            r#"{"NonMasqueradeCIDRs":["10.0.0.0/8","192.168.0.0/16","fd00::/8"],"MasqLinkLocal":true,"ResyncInterval":"1m0s"}"#,
        ])
        .unwrap();
        assert_eq!(
            prefixes(&masq),
            ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
        );
        assert!(
            masq.link_local
                .is_some_and(|file| file.ends_with("ip-masq-1"))
        );
        assert_eq!(masq.files.len(), 2);
        assert_eq!(masq.warnings, Vec::<String>::new());
    }

    #[test]
    fn no_file_is_not_an_empty_list() {
        assert_eq!(load(&[]).unwrap(), Masq::default());
        assert_eq!(
            Masq::load(Path::new("/nonexistent")).unwrap(),
            Masq::default()
        );
        for text in [
            "",
            "nonMasqueradeCIDRs: []",
            "nonMasqueradeCIDRs:",
            "masqLinkLocal: true",
        ] {
            let empty = load(&[text]).unwrap();
            assert_eq!(empty.files.len(), 1, "{text}");
            assert!(
                empty
                    .warnings
                    .iter()
                    .any(|text| text.contains("are masqueraded")),
                "{text}"
            );
        }
    }

    #[test]
    fn what_kubelet_mounts_is_read_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("..2026_01_01");
        fs::create_dir(&data).unwrap();
        fs::write(
            data.join("ip-masq-agent"),
            "nonMasqueradeCIDRs: [10.0.0.0/8]",
        )
        .unwrap();
        symlink("..2026_01_01", directory.path().join("..data")).unwrap();
        symlink(
            "..data/ip-masq-agent",
            directory.path().join("ip-masq-agent"),
        )
        .unwrap();
        fs::write(directory.path().join("README"), "{").unwrap();
        let masq = Masq::load(directory.path()).unwrap();
        assert_eq!(prefixes(&masq), ["10.0.0.0/8"]);
    }

    #[test]
    fn an_unknown_key_is_ignored_as_the_agent_does_and_told() {
        let masq = load(&["nonMasqueradeCidr: [10.0.0.0/8]"]).unwrap();
        assert!(
            masq.warnings
                .iter()
                .any(|text| text.contains("did you mean `nonMasqueradeCIDRs`"))
        );
    }

    #[test]
    fn one_bad_file_refuses_all_with_file_key_value_and_remedy() {
        let many: Vec<String> = (0..65).map(|n| format!("10.{n}.0.0/16")).collect();
        let many = format!("nonMasqueradeCIDRs: [{}]", many.join(", "));
        for (text, words) in [
            (
                "nonMasqueradeCIDRs: [10.0.0.1/8]",
                ["nonMasqueradeCIDRs", "`10.0.0.1/8`", "write 10.0.0.0/8"],
            ),
            (
                "nonMasqueradeCIDRs: [fd00::1/8]",
                ["nonMasqueradeCIDRs", "`fd00::1/8`", "write fd00::/8"],
            ),
            (
                "nonMasqueradeCIDRs: 10.0.0.0/8",
                ["nonMasqueradeCIDRs", "`10.0.0.0/8`", "[10.0.0.0/16]"],
            ),
            (
                "nonMasqueradeCIDRs: [a]",
                ["nonMasqueradeCIDRs", "`a`", "10.0.0.0/16"],
            ),
            (
                &many,
                ["nonMasqueradeCIDRs", "`65 prefixes`", "wider prefixes"],
            ),
            (
                "masqLinkLocal: yes",
                ["masqLinkLocal", "`yes`", "write true or false"],
            ),
            (
                "masqLinkLocalIPv6: 1",
                ["masqLinkLocalIPv6", "`1`", "write true or false"],
            ),
            (
                "resyncInterval: 60",
                ["resyncInterval", "`60`", "write one such as 60s"],
            ),
            (
                "resyncInterval: 60 s",
                ["resyncInterval", "`60 s`", "write one such as 60s"],
            ),
            ("[]", ["a YAML mapping", "read ", "docs/configuration.md"]),
        ] {
            let error = load(&["nonMasqueradeCIDRs: [10.0.0.0/8]", text]).unwrap_err();
            for word in ["ip-masq-1"].iter().chain(&words) {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }

    #[test]
    fn durations_are_gos() {
        for good in ["60s", "1m0s", "1.5h", "100ms", "0"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["", "60", "s", "1x", "-5s", "1m 0s"] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
