//! The IPAM plug-in: another program, which may do anything.
//!
//! It gets our environment and our standard input, byte for byte (at GC with a longer list, if something stays that the runtime does not list), and its standard error is ours. It is killed when it takes
//! too long or says too much.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use rpc::Key;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;

use crate::deadline::{Deadline, Patience};
use crate::env;
use crate::program::Call;
use netconf::code;
use netconf::{Address, BadResult, Dns, Success};

/// How long the IPAM plug-in may take; longer than ours waits for anything, so that it can tell what it waited for.
const LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of its answer.
const MOST_BYTES: u64 = 1 << 20;

/// The IPAM plug-in failed, or misbehaved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DelegateError {
    #[error(
        "find the IPAM plug-in `{name}`: no such executable in CNI_PATH ({searched}); install it there or correct ipam.type"
    )]
    Missing { name: String, searched: String },
    #[error("run the IPAM plug-in {path}: {source}; check the file")]
    Run { path: PathBuf, source: io::Error },
    #[error("talk to the IPAM plug-in {path}: {source}; check the file")]
    Talk { path: PathBuf, source: io::Error },
    #[error("run the IPAM plug-in {path}: no end within {patience}, killed; see its log")]
    Late { path: PathBuf, patience: Patience },
    #[error(
        "run the IPAM plug-in {path}: more than {MOST_BYTES} bytes of output, killed; it is no CNI plug-in"
    )]
    TooLong { path: PathBuf },
    #[error(
        "run the IPAM plug-in {path}: {status} and no CNI answer but `{start}`; see its standard error in the runtime's log"
    )]
    Garbage {
        path: PathBuf,
        status: ExitStatus,
        start: String,
    },
    #[error(
        "use the answer of the IPAM plug-in {path}: {source}; it is broken or badly configured"
    )]
    Result { path: PathBuf, source: BadResult },
    #[error(
        "use the answer of the IPAM plug-in {path}: it has no IPv4 address; give it an IPv4 pool"
    )]
    NoAddress { path: PathBuf },
    /// Its own error, passed on as it is.
    #[error("{message}")]
    Failed {
        code: u32,
        message: String,
        details: Option<String>,
    },
}

impl DelegateError {
    /// The CNI code: the plug-in's own if it gave one.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Failed { code, .. } => *code,
            Self::Missing { .. }
            | Self::Run { .. }
            | Self::Talk { .. }
            | Self::Late { .. }
            | Self::TooLong { .. }
            | Self::Garbage { .. }
            | Self::Result { .. }
            | Self::NoAddress { .. } => code::DELEGATE,
        }
    }

    /// Whether the plug-in began to work, so that it may hold an address for us.
    pub(crate) fn has_run(&self) -> bool {
        !matches!(self, Self::Missing { .. } | Self::Run { .. })
    }

    /// The plug-in's own details.
    pub(crate) fn details(&self) -> Option<String> {
        match self {
            Self::Failed { details, .. } => details.clone(),
            Self::Missing { .. }
            | Self::Run { .. }
            | Self::Talk { .. }
            | Self::Late { .. }
            | Self::TooLong { .. }
            | Self::Garbage { .. }
            | Self::Result { .. }
            | Self::NoAddress { .. } => None,
        }
    }
}

/// An IPAM plug-in and the configuration that it gets.
#[derive(Debug)]
pub(crate) struct Delegate<'a> {
    path: PathBuf,
    stdin: &'a [u8],
    deadline: Deadline,
    /// The attachment, when it is not the one that our environment names.
    of: Option<Key>,
}

impl<'a> Delegate<'a> {
    /// Looks for `name` in the call's `CNI_PATH` and nowhere else.
    pub(crate) fn find(call: &Call, name: &str, stdin: &'a [u8]) -> Result<Self, DelegateError> {
        let cni_path = &call.env.path;
        cni_path
            .split(':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.is_file())
            .map(|path| Self {
                path,
                stdin,
                deadline: call.deadline.clone(),
                of: None,
            })
            .ok_or_else(|| DelegateError::Missing {
                name: name.to_owned(),
                searched: cni_path.clone(),
            })
    }

    /// To be asked about the attachment `key`, whatever our environment says.
    pub(crate) fn of(mut self, key: &Key) -> Self {
        self.of = Some(key.clone());
        self
    }

    /// An address: the first IPv4 one, and what to say about DNS.
    pub(crate) fn add(&self, runtime: &Runtime) -> Result<(Address, Dns), DelegateError> {
        let answer = self.run(runtime, env::Command::Add)?;
        let success = serde_json::from_slice(&answer)
            .map_err(BadResult::from)
            .and_then(|value: Value| Success::parse_of_ipam(&value))
            .map_err(|source| DelegateError::Result {
                path: self.path.clone(),
                source,
            })?;
        match success.addresses.as_slice() {
            [first, ..] => Ok((*first, success.dns)),
            [] => Err(DelegateError::NoAddress {
                path: self.path.clone(),
            }),
        }
    }

    /// Gives the address back.
    pub(crate) fn del(&self, runtime: &Runtime) -> Result<(), DelegateError> {
        self.run(runtime, env::Command::Del).map(drop)
    }

    /// Is the address still ours?
    pub(crate) fn check(&self, runtime: &Runtime) -> Result<(), DelegateError> {
        self.run(runtime, env::Command::Check).map(drop)
    }

    /// Everything goes that is not in the list that the configuration has.
    pub(crate) fn gc(&self, runtime: &Runtime) -> Result<(), DelegateError> {
        self.run(runtime, env::Command::Gc).map(drop)
    }

    /// Could it give an address?
    pub(crate) fn status(&self, runtime: &Runtime) -> Result<(), DelegateError> {
        self.run(runtime, env::Command::Status).map(drop)
    }

    fn run(&self, runtime: &Runtime, command: env::Command) -> Result<Vec<u8>, DelegateError> {
        let run_error = |source| DelegateError::Run {
            path: self.path.clone(),
            source,
        };
        let talk_error = |source| DelegateError::Talk {
            path: self.path.clone(),
            source,
        };
        let patience = self.deadline.spare(LIMIT);
        let late = || DelegateError::Late {
            path: self.path.clone(),
            patience,
        };
        if patience.limit().is_zero() {
            return Err(late());
        }
        let (status, output) = runtime.block_on(async {
            let mut child = self.command(command).spawn().map_err(run_error)?;
            let talk =
                tokio::time::timeout(patience.limit(), exchange(&mut child, self.stdin)).await;
            let ended = match talk {
                Ok(Ok((_, ref output))) if output.len() as u64 > MOST_BYTES => {
                    Err(DelegateError::TooLong {
                        path: self.path.clone(),
                    })
                }
                Ok(ended) => ended.map_err(talk_error),
                Err(_elapsed) => Err(late()),
            };
            if ended.is_err() {
                // It may have ended by itself by now, which is as good.
                drop(child.kill().await);
            }
            ended
        })?;
        if status.success() {
            return Ok(output);
        }
        Err(self.failure(status, &output))
    }

    fn command(&self, verb: env::Command) -> Command {
        let mut command = Command::new(&self.path);
        command
            .env(env::COMMAND, verb.as_str())
            // We have looked, with the record and under the attachment's lock; the lease alone may tell less.
            .env_remove(env::ONLY_IF)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        if let Some(key) = &self.of {
            command
                .env(env::CONTAINER_ID, &key.container_id)
                .env(env::IFNAME, &key.ifname);
        }
        // A runtime that has lost patience kills us and asks for DEL at once; an IPAM ADD that went on would give its address
        // to nobody, afterwards.
        // SAFETY: between fork and exec only a system call is made, which neither allocates nor locks.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        command
    }

    fn failure(&self, status: ExitStatus, output: &[u8]) -> DelegateError {
        let answer: Option<Value> = serde_json::from_slice(output).ok();
        let text = |key| answer.as_ref()?.get(key)?.as_str().map(str::to_owned);
        let code = answer
            .as_ref()
            .and_then(|answer| answer.get("code")?.as_u64());
        match (code.and_then(|code| u32::try_from(code).ok()), text("msg")) {
            (Some(code), Some(message)) => DelegateError::Failed {
                code,
                message,
                details: text("details").filter(|details| !details.is_empty()),
            },
            _ => DelegateError::Garbage {
                path: self.path.clone(),
                status,
                start: String::from_utf8_lossy(output)
                    .chars()
                    .flat_map(char::escape_debug)
                    .take(80)
                    .collect(),
            },
        }
    }
}

/// Writes and reads at once, so that neither side waits for the other, then waits for the end.
async fn exchange(child: &mut Child, stdin: &[u8]) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let write = async {
        let Some(mut input) = input else {
            return Ok(());
        };
        match input.write_all(stdin).await {
            // A plug-in need not read what it does not want.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    };
    let read = async {
        let mut answer = Vec::new();
        if let Some(output) = output {
            output.take(MOST_BYTES + 1).read_to_end(&mut answer).await?;
        }
        Ok(answer)
    };
    let ((), answer) = futures_util::future::try_join(write, read).await?;
    if answer.len() as u64 > MOST_BYTES {
        child.start_kill()?;
    }
    Ok((child.wait().await?, answer))
}
