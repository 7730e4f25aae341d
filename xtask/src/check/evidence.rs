//! What the documents promise is there: a test for every row of docs/conformance.md, a section for every error
//! code, a row for every step.

use crate::workspace;
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Rows of the CNI checklist.
const ROWS: usize = 99;
/// What a section about a code must tell.
const PARTS: [&str; 3] = ["**When", "What to do", "**Example**"];

pub(super) fn check() -> Result<()> {
    let root = workspace::root();
    let read =
        |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"));
    let mut sources = BTreeMap::new();
    for directory in ["cni", "crates", "loader", "tests"] {
        collect(&root.join(directory), &mut sources)?;
    }
    let mut plugins = BTreeMap::new();
    collect(&root.join("cni/src"), &mut plugins)?;
    let conformance = read("docs/conformance.md")?;
    let errors = read("docs/errors.md")?;
    let mut wrong = missing_rows(&conformance);
    wrong.extend(misplaced_rows(&conformance));
    wrong.extend(missing_tests(&conformance, &sources));
    wrong.extend(missing_codes(&read("crates/netconf/src/code.rs")?, &errors));
    wrong.extend(missing_steps(&plugins, &errors));
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    let named = named_tests(&conformance).count();
    println!("{named} references to tests, {ROWS} rows, all there");
    Ok(())
}

/// Every Rust file, by the name of its module; files of one name are taken together.
fn collect(directory: &Path, sources: &mut BTreeMap<String, String>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|found| found == "rs") {
            let text = fs::read_to_string(&path)?;
            sources.entry(module(&path)).or_default().push_str(&text);
        }
    }
    Ok(())
}

fn module(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    let parent = path.parent().and_then(Path::file_name);
    let name = match stem.to_str() {
        Some("mod" | "tests") => parent.unwrap_or(stem),
        _ => stem,
    };
    name.to_string_lossy().into_owned()
}

fn missing_rows(conformance: &str) -> Vec<String> {
    let begins = |row: &usize| {
        let (plain, versions) = (format!("| {row} |"), format!("| {row} V |"));
        conformance
            .lines()
            .any(|line| line.starts_with(&plain) || line.starts_with(&versions))
    };
    (1..=ROWS)
        .filter(|row| !begins(row))
        .map(|row| format!("docs/conformance.md has no row {row}"))
        .collect()
}

/// The tables with rows of their own numbers: their heading, what their numbers begin with, and the highest.
const TABLES: [(&str, &str, usize); 2] =
    [("The checklist", "", ROWS), ("Azure's features", "F", 100)];

/// Rows that two tables have, or one has twice: what a merge that went wrong leaves.
fn misplaced_rows(conformance: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (heading, letter, most) in TABLES {
        let mut seen = BTreeSet::new();
        let section = conformance
            .split("\n## ")
            .find_map(|text| text.strip_prefix(heading));
        for name in section.unwrap_or_default().lines().flat_map(numbers) {
            let number = name.strip_prefix(letter).and_then(|rest| rest.parse().ok());
            if !number.is_some_and(|number| (1..=most).contains(&number)) {
                wrong.push(format!(
                    "docs/conformance.md, {heading}: row {name} belongs elsewhere"
                ));
            } else if !seen.insert(name) {
                wrong.push(format!(
                    "docs/conformance.md, {heading}: row {name} is there twice"
                ));
            }
        }
    }
    wrong
}

/// The numbers of a table's row; none of its head, of a row without any, or of another line. `F37 to F40` is its two ends.
fn numbers(line: &str) -> impl Iterator<Item = &str> {
    let cell = line
        .strip_prefix('|')
        .and_then(|rest| rest.split('|').next());
    let words = cell.unwrap_or_default().split([' ', ',']);
    words.filter(|word| word.contains(|letter: char| letter.is_ascii_digit()))
}

/// `module::function` in backticks; `module::*` for all of a module.
fn named_tests(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
        .filter(|(module, function)| {
            let is_word = |word: &str| {
                !word.is_empty()
                    && word
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
            };
            is_word(module) && (is_word(function) || *function == "*")
        })
}

fn missing_tests(conformance: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    named_tests(conformance)
        .filter(|(module, function)| {
            let source = sources.get(*module).map(String::as_str).unwrap_or_default();
            if *function == "*" {
                !source.contains("#[test]")
            } else {
                !is_test(source, function)
            }
        })
        .map(|(module, function)| {
            format!("docs/conformance.md names {module}::{function}, which is no test")
        })
        .collect()
}

/// Whether `function` is there with `#[test]` in the lines right above it.
fn is_test(source: &str, function: &str) -> bool {
    let head = format!("fn {function}(");
    let Some(at) = source.find(&head) else {
        return false;
    };
    let above = source.get(..at).unwrap_or_default();
    let (above, _indent) = above.rsplit_once('\n').unwrap_or_default();
    let mut attributes = above
        .lines()
        .rev()
        .map(str::trim)
        .take_while(|line| line.starts_with('#') || line.starts_with("//"));
    attributes.any(|line| line == "#[test]")
}

fn missing_codes(codes: &str, errors: &str) -> Vec<String> {
    let numbers = codes.lines().filter_map(|line| {
        let (_, value) = line.strip_prefix("pub const ")?.split_once(" = ")?;
        value.strip_suffix(';')
    });
    numbers
        .filter_map(|code| {
            let section = errors
                .split("\n## ")
                .find(|section| section.starts_with(&format!("Code {code}:")));
            match section {
                None => Some(format!("docs/errors.md has no section `Code {code}: …`")),
                Some(section) => PARTS
                    .iter()
                    .find(|part| !section.contains(**part))
                    .map(|part| format!("docs/errors.md, code {code}: no {part}")),
            }
        })
        .collect()
}

/// Every step that the plug-ins can name in `details` and in the log.
fn missing_steps(plugins: &BTreeMap<String, String>, errors: &str) -> Vec<String> {
    let mut sections = errors.split("\n## ");
    let section = sections.find(|section| section.starts_with("Steps\n"));
    let cells = section.unwrap_or_default().lines();
    let cells: Vec<&str> = cells.filter_map(|line| line.split('|').nth(1)).collect();
    let begins = plugins.values().flat_map(|source| {
        ["begin(\"", "Steps::start(\""]
            .iter()
            .flat_map(|begin| source.split(begin).skip(1))
    });
    let steps: BTreeSet<&str> = begins.filter_map(|rest| rest.split('"').next()).collect();
    steps
        .into_iter()
        .filter(|step| !step.is_empty())
        .filter(|step| !cells.iter().any(|cell| cell.contains(&format!("`{step}`"))))
        .map(|step| format!("docs/errors.md, Steps: no row `{step}`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let sources = BTreeMap::from([(
            "gc".to_owned(),
            "#[test]\n#[ignore]\nfn one() {}\nfn helper() {}\n".to_owned(),
        )]);
        let text =
            "| 1 | `gc::one`, `gc::two`, `gc::helper`, `other::*`, `cni.dev/x`, `CNI_ARGS` |";
        assert_eq!(
            missing_tests(text, &sources),
            [
                "docs/conformance.md names gc::two, which is no test",
                "docs/conformance.md names gc::helper, which is no test",
                "docs/conformance.md names other::*, which is no test"
            ]
        );
        assert_eq!(missing_rows(text).len(), ROWS - 1);
    }

    #[test]
    fn a_row_that_is_there_twice_or_in_another_table_is_named() {
        let text = "# x\n\n## The checklist\n\n| # | Row |\n|---|---|\n| 1 | a |\n| 2 V | b |\n| F33 | c |\n| 1 | d |\n| 100 | e |\n\n\
                    ## Azure's features\n\n| F1 | a |\n| F83, F84 | b |\n| | c |\n| F83 to F85 | d |\n| 7 | e |\n\n## More\n\n| 7 | x |\n";
        let wrong = misplaced_rows(text);
        assert_eq!(
            wrong
                .iter()
                .map(|text| text.rsplit_once(": ").unwrap().1)
                .collect::<Vec<_>>(),
            [
                "row F33 belongs elsewhere",
                "row 1 is there twice",
                "row 100 belongs elsewhere",
                "row F83 is there twice",
                "row 7 belongs elsewhere"
            ]
        );
    }

    #[test]
    fn a_code_without_a_section_is_named() {
        let codes = "pub const A: u32 = 1;\npub const B: u32 = 2;\npub const C: u32 = 3;\n";
        let errors = "# x\n\n## Code 1: a\n**When**: … **What to do**: … **Example**: …\n\n## Code 3: c\n**When**\n";
        let wrong = missing_codes(codes, errors);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("Code 2") && wrong[1].contains("code 3"));
    }

    #[test]
    fn a_step_without_a_row_is_named() {
        let plugins = BTreeMap::from([(
            "add".to_owned(),
            "Steps::start(\"validate\"); steps.begin(\"lock\"); x.begin(\"undo\"); Steps::start(\"\")"
                .to_owned(),
        )]);
        let errors =
            "# x\n\n## Steps\n\n| `validate`, `undo` | `lock` |\n\n## More\n| `lock` | |\n";
        let wrong = missing_steps(&plugins, errors);
        assert_eq!(wrong, ["docs/errors.md, Steps: no row `lock`"]);
    }
}
