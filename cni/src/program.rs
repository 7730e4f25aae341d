//! The frame of both plug-ins: arguments, verb, answer, log, exit status 0 or 1.

use std::env as process_env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::clock;
use crate::deadline::Deadline;
use crate::env::{self, Command, EnvError, Environment};
use crate::error::{Error, retryable};
use crate::log;
use crate::output;
use crate::signals;
use crate::steps::Steps;
use netconf::Netconf;
use netconf::Version;
use rpc::{CallFailure, CallReport, RunDirectory};

/// One of the plug-ins.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) log: &'static str,
    /// What it can do, and how.
    pub(crate) verbs: &'static [(Command, Verb)],
    /// The variables that a verb cannot do without.
    pub(crate) required: fn(Command) -> &'static [&'static str],
    /// How long a verb may work; see [`Deadline`].
    pub(crate) limit: fn(Command) -> Duration,
}

/// Does the work and prints the result, if the verb has one.
pub(crate) type Verb = fn(&mut Call) -> Result<(), Error>;

/// What a verb works on.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) env: Environment,
    /// The configuration as it was sent.
    pub(crate) stdin: Vec<u8>,
    pub(crate) steps: Steps,
    pub(crate) deadline: Deadline,
    /// What was passed over, for the log.
    warnings: Vec<String>,
    program: &'static str,
    command: Command,
}

impl Call {
    /// Tells of something that is wrong but does not keep the verb from succeeding.
    pub(crate) fn warn(&mut self, warning: &dyn Display) {
        let warning = warning.to_string();
        output::diagnose(&format!("{}: {warning}", self.program));
        self.warnings.push(warning);
    }

    /// Works on the configuration, and on the call as well.
    pub(crate) fn with_stdin<T>(&mut self, work: impl FnOnce(&mut Self, &[u8]) -> T) -> T {
        let stdin = std::mem::take(&mut self.stdin);
        let done = work(self, &stdin);
        self.stdin = stdin;
        done
    }

    /// The configuration's version has this verb.
    pub(crate) fn require_verb(&self, version: Version) -> Result<(), Error> {
        let (has, since) = match self.command {
            Command::Check => (version.has_check(), "0.4.0"),
            Command::Gc | Command::Status => (version.has_gc(), "1.1.0"),
            Command::Add | Command::Del | Command::EndpointState | Command::Update => (true, ""),
        };
        if has {
            return Ok(());
        }
        Err(Error::NoSuchVerb {
            verb: self.command.as_str(),
            version,
            since,
        })
    }

    /// To be asked once everything is validated, before anything is touched.
    pub(crate) fn require_root(&self) -> Result<(), Error> {
        if geteuid().is_root() {
            return Ok(());
        }
        Err(Error::NotRoot {
            program: self.program,
        })
    }
}

/// Runs `program` as the process's main function.
pub(crate) fn run(program: &'static Program) -> ExitCode {
    // The runtime's umask is not ours to trust; files have the modes that the code says.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    panic::set_hook(Box::new(|_| {}));

    let done = match process_env::args_os().nth(1) {
        Some(argument) => with_argument(program, &argument),
        None => match process_env::var_os(env::COMMAND) {
            None => {
                output::diagnose(&about(program));
                Ok(())
            }
            Some(command) if command == "VERSION" => output::print(&Version::answer()),
            Some(command) => return verb(program, &command),
        },
    };
    finish(done)
}

fn with_argument(program: &Program, argument: &OsStr) -> Result<(), Error> {
    match argument.to_str() {
        Some("-v" | "--version") => output::text(concat!(
            "Azure CNI Version v",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        Some("-h" | "--help") => output::text(&format!("{}\n", about(program))),
        Some(_) | None => {
            output::diagnose(&about(program));
            let error = Error::from(EnvError::Command {
                command: "given as an argument".into(),
                known: known(program).iter().map(|verb| verb.as_str()).collect(),
            });
            output::print(&error.to_json(Version::NEWEST))?;
            Err(error)
        }
    }
}

fn about(program: &Program) -> String {
    format!(
        "{} v{}: {}\n\n\
         A container runtime runs it with CNI_COMMAND set to {} or VERSION and a network\n\
         configuration on standard input (https://www.cni.dev/docs/spec). Log: {}\n\n\
         Usage: {} [OPTIONS]\n\n\
         Options:\n  \
         -v, --version    Print version information\n  \
         -h, --help       Print usage information\n\n\
         CNI protocol versions supported: {}",
        program.name,
        env!("CARGO_PKG_VERSION"),
        program.about,
        known(program)
            .iter()
            .map(|verb| verb.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        program.log,
        program.name,
        Version::list(),
    )
}

fn known(program: &Program) -> Vec<Command> {
    program.verbs.iter().map(|(verb, _)| *verb).collect()
}

fn finish(done: Result<(), Error>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::diagnose(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// What is known of a call when it is over, however it ended.
struct Told {
    stdin: Vec<u8>,
    steps: Steps,
    warnings: Vec<String>,
}

/// Everything but VERSION: one error object on standard output, or what the verb prints, or nothing.
fn verb(program: &'static Program, command: &OsStr) -> ExitCode {
    let mut told = Told {
        stdin: Vec::new(),
        steps: Steps::start("validate"),
        warnings: Vec::new(),
    };
    let parsed = Command::parse(&command.to_string_lossy(), &known(program));
    let is_del = matches!(parsed, Ok(Command::Del));
    let is_poll = matches!(parsed, Ok(verb) if verb.is_poll());
    let result = match parsed {
        Ok(command) => call(program, command, &mut told),
        Err(error) => Err(error.into()),
    };
    let mut failure = result
        .as_ref()
        .err()
        .map(|error| error.to_json(Netconf::claimed_version(&told.stdin)));
    if let Some(object) = &mut failure {
        if is_del {
            retryable(object);
        }
        output::diagnose(&format!("{}: {object}", program.name));
        if let Err(error) = output::print(object) {
            output::diagnose(&error.to_string());
        }
    }
    if failure.is_some() || !is_poll {
        record(program, command, &told, failure.as_ref());
    }
    if failure.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn call(program: &'static Program, command: Command, told: &mut Told) -> Result<(), Error> {
    let env = Environment::read(command, (program.required)(command), |name| {
        process_env::var_os(name)
    })?;
    if command.has_stdin() {
        told.stdin = Netconf::read(io::stdin().lock())?;
    }
    let run = program
        .verbs
        .iter()
        .find_map(|(verb, run)| (*verb == command).then_some(*run));
    signals::hold_off();
    let mut call = Call {
        env,
        stdin: std::mem::take(&mut told.stdin),
        steps: std::mem::replace(&mut told.steps, Steps::start("")),
        deadline: Deadline::after((program.limit)(command)),
        warnings: Vec::new(),
        program: program.name,
        command,
    };
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        run.map_or(Ok(()), |run| run(&mut call))
    }));
    *told = Told {
        stdin: call.stdin,
        steps: call.steps,
        warnings: call.warnings,
    };
    caught.unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
            })
            .unwrap_or_default();
        Err(Error::Panic {
            program: program.name,
            message,
        })
    })
}

/// Writes the log's line.
fn record(program: &Program, command: &OsStr, told: &Told, failure: Option<&Value>) {
    let variable = |name| {
        process_env::var_os(name)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let level = match failure {
        Some(_) => "error",
        None if told.warnings.is_empty() => "info",
        None => "warn",
    };
    let timings: serde_json::Map<String, Value> = told
        .steps
        .timings()
        .into_iter()
        .map(|(step, micros)| (step.to_owned(), micros.into()))
        .collect();
    let entry = json!({
        "ts": clock::utc(),
        "level": level,
        "pid": std::process::id(),
        "verb": command.to_string_lossy(),
        "container": variable(env::CONTAINER_ID),
        "ifname": variable(env::IFNAME),
        "netns": variable(env::NETNS),
        "args": variable(env::ARGS),
        "total_us": told.steps.total(),
        "steps_us": timings,
        "warnings": told.warnings,
        "error": failure,
    });
    log::write(Path::new(program.log), &entry);
    tell(program, command, told, failure);
}

/// Tells the loader, for its metrics. A loader that is not there is nobody's business here.
fn tell(program: &Program, command: &OsStr, told: &Told, failure: Option<&Value>) {
    let code = |failure: &Value| failure.get("code").and_then(Value::as_u64);
    let report = CallReport {
        plugin: program.name.to_owned(),
        verb: command.to_string_lossy().into_owned(),
        total_us: told.steps.total(),
        error: failure.map(|failure| CallFailure {
            code: code(failure)
                .and_then(|code| u32::try_from(code).ok())
                .unwrap_or(0),
            step: told.steps.failed().to_owned(),
        }),
    };
    drop(rpc::tell(&RunDirectory::default().socket(), report));
}
