//! Who may ask, and how: one JSON request per connection on a unix socket that only root may use.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rpc::{Refusal, Reply, Request, RunDirectory};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::interval;
use tracing::{debug, error, warn};

use crate::daemon::Daemon;
use crate::repair::PULSE;

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

/// The socket, and which file it is.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: (u64, u64),
}

impl Listener {
    /// Whether who opens the path gets here.
    fn is_reachable(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == self.file)
    }
}

/// Makes the run directory and the socket in it.
pub fn listen(run: &RunDirectory) -> Result<Listener, ListenError> {
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
    let file = fs::symlink_metadata(&socket).map_err(failed)?;
    Ok(Listener {
        socket: listener,
        file: (file.dev(), file.ino()),
    })
}

/// Answers until the task is dropped. Who removes the socket, or puts another one in its place, finds a new one.
pub async fn serve(mut listener: Listener, daemon: Rc<Daemon>) {
    let path = daemon.run.socket();
    let mut look = interval(PULSE);
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            _ = look.tick() => {
                if !listener.is_reachable(&path) {
                    warn!(path = %path.display(), "the loader's socket is gone or another's: listening anew");
                    crate::repairs::Repair::Socket.count();
                    match listen(&daemon.run) {
                        Ok(anew) => {
                            listener = anew;
                            // The run directory may have gone with it.
                            daemon.keep_files();
                        }
                        Err(error) => error!(%error, "listen anew"),
                    }
                }
                continue;
            }
        };
        match accepted {
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
        match read(&mut stream).await {
            Ok(request) => daemon.handle(request).await,
            Err(why) => refused(
                "understand the request",
                &why,
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

/// Reads a request to its end, or says what is wrong with it.
async fn read(stream: &mut UnixStream) -> Result<Request, String> {
    let mut bytes = Vec::new();
    // One more than is allowed, to tell what is longer from what is not.
    let mut limited = stream.take(MAX_REQUEST + 1);
    match tokio::time::timeout(PATIENCE, limited.read_to_end(&mut bytes)).await {
        Err(_late) => return Err(format!("it did not end within {PATIENCE:?}")),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(length)) if u64::try_from(length).is_ok_and(|length| length > MAX_REQUEST) => {
            return Err(format!("it is longer than {MAX_REQUEST} bytes"));
        }
        Ok(Ok(_)) => {}
    }
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// A refusal as a reply.
pub fn refused(what: &str, why: &dyn std::fmt::Display, remedy: &str) -> Reply {
    Reply::Refused(Refusal {
        what: what.to_owned(),
        why: why.to_string(),
        remedy: remedy.to_owned(),
    })
}
