//! Which lines have, above or below them in the same map, the name of a secret: then what they call a value is one.

use super::{AROUND_KEYS, NAMES, QUOTES, indentation, is_one_of, is_secret, key_before};

/// A line with a field, or with several.
struct Field {
    at: usize,
    /// In YAML, the first one of an item.
    is_first: bool,
    /// Whether a name in it is a secret's, if it has one.
    names: Option<bool>,
}

/// How far the names of secrets around a line are indented, of each map that is open there.
#[derive(Default)]
struct Names(Vec<usize>);

pub(super) fn beside(lines: &[&str]) -> Vec<bool> {
    let fields: Vec<Option<Field>> = lines.iter().map(|line| Field::of(line)).collect();
    let mut beside = vec![false; lines.len()];
    let mut above = Names::default();
    for (field, beside) in fields.iter().zip(&mut beside) {
        let Some(field) = field else { continue };
        if field.is_first {
            above.leave(field.at);
        }
        *beside |= above.pass(field);
    }
    let mut below = Names::default();
    for (field, beside) in fields.iter().zip(&mut beside).rev() {
        let Some(field) = field else { continue };
        *beside |= below.pass(field);
        if field.is_first {
            below.leave(field.at);
        }
    }
    beside
}

impl Field {
    fn of(line: &str) -> Option<Self> {
        (!line.trim().is_empty()).then(|| Self {
            at: indentation(line, true),
            is_first: line.trim_start().starts_with("- "),
            names: names(line),
        })
    }
}

impl Names {
    /// Whether a secret's name is in the same map as the field, on the side where we come from.
    fn pass(&mut self, field: &Field) -> bool {
        self.leave(field.at + 1);
        if let Some(is_secret) = field.names {
            self.leave(field.at);
            self.0.extend(is_secret.then_some(field.at));
        }
        self.0.last() == Some(&field.at)
    }

    /// Of maps that are indented so far, or further.
    fn leave(&mut self, at: usize) {
        let open = self.0.partition_point(|name| *name < at);
        self.0.truncate(open);
    }
}

fn names(line: &str) -> Option<bool> {
    let separators = line.char_indices().filter(|(_, c)| [':', '='].contains(c));
    let names = separators.filter_map(|(at, separator)| {
        let (before, after) = line.split_at(at);
        let name = after
            .get(separator.len_utf8()..)?
            .trim_start_matches(QUOTES);
        is_one_of(key_before(before), &NAMES)
            .then(|| is_secret(name.split(AROUND_KEYS).next().unwrap_or_default()))
    });
    names.reduce(|one, other| one || other)
}
