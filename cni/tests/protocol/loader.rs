//! A loader that answers as the test wants and remembers what it was asked.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::exec::pass;
use crate::sandbox::pools;

/// How it behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Does all that it is asked; its fresh pools are 10.240.0.50 and .51.
    Helpful,
    /// Refuses to register.
    Refusing,
    /// Has no entry for the pod that it is asked to look at.
    Forgetful,
    /// Does all that it is asked, four seconds later.
    Slow,
    /// Takes connections and never answers.
    Hanging,
}

/// A running loader.
#[derive(Clone, Default)]
pub(crate) struct Loader {
    asked: Arc<Mutex<Vec<Value>>>,
    drafts: Arc<Mutex<Vec<Value>>>,
    /// Whether there was a record, at each `unregister`.
    records: Arc<Mutex<Vec<bool>>>,
}

impl Loader {
    pub(crate) fn start(manner: Manner) -> Self {
        fs::create_dir_all("/run/azure-vnet").unwrap();
        drop(fs::remove_file("/run/azure-vnet/loader.sock"));
        let listener = UnixListener::bind("/run/azure-vnet/loader.sock").unwrap();
        let loader = Self::default();
        let notes = loader.clone();
        // Ends with the process: it holds on to a namespace that nobody else uses.
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if manner == Manner::Hanging {
                    kept.push(stream);
                } else {
                    answer(&mut stream, manner, &notes);
                }
            }
        });
        loader
    }

    /// What was registered, and what the plug-in's draft of it said at that moment.
    pub(crate) fn registered(&self) -> Vec<(Value, Value)> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|request| request["request"] == "register")
            .cloned()
            .zip(self.drafts.lock().unwrap().iter().cloned())
            .collect()
    }

    /// Whether the record was still there, each time that an attachment was unregistered.
    pub(crate) fn had_records(&self) -> Vec<bool> {
        self.records.lock().unwrap().clone()
    }

    /// The names of the requests so far; what the plug-ins tell of themselves for the metrics is none.
    pub(crate) fn requests(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|request| request["request"].as_str().unwrap().to_owned())
            .filter(|name| name != "report")
            .collect()
    }
}

fn answer(stream: &mut UnixStream, manner: Manner, notes: &Loader) {
    let mut question = String::new();
    stream.read_to_string(&mut question).unwrap();
    let Ok(question) = serde_json::from_str::<Value>(&question) else {
        // A plug-in that was killed before it had asked.
        return;
    };
    if manner == Manner::Slow {
        pass(Duration::from_secs(4));
    }
    let reply = match question["request"].as_str().unwrap() {
        "node" => json!({
            "reply": "node", "nic": "eth0", "nic_ifindex": 2, "nic_mac": "00:0d:3a:f9:dc:a6", "mtu": 1400,
            "primary": "10.240.0.4",
        }),
        "health" => json!({"reply": "health", "limits": []}),
        "refresh_pools" => {
            let mut reply = pools(&[50, 51]);
            reply["reply"] = "pools".into();
            reply
        }
        "remove_link" => {
            let name = question["name"].as_str().unwrap();
            // Gone already is fine.
            let mut delete = Command::new("ip");
            drop(delete.args(["link", "del", name]).output().unwrap());
            json!({"reply": "done"})
        }
        "register" if manner == Manner::Refusing => {
            json!({"reply": "refused", "what": "register", "why": "full", "remedy": "wait"})
        }
        "inspect" if manner == Manner::Forgetful => {
            json!({"reply": "refused", "what": "check", "why": "map `pods` has no entry", "remedy": "delete"})
        }
        _ => json!({"reply": "done"}),
    };
    if question["request"] == "register" {
        let drafts = fs::read_to_string("/run/azure-vnet/locks/azure:c1:eth0").unwrap_or_default();
        let last = drafts.lines().next_back().unwrap_or_default();
        let draft = serde_json::from_str(last).unwrap_or_default();
        notes.drafts.lock().unwrap().push(draft);
    }
    if question["request"] == "unregister" {
        let is_there = fs::exists("/run/azure-vnet/endpoints/azure:c1:eth0.json").unwrap();
        notes.records.lock().unwrap().push(is_there);
    }
    notes.asked.lock().unwrap().push(question);
    // The plug-in may have lost patience.
    drop(stream.write_all(reply.to_string().as_bytes()));
}
