//! What the loader itself costs.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Under the names that every Prometheus client uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: u64,
    pub(super) cpu_seconds: f64,
    pub(super) open_fds: u64,
}

impl Process {
    /// Of this process; what cannot be read is 0.
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Behind the name, which may hold anything, in parentheses.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        let field = |number: usize| -> u32 {
            let text = number.checked_sub(3).and_then(|at| fields.get(at));
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        // Numbers of proc_pid_stat(5).
        let [utime, stime, rss] = [14, 15, 24].map(field);
        Self {
            resident_bytes: u64::from(rss) * u64::from(constant(SysconfVar::PAGE_SIZE)),
            cpu_seconds: (f64::from(utime) + f64::from(stime))
                / f64::from(constant(SysconfVar::CLK_TCK)),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |open| {
                // One is the listing's own.
                u64::try_from(open.count().saturating_sub(1)).unwrap_or(0)
            }),
        }
    }
}

fn constant(of: SysconfVar) -> u32 {
    let value = sysconf(of).ok().flatten();
    value
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 19, "{process:?}");
        assert!(process.resident_bytes < 1 << 32, "{process:?}");
        assert!(process.open_fds >= 3, "{process:?}");
    }
}
