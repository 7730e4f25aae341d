//! A dump: one question to the kernel over netlink, and all of its answers.

use std::cell::Cell;
use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Bytes of one `recv`; the kernel fills at most 32 KiB of it.
const BUFFER: usize = 64 * 1024;

/// Asks the kernel over netlink `protocol` in this network namespace, and hands over each of its answers.
pub fn dump<M, E>(
    protocol: isize,
    question: M,
    each: impl FnMut(M) -> Result<(), E>,
) -> Result<(), E>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    E: From<io::Error>,
{
    Asker::open(protocol)?.dump(question, each)
}

/// A socket for many questions: making one costs more than an answer does.
#[derive(Debug)]
pub(crate) struct Asker {
    socket: Socket,
    /// Of the last question: what is left of an answer that was not read to its end is none to the next one.
    number: Cell<u32>,
}

impl Asker {
    /// Stays in the caller's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::new(protocol)?,
            number: Cell::new(0),
        })
    }

    /// Hands over each of the kernel's answers.
    pub(crate) fn dump<M, E>(
        &self,
        question: M,
        mut each: impl FnMut(M) -> Result<(), E>,
    ) -> Result<(), E>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
        E: From<io::Error>,
    {
        self.number.update(|number| number.wrapping_add(1));
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.number.get();
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;

        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are aligned to four bytes.
                let length = message.header.length.next_multiple_of(4);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.number.get() {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => each(answer)?,
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            }
        }
    }
}
