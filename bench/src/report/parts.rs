//! Which rows are in one picture: those of one unit and about one size.

use super::Row;

/// The rows of each unit, in the order of the run: an axis has one.
pub(super) fn by_unit<'a>(rows: &[&'a Row]) -> Vec<Vec<&'a Row>> {
    let mut parts: Vec<Vec<&Row>> = Vec::new();
    for row in rows.iter().copied() {
        let same = |part: &&mut Vec<&Row>| part.first().is_some_and(|one| one.unit == row.unit);
        match parts.iter_mut().find(same) {
            Some(part) => part.push(row),
            None => parts.push(vec![row]),
        }
    }
    parts
}

/// Groups whose names fit beside each other.
const MOST_GROUPS: usize = 8;
/// A bar that is shorter than this part of another one is not seen.
const MOST_TIMES: f64 = 10.0;

/// The rows of each picture: as many paths as fit, of about the same size.
pub(super) fn apart<'a>(rows: &[&'a Row]) -> Vec<Vec<&'a Row>> {
    let size = |path: &str| {
        let of_path = rows.iter().filter(|row| row.path == path);
        of_path.map(|row| row.median).fold(0.0, f64::max)
    };
    let mut paths = in_order(rows.iter().map(|row| row.path.as_str()));
    paths.sort_by(|one, other| size(one).total_cmp(&size(other)));
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for path in paths {
        let fits = |part: &&mut Vec<&str>| {
            let least = part.first().map_or(0.0, |first| size(first));
            part.len() < MOST_GROUPS && size(path) <= least * MOST_TIMES
        };
        match parts.last_mut().filter(fits) {
            Some(part) => part.push(path),
            None => parts.push(vec![path]),
        }
    }
    let of_part = |part: Vec<&str>| {
        let rows = rows.iter().copied();
        rows.filter(|row| part.contains(&row.path.as_str()))
            .collect()
    };
    parts.into_iter().map(of_part).collect()
}

/// Each once.
pub(super) fn in_order<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for path in paths {
        if !found.contains(&path) {
            found.push(path);
        }
    }
    found
}
