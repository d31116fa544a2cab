//! Our bytes against tungstenite's: what its client sends is received, and what we write its client reads.
use std::io::{self, Read, Write};

use fanwire_core::ws::{CloseCode, Opcode, Received, Receiver, write_close, write_header};
use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Bytes, Message};

/// A stream in memory: what is written is kept, what is read was put there.
#[derive(Default)]
struct Pipe {
    readable: io::Cursor<Vec<u8>>,
    written: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.readable.read(room)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let bytes = |count_max| prop::collection::vec(any::<u8>(), 0..=count_max).prop_map(Bytes::from);
    let message = prop_oneof![
        any::<String>().prop_map(|text| Message::Text(text.into())),
        bytes(70_000).prop_map(Message::Binary),
        bytes(125).prop_map(Message::Ping),
        bytes(125).prop_map(Message::Pong),
    ];
    prop::collection::vec(message, 0..8)
}

fn to_message(received: Received<'_>) -> Message {
    match received {
        Received::Text(text) => Message::Text(text.into()),
        Received::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(bytes)),
        Received::Ping(bytes) => Message::Ping(Bytes::copy_from_slice(bytes)),
        Received::Pong(bytes) => Message::Pong(Bytes::copy_from_slice(bytes)),
        Received::Close { .. } => Message::Close(None),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_tungstenite_client_sends_is_received(
        sent in messages(),
        piece_bytes in 1usize..3_000,
    ) {
        let mut client = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
        for message in &sent {
            client.send(message.clone()).unwrap();
        }
        let mut bytes = std::mem::take(&mut client.get_mut().written);
        let mut receiver = Receiver::new();
        let mut received_all = Vec::new();
        for piece in bytes.chunks_mut(piece_bytes) {
            let mut taken = 0;
            while let (more, Some(received)) =
                receiver.receive(&mut piece[taken..], 100_000).unwrap()
            {
                received_all.push(to_message(received));
                taken += more;
            }
        }
        prop_assert_eq!(received_all, sent);
        prop_assert!(!receiver.is_mid_message());
    }

    #[test]
    fn what_we_write_a_tungstenite_client_reads(sent in messages()) {
        let mut bytes = Vec::new();
        for message in &sent {
            let opcode = match message {
                Message::Text(_) => Opcode::Text,
                Message::Binary(_) => Opcode::Binary,
                Message::Ping(_) => Opcode::Ping,
                _ => Opcode::Pong,
            };
            write_header(&mut bytes, opcode, message.len());
            bytes.extend(message.clone().into_data());
        }
        write_close(&mut bytes, CloseCode::TRY_AGAIN_LATER, "later");
        let pipe = Pipe { readable: io::Cursor::new(bytes), written: Vec::new() };
        let mut client = WebSocket::from_raw_socket(pipe, Role::Client, None);
        for message in sent {
            prop_assert_eq!(client.read().unwrap(), message);
        }
        let Message::Close(Some(close)) = client.read().unwrap() else {
            panic!("a close frame follows");
        };
        prop_assert_eq!((u16::from(close.code), close.reason.as_str()), (1013, "later"));
    }
}
