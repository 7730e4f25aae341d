//! A dump: one question to the kernel over netlink, and all of its answers.

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
    mut each: impl FnMut(M) -> Result<(), E>,
) -> Result<(), E>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    E: From<io::Error>,
{
    let socket = Socket::new(protocol)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;

    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => each(answer)?,
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
            }
            // Messages are aligned to four bytes.
            let length = message.header.length.next_multiple_of(4);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
