//! Many connections that are open at the same time, each of which must stay whose it is.
//!
//! A process may have fewer descriptors than such a load needs, so every client and every server thread has a descriptor
//! table of its own and lives as long as its connections.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::files::own_files;
use crate::namespace::Namespace;

/// How long a connection may keep us waiting before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many failures, each after [`PATIENCE`], and the rest is not tried: it counts as failed.
const HOPELESS: usize = 10;

/// Connections of one client that are open at the same time. They close on drop.
#[derive(Debug)]
pub struct Held {
    /// The clients' ends as the server saw them.
    pub seen: Vec<SocketAddrV4>,
    /// Connections that could not be opened.
    pub failed: u32,
    /// Why the first one could not.
    pub first_failure: Option<String>,
    client: Client<u64, (u32, u32)>,
}

/// Connections whose first segment is sent. They close on drop.
#[derive(Debug)]
pub struct Asked {
    /// How many.
    pub count: usize,
    _client: Client<(), ()>,
}

impl Namespace {
    /// Opens `count` connections to a server of [`Namespace::serve_hold`] and keeps them.
    pub fn hold(&self, server: Ipv4Addr, port: u16, count: u32) -> Result<Held> {
        let address = SocketAddrV4::new(server, port);
        let (opened, result) = channel();
        let client = Client::start(self, move |salts: &Receiver<u64>, answers| {
            let mut failures = Vec::new();
            let mut connections = Vec::new();
            for _ in 0..count {
                match open(address) {
                    Ok(connection) => connections.push(connection),
                    Err(error) => failures.push(error.to_string()),
                }
                if failures.len() == HOPELESS {
                    break;
                }
            }
            let seen: Vec<_> = connections.iter().map(|(_, seen)| *seen).collect();
            opened.send((seen, failures)).context("tell what is open")?;
            while let Ok(salt) = salts.recv() {
                answers
                    .send(exchange(&mut connections, salt))
                    .context("tell what came back")?;
            }
            Ok(())
        });
        let (seen, failures) = result.recv().context("the client has died")?;
        let opened = u32::try_from(seen.len()).unwrap_or(u32::MAX);
        Ok(Held {
            seen,
            failed: count.saturating_sub(opened),
            first_failure: failures.into_iter().next(),
            client,
        })
    }

    /// Sends the first segment of `count` connections and waits for none of them: a client that wants all it can get.
    pub fn ask(&self, server: Ipv4Addr, port: u16, count: u32) -> Result<Asked> {
        let address = SocketAddrV4::new(server, port).into();
        let (opened, result) = channel();
        let client = Client::start(self, move |end: &Receiver<()>, _| {
            let mut sockets = Vec::new();
            for _ in 0..count {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                match socket.connect(&address) {
                    Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => {
                        return Err(error).context("connect without waiting");
                    }
                    _ => sockets.push(socket),
                }
            }
            opened
                .send(sockets.len())
                .context("tell what is asked for")?;
            end.recv().unwrap_or_default();
            Ok(())
        });
        Ok(Asked {
            count: result.recv().context("the client has died")?,
            _client: client,
        })
    }
}

impl Held {
    /// Sends a token of its own over every connection, then reads them back: (broken, another's token).
    pub fn exchange(&mut self, salt: u64) -> Result<(u32, u32)> {
        self.client.ask(salt)
    }
}

/// A thread inside a namespace, with a descriptor table of its own, that answers questions until it is dropped.
#[derive(Debug)]
struct Client<Q, A> {
    questions: Option<Sender<Q>>,
    answers: Receiver<A>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl<Q: Send + 'static, A: Send + 'static> Client<Q, A> {
    fn start(
        namespace: &Namespace,
        work: impl FnOnce(&Receiver<Q>, &Sender<A>) -> Result<()> + Send + 'static,
    ) -> Self {
        let namespace = namespace.clone();
        let (questions, asked) = channel();
        let (answered, answers) = channel();
        let thread = thread::spawn(move || {
            namespace.run(move || {
                own_files()?;
                work(&asked, &answered)
            })
        });
        Self {
            questions: Some(questions),
            answers,
            thread: Some(thread),
        }
    }
}

impl<Q, A> Client<Q, A> {
    fn ask(&self, question: Q) -> Result<A> {
        let questions = self.questions.as_ref().context("the client has ended")?;
        questions
            .send(question)
            .ok()
            .context("the client has died")?;
        self.answers.recv().context("the client has died")
    }
}

impl<Q, A> Drop for Client<Q, A> {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            // What went wrong has been seen by whoever asked.
            drop(thread.join());
        }
    }
}

fn open(address: SocketAddrV4) -> io::Result<(TcpStream, SocketAddrV4)> {
    let mut connection = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut seen = [0; 6];
    connection.read_exact(&mut seen)?;
    let [a, b, c, d, high, low] = seen;
    let port = u16::from_be_bytes([high, low]);
    Ok((
        connection,
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port),
    ))
}

fn exchange(connections: &mut [(TcpStream, SocketAddrV4)], salt: u64) -> (u32, u32) {
    let (mut broken, mut wrong) = (0, 0);
    let tokens = (0_u64..).map(|number| (salt << 32 | number).to_be_bytes());
    for ((connection, _), token) in connections.iter_mut().zip(tokens.clone()) {
        broken += u32::from(connection.write_all(&token).is_err());
    }
    for ((connection, _), token) in connections.iter_mut().zip(tokens) {
        let mut echoed = [0; 8];
        match connection.read_exact(&mut echoed) {
            Ok(()) => wrong += u32::from(echoed != token),
            Err(_) => broken += 1,
        }
    }
    (broken, wrong)
}
