//! Hub messages as JSON texts: read without looking into arguments, written as ASP.NET Core writes them.
use std::borrow::Cow;

use serde_json::value::RawValue;

use super::message::{HubMessage, MessageError, Outcome};
use super::object::{
    check_headers, read_array, read_bool, read_int, read_long, read_members, read_text, write_member, write_name,
    write_text,
};
use crate::protocol::raw::kind;

/// Ends each record.
pub(super) const SEPARATOR: u8 = 0x1e;

/// As [`parse_message`](super::parse_message).
pub(super) fn parse(record: &[u8]) -> Result<HubMessage<'_>, MessageError> {
    let names = [
        "type",
        "invocationId",
        "target",
        "arguments",
        "streamIds",
        "item",
        "result",
        "error",
        "allowReconnect",
        "sequenceId",
        "headers",
    ];
    let members = read_members(record, names)?;
    let [message_type, id, target, arguments, stream_ids, item, result, error, allow_reconnect, sequence_id, headers] =
        members;
    let message_type = message_type.ok_or(MessageError::Missing { field: "type" })?;
    headers.map_or(Ok(()), |headers| check_headers("headers", headers))?;
    let fields = MessageFields {
        message_type: read_int("type", message_type)?,
        id: id.map(|id| read_text("invocationId", id)).transpose()?,
        target: target.map(|target| read_text("target", target)).transpose()?,
        arguments: arguments.map(read_arguments).transpose()?,
        stream_ids: stream_ids.map_or(Ok(Vec::new()), read_stream_ids)?,
        item: item.map(|item| item.get().as_bytes()),
        result: result.map(|result| result.get().as_bytes()),
        error: error.map(|error| read_text("error", error)).transpose()?,
        allow_reconnect: allow_reconnect.map_or(Ok(false), |allow| read_bool("allowReconnect", allow))?,
        sequence_id: sequence_id.map(|id| read_long("sequenceId", id)).transpose()?,
    };
    fields.into_message()
}

/// As [`write_message`](super::write_message).
pub(super) fn write(message: &HubMessage<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    write_number(out, "type", i64::from(message.message_type()));
    match message {
        HubMessage::Invocation { id, target, arguments, stream_ids } => {
            write_call(out, id.as_deref(), target, arguments, stream_ids);
        }
        HubMessage::StreamInvocation { id, target, arguments, stream_ids } => {
            write_call(out, Some(id), target, arguments, stream_ids);
        }
        HubMessage::StreamItem { id, item } => {
            write_member(out, "invocationId", id);
            write_raw(out, "item", item);
        }
        HubMessage::Completion { id, outcome } => {
            write_member(out, "invocationId", id);
            match outcome {
                Outcome::Error(error) => write_member(out, "error", error),
                Outcome::Void => {}
                Outcome::Result(result) => write_raw(out, "result", result),
            }
        }
        HubMessage::CancelInvocation { id } => write_member(out, "invocationId", id),
        HubMessage::Close { error, allow_reconnect } => {
            if let Some(error) = error {
                write_member(out, "error", error);
            }
            if *allow_reconnect {
                write_raw(out, "allowReconnect", b"true");
            }
        }
        HubMessage::Ack { sequence_id } | HubMessage::Sequence { sequence_id } => {
            write_number(out, "sequenceId", *sequence_id);
        }
        HubMessage::Ping | HubMessage::Unknown { .. } => {}
    }
    out.extend_from_slice(&[b'}', SEPARATOR]);
}

/// The members of a message, of the types they must have.
struct MessageFields<'a> {
    message_type: i32,
    id: Option<Cow<'a, str>>,
    target: Option<Cow<'a, str>>,
    arguments: Option<&'a [u8]>,
    stream_ids: Vec<Cow<'a, str>>,
    item: Option<&'a [u8]>,
    result: Option<&'a [u8]>,
    error: Option<Cow<'a, str>>,
    allow_reconnect: bool,
    sequence_id: Option<i64>,
}

impl<'a> MessageFields<'a> {
    fn into_message(self) -> Result<HubMessage<'a>, MessageError> {
        let Self { message_type, id, target, arguments, stream_ids, item, result, error, .. } = self;
        let id = id.filter(|id| !id.is_empty());
        let missing = |field| MessageError::Missing { field };
        let needed_id = |id: Option<Cow<'a, str>>| id.ok_or(missing("invocationId"));
        let sequence_id = self.sequence_id.ok_or(missing("sequenceId"));
        Ok(match message_type {
            1 => HubMessage::Invocation {
                id,
                target: target.ok_or(missing("target"))?,
                arguments: arguments.ok_or(missing("arguments"))?,
                stream_ids,
            },
            2 => HubMessage::StreamItem { id: needed_id(id)?, item: item.ok_or(missing("item"))? },
            3 => {
                let outcome = match (error, result) {
                    (Some(_), Some(_)) => return Err(MessageError::ErrorAndResult),
                    (Some(error), None) => Outcome::Error(error),
                    (None, Some(result)) => Outcome::Result(result),
                    (None, None) => Outcome::Void,
                };
                HubMessage::Completion { id: needed_id(id)?, outcome }
            }
            4 => HubMessage::StreamInvocation {
                id: needed_id(id)?,
                target: target.ok_or(missing("target"))?,
                arguments: arguments.ok_or(missing("arguments"))?,
                stream_ids,
            },
            5 => HubMessage::CancelInvocation { id: needed_id(id)? },
            6 => HubMessage::Ping,
            7 => HubMessage::Close { error, allow_reconnect: self.allow_reconnect },
            8 => HubMessage::Ack { sequence_id: sequence_id? },
            9 => HubMessage::Sequence { sequence_id: sequence_id? },
            _ => HubMessage::Unknown { message_type },
        })
    }
}

fn read_arguments(arguments: &RawValue) -> Result<&[u8], MessageError> {
    match kind(arguments) {
        "an array" => Ok(arguments.get().as_bytes()),
        got => Err(MessageError::WrongType { field: "arguments", expected: "an array", got }),
    }
}

fn read_stream_ids(ids: &RawValue) -> Result<Vec<Cow<'_, str>>, MessageError> {
    read_array("streamIds", ids)?.into_iter().map(|id| read_text("streamIds", id)).collect()
}

fn write_call(out: &mut Vec<u8>, id: Option<&str>, target: &str, arguments: &[u8], stream_ids: &[Cow<'_, str>]) {
    if let Some(id) = id {
        write_member(out, "invocationId", id);
    }
    write_member(out, "target", target);
    write_raw(out, "arguments", arguments);
    let Some((first, others)) = stream_ids.split_first() else { return };
    write_name(out, "streamIds");
    out.push(b'[');
    write_text(out, first);
    for id in others {
        out.push(b',');
        write_text(out, id);
    }
    out.push(b']');
}

fn write_raw(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    write_name(out, name);
    out.extend_from_slice(value);
}

fn write_number(out: &mut Vec<u8>, name: &str, number: i64) {
    write_raw(out, name, itoa::Buffer::new().format(number).as_bytes());
}
