//! What a program publishes that serves nobody, as an engine outside takes it; and what hubs say there of their channels.
use serde::{Deserialize, Serialize};

use super::backbone::{Keep, keep_of, name_of, publication_of, record_of};
use super::wire::{Group, Key};
use crate::channel::{Pattern, Policy, Publication, check_name, read_publication, write_publication};
use crate::error::EngineError;
use crate::protocol::Payload;
use crate::settings::{ChannelRule, ChannelSettings, Settings};

/// Where hubs say what their channels are, outside. No channel's name begins so.
pub const RULES: &str = "r";
/// It is the newest alone that counts; for as long as somebody comes once a year.
pub const RULES_KEPT: Keep = Keep { messages: 1, age_ms: 366 * 24 * 60 * 60 * 1_000 };

/// Whom a publication is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients<'a> {
    /// The subscribers of a channel.
    Channel(&'a str),
    /// A user's connections.
    User(&'a str),
    /// The connections of the SignalR hub at this path.
    Hub(&'a str),
    /// Programs that hear this, and no client.
    Programs(&'a str),
}

/// A publication as it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What its channel is called outside.
    pub name: String,
    /// Its bytes.
    pub record: Vec<u8>,
    /// What is kept of it.
    pub keep: Keep,
}

impl Outgoing {
    /// The one of somebody who has no connections. The settings are those of the hubs.
    ///
    /// # Errors
    /// Those of a hub's own.
    pub fn new(to: Recipients<'_>, publication: &Publication<'_>, settings: &Settings) -> Result<Self, EngineError> {
        publication.check(settings.publication_bytes_max)?;
        let mut bytes = Vec::with_capacity(256);
        write_publication(publication, &mut bytes);
        let record = record_of(0, &bytes);
        let key: Key<'_> = match to {
            Recipients::Programs(name) => {
                return Ok(Self { name: name_for_programs(name), record, keep: Keep { messages: 0, age_ms: 0 } });
            }
            Recipients::Channel(name) => (Group::Channel, name),
            Recipients::User(name) => (Group::User, name),
            Recipients::Hub(name) => (Group::Hub, name),
        };
        if let (Group::Channel, name) = key {
            check_name(name)?;
            let policy = settings.channel(name).policy;
            if publication.is_removal && policy != Policy::Latest {
                return Err(EngineError::NoKeys { name: name.to_owned(), policy: policy.name() });
            }
        }
        Ok(Self { name: name_of(key), record, keep: keep_of(key, settings) })
    }
}

/// What is heard by programs is called so outside. No channel's name begins so.
#[must_use]
pub fn name_for_programs(name: &str) -> String {
    format!("p{name}")
}

/// The bytes or the text of a record that was published for programs.
///
/// # Errors
/// What is wrong with it, in words.
pub fn bytes_for_programs(record: &[u8], settings: &Settings) -> Result<Vec<u8>, String> {
    let (_, publication) = publication_of(record, settings)?;
    let bytes = read_publication(&publication, |publication| match publication.payload {
        Payload::Text(text) => Some(text.as_bytes().to_vec()),
        Payload::Binary(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.flatten().ok_or_else(|| "is no text, and no bytes".to_owned())
}

/// What hubs say: of each pattern the policy, how many publications are kept, and for how many milliseconds.
#[derive(Deserialize, Serialize)]
struct Rules {
    channels: Vec<(String, String, u64, u64)>,
}

/// What a hub of these settings says.
pub(super) fn write_rules(settings: &Settings) -> Vec<u8> {
    let rule = |ChannelRule { pattern, settings }: &ChannelRule| {
        let Keep { messages, age_ms } = Keep::of(settings);
        (pattern.text().to_owned(), settings.policy.name().to_owned(), messages, age_ms)
    };
    let rules = Rules { channels: settings.channels.iter().map(rule).collect() };
    serde_json::to_vec(&rules).expect("text and numbers can be written")
}

/// The channels' rules that a hub has said; only what a publisher has to know of each.
#[must_use]
pub fn read_rules(bytes: &[u8]) -> Option<Vec<ChannelRule>> {
    let rules: Rules = serde_json::from_slice(bytes).ok()?;
    let rule = |(pattern, policy, messages, age_ms): (String, String, u64, u64)| {
        let settings = ChannelSettings {
            policy: Policy::from_name(&policy)?,
            history_frames: usize::try_from(messages).ok()?,
            history_age: std::time::Duration::from_millis(age_ms),
            ..ChannelSettings::default()
        };
        Some(ChannelRule { pattern: Pattern::new(&pattern).ok()?, settings })
    };
    rules.channels.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_knows_what_hubs_have_said() {
        let latest = ChannelSettings { policy: Policy::Latest, history_frames: 7, ..ChannelSettings::default() };
        let rule = ChannelRule { pattern: Pattern::new("odds:*").unwrap(), settings: latest };
        let hubs = Settings { channels: vec![rule], ..Settings::default() };
        let channels = read_rules(&write_rules(&hubs)).unwrap();
        let settings = Settings { channels, ..Settings::default() };
        let publication = Publication { is_removal: true, ..Publication::new(Payload::Text("x")) };
        let one = Outgoing::new(Recipients::Channel("odds:1"), &publication, &settings).unwrap();
        assert_eq!((&*one.name, one.keep), ("codds:1", Keep { messages: 7, age_ms: 300_000 }));
        assert!(Outgoing::new(Recipients::Channel("goals"), &publication, &settings).is_err());
        assert!(Outgoing::new(Recipients::Channel("a*"), &Publication::new(Payload::Text("x")), &settings).is_err());
        assert_eq!(read_rules(b"{}").map(|rules| rules.len()), None);
    }
}
