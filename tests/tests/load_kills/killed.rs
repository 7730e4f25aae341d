//! The call dies, or DEL does not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use lab::libcni::Verb;
use lab::{at_once, pass};

use crate::{Calls, asked_for, lab, nothing_is_left, seeded, traces, up_to};

/// How long after the kill the runtime asks for DEL at most.
const SOON: Duration = Duration::from_millis(50);
/// Kills between two looks at everything.
const BATCH: usize = 100;

/// `kills` times a call dies: three ADDs, then a DEL, and so on.
fn killed_calls_leave_nothing(kills: usize) {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.new_netns("victim").unwrap();
    let calls = Calls::new(node, &pod);
    let [add, del] = calls.usual();
    let before = node.snapshot().unwrap();
    let clean = traces(node);
    let (mut rng, seed) = seeded();
    let mut seen = BTreeMap::<String, usize>::new();
    for round in 1..=kills {
        let attachment = calls.container(round);
        let (verb, usual) = if round % 4 == 0 {
            calls.succeed(Verb::Add, &attachment, &seed);
            (Verb::Del, del)
        } else {
            (Verb::Add, add)
        };
        let life = up_to(&mut rng, usual);
        let when = format!("{seed}, round {round}, {life:?} into {}", verb.name());
        let ended = calls.ends_within(verb, &attachment, life);
        let how = if ended { "done" } else { "killed" };
        let now = traces(node);
        let made: BTreeSet<&str> = now
            .difference(&clean)
            .filter_map(|path| place(path))
            .collect();
        *seen
            .entry(format!("{} {how} with {made:?}", verb.name()))
            .or_default() += 1;
        pass(up_to(&mut rng, SOON));
        calls.succeed(Verb::Del, &attachment, &when);
        assert_eq!(traces(node), clean, "{when}");
        if round % BATCH == 0 || round == kills {
            node.end_rest().unwrap();
            nothing_is_left(node, &before, &when);
        }
    }
    println!(
        "{kills} calls killed (ADD takes {add:.1?}, DEL {del:.1?}): 0 failed DELs, nothing left"
    );
    for (how, count) in seen {
        println!("{count:>6} {how}");
    }
    // The namespace works as on its first day.
    let last = calls.container(0);
    calls.succeed(Verb::Add, &last, "at last");
    let seen = pod.tcp(lab.inet().addr(), 8080).unwrap();
    assert_eq!(seen.peer_ip(), node.addr());
    calls.succeed(Verb::Del, &last, "at last");
    nothing_is_left(node, &before, "at last");
}

/// The directory of a trace.
fn place(path: &str) -> Option<&str> {
    Path::new(path).parent()?.file_name()?.to_str()
}

#[test]
fn a_hundred_killed_calls_leave_nothing() {
    killed_calls_leave_nothing(100);
}

#[test]
#[ignore = "slow: minutes; cargo xtask test load"]
fn two_thousand_killed_calls_leave_nothing() {
    killed_calls_leave_nothing(asked_for("LAB_KILLS").unwrap_or(2000));
}

/// A runtime that has lost patience asks for DEL while ADD still works; both succeed, in an order that nobody knows.
#[test]
fn a_del_in_the_middle_of_an_add_succeeds_as_the_add_does() {
    let lab = lab();
    let node = lab.node(1);
    let pod = node.new_netns("hasty").unwrap();
    let calls = Calls::new(node, &pod);
    let [add, _] = calls.usual();
    let before = node.snapshot().unwrap();
    let clean = traces(node);
    let (mut rng, seed) = seeded();
    let mut deleted = 0;
    for round in 1..=100 {
        let attachment = calls.container(round);
        let later = up_to(&mut rng, add);
        let when = format!("{seed}, round {round}, DEL {later:?} after ADD");
        at_once(&[Verb::Add, Verb::Del], |verb| {
            if *verb == Verb::Del {
                pass(later);
            }
            calls.succeed(*verb, &attachment, &when);
        });
        deleted += usize::from(traces(node) == clean);
        calls.succeed(Verb::Del, &attachment, &when);
        assert_eq!(traces(node), clean, "{when}");
    }
    println!("100 DELs in the middle of an ADD: 0 failed, {deleted} came after it");
    nothing_is_left(node, &before, "at last");
}
