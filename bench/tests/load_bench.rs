//! The benchmark itself, on real nodes: what it says of a slow-down, of a tool that is missing and of a side that cannot be set up.
//!
//! On demand: as root, with the product built; half a minute each.
#![cfg(test)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Where `cargo xtask build` leaves the product.
fn product() -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let default = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target")
        .join(triple);
    let named = std::env::var_os("AZURE_VNET_BIN_DIR").map(PathBuf::from);
    fs::canonicalize(named.unwrap_or_else(|| default.join("release"))).unwrap()
}

/// Where `cargo xtask build-variants` leaves the product with other programs.
fn variant(name: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/variants");
    let told = std::env::var_os("AZURE_VNET_VARIANTS_DIR").map(PathBuf::from);
    fs::canonicalize(told.unwrap_or(default).join(name)).unwrap()
}

struct Run {
    folder: TempDir,
    output: Output,
}

impl Run {
    /// A quick run of one measure with these binaries, on a machine without some files of `/usr`.
    fn of(measure: &str, binaries: &Path, hidden: &[&str], more: &[&Path]) -> Self {
        let only = ["--only", measure].map(Path::new);
        Self::with(binaries, hidden, &[&only[..], more].concat())
    }

    /// A quick run with these arguments.
    fn with(binaries: &Path, hidden: &[&str], more: &[&Path]) -> Self {
        let folder = TempDir::new().unwrap();
        let upper = folder.path().join("upper");
        for file in hidden {
            // How an overlay says that there is no such file.
            let white = upper.join(file.trim_start_matches("/usr/"));
            fs::create_dir_all(white.parent().unwrap()).unwrap();
            assert!(
                Command::new("mknod")
                    .arg(white)
                    .args(["c", "0", "0"])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        // Nodes have /usr of whoever makes them; in a mount namespace of its own, nobody else misses anything.
        let script = "mkdir -p \"$0/upper\" \"$0/work\" && \
                      mount -t overlay overlay -o \"lowerdir=/usr,upperdir=$0/upper,workdir=$0/work\" /usr && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(folder.path())
            .args([env!("CARGO_BIN_EXE_bench"), "--quick", "--out"])
            .arg(folder.path())
            .args(more)
            .env("AZURE_VNET_BIN_DIR", binaries);
        let output = command.output().unwrap();
        let run = Self { folder, output };
        println!("{}", run.said());
        run
    }

    fn said(&self) -> String {
        let Output { stdout, stderr, .. } = &self.output;
        [stdout, stderr]
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .concat()
    }

    fn json(&self) -> PathBuf {
        self.folder.path().join("report.json")
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.json()).unwrap()).unwrap()
    }

    /// The sides that have a figure.
    fn sides(&self) -> Vec<String> {
        let report = self.report();
        let rows = report["rows"].as_array().unwrap().iter();
        let mut sides: Vec<_> = rows
            .map(|row| row["side"].as_str().unwrap().to_owned())
            .collect();
        sides.sort();
        sides.dedup();
        sides
    }

    /// Why a side has none.
    fn failure(&self, side: &str) -> String {
        let report = self.report();
        let mut failures = report["machine"]["failures"].as_array().unwrap().iter();
        let of_side = failures.find(|failure| failure["side"] == side);
        of_side.unwrap_or_else(|| panic!("{side} did not fail"))["error"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// What a comparison says of so many figures: how many were compared, and how many of them are alike.
fn compared(said: &str) -> (f64, f64) {
    let line = said
        .lines()
        .find(|line| line.contains(" figures compared: "));
    let words: Vec<&str> = line.unwrap().split(' ').collect();
    (words[0].parse().unwrap(), words[3].parse().unwrap())
}

/// The product with another `azure-vnet`, that sleeps before it does what it should. A node has four names for binaries;
/// the one that no pod needs is the real plug-in's.
fn slow_product() -> TempDir {
    let folder = TempDir::new().unwrap();
    let real = product();
    for name in ["azure-vnet-ipam", "azure-vnet-loader"] {
        symlink(real.join(name), folder.path().join(name)).unwrap();
    }
    symlink(real.join("azure-vnet"), folder.path().join("vnetctl")).unwrap();
    let script =
        "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] && sleep 0.2\nexec /opt/azure-vnet/bin/vnetctl\n";
    let wrapper = folder.path().join("azure-vnet");
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// On a busy machine nothing can be said of it.
#[test]
#[ignore = "measures; cargo xtask test load"]
fn two_whole_quick_runs_end_in_time_lack_nothing_but_what_is_said_and_agree() {
    let before = Run::with(&product(), &[], &[]);
    let json = before.json();
    let now = Run::with(&product(), &[], &[Path::new("--compare"), &json]);
    let said = now.said();
    if said.contains("BUSY ") {
        println!("others work on this machine: not judged");
        return;
    }
    for run in [&before, &now] {
        let machine = &run.report()["machine"];
        assert!(machine["seconds"].as_f64().unwrap() <= 180.0, "{machine}");
        let failures = machine["failures"].as_array().unwrap().iter();
        let lacks: Vec<_> = failures.map(|failure| &failure["what"]).collect();
        assert_eq!(lacks, ["all that grows", "add, 250 at once"]);
    }
    assert!(now.output.status.success());
    let (compared, alike) = compared(&said);
    assert!(compared >= 60.0 && alike >= 0.9 * compared, "{said}");
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn a_sleep_in_add_is_flagged() {
    let before = Run::of("add", &product(), &[], &[]);
    assert!(before.output.status.success());
    let slow = slow_product();
    let json = before.json();
    let now = Run::of("add", slow.path(), &[], &[Path::new("--compare"), &json]);
    assert_eq!(now.output.status.code(), Some(1));
    let said = now.said();
    for peer in ["bridge", "ptp"] {
        let flagged = format!("WORSE  add, serial, ours over {peer}:");
        assert!(said.contains(&flagged), "{flagged}");
    }
}

/// `plain` is the product's programs in a loader of the same build, so that the look-ups are all that differs. They cost almost a
/// microsecond for each packet: a tenth of a whole way through the node, but a third of a frame that is dropped at once.
#[test]
#[ignore = "measures; cargo xtask test load"]
fn fifty_look_ups_more_in_a_program_are_flagged() {
    let rounds = ["--rounds", "15"].map(Path::new);
    let before = Run::of("xdp_drop", &variant("plain"), &[], &rounds);
    assert!(before.output.status.success());
    let json = before.json();
    let compare = [&rounds[..], &[Path::new("--compare"), &json]].concat();
    let now = Run::of("xdp_drop", &variant("fifty-look-ups"), &[], &compare);
    assert_eq!(now.output.status.code(), Some(1));
    let said = now.said();
    for side in ["host", "bridge", "ptp"] {
        let flagged = |line: &&str| {
            line.starts_with("WORSE  xdp_drop, ") && line.contains(&format!("ours over {side}:"))
        };
        assert!(said.lines().any(|line| flagged(&line)), "over {side}");
    }
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn without_the_product_the_other_sides_are_measured_and_ours_is_said_to_be_missing() {
    let empty = TempDir::new().unwrap();
    let run = Run::of("xdp_drop", empty.path(), &[], &[]);
    assert_eq!(run.output.status.code(), Some(1), "it is ours that failed");
    assert_eq!(run.sides(), ["bridge", "host", "ptp"]);
    assert_eq!(run.report()["ratios"], serde_json::json!([]));
    assert!(
        run.failure("ours")
            .contains("/azure-vnet-loader; build it first")
    );
    let text = fs::read_to_string(run.folder.path().join("report.md")).unwrap();
    assert!(text.contains("## What could not be measured"));
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn a_peer_that_is_not_installed_is_left_out_with_the_command_that_failed() {
    let run = Run::of("xdp_drop", &product(), &["/usr/lib/cni/ptp"], &[]);
    assert!(run.output.status.success());
    assert_eq!(run.sides(), ["bridge", "host", "ours"]);
    let failure = run.failure("ptp");
    assert!(failure.contains("/opt/cni/bin/ptp"), "{failure}");
    let ratio = &run.report()["ratios"][0];
    assert!(ratio["ours_over_bridge"].is_f64() && ratio["ours_over_ptp"].is_null());
}

#[test]
#[ignore = "measures; cargo xtask test load"]
fn without_iperf3_there_are_no_streams_and_it_is_said() {
    let run = Run::of("tcp_stream", &product(), &["/usr/bin/iperf3"], &[]);
    assert_eq!(run.sides(), [""; 0]);
    for side in ["host", "ours"] {
        let failure = run.failure(side);
        assert!(failure.contains("start iperf3"), "{failure}");
    }
}
