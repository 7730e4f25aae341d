//! Debian's kernel packages, of suites that this machine need not have: through an apt configuration of our own.
//!
//! Everything lies in `target/vm/apt`; `/etc/apt` and the system's package lists are only read.

use crate::command;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where kernels are, old ones and new ones, by the label of the archive.
const SUITES: [(&str, &[&str]); 2] = [
    (
        "Debian",
        &[
            "bullseye",
            "bookworm",
            "bookworm-backports",
            "trixie",
            "trixie-backports",
            "sid",
        ],
    ),
    (
        "Debian-Security",
        &["bullseye-security", "bookworm-security", "trixie-security"],
    ),
];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Since 7.x the image's package is empty and depends on these.
const PARTS: [&str; 2] = ["linux-binary-", "linux-modules-"];

/// An apt with its own sources, lists and cache.
#[derive(Debug)]
pub(super) struct Apt {
    folder: PathBuf,
}

/// A package of a kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    /// Debian's, which begins with the kernel's: `6.1.192-2`.
    pub(super) version: String,
}

impl Apt {
    /// Makes the configuration and fetches the package lists.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("make {}", folder.join(part).display()))?;
        }
        let targets = command::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        let sources = sources(&targets);
        ensure!(
            !sources.is_empty(),
            "this machine's apt knows no mirror of Debian, whose kernels `vm` boots; on Debian, run `apt-get update` first"
        );
        fs::write(folder.join("sources.list"), sources).context("write apt's sources")?;
        let apt = Self {
            folder: folder.to_owned(),
        };
        // A suite that the mirror does not have is an error, but the others' lists are there then.
        if let Err(error) = command::output(apt.command("apt-get").args(["update", "-q"])) {
            println!("vm: not every suite could be read: {error:#}");
        }
        Ok(apt)
    }

    /// The newest package of kernel `version`, which is major and minor: `6.1`.
    pub(super) fn newest(&self, version: &str) -> Result<Package> {
        let known = self.kernels()?;
        if let Some(package) = newest(&known, version) {
            return Ok(package);
        }
        let versions: BTreeSet<Vec<u64>> = known
            .iter()
            .map(|package| numbers(&package.version).into_iter().take(2).collect())
            .collect();
        let versions: Vec<String> = versions
            .iter()
            .map(|numbers| {
                numbers
                    .iter()
                    .map(u64::to_string)
                    .collect::<Vec<_>>()
                    .join(".")
            })
            .collect();
        anyhow::bail!(
            "no package of a cloud kernel {version} on the mirror; there are {}",
            versions.join(", ")
        )
    }

    fn kernels(&self) -> Result<Vec<Package>> {
        let pattern = "^linux-image-[0-9]+[.][0-9]+[.].*-cloud-amd64$";
        let names =
            command::output(
                self.command("apt-cache")
                    .args(["search", "--names-only", pattern]),
            )?;
        let names = names.lines().filter_map(|line| line.split(' ').next());
        let table = command::output(self.command("apt-cache").arg("madison").args(names))?;
        Ok(table.lines().filter_map(package).collect())
    }

    /// Downloads the package, and those that hold its parts, and unpacks them into `root`.
    pub(super) fn unpack(&self, package: &Package, root: &Path) -> Result<()> {
        let exact = format!("{}={}", package.name, package.version);
        let shown = command::output(self.command("apt-cache").args(["show", &exact]))?;
        let depends = shown
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "));
        let parts = depends
            .unwrap_or_default()
            .split([',', '|'])
            .filter_map(|dependency| dependency.split_whitespace().next())
            .filter(|name| PARTS.iter().any(|part| name.starts_with(part)))
            .map(|name| format!("{name}={}", package.version));
        let downloads = self.folder.join("downloads");
        fs::create_dir_all(&downloads).context("make the folder of downloads")?;
        for exact in std::iter::once(exact).chain(parts) {
            println!("vm: downloading {exact}");
            command::output(
                self.command("apt-get")
                    .args(["download", "-q", &exact])
                    .current_dir(&downloads),
            )?;
        }
        for entry in fs::read_dir(&downloads).context("look at the downloads")? {
            let path = entry.context("look at the downloads")?.path();
            command::run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(root))?;
        }
        fs::remove_dir_all(&downloads).context("remove the downloads")
    }

    fn command(&self, program: &str) -> Command {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::Etc::Preferences", "/dev/null".into()),
            ("Dir::Etc::PreferencesParts", "/dev/null".into()),
            ("Dir::State", at("state")),
            ("Dir::State::status", "/var/lib/dpkg/status".into()),
            ("Dir::Cache", at("cache")),
            ("Acquire::Languages", "none".into()),
            ("Acquire::PDiffs", "false".into()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".into(),
            ),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.args(["-o", &format!("{option}={value}")]);
        }
        command
    }
}

/// Lines of sources.list for the mirrors that the machine uses itself: `targets` has a label and an address per line.
fn sources(targets: &str) -> String {
    let mut lines = String::new();
    for (label, suites) in SUITES {
        let mirror = targets.lines().find_map(|line| {
            let (found, uri) = line.split_once(' ')?;
            (found == label).then_some(uri)
        });
        for suite in mirror.map_or(&[][..], |_| suites) {
            let mirror = mirror.unwrap_or_default();
            // Writing to a String cannot fail.
            writeln!(lines, "deb [signed-by={KEYRING}] {mirror} {suite} main").unwrap_or_default();
        }
    }
    lines
}

/// A line of `apt-cache madison`: `name | version | source`.
fn package(line: &str) -> Option<Package> {
    let mut columns = line.split('|').map(str::trim);
    Some(Package {
        name: columns.next()?.to_owned(),
        version: columns.next()?.to_owned(),
    })
}

fn newest(known: &[Package], version: &str) -> Option<Package> {
    let prefix = format!("linux-image-{version}.");
    let of_it = known
        .iter()
        .filter(|package| package.name.starts_with(&prefix));
    of_it
        .max_by_key(|package| numbers(&package.version))
        .cloned()
}

/// What a version is compared by; enough for versions of one kernel.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_of_exactly_this_kernel_is_taken() {
        let table =
            "linux-image-6.1.0-9-cloud-amd64 | 6.1.27-1 | mirror bookworm/main amd64 Packages
linux-image-6.1.0-56-cloud-amd64 |  6.1.192-2 | mirror bookworm/main amd64 Packages
linux-image-6.12.117+deb12-cloud-amd64 | 6.12.117-1~deb12u1 | mirror bookworm/main amd64 Packages
linux-image-6.12.9+deb13-cloud-amd64 | 6.12.9-1 | mirror trixie/main amd64 Packages";
        let known: Vec<_> = table.lines().filter_map(package).collect();
        let version = |of| newest(&known, of).map(|package| package.version);
        assert_eq!(version("6.1").as_deref(), Some("6.1.192-2"));
        assert_eq!(version("6.12").as_deref(), Some("6.12.117-1~deb12u1"));
        assert_eq!(version("6.6"), None);
    }

    #[test]
    fn the_machines_own_mirrors_are_asked_for_more_suites() {
        let sources = sources("Debian http://mirror/debian/\nOther http://elsewhere/\n");
        assert!(
            sources.contains("] http://mirror/debian/ sid main\n"),
            "{sources}"
        );
        assert!(!sources.contains("security") && !sources.contains("elsewhere"));
        assert_eq!(super::sources("Other http://elsewhere/\n"), "");
    }
}
