//! Crates depend on each other in one direction, the one that the architecture says.

use crate::metadata::Metadata;
use anyhow::{Result, bail};

/// Package, what of the workspace it may depend on, and what else it may depend on (`None`: anything).
type Rule = (
    &'static str,
    &'static [&'static str],
    Option<&'static [&'static str]>,
);

const RULES: [Rule; 11] = [
    ("abi", &[], Some(&["zerocopy"])),
    ("datapath", &["abi"], Some(&[])),
    ("ebpf", &["abi", "datapath"], None),
    ("hooks", &["abi", "datapath"], None),
    ("rpc", &[], None),
    ("netconf", &["rpc"], None),
    ("cni", &["abi", "hooks", "netconf", "rpc"], None),
    (
        "loader",
        &["abi", "datapath", "hooks", "netconf", "rpc"],
        None,
    ),
    ("tests", &["abi", "datapath", "hooks", "rpc"], None),
    ("bench", &["abi", "datapath", "hooks", "rpc", "tests"], None),
    ("xtask", &["abi", "tests"], None),
];

/// Crates from outside that a package leaves to others: attaching to `hooks`, and whatever slows an exec to the daemon.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("cni", &["aya", "clap", "tracing", "tracing-subscriber"]),
    ("ebpf", &["aya"]),
    ("rpc", &["aya"]),
];

/// What every package's tests may use as well, beside the package itself with other features.
const LAB: &str = "tests";

pub(super) fn check() -> Result<()> {
    let wrong = violations(&Metadata::load()?);
    if !wrong.is_empty() {
        bail!(
            "{}; see ARCHITECTURE.md, or change xtask/src/check/directions.rs with it",
            wrong.join("; ")
        );
    }
    println!("{} packages, all in the right direction", RULES.len());
    Ok(())
}

fn violations(metadata: &Metadata) -> Vec<String> {
    let members = metadata.members();
    let known = |package: &str| RULES.iter().any(|(name, ..)| *name == package);
    let mut wrong: Vec<String> = members
        .iter()
        .filter(|member| !known(member))
        .map(|member| format!("{member} has no rule"))
        .collect();
    for (package, ours, others) in RULES {
        for (dependency, for_tests) in metadata.dependencies(package) {
            let fine = if members.contains(dependency) {
                ours.contains(&dependency) || (for_tests && [LAB, package].contains(&dependency))
            } else {
                for_tests || others.is_none_or(|others| others.contains(&dependency))
            };
            if !fine {
                wrong.push(format!("{package} may not depend on {dependency}"));
            }
        }
    }
    for (package, dependencies) in FORBIDDEN {
        let found = metadata.dependencies(package);
        let found = found
            .iter()
            .filter(|(name, for_tests)| !for_tests && dependencies.contains(name));
        wrong.extend(found.map(|(name, _)| format!("{package} may not depend on {name}")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dependencies: &str) -> Vec<String> {
        let package = |name: &str, dependencies: &str| {
            format!(r#"{{"name": "{name}", "dependencies": [{dependencies}]}}"#)
        };
        let packages = [
            package("datapath", dependencies),
            package("abi", ""),
            package("loader", ""),
            package("tests", ""),
        ];
        violations(
            &Metadata::parse(&format!(r#"{{"packages": [{}]}}"#, packages.join(","))).unwrap(),
        )
    }

    #[test]
    fn the_right_direction_passes() {
        assert_eq!(
            of(r#"{"name": "abi", "kind": null}, {"name": "proptest", "kind": "dev"}"#),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_wrong_direction_is_named() {
        assert_eq!(
            of(r#"{"name": "loader", "kind": null}"#),
            ["datapath may not depend on loader"]
        );
        assert_eq!(
            of(r#"{"name": "loader", "kind": "dev"}"#),
            ["datapath may not depend on loader"]
        );
        assert_eq!(
            of(r#"{"name": "aya", "kind": null}"#),
            ["datapath may not depend on aya"]
        );
    }

    #[test]
    fn a_new_package_needs_a_rule() {
        let metadata =
            Metadata::parse(r#"{"packages": [{"name": "extra", "dependencies": []}]}"#).unwrap();
        assert_eq!(violations(&metadata), ["extra has no rule"]);
    }
}
