//! Positions that come from outside, with numbers that nobody has had and epochs that come and go: what clients get.
use std::sync::Arc;

use super::{
    Appended, Channel, Mode, Origin, Overtaken, Pattern, Policy, Publication, Registry, Stand, Start, View, Watched,
};
use crate::position::Position;
use crate::protocol::{Format, Payload};
use crate::settings::{ChannelRule, ChannelSettings, Settings};

const E: u64 = 1 << 51;
/// An epoch of a machine's own.
const L: u64 = 1 << 40;

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

fn channel(policy: Policy, history_frames: usize) -> Arc<Channel> {
    let settings = ChannelSettings { policy, history_frames, ..ChannelSettings::default() };
    let settings = Settings {
        channels: vec![ChannelRule { pattern: Pattern::new("*").expect("one"), settings }],
        ..Settings::default()
    };
    Registry::listed(&Arc::default(), 10).obtain("odds", &settings, 0).expect("there is room")
}

/// Publishes its own position as text; false if it is there already.
fn put(channel: &Channel, previous: Position, position: Position) -> bool {
    let text = format!("<{position}>");
    let publication = Publication::new(Payload::Text(&text));
    match channel.append(&publication, Stand::After { previous, position }, 0, u64::MAX, |_| ()) {
        Ok(Appended::At(stands)) => stands == position || panic!("{stands}, not {position}"),
        Ok(Appended::Duplicate(_)) => false,
        other => panic!("{other:?}"),
    }
}

/// One that watches and is written to when it looks.
pub(crate) struct Client {
    channel: Arc<Channel>,
    watched: Watched,
    cursor: u64,
    mode: Mode,
    pub(crate) recovered: Option<bool>,
    /// All that it has got.
    pub(crate) got: String,
    pub(crate) is_closed: bool,
    /// It was here when it was known that nothing had been published.
    pub(crate) is_from_beginning: bool,
}

impl Client {
    pub(crate) fn come(channel: &Arc<Channel>, since: Option<Position>) -> Self {
        let watched = channel.watch(Format::Raw.into(), 0).expect("a format");
        let origin = Origin { since, start: Some(Start::Live) };
        watched.watch.joining.store(0, std::sync::atomic::Ordering::Relaxed);
        let seek = channel.seek(Format::Raw, origin, watched.cursor, 0);
        let channel = Arc::clone(channel);
        let (cursor, mode, recovered) = (seek.cursor, seek.mode, seek.recovered);
        Self {
            channel,
            watched,
            cursor,
            mode,
            recovered,
            got: String::new(),
            is_closed: false,
            is_from_beginning: false,
        }
    }

    /// What it gets now; `closed` at a gap.
    pub(crate) fn look(&mut self) -> String {
        let readable =
            |got: &[u8]| String::from_utf8_lossy(got).chars().filter(char::is_ascii_graphic).collect::<String>();
        let (format, mut got) = (Format::Raw, Vec::new());
        let tail = self.channel.tail(format);
        while self.cursor < tail {
            if self.channel.is_overtaken(format, self.cursor, self.mode) {
                match self.channel.overtaken(format, &View::default(), (self.cursor, self.mode), tail, 0) {
                    Overtaken::Close => {
                        self.is_closed = true;
                        self.got += &readable(&got);
                        return readable(&got) + "closed";
                    }
                    Overtaken::Skip(to, mode, _) => (self.cursor, self.mode) = (to, mode),
                }
                continue;
            }
            let run = self.channel.read(format, &View::default(), (self.cursor, tail), self.mode, 0);
            got.extend(run.slices.iter().flat_map(|slice| slice.bytes().to_vec()));
            self.cursor = run.end;
        }
        self.watched.watch.advance(self.cursor, self.cursor);
        self.got += &readable(&got);
        readable(&got)
    }

    fn comes_back(channel: &Arc<Channel>, since: Position) -> (bool, String) {
        let mut one = Self::come(channel, Some(since));
        (one.recovered.expect("it has asked"), one.look())
    }
}

fn text(positions: &[Position]) -> String {
    positions.iter().map(|position| format!("<{position}>")).collect()
}

/// A server that starts anew leaves numbers out, so that it gives none twice: clients were closed with 1013.
#[test]
fn numbers_that_nobody_has_had_are_no_gap() {
    for policy in Policy::ALL {
        let odds = channel(policy, 100);
        assert!(put(&odds, at(E, 0), at(E, 1)));
        let mut client = Client::come(&odds, None);
        let far = 1 + (1 << 20);
        assert!(put(&odds, at(E, 1), at(E, far + 1)) && put(&odds, at(E, far + 1), at(E, far + 2)));
        let both = text(&[at(E, far + 1), at(E, far + 2)]);
        assert_eq!(client.look(), both);
        if policy != Policy::Latest {
            assert_eq!(Client::comes_back(&odds, at(E, 1)), (true, both));
        }
        assert_eq!(Client::comes_back(&odds, at(E, far + 1)), (true, text(&[at(E, far + 2)])));
        assert_eq!(Client::comes_back(&odds, at(E, far)), (false, String::new()), "nobody has had that");
        assert!(!put(&odds, at(E, 1), at(E, far + 1)), "it is there");
    }
}

#[test]
fn what_is_missing_is_told_by_the_position_before() {
    let odds = channel(Policy::Every, 100);
    assert!(put(&odds, at(E, 10), at(E, 20)));
    let mut client = Client::come(&odds, None);
    assert!(put(&odds, at(E, 20), at(E, 30)));
    assert_eq!(client.look(), text(&[at(E, 30)]));
    assert!(put(&odds, at(E, 40), at(E, 50)));
    assert_eq!(client.look(), "closed");
    assert!(!Client::comes_back(&odds, at(E, 30)).0);
    assert_eq!(Client::comes_back(&odds, at(E, 40)), (true, text(&[at(E, 50)])));
    assert_eq!(odds.position(), at(E, 50));
}

/// A machine that was cut off before anything was published told nobody.
#[test]
fn where_it_is_known_that_nothing_was_published_what_is_missing_before_the_first_is_told() {
    for policy in Policy::ALL {
        let first = |previous: Position, is_known: bool| {
            let odds = channel(policy, 0);
            let mut client = Client::come(&odds, None);
            assert!(!is_known || odds.know_empty());
            assert!(put(&odds, previous, at(E, 57)));
            client.look();
            (client.is_closed, client.got)
        };
        let came = (false, text(&[at(E, 57)]));
        assert_eq!(first(at(E, 0), true), came, "it is the first of all");
        assert_eq!(first(at(E, 56), false), came, "whoever is here begins with it");
        assert_eq!(first(at(E, 56), true).0, policy == Policy::Every, "{policy:?}");
    }
    let odds = channel(Policy::Every, 0);
    assert!(put(&odds, at(E, 0), at(E, 1)) && !odds.know_empty(), "something is here");
}

/// What a replica that was promoted has lost, clients have: for them nothing is missing.
#[test]
fn one_that_had_more_goes_on() {
    let odds = channel(Policy::Every, 100);
    (1..=3).for_each(|offset| assert!(put(&odds, at(E, offset - 1), at(E, offset))));
    let mut client = Client::come(&odds, None);
    assert!(put(&odds, at(E, 1), at(E, 1_000)));
    assert_eq!(client.look(), text(&[at(E, 1_000)]));
}

/// A machine that went on by itself: its clients lack nothing, nor do those that come from elsewhere.
#[test]
fn an_epoch_goes_on_behind_another() {
    let odds = channel(Policy::Every, 100);
    assert!(put(&odds, at(E, 0), at(E, 1)) && put(&odds, at(E, 1), at(E, 2)));
    let mut client = Client::come(&odds, None);
    assert!(put(&odds, at(E, 2), at(L, 1)) && put(&odds, at(L, 1), at(L, 2)));
    assert_eq!((odds.position(), odds.newest_of(E)), (at(L, 2), Some(at(E, 2))));
    assert!(!Client::comes_back(&odds, at(E, 3)).0, "it is not here yet");
    assert!(put(&odds, at(E, 2), at(E, 3)) && !put(&odds, at(E, 1), at(E, 2)));
    assert_eq!(client.look(), text(&[at(L, 1), at(L, 2), at(E, 3)]));
    for (since, then) in [
        (at(E, 1), vec![at(E, 2), at(L, 1), at(L, 2), at(E, 3)]),
        (at(E, 2), vec![at(L, 1), at(L, 2), at(E, 3)]),
        (at(L, 1), vec![at(L, 2), at(E, 3)]),
        (at(E, 3), vec![]),
    ] {
        assert_eq!(Client::comes_back(&odds, since), (true, text(&then)), "{since}");
    }
    let there = channel(Policy::Every, 100);
    there.restore(&odds.dump(0), 0, |_| ()).expect("a dump");
    assert_eq!(Client::comes_back(&there, at(L, 1)), (true, text(&[at(L, 2), at(E, 3)])));
    // What is missing when it comes back is told.
    assert!(put(&odds, at(E, 3), at(L + 1, 1)) && put(&odds, at(E, 7), at(E, 9)));
    assert_eq!(client.look(), text(&[at(L + 1, 1)]) + "closed");
    assert_eq!(Client::comes_back(&odds, at(E, 7)), (true, text(&[at(E, 9)])));
}

/// A machine that went on by itself before anything was published anywhere: its clients lack nothing of what is first then.
#[test]
fn the_first_epoch_from_outside_goes_on_behind_a_machine_s_own() {
    for (is_known, previous, is_whole) in [(true, 0, true), (false, 0, false), (true, 3, false)] {
        let odds = channel(Policy::Every, 100);
        let mut client = Client::come(&odds, None);
        assert!(!is_known || odds.know_empty());
        let began = odds.position();
        assert!(put(&odds, began, at(L, 1)) && put(&odds, at(L, 1), at(L, 2)));
        let first = at(E, previous + 1);
        assert_eq!(odds.is_begun_by(at(E, previous), first), is_whole);
        assert!(put(&odds, at(E, previous), first));
        let more = if is_whole { text(&[first]) } else { "closed".into() };
        assert_eq!(client.look(), text(&[at(L, 1), at(L, 2)]) + &more);
        assert!(!odds.is_begun_by(at(E + 1, 0), at(E + 1, 1)), "what is lost of an epoch is told");
        if is_whole {
            assert_eq!(Client::comes_back(&odds, at(L, 1)), (true, text(&[at(L, 2), first])));
            assert!(put(&odds, at(E + 1, 0), at(E + 1, 1)));
            assert_eq!(client.look(), "closed");
        }
    }
}

/// One that somebody watches is given the whole anew: what is not missing is no gap then, either.
#[test]
fn a_channel_that_is_watched_catches_up_over_numbers_that_nobody_has_had() {
    let (here, there) = (channel(Policy::Every, 100), channel(Policy::Every, 100));
    assert!(put(&here, at(E, 0), at(E, 5)) && put(&there, at(E, 0), at(E, 5)));
    let mut client = Client::come(&there, None);
    assert!(put(&here, at(E, 5), at(E, 9)) && put(&here, at(E, 9), at(L, 1)) && put(&here, at(E, 9), at(E, 12)));
    there.restore(&here.dump(0), 0, |_| ()).expect("a dump");
    assert_eq!((client.look(), there.position()), (text(&[at(E, 9), at(L, 1), at(E, 12)]), at(E, 12)));
    assert!(put(&here, at(E, 15), at(E, 20)));
    there.restore(&here.dump(0), 0, |_| ()).expect("a dump");
    assert_eq!((client.look(), there.position()), ("closed".into(), at(E, 20)));
}

/// Of a stream where each number is far from the one before, no more is remembered than the log keeps.
#[test]
fn what_is_remembered_of_numbers_is_bounded() {
    let odds = channel(Policy::Every, 8);
    let mut client = Client::come(&odds, None);
    for number in 0..10_000_u64 {
        assert!(put(&odds, at(E, number * 10), at(E, number * 10 + 10)));
        client.look();
    }
    assert!(odds.dump(0).len() < 8 * 1_024, "{}", odds.dump(0).len());
    assert_eq!(Client::comes_back(&odds, at(E, 99_980)), (true, text(&[at(E, 99_990), at(E, 100_000)])));
    assert!(!Client::comes_back(&odds, at(E, 10)).0);
}
