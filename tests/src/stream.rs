//! Does a TCP connection survive what happens meanwhile, and how long does it stall?

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::namespace::Namespace;
use crate::wait::{Deadline, readable};

const CHUNK: usize = 1024;
/// Between one chunk's echo and the next chunk: quick enough to see a stall of milliseconds, slow enough
/// to leave the machine to what is tested.
const PACE: Duration = Duration::from_millis(1);
/// How long the echo of the last chunk may take before the stream counts as dead.
const LAST_ECHO: Duration = Duration::from_secs(10);

/// A connection that sends numbered chunks to an echo server and checks their echo.
#[derive(Debug)]
pub struct Stream {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<StreamReport>>,
}

/// What happened to a [`Stream`].
#[derive(Clone, Debug, Default)]
pub struct StreamReport {
    /// Echoed and checked.
    pub bytes: u64,
    /// The longest time from sending a chunk to having its echo.
    pub longest_gap: Duration,
    /// Connections broken, by reset, end or a wrong byte: 0 or 1.
    pub resets: u32,
    /// What broke the connection.
    pub error: Option<String>,
}

impl Namespace {
    /// Connects to an echo server and keeps the connection busy until [`Stream::finish`].
    pub fn stream(&self, server: Ipv4Addr, port: u16) -> Result<Stream> {
        let address = SocketAddrV4::new(server, port);
        let connection = self.run(|| {
            TcpStream::connect_timeout(&address.into(), Duration::from_secs(3))
                .with_context(|| format!("connect to {address}"))
        })?;
        connection.set_nodelay(true)?;
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("stream".into())
            .spawn(move || talk(connection, &stopped))?;
        Ok(Stream {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Stream {
    /// Whether the connection broke already.
    pub fn is_broken(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops after the chunk in flight, waiting ten seconds for it at most.
    pub fn finish(mut self) -> Result<StreamReport> {
        self.stop = None;
        let thread = self.thread.take().context("the stream has ended")?;
        thread
            .join()
            .map_err(|_panic| anyhow!("the stream's thread panicked"))
    }
}

fn talk(mut connection: TcpStream, stopped: &mpsc::Receiver<()>) -> StreamReport {
    let mut report = StreamReport::default();
    if let Err(error) =
        first_line(&mut connection).and_then(|()| chunks(&mut connection, stopped, &mut report))
    {
        report.resets = 1;
        report.error = Some(error.to_string());
    }
    report
}

/// The server says first who it thinks we are.
fn first_line(connection: &mut TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(LAST_ECHO))?;
    let mut byte = [0];
    while byte != *b"\n" {
        connection.read_exact(&mut byte)?;
    }
    Ok(())
}

fn chunks(
    connection: &mut TcpStream,
    stopped: &mpsc::Receiver<()>,
    report: &mut StreamReport,
) -> io::Result<()> {
    for number in 0_u64.. {
        if !matches!(stopped.recv_timeout(PACE), Err(RecvTimeoutError::Timeout)) {
            break;
        }
        let chunk = number.to_be_bytes().repeat(CHUNK / 8);
        let sent = Instant::now();
        connection.write_all(&chunk)?;
        let result = echo(connection, &chunk, stopped);
        report.longest_gap = report.longest_gap.max(sent.elapsed());
        result?;
        report.bytes += chunk.len() as u64;
    }
    Ok(())
}

/// Waits for the echo as long as the test goes on, and ten seconds more.
fn echo(connection: &mut TcpStream, chunk: &[u8], stopped: &mpsc::Receiver<()>) -> io::Result<()> {
    let mut grace: Option<Deadline> = None;
    let mut echoed: Vec<u8> = Vec::with_capacity(chunk.len());
    let mut buffer = [0; CHUNK];
    while echoed.len() < chunk.len() {
        if readable(connection, Deadline::after(Duration::from_millis(100)))? {
            let left = chunk.len() - echoed.len();
            match connection.read(buffer.get_mut(..left).unwrap_or_default())? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => echoed.extend(buffer.iter().take(read)),
            }
        } else if let Err(mpsc::TryRecvError::Disconnected) = stopped.try_recv() {
            let grace = grace.get_or_insert_with(|| Deadline::after(LAST_ECHO));
            if grace.passed() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the last chunk has no echo",
                ));
            }
        }
    }
    if echoed == chunk {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the echo is not what was sent",
        ))
    }
}
