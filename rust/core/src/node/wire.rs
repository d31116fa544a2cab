//! What a member and the sequencer say to each other: a byte that says what, then numbers and strings as `bytes` has them.
//! Both are of one version, which the first message of a member says.
use crate::bytes::{Reader, put_bytes, put_u32, put_u64};
use crate::position::Position;

/// Of these messages, and of all that is in them.
pub const VERSION: u32 = 5;

/// The engine outside is there.
pub(crate) const REACHED: u8 = 0;
/// It is out of reach, and what is published waits or fails.
pub(crate) const AWAY: u8 = 1;
/// It is out of reach, and this machine goes on by itself.
pub(crate) const ALONE: u8 = 2;

/// Which registry a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Channels.
    Channel,
    /// Users' connections.
    User,
    /// All connections of a SignalR hub.
    Hub,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Channel, Self::User, Self::Hub];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Self::ALL.get(usize::from(reader.u8()?)).copied()
    }
}

/// What names a channel to all.
pub(crate) type Key<'a> = (Group, &'a str);

/// From a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromMember<'a> {
    /// The first: version, number, what all members have to be set to.
    Hello(u32, u8, &'a [u8]),
    /// A publication, as `channel::write_publication` has it.
    Publish(Key<'a>, &'a [u8]),
    /// Send what is kept of this channel, and then all that is published in it.
    Want(Key<'a>),
    /// No more.
    Leave(Key<'a>),
    /// Say when all has been sent that was published in this channel until now.
    Reach(Key<'a>),
    /// Send all that is published in channels of this pattern.
    Listen(&'a str),
    /// No more.
    Unlisten(&'a str),
    /// Somebody who subscribes to this channel waits for a keyframe.
    AskSnapshot(&'a str),
    /// There is none to be had, for this reason.
    GiveUpSnapshot(&'a str, &'a str),
    /// For these members, or with none for all others.
    Tell(&'a [u8], u8, &'a [u8]),
    /// For these members of any machines, each in four bytes, or with none for all others of all; and of which kind.
    TellAnywhere(&'a [u8], u8, &'a [u8]),
    /// What it signs tokens with, as all members of its machine do.
    Secret(&'a [u8]),
}

/// From the sequencer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromSequencer<'a> {
    /// The first: who else is there.
    Welcome(&'a [u8]),
    /// The connection is given up, for this reason.
    Refused(&'a str),
    /// What is kept of a channel that was wanted.
    Have(Key<'a>, &'a [u8]),
    /// A channel that was wanted cannot be had, for this reason.
    Cannot(Key<'a>, &'a str),
    /// All that had been published in this channel when that was asked stands before this.
    Reached(Key<'a>),
    /// A publication, its place, and the place before it: whoever has that has missed nothing.
    Record(Key<'a>, Position, Position, &'a [u8]),
    /// The place of the member's oldest publication that has none yet.
    Placed(Position),
    /// The member's publication behind so many others that have no place yet was refused, for this reason; without one it
    /// is asked for again.
    Failed(u32, &'a str),
    /// How the engine outside is that orders: one of [`REACHED`], [`AWAY`] and [`ALONE`]; and why it is out of reach.
    Backbone(u8, &'a str),
    /// So many more things have come from there that none of ours has published; told to one member.
    Foreign(u64),
    /// The application of this member is to give a keyframe; whether that is since the last one came too late.
    AskApplication(&'a str, bool),
    /// There is none to be had.
    StartLive(&'a str, &'a str),
    /// From that member.
    Told(u8, u8, &'a [u8]),
    /// That member has come, or gone.
    Changed(u8, bool),
    /// From that member, of any machine.
    ToldAnywhere(u32, u8, &'a [u8]),
    /// That member of another machine has come, or gone; and how long before this machine its own was there: what is less was
    /// there for longer, and this machine is 0.
    ChangedElsewhere(u32, bool, i64),
    /// Another machine signs tokens with that.
    SecretElsewhere(&'a [u8]),
}

fn put_key(out: &mut Vec<u8>, (group, name): Key<'_>) {
    out.push(group as u8);
    put_bytes(out, name.as_bytes());
}

fn key<'a>(reader: &mut Reader<'a>) -> Option<Key<'a>> {
    Some((Group::read(reader)?, reader.text()?))
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    put_u64(out, position.epoch);
    put_u64(out, position.offset);
}

fn position(reader: &mut Reader<'_>) -> Option<Position> {
    Some(Position { epoch: reader.u64()?, offset: reader.u64()? })
}

impl<'a> FromMember<'a> {
    /// Appends it.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(version, number, settings) => {
                out.push(0);
                put_u32(out, version);
                out.push(number);
                put_bytes(out, settings);
            }
            Self::Publish(key, publication) => {
                out.push(1);
                put_key(out, key);
                out.extend_from_slice(publication);
            }
            Self::Want(key) | Self::Leave(key) | Self::Reach(key) => {
                out.push(match self {
                    Self::Want(_) => 2,
                    Self::Leave(_) => 3,
                    _ => 9,
                });
                put_key(out, key);
            }
            Self::Listen(text) | Self::Unlisten(text) | Self::AskSnapshot(text) => {
                out.push(match self {
                    Self::Listen(_) => 4,
                    Self::Unlisten(_) => 5,
                    _ => 6,
                });
                put_bytes(out, text.as_bytes());
            }
            Self::GiveUpSnapshot(name, why) => {
                out.push(7);
                put_bytes(out, name.as_bytes());
                put_bytes(out, why.as_bytes());
            }
            Self::Tell(to, kind, message) => {
                out.push(8);
                put_bytes(out, to);
                out.push(kind);
                out.extend_from_slice(message);
            }
            Self::Secret(secret) => {
                out.push(11);
                put_bytes(out, secret);
            }
            Self::TellAnywhere(to, kind, message) => {
                put_alone(out, 10, to);
                out.push(kind);
                out.extend_from_slice(message);
            }
        }
    }

    /// Reads one; `None` if these bytes are none.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let message = match reader.u8()? {
            0 => Self::Hello(reader.u32()?, reader.u8()?, reader.bytes()?),
            1 => Self::Publish(key(&mut reader)?, reader.rest()),
            2 => Self::Want(key(&mut reader)?),
            3 => Self::Leave(key(&mut reader)?),
            4 => Self::Listen(reader.text()?),
            5 => Self::Unlisten(reader.text()?),
            6 => Self::AskSnapshot(reader.text()?),
            7 => Self::GiveUpSnapshot(reader.text()?, reader.text()?),
            8 => Self::Tell(reader.bytes()?, reader.u8()?, reader.rest()),
            9 => Self::Reach(key(&mut reader)?),
            11 => Self::Secret(reader.bytes()?),
            10 => Self::TellAnywhere(reader.bytes()?, reader.u8()?, reader.rest()),
            _ => return None,
        };
        reader.end().map(|()| message)
    }
}

/// A message of this kind that has nothing but these bytes.
fn put_alone(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    put_bytes(out, bytes);
}

impl<'a> FromSequencer<'a> {
    /// Appends it.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(others) => put_alone(out, 0, others),
            Self::Refused(why) => put_alone(out, 1, why.as_bytes()),
            Self::Failed(behind, why) => {
                out.push(5);
                put_u32(out, behind);
                put_bytes(out, why.as_bytes());
            }
            Self::Backbone(how, why) => {
                out.extend_from_slice(&[12, how]);
                put_bytes(out, why.as_bytes());
            }
            Self::Foreign(more) => put_alone(out, 16, &more.to_le_bytes()),
            Self::AskApplication(name, is_again) => {
                out.push(6);
                put_bytes(out, name.as_bytes());
                out.push(u8::from(is_again));
            }
            Self::Have(key, dump) => {
                out.push(2);
                put_key(out, key);
                out.extend_from_slice(dump);
            }
            Self::Cannot(key, why) => {
                out.push(10);
                put_key(out, key);
                put_bytes(out, why.as_bytes());
            }
            Self::Reached(key) => {
                out.push(11);
                put_key(out, key);
            }
            Self::Record(key, position, previous, publication) => {
                out.push(3);
                put_key(out, key);
                put_position(out, position);
                put_position(out, previous);
                out.extend_from_slice(publication);
            }
            Self::Placed(position) => {
                out.push(4);
                put_position(out, position);
            }
            Self::StartLive(name, why) => {
                out.push(7);
                put_bytes(out, name.as_bytes());
                put_bytes(out, why.as_bytes());
            }
            Self::Told(from, kind, message) => {
                out.extend_from_slice(&[8, from, kind]);
                out.extend_from_slice(message);
            }
            Self::Changed(number, has_come) => out.extend_from_slice(&[9, number, u8::from(has_come)]),
            Self::SecretElsewhere(secret) => put_alone(out, 15, secret),
            Self::ToldAnywhere(from, kind, message) => {
                out.push(13);
                put_u32(out, from);
                out.push(kind);
                out.extend_from_slice(message);
            }
            Self::ChangedElsewhere(number, has_come, age) => {
                out.push(14);
                put_u32(out, number);
                out.push(u8::from(has_come));
                put_u64(out, age.cast_unsigned());
            }
        }
    }

    /// Reads one; `None` if these bytes are none.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let message = match reader.u8()? {
            0 => Self::Welcome(reader.bytes()?),
            1 => Self::Refused(reader.text()?),
            2 => Self::Have(key(&mut reader)?, reader.rest()),
            3 => Self::Record(key(&mut reader)?, position(&mut reader)?, position(&mut reader)?, reader.rest()),
            4 => Self::Placed(position(&mut reader)?),
            5 => Self::Failed(reader.u32()?, reader.text()?),
            6 => Self::AskApplication(reader.text()?, reader.bool()?),
            7 => Self::StartLive(reader.text()?, reader.text()?),
            8 => Self::Told(reader.u8()?, reader.u8()?, reader.rest()),
            9 => Self::Changed(reader.u8()?, reader.bool()?),
            10 => Self::Cannot(key(&mut reader)?, reader.text()?),
            11 => Self::Reached(key(&mut reader)?),
            12 => Self::Backbone(reader.u8()?, reader.text()?),
            15 => Self::SecretElsewhere(reader.bytes()?),
            13 => Self::ToldAnywhere(reader.u32()?, reader.u8()?, reader.rest()),
            14 => Self::ChangedElsewhere(reader.u32()?, reader.bool()?, reader.u64()?.cast_signed()),
            16 => Self::Foreign(u64::from_le_bytes(reader.bytes()?.try_into().ok()?)),
            _ => return None,
        };
        reader.end().map(|()| message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back() {
        let key = (Group::User, "änn");
        for message in [
            FromMember::Hello(VERSION, 3, b"settings"),
            FromMember::Publish(key, b"publication"),
            FromMember::Want(key),
            FromMember::Leave((Group::Hub, "/live")),
            FromMember::Reach(key),
            FromMember::Listen("a*"),
            FromMember::Unlisten("a*"),
            FromMember::AskSnapshot("a"),
            FromMember::GiveUpSnapshot("a", "why"),
            FromMember::Tell(&[1, 2], 7, b"message"),
            FromMember::TellAnywhere(&256_u32.to_le_bytes(), 1, b"message"),
            FromMember::TellAnywhere(&[], 0, b""),
            FromMember::Secret(b"key"),
        ] {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            assert_eq!(FromMember::read(&bytes), Some(message));
            assert_eq!(FromMember::read(&bytes[..1.min(bytes.len() - 1)]), None);
        }
        let position = Position { epoch: 1 << 50, offset: 9 };
        for message in [
            FromSequencer::Welcome(&[0, 255]),
            FromSequencer::Refused("why"),
            FromSequencer::Have(key, b"dump"),
            FromSequencer::Cannot(key, "why"),
            FromSequencer::Reached(key),
            FromSequencer::Record(key, position, Position { offset: 8, ..position }, b"publication"),
            FromSequencer::Placed(position),
            FromSequencer::Failed(2, "why"),
            FromSequencer::Backbone(AWAY, "why"),
            FromSequencer::Foreign(7),
            FromSequencer::AskApplication("a", true),
            FromSequencer::StartLive("a", "why"),
            FromSequencer::Told(1, 2, b""),
            FromSequencer::Changed(9, true),
            FromSequencer::ToldAnywhere(259, 1, b"message"),
            FromSequencer::ChangedElsewhere(259, true, -7),
            FromSequencer::SecretElsewhere(b"key"),
        ] {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            assert_eq!(FromSequencer::read(&bytes), Some(message));
            assert_eq!(FromSequencer::read(&bytes[..1.min(bytes.len() - 1)]), None);
        }
        assert_eq!((FromMember::read(&[99]), FromSequencer::read(&[])), (None, None));
    }
}
