//! The daemon `azure-vnet-loader`.

use std::process::ExitCode;

use clap::Parser;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// Loads the data path of azure-vnet-ebpf and keeps it true. Runs until SIGTERM; programs and maps outlive it.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Configuration: /etc/azure-vnet/loader.yaml (optional). State: /run/azure-vnet, /sys/fs/bpf/azure-vnet."
)]
struct Arguments {
    /// What to log to stderr: error, warn, info, debug (verified instructions of every program), trace, or a
    /// tracing filter.
    #[arg(long, default_value = "info", env = "AZURE_VNET_LOG")]
    log: String,
}

fn main() -> ExitCode {
    share_one_arena();
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&arguments.log))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(loader::daemon::run());
    // What still waits, for nft or the wireserver, is ended with the process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", loader::report::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// A heap for all threads. The runtime's come and go, and glibc gives each new one a heap that keeps the most that a sweep has
/// ever taken.
fn share_one_arena() {
    // SAFETY: `mallopt` takes two numbers and no pointer, and no other thread is there yet. Failure changes nothing.
    let _ = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}
