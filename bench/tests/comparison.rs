//! `bench compare` on recorded reports: of the same product twice, of one whose ADD sleeps, and of one with a slow program.
#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn compare(before: &Path, now: &Path) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.arg("compare").args([before, now]).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_recorded_sleep_in_add_is_flagged_with_status_one_and_nothing_else_is() {
    let output = compare(&fixture("before.json"), &fixture("slow_add.json"));
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    for peer in ["bridge", "ptp"] {
        assert!(
            said.contains(&format!("WORSE  add, serial, ours over {peer}:")),
            "{said}"
        );
    }
    assert!(!said.contains("WORSE  del"), "DEL did not sleep: {said}");
}

/// Of one build on two CPUs with a load of 10 and of 17: the worst that a comparison may be asked. Without their rows.
#[test]
fn two_recorded_runs_of_the_same_are_not_worse_than_each_other() {
    let files = ["same_one.json", "same_two.json"].map(fixture);
    let [one, two] = files.each_ref().map(PathBuf::as_path);
    for (before, now) in [(one, two), (two, one)] {
        let said = said(&compare(before, now));
        assert!(
            said.contains("61 figures compared: ") && !said.contains("WORSE"),
            "{said}"
        );
        assert!(said.contains("BUSY   before: others wanted "), "{said}");
    }
}

#[test]
fn a_recorded_program_with_fifty_look_ups_more_is_flagged_with_status_one() {
    let output = compare(&fixture("before_drop.json"), &fixture("slow_program.json"));
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    for side in ["host", "bridge", "ptp"] {
        let flagged = format!("ours over {side}:");
        let of_side = said.lines().find(|line| line.contains(&flagged));
        let line = of_side.unwrap_or_else(|| panic!("{side}: {said}"));
        assert!(line.starts_with("WORSE  xdp_drop, "), "{line}");
    }
}

#[test]
fn a_report_is_not_worse_than_itself() {
    let output = compare(&fixture("before.json"), &fixture("before.json"));
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.ends_with(", 0 worse by more than that and than their rounds differ\n"));
}

#[test]
fn reports_with_nothing_in_common_and_ours_that_failed_are_no_success() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("report.json");
    let text = std::fs::read_to_string(fixture("before.json")).unwrap();
    let mut report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let failure = serde_json::json!({"side": "ours", "what": "tcp_rr", "error": "no answer"});
    report["machine"]["failures"] = serde_json::json!([failure]);
    std::fs::write(&file, report.to_string()).unwrap();
    let failed = compare(&fixture("before.json"), &file);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    report["machine"]["failures"] = serde_json::json!([]);
    report["machine"]["sizes"] = serde_json::json!([]);
    report["rows"] = serde_json::json!([]);
    report["ratios"] = serde_json::json!([]);
    std::fs::write(&file, report.to_string()).unwrap();
    let nothing = compare(&fixture("before.json"), &file);
    assert_eq!(nothing.status.code(), Some(1));
    let said = said(&nothing);
    assert!(said.contains("GONE   add, serial, ours over bridge: cannot be compared\n"));
    assert!(said.contains("\n0 figures compared"), "{said}");
}

#[test]
fn what_became_better_is_not_flagged() {
    let output = compare(&fixture("slow_add.json"), &fixture("before.json"));
    assert!(
        !said(&output).contains("WORSE  add, serial"),
        "{}",
        said(&output)
    );
}

#[test]
fn what_is_no_report_is_refused_by_name() {
    let output = compare(&fixture("before.json"), Path::new("/dev/null"));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("/dev/null is no report of this benchmark"),
        "{error}"
    );
}

#[test]
fn a_report_is_published_between_the_marks_with_its_plots_beside_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let document = folder.path().join("performance.md");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let text = std::fs::read_to_string(ours).unwrap();
    let (before, _) = text.split_once("<!-- report: begin").unwrap();
    std::fs::write(&document, &text).unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench
        .arg("publish")
        .arg(fixture("before.json"))
        .arg("--into")
        .arg(&document);
    assert!(bench.status().unwrap().success());
    let published = std::fs::read_to_string(&document).unwrap();
    assert!(published.starts_with(before) && published.ends_with("<!-- report: end -->\n"));
    assert!(
        published.contains("![ADD](performance/add.svg)"),
        "{published}"
    );
    assert!(folder.path().join("performance/add.svg").is_file());
}
