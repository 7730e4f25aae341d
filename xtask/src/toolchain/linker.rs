//! `bpf-linker`s on this machine, and the LLVM that each was built for.

use std::path::{Path, PathBuf};

/// An installed `bpf-linker`.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    /// `None` when it does not show.
    pub(crate) llvm_major: Option<u32>,
}

impl std::fmt::Display for Linker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let llvm = self
            .llvm_major
            .map_or_else(|| "unknown".to_owned(), |major| major.to_string());
        write!(f, "{} (LLVM {llvm})", self.path.display())
    }
}

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    Some(
        std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or(home)?
            .join("bin"),
    )
}

/// Those of cargo's own `bin` and of `PATH`.
pub(crate) fn linkers() -> Vec<Linker> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<Linker> = Vec::new();
    for folder in cargo_bin().into_iter().chain(std::env::split_paths(&path)) {
        let path = folder.join("bpf-linker");
        if found.iter().any(|linker| linker.path == path) {
            continue;
        }
        if let Ok(bytes) = std::fs::read(&path) {
            found.push(Linker {
                path,
                llvm_major: llvm_major(&bytes),
            });
        }
    }
    found
}

/// `bpf-linker --version` does not tell its LLVM, so look into the program: a dynamic one names the library that it
/// needs (`libLLVM.so.22.1`, `libLLVM-22.so`), a static one has the name that LLVM writes as producer (`LLVM22.1.8`).
fn llvm_major(program: &[u8]) -> Option<u32> {
    [&b"libLLVM.so."[..], b"libLLVM-", b"\0LLVM"]
        .into_iter()
        .find_map(|name| number_after(program, name))
}

/// The first number of two or three digits that follows `name`, and is itself followed by a dot.
fn number_after(bytes: &[u8], name: &[u8]) -> Option<u32> {
    let digits_at = |at: usize| {
        let rest = bytes.get(at + name.len()..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(2..=3).contains(&digits) || rest.get(digits) != Some(&b'.') {
            return None;
        }
        std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
    };
    let first = *name.first()?;
    let starts = bytes
        .iter()
        .enumerate()
        .filter(|&(_, byte)| *byte == first)
        .map(|(at, _)| at);
    starts
        .filter(|&at| bytes.get(at..).is_some_and(|rest| rest.starts_with(name)))
        .find_map(digits_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_shows_in_its_bytes() {
        assert_eq!(
            llvm_major(b"\x7fELF\0libLLVM.so.22.1\0libc.so.6\0"),
            Some(22)
        );
        assert_eq!(llvm_major(b"libgcc_s.so.1\0libLLVM-21.so\0"), Some(21));
        assert_eq!(
            llvm_major(b"\0LLVM_PREFIX\0LLVM error\0LLVM23.0.0-rust-1.99.0-nightly\0"),
            Some(23)
        );
        assert_eq!(llvm_major(b"#!/bin/sh\nexec LLVM\n"), None);
    }
}
