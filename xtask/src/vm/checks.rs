//! What is run in the VM, and what came of it.

use crate::test::Tally;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A test program with some of its tests.
#[derive(Debug)]
pub(super) struct Check {
    /// Column of the table.
    pub(super) name: &'static str,
    /// Integration test of the package `tests`.
    pub(super) program: &'static str,
    /// Exact names; every one of them must run. None: all tests.
    tests: &'static [&'static str],
    /// Tests to leave out.
    without: &'static [&'static str],
    /// Further arguments.
    flags: &'static str,
    /// Further variables of the environment.
    settings: &'static str,
}

/// After so long a check is over, in software emulation on a busy machine, too. Seconds.
const LIMIT: u64 = 1800;
/// The lab waits so many times longer than elsewhere before it gives up.
const PATIENCE: u32 = 15;

const VERIFIED: &str = "every_program_is_verified_and_attached_as_this_kernel_can";

/// No check measures time: what software emulation takes says nothing about a machine.
pub(super) const CHECKS: [Check; 7] = [
    Check {
        name: "load",
        program: "kernels",
        tests: &[VERIFIED],
        without: &[],
        flags: "--nocapture",
        settings: "",
    },
    Check {
        name: "attach",
        program: "kernels",
        tests: &[],
        without: &[VERIFIED],
        flags: "--include-ignored",
        settings: "",
    },
    Check {
        name: "agree",
        program: "agree",
        tests: &[],
        without: &["every_verdict_is_within_its_budget"],
        flags: "",
        settings: "",
    },
    Check {
        name: "traffic",
        program: "traffic",
        tests: &[
            "pods_see_each_others_own_addresses_on_one_node_and_on_two",
            "the_fast_path_leaves_no_trace_in_connection_tracking",
            "the_internet_and_metadata_see_the_node_and_everybody_else_the_pod",
            "connections_beyond_the_ports_are_masqueraded_by_the_kernel",
            "a_narrow_path_is_discovered_through_snat",
            "fragments_cross_through_the_kernel",
            "a_host_port_of_the_chained_portmap_reaches_the_pod_and_its_answer_comes_back",
            "the_wireservers_secrets_are_out_of_reach_with_and_without_programs",
            "a_private_range_that_nobody_named_can_call_pods_beside_kube_proxys_rules",
        ],
        without: &[],
        flags: "",
        settings: "",
    },
    Check {
        name: "snat",
        program: "snat",
        tests: &[
            "a_lost_binding_is_made_again_by_the_pods_next_packet",
            "the_pod_and_the_node_may_use_the_same_port_to_the_same_server",
            "ports_that_the_node_listens_on_are_nobodys_snat_port",
        ],
        without: &[],
        flags: "",
        settings: "",
    },
    // Without `the_same_ports_go_through_a_service_and_then_directly`, which the kernel's IPVS cannot: docs/coexistence.md.
    Check {
        name: "ipvs",
        program: "coexist",
        tests: &[
            "proxy::a_cluster_ip_leads_to_a_local_a_remote_and_the_pods_own_backend",
            "proxy::udp_services_answer_as_tcp_services_do",
            "proxy::direct_traffic_stays_fast_beside_services",
            "proxy::a_node_port_for_the_whole_cluster_hides_the_client",
            "proxy::a_node_port_for_local_backends_shows_the_client",
            "proxy::session_affinity_keeps_a_client_at_its_backend",
            "proxy::without_affinity_both_backends_get_their_share",
            "proxy::a_load_balancers_address_and_an_external_ip_are_answered_on_the_node",
        ],
        without: &[],
        flags: "",
        settings: "LAB_PROXY=ipvs",
    },
    Check {
        name: "lifecycle",
        program: "lifecycle",
        tests: &[
            "del_leaves_nothing_and_may_be_called_again",
            "a_restart_loses_nothing",
            "without_a_loader_add_says_so_and_del_works",
            "a_loader_that_finds_its_maps_gone_restores_the_pods_from_their_records",
            "programs_of_lost_maps_are_replaced_and_missing_ones_attached_again",
        ],
        without: &[],
        flags: "",
        settings: "",
    },
];

/// The lines that `guest.sh` reads; `programs` are the test programs by name.
pub(super) fn lines(programs: &BTreeMap<String, PathBuf>) -> Result<String> {
    let line = |check: &Check| {
        let program = programs
            .get(check.program)
            .with_context(|| format!("cargo built no test program {}", check.program))?;
        let mut words = vec![
            format!("LAB_PATIENCE={PATIENCE}"),
            check.settings.to_owned(),
            format!(
                "AZURE_VNET_BIN_DIR='{}'",
                crate::workspace::product_dir().display()
            ),
            format!("'{}'", program.display()),
            "--exact --test-threads 2".to_owned(),
            check.flags.to_owned(),
        ];
        words.extend(check.tests.iter().map(|test| (*test).to_owned()));
        words.extend(check.without.iter().map(|test| format!("--skip {test}")));
        Ok(format!("{}|{LIMIT}|{}\n", check.name, words.join(" ")))
    };
    CHECKS.iter().map(line).collect()
}

/// The longest that all checks together may take. Seconds.
pub(super) fn limit() -> u64 {
    LIMIT * CHECKS.len() as u64 + 120
}

/// What came of one check.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) passed: bool,
    pub(super) tally: Tally,
    /// What the test program printed.
    pub(super) output: Vec<String>,
}

/// What the guest has told so far.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Whether it got as far as running checks.
    pub(super) up: bool,
    /// Whether all were run.
    pub(super) done: bool,
    running: Option<(String, Vec<String>)>,
    pub(super) outcomes: Vec<Outcome>,
    /// What holds the programs on the NIC.
    pub(super) held_by: String,
    /// Programs and how many instructions the verifier walked through.
    pub(super) verified: BTreeMap<String, String>,
}

impl Results {
    /// Takes one line of the guest's. Some: a check has ended.
    pub(super) fn line(&mut self, line: &str) -> Option<&Outcome> {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("@up"), ..) => self.up = true,
            (Some("@done"), ..) => self.done = true,
            (Some("@begin"), Some(name), _) => self.running = Some((name.to_owned(), Vec::new())),
            (Some("@end"), Some(_), Some(status)) => {
                let (name, output) = self.running.take()?;
                self.outcomes
                    .push(Outcome::new(name, status == "0", output));
                return self.outcomes.last();
            }
            _ => self.note(line),
        }
        None
    }

    fn note(&mut self, line: &str) {
        if let Some(held_by) = line.strip_prefix("the NIC's programs are held by: ") {
            held_by.clone_into(&mut self.held_by);
        }
        if let Some((program, count)) = verified(line) {
            self.verified.insert(program.to_owned(), count.to_owned());
        }
        if let Some((_, output)) = &mut self.running {
            output.push(line.to_owned());
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.done && self.outcomes.len() == CHECKS.len() && self.outcomes.iter().all(|o| o.passed)
    }

    pub(super) fn of(&self, check: &Check) -> Option<&Outcome> {
        self.outcomes
            .iter()
            .find(|outcome| outcome.name == check.name)
    }
}

impl Outcome {
    /// A program that ran other tests than it was told to, because one has another name by now, has failed.
    fn new(name: String, success: bool, output: Vec<String>) -> Self {
        let mut tally = Tally::default();
        for one in output.iter().filter_map(|line| Tally::parse(line)) {
            tally.add(one);
        }
        let expected = CHECKS.iter().find(|check| check.name == name);
        let all_ran = expected.is_some_and(|check| match check.tests.len() as u64 {
            0 => tally.passed > 0,
            count => tally.passed == count,
        });
        Self {
            name,
            passed: success && tally.failed == 0 && all_ran,
            tally,
            output,
        }
    }
}

/// `loaded: program="from_pod" verified_instructions=1234 …`
fn verified(line: &str) -> Option<(&str, &str)> {
    let (program, rest) = line.strip_prefix("loaded: program=\"")?.split_once('"')?;
    let count = rest.trim_start().strip_prefix("verified_instructions=")?;
    Some((program, count.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(lines: &str) -> Results {
        let mut results = Results::default();
        for line in lines.lines() {
            results.line(line);
        }
        results
    }

    #[test]
    fn what_the_guest_prints_is_understood() {
        let results = results(
            "@up 6.1.0-56\n@begin load\nrunning 1 test\n\
             loaded: program=\"from_pod\" verified_instructions=1234 translated_bytes=9\n\
             the NIC's programs are held by: clsact filters\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 6 filtered out\n@end load 0\n@done",
        );
        assert!(results.up && results.done);
        assert!(results.outcomes[0].passed);
        assert_eq!(results.outcomes[0].output.len(), 4);
        assert_eq!(results.held_by, "clsact filters");
        assert_eq!(results.verified["from_pod"], "1234");
        assert!(!results.passed(), "the other checks are missing");
    }

    #[test]
    fn a_check_fails_by_status_by_count_and_by_tests_that_did_not_run() {
        let outcome = |summary: &str, status: u8| {
            results(&format!("@begin load\n{summary}\n@end load {status}\n")).outcomes[0].passed
        };
        let ran = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 6 filtered out";
        assert!(outcome(ran, 0));
        assert!(!outcome(ran, 101));
        assert!(!outcome(&ran.replace("1 passed", "0 passed"), 0));
        assert!(!outcome("killed", 137));
    }
}
