//! No panic path in the eBPF object. The verifier would refuse one too, but with a message that names nothing.

use crate::workspace;
use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSymbol as _};

/// Parts of the mangled names that `core`'s panics have.
const PANICS: [&str; 7] = [
    "panic",
    "slice_index",
    "slice_start_index",
    "slice_end_index",
    "unwrap_failed",
    "expect_failed",
    "begin_unwind",
];

pub(super) fn check() -> Result<()> {
    let path = workspace::bpf_object();
    let bytes =
        std::fs::read(&path).with_context(|| format!("read the eBPF object {}", path.display()))?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("understand {}", path.display()))?;
    let names: Vec<&str> = file
        .symbols()
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    let panics = panics(&names);
    if !panics.is_empty() {
        bail!(
            "{} can panic: {}; look for indexing, slicing, division or unwrap in ebpf/ and crates/datapath/",
            path.display(),
            panics.join(", ")
        );
    }
    println!("{} symbols, no panic path", names.len());
    Ok(())
}

fn panics<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names
        .iter()
        .copied()
        .filter(|name| PANICS.iter().any(|part| name.contains(part)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_recognised() {
        let bounds = "_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE";
        assert_eq!(panics(&["from_pod", "memcpy", bounds, "pods"]), [bounds]);
        assert_eq!(panics(&["from_pod", "memset"]), Vec::<&str>::new());
    }
}
