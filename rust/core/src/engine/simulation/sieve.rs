//! Filters of clients, and what they let through, said another way than the engine says it.
use crate::channel::{Filter, TagValue, View, write_tags};
use crate::shard::simulated::Luck;

/// What publications are tagged with goes up to here.
pub(super) const TAGS: u8 = 6;

/// One client's filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sieve {
    Is(u8),
    OneOf(u8, u8),
    From(u8),
    Below(u8),
    /// In words: "even 2".
    Even,
    EvenFrom(u8),
}

impl Sieve {
    pub(super) fn pick(luck: &mut Luck) -> Option<Self> {
        let (one, other) = (luck.below(TAGS.into()) as u8, luck.below(TAGS.into()) as u8);
        let all = [
            Self::Is(one),
            Self::OneOf(one, other),
            Self::From(one),
            Self::Below(one),
            Self::Even,
            Self::EvenFrom(one),
        ];
        luck.once_in(3).then(|| luck.pick(&all))
    }

    pub(super) fn json(self) -> String {
        match self {
            Self::Is(one) => format!(r#"{{"n":{one}}}"#),
            Self::OneOf(one, other) => format!(r#"{{"n":[{one},{other}]}}"#),
            Self::From(one) => format!(r#"{{"n":{{"min":{one}}}}}"#),
            Self::Below(one) => format!(r#"{{"n":{{"max":{}.5}}}}"#, i16::from(one) - 1),
            Self::Even => r#"{"word":{"prefix":"even"}}"#.to_owned(),
            Self::EvenFrom(one) => format!(r#"{{"word":{{"prefix":"even"}},"n":{{"min":{one}}}}}"#),
        }
    }

    pub(super) fn view(one: Option<Self>) -> View {
        View { filter: one.and_then(|one| Filter::parse(&one.json()).expect("a filter")) }
    }

    /// Whether it lets through what is tagged so, or with nothing.
    pub(super) fn lets(self, tag: Option<u8>) -> bool {
        let Some(tag) = tag else { return false };
        match self {
            Self::Is(one) => tag == one,
            Self::OneOf(one, other) => tag == one || tag == other,
            Self::From(one) => tag >= one,
            Self::Below(one) => tag < one,
            Self::Even => tag.is_multiple_of(2),
            Self::EvenFrom(one) => tag.is_multiple_of(2) && tag >= one,
        }
    }
}

/// The tags of a publication.
pub(super) fn tagged(tag: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(tag) = tag {
        let word = format!("{} {tag}", if tag.is_multiple_of(2) { "even" } else { "odd" });
        let tags = vec![("n", TagValue::Number(tag.into())), ("word", TagValue::Text(&word))];
        write_tags(tags, &mut bytes).expect("good tags");
    }
    bytes
}
