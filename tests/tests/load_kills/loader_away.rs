//! The loader dies or hangs while pods come and go: a clear error in bounded time, and no more than that.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::libcni::{Attachment, CniError, Verb, outcome};
use lab::{Pod, at_once, pass};
use nix::sys::signal::Signal;

use crate::{Calls, PLUGIN, lab, nothing_is_left, seeded, up_to};

const PODS: u32 = 8;
/// Contract §1.6.
const ADD_LIMIT: Duration = Duration::from_secs(20);
/// Two answers that DEL waits for in vain, two seconds each, and as much again for a busy machine.
const DEL_LIMIT: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Killed,
    Hung,
}

/// The step at which a call has failed; `None` for success.
type Failure = Option<String>;

/// `verb` for all pods at random moments, and the harm at one in their midst.
fn harmed(verb: Verb, harm: Harm, rounds: usize) {
    let lab = lab();
    let node = lab.node(1);
    let bystander = node.add_pod("bystander").unwrap();
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| node.new_netns(&format!("pod{number}")).unwrap())
        .collect();
    let all: Vec<Calls<'_>> = pods.iter().map(|pod| Calls::new(node, pod)).collect();
    let [add, _] = all[0].usual();
    let before = node.snapshot().unwrap();
    let (mut rng, seed) = seeded();
    let mut failed = BTreeMap::<String, u32>::new();
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let when = format!("{seed}, round {round}");
        let each = |verb: Verb| {
            at_once(&all, |calls| {
                calls.succeed(verb, &calls.container(round), &when)
            });
        };
        if verb == Verb::Del {
            each(Verb::Add);
        }
        let spread = add * PODS;
        let moments: Vec<_> = (0..=PODS).map(|_| up_to(&mut rng, spread)).collect();
        let actors: Vec<_> = all.iter().map(Some).chain([None]).zip(moments).collect();
        let (failures, took) = at_once(&actors, |(calls, moment)| {
            pass(*moment);
            if let Some(calls) = calls {
                return bounded(calls, verb, &calls.container(round), &when);
            }
            match harm {
                Harm::Killed => node.loader().kill9().unwrap(),
                Harm::Hung => node.loader().signal(Signal::SIGSTOP).unwrap(),
            }
            None
        });
        for step in failures.into_iter().flatten() {
            *failed.entry(step).or_default() += 1;
        }
        let (_, taken_away) = at_once(&all, |calls| {
            bounded(calls, Verb::Del, &calls.container(round), &when)
        });
        longest = longest.max(took).max(taken_away);
        let seen = bystander.tcp(lab.inet().addr(), 8080).unwrap();
        assert_eq!(seen.peer_ip(), node.addr(), "{when}");
        match harm {
            Harm::Killed => node.start_loader().unwrap(),
            Harm::Hung => node.loader().signal(Signal::SIGCONT).unwrap(),
        }
        each(Verb::Add);
        each(Verb::Del);
    }
    println!(
        "loader {harm:?} in the middle of {PODS} {}s, {rounds} times: {failed:?} said so, 0 other errors, all within {longest:.1?}",
        verb.name()
    );
    // One that starts takes back what its predecessor did not hear of.
    node.loader().kill9().unwrap();
    node.start_loader().unwrap();
    nothing_is_left(node, &before, &seed);
}

/// Ends in time; an ADD may fail, with a word on the loader and code 11, "try again".
fn bounded(calls: &Calls<'_>, verb: Verb, attachment: &Attachment, when: &str) -> Failure {
    let done = calls.call(verb, attachment);
    let limit = if verb == Verb::Add {
        ADD_LIMIT
    } else {
        DEL_LIMIT
    };
    assert!(
        done.elapsed < limit,
        "{when}: {} took {:?}",
        verb.name(),
        done.elapsed
    );
    let error = outcome(PLUGIN, &done).err()?;
    let told = format!("{error:#}");
    assert_eq!(verb, Verb::Add, "{when}: {told}");
    let error = error.downcast_ref::<CniError>().unwrap();
    assert!(
        error.code == 11 && told.contains("loader"),
        "{when}: {told}"
    );
    let (_, step) = told.split_once("failed at step `").unwrap();
    step.split('`').next().map(str::to_owned)
}

#[test]
fn a_loader_that_is_killed_in_the_middle_of_adds_and_dels() {
    harmed(Verb::Add, Harm::Killed, 3);
    harmed(Verb::Del, Harm::Killed, 2);
}

#[test]
fn a_loader_that_hangs_in_the_middle_of_adds_and_dels() {
    harmed(Verb::Add, Harm::Hung, 1);
    harmed(Verb::Del, Harm::Hung, 1);
}

#[test]
#[ignore = "slow: minutes; cargo xtask test load"]
fn a_loader_that_is_killed_or_hangs_forty_times_in_the_middle_of_adds_and_dels() {
    for harm in [Harm::Killed, Harm::Hung] {
        harmed(Verb::Add, harm, 10);
        harmed(Verb::Del, harm, 10);
    }
}
