//! Do documents, dashboard and alerts name what there is?

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use abi::{Counter, DropReason, Path};
use rpc::{CallFailure, CallReport, DestinationView, PoolView, TableView};

use super::process::Process;
use super::*;
use crate::foreign::Owner;
use crate::repairs::Repair;
use crate::trouble::Topic;

/// One of everything, so that nothing is left out for want of values.
fn example() -> String {
    let counter = Counter {
        packets: 1,
        bytes: 60,
    };
    let metrics = Metrics::default();
    metrics.swept(&Swept::default());
    metrics.call(&CallReport {
        plugin: "azure-vnet".into(),
        verb: "ADD".into(),
        total_us: 5000,
        error: Some(CallFailure {
            code: 11,
            step: "loader".into(),
        }),
    });
    let state = State {
        uptime_s: 1.0,
        is_ready: true,
        rejected: 0,
        warnings: 0,
        pods: 1,
        traffic: vec![(Path::ToPod, counter)],
        drops: vec![(DropReason::Malformed, counter)],
        tables: vec![TableView {
            name: "snat".into(),
            used: 1,
            capacity: 2,
        }],
        flows_full: false,
        flows_lost: 0,
        snat_ports: 1,
        open: 1,
        bindings: 1,
        destinations: vec![DestinationView {
            address: Ipv4Addr::LOCALHOST,
            port: 443,
            protocol: "tcp".into(),
            ports: 1,
        }],
        addresses: Addresses::default(),
        leaked: 0,
        pool: Some(PoolView {
            source: "wireserver".into(),
            age_s: 1,
            addresses: 1,
        }),
        attached: vec![("to_wire", 1)],
        missing: vec![("from_pod", 1)],
        troubles: vec![(Topic::Stack, true)],
        repairs: vec![(Repair::Program, 1)],
        foreign: vec![(Owner::Calico, 1)],
        is_stack: false,
        process: Process::default(),
    };
    text(&metrics, &state).unwrap()
}

/// By name, as a query has it: kind and meaning.
fn exposed() -> BTreeMap<String, (String, String)> {
    let text = example();
    let mut found = BTreeMap::new();
    let mut help = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, text)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            help.insert(name, text);
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let about = (kind.to_owned(), help[name].to_owned());
            found.insert(format!("{name}{suffix}"), about);
        }
    }
    found
}

/// Names of the labels of a metric, in their order.
fn labels_of(name: &str) -> String {
    let text = example();
    let line = text.lines().find(|line| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        ["{", " ", "_count"]
            .iter()
            .any(|next| rest.starts_with(next))
    });
    let labels = line.and_then(|line| Some(line.split_once('{')?.1.split_once('}')?.0));
    let names = labels.unwrap_or_default().split(',');
    let names: Vec<String> = names
        .filter_map(|label| Some(format!("`{}`", label.split_once('=')?.0)))
        .collect();
    names.join(", ")
}

fn repository(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_page_of_metrics_says_what_the_loader_exposes() {
    let rows: Vec<String> = exposed()
        .iter()
        .map(|(name, (kind, help))| format!("| `{name}` | {kind} | {} | {help} |", labels_of(name)))
        .collect();
    let page = repository("docs/metrics.md");
    let told: BTreeSet<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `azure_vnet") || line.starts_with("| `process"))
        .collect();
    let is: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    let (more, less): (Vec<_>, Vec<_>) = (
        told.difference(&is).collect(),
        is.difference(&told).collect(),
    );
    assert!(
        more.is_empty() && less.is_empty(),
        "docs/metrics.md is stale: these lines are wrong {more:#?}, these are missing {less:#?}"
    );
}

#[test]
fn names_and_units_are_conventional() {
    for (name, (kind, help)) in exposed() {
        let of = format!("{name}: {kind}: {help}");
        assert!(
            name.starts_with("azure_vnet_") || name.starts_with("process_"),
            "{of}"
        );
        assert_eq!(name.ends_with("_total"), kind == "counter", "{of}");
        for odd in ["_ms", "_us", "_milliseconds", "_percent", "_kb", "_count"] {
            assert!(!name.ends_with(odd), "{of}");
        }
        assert!(help.len() > 15 && !help.contains('|'), "{of}");
    }
}

/// Words of a text that can only be names of metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("azure_vnet_") || word.starts_with("process_"))
        .collect()
}

/// Under which names Prometheus knows what is exposed.
fn series() -> BTreeSet<String> {
    let names = exposed().into_iter().flat_map(|(name, (kind, _))| {
        let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
        if kind == "histogram" {
            parts.to_vec()
        } else {
            vec![name]
        }
    });
    names.collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let series = series();
    for path in [
        "deploy/prometheus/alerts.yaml",
        "deploy/prometheus/alerts_test.yaml",
        "deploy/grafana/azure-vnet.json",
    ] {
        let text = repository(path);
        let names = named(&text);
        let unknown: Vec<_> = names
            .iter()
            .filter(|name| !series.contains(**name))
            .collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
        assert!(names.len() >= 8, "{path}: {names:?}");
    }
}

#[test]
fn the_dashboard_shows_everything_there_is() {
    let text = repository("deploy/grafana/azure-vnet.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 20);
    let shown = named(&text);
    for (name, (kind, _)) in exposed() {
        let name = if kind == "histogram" {
            format!("{name}_bucket")
        } else {
            name
        };
        assert!(
            shown.contains(name.as_str()),
            "{name} is on no panel of the dashboard"
        );
    }
}

#[test]
fn every_alert_says_what_is_wrong_and_what_to_do() {
    let text = repository("deploy/prometheus/alerts.yaml");
    let file: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
    for rule in file["groups"][0]["rules"].as_array().unwrap() {
        assert!(rule["alert"].as_str().unwrap().starts_with("AzureVnet"));
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].as_str().unwrap().len() > 20);
        }
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()));
    }
}

/// Where there is one (Debian's package `prometheus`): rules are well-formed, fire when they should, and do not otherwise.
#[test]
fn promtool_accepts_the_alerts() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
    for (what, file) in [("check", "alerts.yaml"), ("test", "alerts_test.yaml")] {
        let mut promtool = std::process::Command::new("promtool");
        promtool.args([what, "rules", file]).current_dir(&directory);
        match promtool.output() {
            Ok(done) => assert!(done.status.success(), "{done:?}"),
            Err(error) => println!("promtool: {error}: nothing checked"),
        }
    }
}
