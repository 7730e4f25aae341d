//! `vnetctl explain`: what docs/errors.md and docs/drop-reasons.md say, on the node, at once.

use abi::DropReason;
use anyhow::bail;
use serde::Serialize;

use super::output::{Output, table};

/// The page is the source: a code's text is there and nowhere else. `cargo xtask check evidence` sees to it that every code is.
const ERRORS: &str = include_str!("../../../docs/errors.md");

/// What something means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Explanation {
    /// `code` or `drop`.
    pub kind: &'static str,
    /// The code, or the reason's name.
    pub name: String,
    /// In a few words.
    pub title: String,
    /// When it happens and what to do.
    pub text: String,
}

pub(super) fn run(output: Output, topic: Option<&str>) -> anyhow::Result<()> {
    match topic {
        None => output.print(all().as_slice(), render_all),
        Some(topic) => output.print(&[explain(topic)?][..], |told| {
            told.iter().map(render).collect()
        }),
    }
}

fn all() -> Vec<Explanation> {
    codes()
        .chain(DropReason::ALL.into_iter().map(drop_reason))
        .collect()
}

fn explain(topic: &str) -> anyhow::Result<Explanation> {
    let found = all().into_iter().find(|known| known.name == topic);
    let Some(found) = found else {
        bail!(
            "explain `{topic}`: it is neither an error code nor a drop reason; `vnetctl explain` lists all of them"
        );
    };
    Ok(found)
}

/// The sections `## Code 11: try again` of the page.
fn codes() -> impl Iterator<Item = Explanation> {
    let sections = ERRORS
        .split("\n## ")
        .filter_map(|section| section.strip_prefix("Code "));
    sections.filter_map(|section| {
        let (head, text) = section.split_once('\n')?;
        let (number, title) = head.split_once(": ")?;
        Some(Explanation {
            kind: "code",
            name: number.to_owned(),
            title: title.to_owned(),
            text: plain(text.trim()),
        })
    })
}

fn drop_reason(reason: DropReason) -> Explanation {
    Explanation {
        kind: "drop",
        name: reason.name().to_owned(),
        title: "packets are dropped".to_owned(),
        text: reason.help().to_owned(),
    }
}

/// Markdown without what only a browser can use: `[text](target)` becomes `text`, and emphasis goes.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once("](") {
        let (before, label) = before.rsplit_once('[').unwrap_or((before, ""));
        text += before;
        text += label;
        rest = link.split_once(')').map_or("", |(_target, after)| after);
    }
    (text + rest).replace("**", "")
}

fn render(told: &Explanation) -> String {
    let Explanation {
        kind,
        name,
        title,
        text,
    } = told;
    format!("{kind} {name}: {title}\n\n{text}\n")
}

fn render_all(all: &[Explanation]) -> String {
    let first_line = |told: &Explanation| match told.kind {
        "code" => told.title.clone(),
        _ => told.text.clone(),
    };
    let rows: Vec<[String; 3]> = all
        .iter()
        .map(|told| [told.kind.to_owned(), told.name.clone(), first_line(told)])
        .collect();
    table(["KIND", "NAME", "WHAT"], &rows)
}

#[cfg(test)]
mod tests {
    use netconf::code;

    use super::*;

    #[test]
    fn every_code_and_every_reason_says_what_to_do() {
        for code in [
            code::INCOMPATIBLE_VERSION,
            code::UNSUPPORTED,
            code::ENVIRONMENT,
            code::IO,
            code::DECODE,
            code::CONFIG,
            code::NETNS,
            code::TRY_AGAIN,
            code::UNAVAILABLE,
            code::LIMITED,
            code::PLUGIN,
            code::PRIVILEGE,
            code::KERNEL,
            code::PROGRAMS,
            code::DELEGATE,
            code::CHECK,
            code::BUG,
        ] {
            let told = explain(&code.to_string()).unwrap();
            assert!(told.text.to_lowercase().contains("what to do"), "{told:?}");
            assert!(!told.text.contains("]("), "{told:?}");
        }
        for reason in DropReason::ALL {
            assert_eq!(explain(reason.name()).unwrap().text, reason.help());
        }
    }

    #[test]
    fn links_become_their_text() {
        assert_eq!(plain("see [a](b.md#c), **d** [e](f)."), "see a, d e.");
        assert_eq!(plain("no link [x] (y)"), "no link [x] (y)");
    }
}
