//! `vnetctl trace` says what then happens.
#![cfg(test)]

mod known;
mod random;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

type Result<T = ()> = anyhow::Result<T>;

/// A socket from a port of its own, on which nothing waits when it ends.
fn socket(kind: Type, from: u16, patience: Duration) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, from).into())?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// What the lab's echo servers say first.
fn first_line(answer: &[u8]) -> Option<SocketAddrV4> {
    std::str::from_utf8(answer)
        .ok()?
        .lines()
        .next()?
        .parse()
        .ok()
}
