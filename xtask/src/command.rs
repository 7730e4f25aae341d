//! Runs other programs, and says which one failed.

use anyhow::{Context as _, Result, bail};
use std::process::{Command, Stdio};

/// Variables of the outer cargo (or of an editor, or of a shell's habits) that would change what an inner cargo builds.
const CONFUSING: [&str; 12] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL", // cuts the BPF program in pieces that are not inlined well: too much for the verifier
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
];

/// What `cargo run` tells us about our own package, by prefix.
const OURS: [&str; 4] = [
    "CARGO_BIN_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_",
];

/// The cargo that runs us, in the root of the workspace, as if it were called by hand.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| OURS.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(name);
        }
    }
    command.current_dir(crate::workspace::root());
    command
}

/// A program that builds something else than this workspace for this machine: nothing that was meant for our own
/// builds reaches it. `CARGO_HOME`, `CARGO_NET_…` and `CARGO_HTTP_…` do: they say how to reach the registry.
pub(crate) fn foreign(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let ours = |name: &str| {
            OURS.iter()
                .chain(&["CARGO_PROFILE_"])
                .any(|prefix| name.starts_with(prefix))
        };
        if name
            .to_str()
            .is_some_and(|name| ours(name) || CONFUSING.contains(&name))
        {
            command.env_remove(name);
        }
    }
    command.current_dir(crate::workspace::root());
    command
}

/// That, for the cargo that runs us, of the same toolchain.
pub(crate) fn foreign_cargo() -> Command {
    let mut command = foreign(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.envs(std::env::var_os("RUSTUP_TOOLCHAIN").map(|name| ("RUSTUP_TOOLCHAIN", name)));
    command
}

/// Runs to the end, output to the terminal; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start `{}`", shown(command)))?;
    if !status.success() {
        bail!(
            "`{}` failed with {status}; its own output above says why",
            shown(command)
        );
    }
    Ok(())
}

/// Runs to the end and returns what it printed; an exit status other than 0 is an error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}`", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed with {}: {}",
            shown(command),
            output.status,
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("read what `{}` printed", shown(command)))
}

/// The command as one would type it, with the variables that were set for it.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            quoted(&value?.to_string_lossy().replace('\x1f', " "))
        ))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| quoted(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("cargo");
        command
            .env("RUSTFLAGS", "-C a\x1f-C b")
            .env_remove("CARGO")
            .args(["test", "--", "a b"]);
        assert_eq!(shown(&command), "RUSTFLAGS='-C a -C b' cargo test -- 'a b'");
    }

    #[test]
    fn failure_names_the_command() {
        let error = run(&mut Command::new("false")).unwrap_err().to_string();
        assert!(
            error.starts_with("`false` failed with exit status: 1"),
            "{error}"
        );
    }
}
