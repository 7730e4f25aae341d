//! `vnetctl sysdump`: one file that tells everything to whoever looks for a fault, and nothing to whoever looks for secrets.
//!
//! Needs no loader. Everything that is asked of others is asked at once and has its time limit; what could not be had says why.

mod redact;
mod sources;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use tar::{Builder, Header};

use super::doctor::Node;
use super::output::Output;
use super::pinned::Pinned;
use super::{doctor, endpoints, flows, snat};
use crate::report::one_line;
use redact::redact;

/// Rows of tables: a full one would be a dump of its own.
const ROWS: usize = 10_000;
const TOP: usize = 100;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to write; it must not exist.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
pub(crate) struct Dump {
    /// The file: a tar archive, packed with gzip, mode 0600.
    pub file: PathBuf,
    /// The files in it.
    pub entries: usize,
    /// Its size.
    pub bytes: u64,
}

/// A file of the archive.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) text: String,
}

pub(super) fn run(output: Output, arguments: &Arguments) -> anyhow::Result<()> {
    let (name, now) = (sources::node_name(), now());
    let stem = format!("vnetctl-sysdump-{name}-{now}");
    let file = arguments.file.clone();
    let file = file.unwrap_or_else(|| PathBuf::from("/tmp").join(format!("{stem}.tar.gz")));
    let entries = gather();
    write(&file, &stem, &entries, now)
        .with_context(|| format!("write {}; --file names another", file.display()))?;
    let dump = Dump {
        bytes: file.metadata().map(|meta| meta.len()).unwrap_or_default(),
        entries: entries.len(),
        file,
    };
    output.print(&dump, |dump| {
        let (file, entries) = (dump.file.display(), dump.entries);
        format!(
            "{file}: {entries} files, {} kB, redacted; look into it before you pass it on\n",
            dump.bytes / 1024
        )
    })
}

/// Everything, redacted.
fn gather() -> Vec<Entry> {
    // The loader may hang: it is asked once, while the others are.
    let (node, mut entries) = std::thread::scope(|scope| {
        let node = scope.spawn(Node::look);
        let entries = sources::all();
        (node.join().ok(), entries)
    });
    entries.extend(node.iter().flat_map(answers));
    for entry in &mut entries {
        entry.text = redact(&entry.text);
    }
    entries
}

/// What `vnetctl` itself would say.
fn answers(node: &Node) -> Vec<Entry> {
    let mut entries = vec![
        json("status", node.status.as_ref()),
        json("doctor", Ok::<_, &str>(&doctor::examine(node))),
        json("ipam", crate::ipam::show().as_ref()),
    ];
    let pinned = Pinned::open().map_err(|error| one_line(&error));
    entries.extend([
        table("endpoints", &pinned, endpoints::read),
        table("snat", &pinned, |pinned| snat::bindings(pinned, None, ROWS)),
        table("snat-top", &pinned, |pinned| snat::remote_ends(pinned, TOP)),
        table("flows", &pinned, |pinned| flows::flows(pinned, None, ROWS)),
    ]);
    entries
}

/// What the pinned maps hold.
fn table<T: Serialize>(
    command: &str,
    pinned: &Result<Pinned, String>,
    read: impl FnOnce(&Pinned) -> anyhow::Result<T>,
) -> Entry {
    let pinned = pinned.as_ref().map_err(Clone::clone);
    let told = pinned.and_then(|pinned| read(pinned).map_err(|error| one_line(&error)));
    json(command, told.as_ref())
}

fn json<T: Serialize + ?Sized, E: std::fmt::Display>(
    command: &str,
    answer: Result<&T, E>,
) -> Entry {
    let answer = answer.map_err(|error| error.to_string());
    let text = answer
        .and_then(|told| serde_json::to_string_pretty(told).map_err(|error| error.to_string()));
    Entry {
        name: format!("vnetctl/{command}.json"),
        text: text.unwrap_or_else(|why| format!("not to be had: {why}\n")),
    }
}

/// An archive that nobody else may read, and that replaces nothing.
fn write(path: &Path, stem: &str, entries: &[Entry], now: u64) -> io::Result<()> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
    for Entry { name, text } in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o600);
        header.set_mtime(now);
        header.set_size(u64::try_from(text.len()).map_err(io::Error::other)?);
        archive.append_data(&mut header, format!("{stem}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
