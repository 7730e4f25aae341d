//! Running a plug-in and judging its answer.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The main plug-in.
pub(crate) const AZURE_VNET: &str = env!("CARGO_BIN_EXE_azure-vnet");
/// The IPAM plug-in.
pub(crate) const AZURE_VNET_IPAM: &str = env!("CARGO_BIN_EXE_azure-vnet-ipam");
/// Both.
pub(crate) const BOTH: [&str; 2] = [AZURE_VNET, AZURE_VNET_IPAM];

/// The directory of the plug-ins, as `CNI_PATH`.
pub(crate) fn bin() -> &'static str {
    AZURE_VNET.rsplit_once('/').unwrap().0
}

/// The seed documents' configuration, flattened as a runtime does.
pub(crate) fn netconf() -> Value {
    json!({
        "cniVersion": "0.3.0",
        "name": "azure",
        "type": "azure-vnet",
        "mode": "bridge",
        "bridge": "azure0",
        "ipam": {"type": "azure-vnet-ipam"},
    })
}

/// [`netconf`] with other or more keys.
pub(crate) fn netconf_with(changes: Value) -> Value {
    let mut conf = netconf();
    let fields = conf.as_object_mut().unwrap();
    let Value::Object(changes) = changes else {
        panic!("not an object");
    };
    fields.extend(changes);
    conf
}

/// One exec to come.
pub(crate) struct Exec {
    pub(crate) command: Command,
    stdin: Vec<u8>,
}

/// What a plug-in answered.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Exec {
    /// With nothing in the environment.
    pub(crate) fn bare(program: &str) -> Self {
        let mut command = Command::new(program);
        command.env_clear();
        Self {
            command,
            stdin: Vec::new(),
        }
    }

    /// As a runtime does it for container `c1`.
    pub(crate) fn new(program: &str, verb: &str) -> Self {
        let mut exec = Self::bare(program);
        exec.command.envs([
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/pod"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", bin()),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=u",
            ),
        ]);
        exec.conf(&netconf())
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn unset(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn conf(self, conf: &Value) -> Self {
        self.stdin(conf.to_string().as_bytes())
    }

    pub(crate) fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// Runs it to its end. Whatever happens, the exit status is 0 or 1 (row 96).
    pub(crate) fn run(self) -> Answer {
        let answer = self.run_leniently();
        assert!(matches!(answer.status.code(), Some(0 | 1)), "{answer}");
        answer
    }

    /// Runs it to its end, however that is.
    pub(crate) fn run_leniently(mut self) -> Answer {
        let start = Instant::now();
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let stdin = self.stdin;
        // A plug-in that does not read to the end closes the pipe.
        let writer = std::thread::spawn(move || input.write_all(&stdin));
        let output = child.wait_with_output().unwrap();
        let took = start.elapsed();
        drop(writer.join().unwrap());
        Answer {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            took,
        }
    }
}

impl Answer {
    /// Success with exactly one JSON document that ends in a newline.
    pub(crate) fn document(&self) -> Value {
        assert!(self.status.success(), "{self}");
        assert!(self.stdout.ends_with('\n'), "{self}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Success without a word on standard output.
    pub(crate) fn silence(&self) {
        assert!(self.status.success() && self.stdout.is_empty(), "{self}");
    }

    /// Failure with exactly one error object of that code; its message and details.
    pub(crate) fn error(&self, code: u64) -> String {
        assert_eq!(self.status.code(), Some(1), "{self}");
        let object: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self}"));
        assert_eq!(object["code"], code, "{self}");
        assert!(object["cniVersion"].is_string(), "{self}");
        let details = object
            .get("details")
            .and_then(Value::as_str)
            .unwrap_or_default();
        format!("{}; {details}", object["msg"].as_str().unwrap())
    }

    /// [`Answer::error`], whose text must hold all of `words`.
    pub(crate) fn error_saying(&self, code: u64, words: &[&str]) {
        let text = self.error(code);
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            status,
            stdout,
            stderr,
            ..
        } = self;
        write!(f, "{status}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// Lets `time` pass: for what a test wants to take long.
pub(crate) fn pass(time: Duration) {
    // Nobody ever sends.
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    receiver.recv_timeout(time).unwrap_err();
}

/// Runs `command` with standard input open and never written, until it ends or `limit` is over; `None` then.
pub(crate) fn run_with_open_stdin(mut exec: Exec, limit: Duration) -> Option<String> {
    let mut child = exec
        .command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let open = child.stdin.take();
    let mut stdout = child.stdout.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        sender.send(text)
    });
    let answer = receiver.recv_timeout(limit).ok();
    drop(open);
    drop(child.kill());
    child.wait().unwrap();
    answer
}
