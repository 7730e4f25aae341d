//! What somebody may have meant who wrote a key that nobody knows.

/// The one of `known` that looks most like `key`, in any case, and how many letters are between them.
pub fn nearest<'a>(
    key: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<(&'a str, usize)> {
    known
        .into_iter()
        .map(|one| {
            let distance = strsim::damerau_levenshtein(&one.to_lowercase(), &key.to_lowercase());
            (one, distance)
        })
        .min_by_key(|(_, distance)| *distance)
}
