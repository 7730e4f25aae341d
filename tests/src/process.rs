//! How is a child process started so that it never outlives the lab?

use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::log::Log;
use crate::wait::{Deadline, lock, readable, readable_within, ready};

/// How long the lab's own set-up commands may take.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after its end the rest of a process's log may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a process that ran to its end left behind.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Finished {
    /// Standard output as text when the exit status is 0, else an error that carries both outputs.
    pub fn success(self) -> Result<String> {
        let stdout = String::from_utf8_lossy(&self.stdout).into_owned();
        ensure!(
            self.status.success(),
            "{}: {}{stdout}",
            self.status,
            self.stderr
        );
        Ok(stdout)
    }
}

/// Lets the kernel kill the child when the thread that starts it ends, so also when the lab's process
/// is killed with SIGKILL.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = Pid::this();
    let hook = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died between fork and prctl.
        if getppid() == parent {
            Ok(())
        } else {
            Err(Errno::ESRCH.into())
        }
    };
    // SAFETY: between fork and exec the hook makes two system calls (prctl, getppid) and allocates
    // nothing, which is what `pre_exec` demands of a process that had other threads.
    unsafe { command.pre_exec(hook) };
}

/// Runs to the end, feeding `stdin`. A process that takes longer than `limit` is killed and an error.
pub(crate) fn run(mut command: Command, stdin: &[u8], limit: Duration) -> Result<Finished> {
    let what = command.get_program().to_string_lossy().into_owned();
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let talked = talk(&mut child, stdin, Deadline::after(limit));
    if talked.is_err() {
        child.kill().with_context(|| format!("kill {what}"))?;
    }
    let status = child.wait().with_context(|| format!("wait for {what}"))?;
    let (stdout, stderr) = talked.with_context(|| format!("run {what} for {limit:?}"))?;
    Ok(Finished {
        status,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        elapsed: started.elapsed(),
    })
}

/// Runs for at most `life`, feeding `stdin`, and ends with SIGKILL.
pub(crate) fn cut_short(mut command: Command, stdin: &[u8], life: Duration) -> Result<ExitStatus> {
    let what = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let born = Instant::now();
    let mut input = child.stdin.take();
    let mut rest = stdin;
    while !rest.is_empty() {
        // Less than a pipe holds.
        feed(&mut input, &mut rest)?;
    }
    drop(input);
    let exit = pidfd(child.id())?;
    let ended = readable_within(&exit, life.saturating_sub(born.elapsed()))?;
    if !ended {
        child.kill().with_context(|| format!("kill {what}"))?;
    }
    child.wait().with_context(|| format!("wait for {what}"))
}

/// Feeds and reads the three pipes until both outputs are closed and the process has ended.
fn talk(child: &mut Child, mut input: &[u8], deadline: Deadline) -> Result<(Vec<u8>, Vec<u8>)> {
    let exit = pidfd(child.id())?;
    let mut stdin = child.stdin.take();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        if input.is_empty() {
            stdin = None;
        }
        let mut fds = Vec::with_capacity(3);
        fds.extend(stdin.iter().map(|p| (p.as_fd(), PollFlags::POLLOUT)));
        fds.extend(stdout.iter().map(|p| (p.as_fd(), PollFlags::POLLIN)));
        fds.extend(stderr.iter().map(|p| (p.as_fd(), PollFlags::POLLIN)));
        if fds.is_empty() {
            break;
        }
        let states = ready(&fds, Some(deadline))?;
        ensure!(states.contains(&true), "still running at the deadline");
        let mut states = states.into_iter();
        if stdin.is_some() && states.next() == Some(true) {
            feed(&mut stdin, &mut input)?;
        }
        if stdout.is_some() && states.next() == Some(true) {
            drain(&mut stdout, &mut out)?;
        }
        if stderr.is_some() && states.next() == Some(true) {
            drain(&mut stderr, &mut err)?;
        }
    }
    ensure!(
        readable(&exit, deadline)?,
        "closed its output but still running at the deadline"
    );
    Ok((out, err))
}

/// Writes what fits without blocking; a reader that went away is its own business.
fn feed(pipe: &mut Option<impl io::Write>, input: &mut &[u8]) -> io::Result<()> {
    let Some(writer) = pipe else { return Ok(()) };
    // POLLOUT promises room for PIPE_BUF bytes, not for more.
    let chunk = input.get(..libc::PIPE_BUF).unwrap_or(input);
    match writer.write(chunk) {
        Ok(written) => *input = input.get(written..).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => *input = &[],
        Err(error) => return Err(error),
    }
    Ok(())
}

fn drain(pipe: &mut Option<impl io::Read>, output: &mut Vec<u8>) -> io::Result<()> {
    let Some(reader) = pipe else { return Ok(()) };
    let mut chunk = vec![0; 64 * 1024];
    let read = reader.read(&mut chunk)?;
    if read == 0 {
        *pipe = None;
    }
    output.extend(chunk.into_iter().take(read));
    Ok(())
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A long-running process of the lab. Killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    exit: OwnedFd,
    child: Mutex<Child>,
    log: Log,
}

impl Process {
    /// Starts from the lab's long-lived spawner thread, because PDEATHSIG follows the starting *thread*.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("start {name}"))?;
        let stderr = child.stderr.take().context("a child without stderr")?;
        Ok(Self {
            name: name.to_owned(),
            pid: child.id(),
            exit: pidfd(child.id())?,
            child: Mutex::new(child),
            log: Log::of(stderr)?,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What the process wrote to its standard error up to now.
    pub fn log(&self) -> String {
        self.log.to_string()
    }

    pub(crate) fn exit_fd(&self) -> &OwnedFd {
        &self.exit
    }

    /// None while it runs.
    pub fn status(&self) -> Result<Option<ExitStatus>> {
        Ok(lock(&self.child).try_wait()?)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = lock(&self.child);
        // Not reaped yet, so the pid is still this process's.
        if child.try_wait()?.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.pid)?);
            kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// Waits for the end.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        if !readable(&self.exit, Deadline::after(limit))? {
            bail!("{} still runs after {limit:?}", self.name);
        }
        let status = lock(&self.child).wait()?;
        self.log.complete(LAST_WORDS);
        Ok(status)
    }

    /// SIGKILL, and the pid is gone when this returns.
    pub fn kill9(&self) -> Result<()> {
        let mut child = lock(&self.child);
        child.kill()?;
        child.wait()?;
        self.log.complete(LAST_WORDS);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it is reaped already, which is what we want.
        self.kill9().unwrap_or_default();
    }
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread that starts the processes, alive as long as this process.
fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                // The asker waits for the reply, so it is there.
                reply.send(command.spawn()).unwrap_or_default();
            }
        });
        sender
    })
}

/// Starts the spawner's thread here and now, so that it does not live in a namespace of the lab.
pub(crate) fn prepare() {
    spawner();
}

fn spawn(command: Command) -> io::Result<Child> {
    let (reply, child) = mpsc::channel();
    let gone = |_| io::Error::other("the lab's spawner thread is gone");
    spawner()
        .send((command, reply))
        .map_err(|e| gone(e.to_string()))?;
    child.recv().map_err(|e| gone(e.to_string()))?
}
