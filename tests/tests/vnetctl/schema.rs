//! Whatever `-o json` prints on a node is what docs/schema says, and no schema is without its command.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lab::eventually;
use serde_json::Map;

use super::*;

/// The command line of each answer.
const COMMANDS: [(&str, &str); 17] = [
    ("classes", "classes 10.0.0.10 8.8.8.8"),
    ("doctor", "doctor"),
    ("endpoints", "endpoints"),
    ("explain", "explain"),
    ("flows", "flows"),
    ("ipam", "ipam show"),
    ("ipam-gc", "ipam gc --dry-run"),
    ("monitor", "monitor --count 1 --seconds 20"),
    ("selftest", "selftest"),
    ("snat", "snat"),
    ("snat-top", "snat --top 3"),
    ("status", "status"),
    ("status-brief", "status --brief"),
    ("sysdump", "sysdump --file /tmp/dump.tar.gz"),
    ("trace", "trace web 10.0.0.10:80"),
    ("validate", "validate /etc/cni/net.d/odd.conflist"),
    // Last: nothing is there any more.
    ("uninstall", "uninstall --force"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema")
}

#[test]
fn every_answer_for_programs_has_the_shape_that_its_schema_says() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    // Something in every answer: a flow of the kernel's, a binding, a leaked address, a wrong conflist.
    let (web, db) = (node.add_pod("web")?, node.add_pod("db")?);
    let _echo = db.serve_echo(8080)?;
    let service = std::net::Ipv4Addr::new(10, 0, 0, 10);
    let services = [lab::Service::new("db", service, 80).backend(db.addr(), 8080)];
    node.proxy(lab::Proxy::Nftables, &services)?;
    web.tcp(service, 80)?;
    web.tcp(lab.inet().addr(), 8080)?;
    node.add_pod("leaked")?.remove_netns()?;
    // The host veth goes a moment after the namespace.
    let leaks = || json(node, "ipam check").ok()?.get(0).map(drop);
    eventually(Duration::from_secs(10), leaks).context("nothing leaks")?;
    node.write("/etc/cni/net.d/odd.conflist", r#"{"name": 5}"#)?;
    // Something to be dropped again and again: its SYNs to the VM's secrets.
    let knock = "exec 3<>/dev/tcp/168.63.129.16/80";
    let _knocking = web.start(&["timeout", "60", "bash", "-c", knock])?;
    for (name, command) in COMMANDS {
        let answer = json(node, command)?;
        let rows = answer.as_array().map(Vec::len);
        let something = rows.map_or_else(
            || answer["total"] != 0 && answer["findings"] != Value::Array(Vec::new()),
            |rows| rows > 0,
        );
        assert!(something, "{command}: {answer}");
        conforms(name, &answer)?;
    }
    Ok(())
}

#[track_caller]
fn conforms(name: &str, answer: &Value) -> Result {
    let schema = fs::read_to_string(folder().join(format!("{name}.json")))?;
    let schema: Value = serde_json::from_str(&schema)?;
    let validator = jsonschema::validator_for(&schema)?;
    let errors: Vec<String> = validator
        .iter_errors(answer)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{answer:#}");
    // A schema that takes anything says nothing.
    let takes = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut other = answer.clone();
        let row = if let Value::Array(rows) = &mut other {
            rows.first_mut()
        } else {
            Some(&mut other)
        };
        change(row.and_then(Value::as_object_mut).expect("fields"));
        validator.is_valid(&other)
    };
    let adds = takes(&|fields| drop(fields.insert("unknown".into(), 5.into())));
    assert!(!adds, "{name} takes unknown fields");
    for field in required(&schema) {
        let lacks = takes(&|fields| assert!(fields.remove(&field).is_some(), "{field}"));
        assert!(!lacks, "{name} does without {field}");
    }
    Ok(())
}

/// The fields that an answer, or a row of it, must have; of several shapes those of the first.
fn required(schema: &Value) -> Vec<String> {
    let mut one = schema;
    for _ in 0..3 {
        let reference = one["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
        let inner = [&one["items"], &one["anyOf"][0]];
        let inner = inner.into_iter().find(|inner| !inner.is_null());
        one = match (reference, inner) {
            (Some(path), _) => schema.pointer(path).unwrap(),
            (None, Some(inner)) => inner,
            (None, None) => break,
        };
    }
    let required = one["required"].as_array().expect("required fields");
    let names = required.iter().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

#[test]
fn every_schema_has_its_command() -> Result {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder())? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        files.insert(name.trim_end_matches(".json").to_owned());
    }
    let commands: BTreeSet<String> = COMMANDS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(files, commands);
    Ok(())
}
