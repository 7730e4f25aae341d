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
fn a_recorded_sleep_in_add_is_flagged_with_status_one() {
    let output = compare(&fixture("before.json"), &fixture("slow_add.json"));
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    for peer in ["bridge", "ptp"] {
        assert!(
            said.contains(&format!("WORSE  add, serial, ours over {peer}:")),
            "{said}"
        );
    }
    assert!(
        !said.contains("WORSE  del, serial"),
        "DEL did not sleep: {said}"
    );
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
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "nothing is worse by more than a tenth\n");
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
