//! What `cargo metadata` says of this workspace.

use crate::command;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Debug)]
pub(crate) struct Metadata(Value);

impl Metadata {
    /// Asks cargo; the workspace's own packages only.
    pub(crate) fn load() -> Result<Self> {
        let json = command::output(command::cargo().args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
        ]))?;
        Self::parse(&json)
    }

    pub(crate) fn parse(json: &str) -> Result<Self> {
        Ok(Self(
            serde_json::from_str(json).context("understand what `cargo metadata` printed")?,
        ))
    }

    fn packages(&self) -> impl Iterator<Item = (&str, &Value)> {
        let packages = self
            .0
            .get("packages")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        packages.filter_map(|package| Some((package.get("name")?.as_str()?, package)))
    }

    /// Names of the packages of the workspace.
    pub(crate) fn members(&self) -> BTreeSet<&str> {
        self.packages().map(|(name, _)| name).collect()
    }

    /// Names of the integration tests of the packages that `wanted` accepts.
    pub(crate) fn integration_tests(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let targets = self
            .packages()
            .filter(|(name, _)| wanted(name))
            .filter_map(|(_, package)| package.get("targets"));
        let targets = targets.filter_map(Value::as_array).flatten();
        let is_test =
            |target: &Value| target.pointer("/kind/0").and_then(Value::as_str) == Some("test");
        targets
            .filter(|target| is_test(target))
            .filter_map(|target| Some(target.get("name")?.as_str()?.into()))
            .collect()
    }

    /// What a package names in its manifest: name of the dependency's package, and whether for tests only.
    pub(crate) fn dependencies(&self, of: &str) -> Vec<(&str, bool)> {
        let packages = self.packages().filter(|(name, _)| *name == of);
        let all = packages
            .filter_map(|(_, package)| package.get("dependencies")?.as_array())
            .flatten();
        let is_dev =
            |dependency: &Value| dependency.get("kind").and_then(Value::as_str) == Some("dev");
        all.filter_map(|dependency| Some((dependency.get("name")?.as_str()?, is_dev(dependency))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_tests_and_dependencies_are_read() {
        let json = r#"{"packages": [
            {"name": "cni", "targets": [{"kind": ["lib"], "name": "cni"}, {"kind": ["test"], "name": "protocol"}],
             "dependencies": [{"name": "rpc", "kind": null}, {"name": "tests", "rename": "lab", "kind": "dev"}]},
            {"name": "rpc", "targets": [{"kind": ["lib"], "name": "rpc"}], "dependencies": []}]}"#;
        let metadata = Metadata::parse(json).unwrap();
        assert_eq!(metadata.members(), BTreeSet::from(["cni", "rpc"]));
        assert_eq!(
            metadata.integration_tests(|name| name == "cni"),
            ["protocol"]
        );
        assert_eq!(
            metadata.integration_tests(|name| name == "rpc"),
            Vec::<String>::new()
        );
        assert_eq!(
            metadata.dependencies("cni"),
            [("rpc", false), ("tests", true)]
        );
        assert!(Metadata::parse("[").is_err());
    }
}
