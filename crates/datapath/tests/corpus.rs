//! The kept corpus of the fuzz targets, replayed: what once was interesting stays right.
#![cfg(test)]

#[path = "support/case.rs"]
mod case;

use std::fs;
use std::path::Path;

use case::Hook;

/// So many cases say everything; more only cost time.
const MOST: usize = 200;

#[test]
fn every_kept_case_of_every_hook_gets_a_right_verdict() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for hook in Hook::ALL {
        let directory = corpus.join(hook.name());
        let files: Vec<_> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(
            !files.is_empty() && files.len() < MOST,
            "{}: {}",
            hook.name(),
            files.len()
        );
        for file in &files {
            println!("{}", file.display());
            case::run(hook, &fs::read(file).unwrap());
        }
    }
}
