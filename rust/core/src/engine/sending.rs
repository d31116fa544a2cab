//! Private bytes for one connection: they go out between publications, within a bound of their own.
use super::Engine;
use crate::channel::check_event;
use crate::error::EngineError;
use crate::messages::{Command, ConnectionId};
use crate::protocol::signalr::{HubMessage, write_message, write_records};
use crate::protocol::{Encoded, Payload, frame_bytes_max, raw, write_frame};

impl Engine {
    /// Sends private bytes to one connection, between publications, in the connection's wire format.
    ///
    /// # Errors
    /// [`EngineError::PayloadTooBig`] over `outbox_bytes_max`; [`EngineError::InvalidEvent`]; [`EngineError::NotRunning`].
    pub fn send(&self, id: ConnectionId, payload: &Payload<'_>, event: Option<&str>) -> Result<(), EngineError> {
        self.check_running()?;
        check_event(event)?;
        self.check_private(payload.bytes())?;
        let Some(format) = self.format_of(id) else { return Ok(()) };
        let mut frame = Vec::with_capacity(frame_bytes_max(format, payload, event, None));
        if write_frame(format, payload, event, None, &mut frame).is_err() {
            // An object of which there is JSON only, for a client of MessagePack: text is what it can be.
            if let Payload::Object(Encoded { json: Some(json), .. }) = payload {
                raw::write_text(&mut frame, json);
            }
        }
        self.command(id, Command::Send(id, frame.into_boxed_slice()));
        Ok(())
    }

    /// Answers a call of the raw protocol: a text frame, also to who has its publications in envelopes or as MessagePack.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    pub fn reply(&self, id: ConnectionId, text: &str) -> Result<(), EngineError> {
        self.check_running()?;
        self.check_private(text.len())?;
        let mut frame = Vec::with_capacity(raw::frame_bytes(text.as_bytes()));
        raw::write_text(&mut frame, text.as_bytes());
        self.command(id, Command::Send(id, frame.into_boxed_slice()));
        Ok(())
    }

    /// Sends one message of its hub protocol to a SignalR connection; to any other, nothing.
    ///
    /// # Errors
    /// [`EngineError::PayloadTooBig`] over `outbox_bytes_max`; [`EngineError::NotRunning`].
    pub fn send_message(&self, id: ConnectionId, message: &HubMessage<'_>) -> Result<(), EngineError> {
        self.check_running()?;
        let Some((format, protocol)) = self.format_of(id).and_then(|format| Some((format, format.hub_protocol()?)))
        else {
            return Ok(());
        };
        let mut record = Vec::new();
        write_message(protocol, message, &mut record);
        self.check_private(record.len())?;
        let mut frame = Vec::with_capacity(record.len() + 16);
        write_records(format, &record, &mut frame);
        self.command(id, Command::Send(id, frame.into_boxed_slice()));
        Ok(())
    }

    /// As [`send_message`](Self::send_message): whole records, in the connection's protocol, as they are.
    ///
    /// # Errors
    /// Those of [`send_message`](Self::send_message).
    pub fn send_records(&self, id: ConnectionId, records: &[u8]) -> Result<(), EngineError> {
        self.check_running()?;
        self.check_private(records.len())?;
        let Some(format) = self.format_of(id).filter(|format| format.hub_protocol().is_some()) else { return Ok(()) };
        let mut frame = Vec::with_capacity(records.len() + 16);
        write_records(format, records, &mut frame);
        self.command(id, Command::Send(id, frame.into_boxed_slice()));
        Ok(())
    }

    /// Asks for an [`Event::Drained`](crate::messages::Event::Drained) once the socket has taken all private bytes sent so far.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn ask_drained(&self, id: ConnectionId) -> Result<(), EngineError> {
        self.check_running()?;
        self.command(id, Command::AskDrained(id));
        Ok(())
    }

    /// Whether so many bytes may be sent to one connection at once.
    ///
    /// # Errors
    /// [`EngineError::PayloadTooBig`] over `outbox_bytes_max`.
    pub(super) fn check_private(&self, payload_bytes: usize) -> Result<(), EngineError> {
        let bytes_max = self.common.settings.outbox_bytes_max;
        if payload_bytes > bytes_max {
            return Err(EngineError::PayloadTooBig { payload_bytes, bytes_max, name: "outbox_bytes_max" });
        }
        Ok(())
    }
}
