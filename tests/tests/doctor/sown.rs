//! Every seed is found, with what, why and what to do.

use std::time::Instant;

use lab::at_once;

use super::seeds::{Seed, seeds};
use super::*;

/// Labs at a time.
const LABS: usize = 3;

#[test]
fn every_misconfiguration_is_found_with_its_remedy() {
    let seeds = seeds();
    let groups: Vec<&[&Seed]> = seeds.chunks(seeds.len().div_ceil(LABS)).collect();
    let (outcomes, _) = at_once(&groups, |group| {
        group.iter().map(|seed| found(seed)).collect::<Vec<_>>()
    });
    let mut missed = Vec::new();
    for (seed, outcome) in seeds.iter().zip(outcomes.into_iter().flatten()) {
        match outcome {
            Ok(line) => println!("{line}"),
            Err(error) => missed.push(format!("{}: {error:#}", seed.is)),
        }
    }
    let all = seeds.len();
    println!("{} of {all} found", all - missed.len());
    assert!(all >= 20);
    assert!(missed.is_empty(), "{missed:#?}");
}

/// Sows a seed on a node with a pod and asks the doctor.
fn found(seed: &Seed) -> Result<String> {
    let lab = (seed.lab)(Lab::new().nodes(1)).build()?;
    let node = lab.node(1);
    node.start_loader()?;
    let pod = node.add_pod("web")?;
    if seed.kills_loader {
        node.loader().kill9()?;
    }
    let _sown = (seed.sow)(&lab, pod)?;
    let begun = Instant::now();
    let found = findings(node)?;
    let took = begun.elapsed();
    let Some(finding) = found.iter().find(|finding| finding.name == seed.check) else {
        anyhow::bail!("not found; only {found:#?}");
    };
    for words in seed.says {
        let text = format!("{} {} {}", finding.what, finding.why, finding.remedy);
        anyhow::ensure!(
            text.contains(words),
            "says nothing of `{words}`: {finding:#?}"
        );
    }
    Ok(format!(
        "{:>5} ms  {:<20} {}",
        took.as_millis(),
        finding.name,
        finding.what
    ))
}
