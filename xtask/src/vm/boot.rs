//! A kernel is booted, and once more if its guest dies before it is up.

use super::checks::{self, Results};
use super::kernel::Kernel;
use super::machine::{self, Accelerator};
use crate::setup::find_program;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A guest that has ended, or was ended.
struct Booted {
    results: Results,
    /// All that it printed.
    output: String,
    ran: Result<()>,
}

impl Booted {
    /// Whether it ended by itself before it ran any check. A panic of its kernel does that, in software emulation once in a
    /// while; a machine that does not start and one that hangs are something else.
    fn died_early(&self) -> bool {
        self.ran.is_ok() && !self.results.up
    }
}

/// Runs all checks on one kernel.
pub(super) fn boot(kernel: &Kernel, lines: &str, accelerator: Accelerator) -> Result<Results> {
    let busybox = find_program("busybox").context("busybox is not there")?;
    let initramfs = kernel
        .initramfs(lines, &busybox)
        .context("make the initramfs")?;
    println!("\nvm: Linux {} ({})", kernel.version, accelerator.name());
    let console = kernel.folder().join("console.log");
    let first = kernel.folder().join("console.first.log");
    // Of an earlier run.
    drop(fs::remove_file(&first));
    let booted = and_once_more(
        || boot_once(kernel, &initramfs, accelerator),
        || {
            println!(
                "vm: the guest died before it was up, and is booted once more; {} has its kernel's words",
                first.display()
            );
            fs::rename(&console, &first).context("keep console.log")
        },
    )?;
    let Booted {
        results,
        output,
        ran,
    } = booted;
    fs::write(kernel.folder().join("output.log"), &output).context("write output.log")?;
    if !results.up {
        let hint = "if it hangs with kvm, try `--accelerator tcg`";
        let how = ran
            .err()
            .map_or_else(String::new, |error| format!(": {error:#}"));
        bail!(
            "the VM did not come up{how}; {} has the kernel's words; {hint}\n{output}",
            console.display()
        );
    }
    if let Err(error) = ran {
        println!("FAIL {error:#}");
    } else if !results.done {
        println!("FAIL the VM ended before its checks did; see console.log");
    }
    Ok(results)
}

/// Boots, and, after `meanwhile`, once more if the guest died before it was up.
fn and_once_more(
    mut boot: impl FnMut() -> Booted,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Booted> {
    let booted = boot();
    if !booted.died_early() {
        return Ok(booted);
    }
    meanwhile()?;
    Ok(boot())
}

/// Tells of the checks as they end.
fn boot_once(kernel: &Kernel, initramfs: &Path, accelerator: Accelerator) -> Booted {
    let mut results = Results::default();
    let mut output = String::new();
    let limit = Duration::from_secs(checks::limit());
    let ran = machine::run(kernel, initramfs, accelerator, limit, |line| {
        output += line;
        output.push('\n');
        if let Some(outcome) = results.line(line) {
            let mark = if outcome.passed { "ok  " } else { "FAIL" };
            println!("{mark} {:<10} {}", outcome.name, outcome.tally);
            if !outcome.passed {
                println!("{}", outcome.output.join("\n"));
            }
        }
    });
    Booted {
        results,
        output,
        ran,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often guests that end so are booted, and whether the last one was up.
    fn boots(ends: &[(bool, bool)]) -> (usize, bool) {
        let mut ends = ends.iter();
        let mut boots = 0;
        let boot = || {
            boots += 1;
            let &(up, ended_by_itself) = ends.next().unwrap();
            let mut results = Results::default();
            results.up = up;
            Booted {
                results,
                output: String::new(),
                ran: ended_by_itself.then_some(()).context("it hangs"),
            }
        };
        let booted = and_once_more(boot, || Ok(())).unwrap();
        (boots, booted.results.up)
    }

    #[test]
    fn a_guest_that_dies_before_it_is_up_is_booted_once_more_and_no_other() {
        let (up, died, hung) = ((true, true), (false, true), (false, false));
        assert_eq!(boots(&[died, up]), (2, true));
        assert_eq!(boots(&[died, died]), (2, false));
        assert_eq!(boots(&[up]), (1, true));
        assert_eq!(boots(&[hung]), (1, false));
        assert_eq!(boots(&[(true, false)]), (1, true), "in a check");
    }
}
