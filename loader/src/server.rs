//! Who may ask, and how: one JSON request per connection on a unix socket that only root may use.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rpc::{Refusal, Reply, Request, RunDirectory};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use crate::daemon::Daemon;

/// The largest request: an endpoint with names of the greatest length is a tenth of it.
const MAX_REQUEST: u64 = 1 << 20;
/// For reading a request and for writing an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("listen on {path}: {source}")]
pub struct ListenError {
    path: PathBuf,
    source: io::Error,
}

/// Makes the run directory and the socket in it.
pub fn listen(run: &RunDirectory) -> Result<UnixListener, ListenError> {
    let socket = run.socket();
    let failed = |source| ListenError {
        path: socket.clone(),
        source,
    };
    for directory in [
        run.root().to_owned(),
        run.endpoints(),
        run.locks(),
        run.ipam(),
    ] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(failed)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    // The caller holds the loader's lock, so a socket that is there is a dead one's.
    match fs::remove_file(&socket) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers until the task is dropped.
pub async fn serve(listener: UnixListener, daemon: Rc<Daemon>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let daemon = Rc::clone(&daemon);
                tokio::task::spawn_local(async move {
                    if let Err(error) = answer(stream, &daemon).await {
                        debug!(%error, "a client hung up");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others may be freed meanwhile.
                warn!(%error, "accept on the loader's socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, daemon: &Daemon) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let reply = if peer.uid() == 0 {
        let mut request = Vec::new();
        let mut limited = (&mut stream).take(MAX_REQUEST);
        tokio::time::timeout(PATIENCE, limited.read_to_end(&mut request)).await??;
        match serde_json::from_slice::<Request>(&request) {
            Ok(request) => daemon.handle(request).await,
            Err(error) => refused(
                "understand the request",
                &error,
                "use an azure-vnet of the loader's version",
            ),
        }
    } else {
        refused(
            "serve the request",
            &format!("uid {} is not root", peer.uid()),
            "run it as root",
        )
    };
    let bytes = serde_json::to_vec(&reply).map_err(io::Error::other)?;
    tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await?
}

/// A refusal as a reply.
pub fn refused(what: &str, why: &dyn std::fmt::Display, remedy: &str) -> Reply {
    Reply::Refused(Refusal {
        what: what.to_owned(),
        why: why.to_string(),
        remedy: remedy.to_owned(),
    })
}
