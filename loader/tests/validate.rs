//! `vnetctl validate` as an operator calls it.
#![cfg(test)]

use std::fs;
use std::process::{Command, Output};

fn validate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vnetctl"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_right_conflist_ends_with_0_and_a_wrong_one_with_1_and_the_place() {
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/10-azure.conflist");
    let done = validate(&["validate", good]);
    assert!(done.status.success());
    assert!(text(&done.stdout).ends_with("10-azure.conflist: nothing wrong\n"));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.conflist");
    let conflist = fs::read_to_string(good).unwrap();
    fs::write(
        &path,
        conflist.replace("\"bridge\":\"azure0\"", "\"bridge\":7"),
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let done = validate(&["validate", path]);
    assert_eq!(done.status.code(), Some(1));
    let told = format!("{path}:8: error: plugins.0.bridge: ");
    assert!(
        text(&done.stdout).starts_with(&told),
        "{}",
        text(&done.stdout)
    );
    assert!(text(&done.stderr).contains("1 of 1 findings are errors"));

    let done = validate(&["-o", "json", "validate", path]);
    assert_eq!(done.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&findings[0]["severity"], &findings[0]["line"]),
        (&"error".into(), &8.into())
    );
}

/// A warning is worth a look, but pods can be added.
#[test]
fn a_warning_alone_ends_with_0_and_a_file_that_cannot_be_read_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odd.conflist");
    let list =
        r#"{"name": "a", "plugins": [{"type": "azure-vnet", "mdoe": "", "ipam": {"type": "x"}}]}"#;
    fs::write(&path, list).unwrap();
    let done = validate(&["validate", path.to_str().unwrap()]);
    assert!(done.status.success());
    assert!(text(&done.stdout).contains("warning: plugins.0.mdoe: "));
    let done = validate(&["validate", "/nowhere"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("/nowhere"));
}
