//! The program's own subscribers: whoever hears reads the logs when it likes, and no shard has to do with it.
//!
//! What a channel publishes while somebody hears it stands in one more log, in the form of `stored` behind its position.
//! It counts as fanned out at once: nobody else waits for it. The bounds of the channel's backlog hold for whoever
//! hears it, as for any client that lags.
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::keys::Keys;
use super::log::Log;
use super::mark::{FrameKind, FrameMark};
use super::pattern::Pattern;
use super::policy::{Mode, Policy};
use super::reading::{Reader, Run};
use super::view::View;
use super::watch::Watch;
use super::{Channel, Inner, Overtaken, stored};
use crate::position::Position;
use crate::protocol::Payload;
use crate::settings::ChannelSettings;

/// So many publications of one channel are read under its lock at most.
const READ_MAX: usize = 256;

/// One publication, as whoever hears it gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The channel's name.
    pub channel: Arc<str>,
    /// Its place there.
    pub position: Position,
    /// What its SSE event or the target in a hub protocol is called.
    pub event: Option<Box<str>>,
    /// One may begin with it.
    pub is_keyframe: bool,
    /// What was published.
    pub data: HeardData,
}

/// What was published, in memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeardData {
    /// A text.
    Text(Box<str>),
    /// Bytes.
    Binary(Box<[u8]>),
    /// An object, as JSON.
    Json(Box<[u8]>),
}

/// Somebody that hears the channels whose names match a pattern, from when it began.
pub struct Listener {
    pattern: Pattern,
    /// Called when there is something to read where there was nothing.
    wake: Box<dyn Fn() + Send + Sync>,
    unread: Mutex<Unread>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Unread {
    /// Channels with something to read, each once.
    channels: VecDeque<Arc<Channel>>,
    /// It was woken, and has not come to the end since.
    is_woken: bool,
}

impl Listener {
    /// One that hears nothing yet.
    #[must_use]
    pub fn new(pattern: Pattern, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { pattern, wake: Box::new(wake), unread: Mutex::default() }
    }

    /// What it hears, as it was written.
    pub(crate) fn pattern(&self) -> &str {
        self.pattern.text()
    }

    /// Whether it hears the channel of this name.
    pub(super) fn hears(&self, name: &str) -> bool {
        self.pattern.matches(name)
    }

    /// The one channel that it hears, where it is no more than that.
    pub(super) fn name(&self) -> Option<&str> {
        self.pattern.name()
    }

    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().expect("no code panics while it holds what is unread")
    }

    /// A channel has something to read. Called under its lock.
    fn tell(&self, channel: &Arc<Channel>) {
        let mut unread = self.lock();
        unread.channels.push_back(Arc::clone(channel));
        if !std::mem::replace(&mut unread.is_woken, true) {
            (self.wake)();
        }
    }

    /// Reads at most `count_max` publications, channel by channel, those of one in their order; come to the end, it will be woken.
    ///
    /// # Errors
    /// The name of a channel whose backlog went past it, where the policy promises every publication.
    pub fn read(self: &Arc<Self>, count_max: usize, now_ns: u64) -> Result<Vec<Heard>, Arc<str>> {
        let mut heard = Vec::new();
        while heard.len() < count_max {
            let Some(channel) = self.next() else { break };
            let is_read = channel.hear(self, (count_max - heard.len()).min(READ_MAX), now_ns, &mut heard)?;
            if !is_read {
                self.lock().channels.push_back(channel);
            }
        }
        Ok(heard)
    }

    fn next(&self) -> Option<Arc<Channel>> {
        let mut unread = self.lock();
        let channel = unread.channels.pop_front();
        if channel.is_none() {
            unread.is_woken = false;
        }
        channel
    }

    /// It hears nothing any more.
    pub(super) fn end(&self) {
        self.lock().channels.clear();
    }
}

/// What is heard of one channel.
#[derive(Debug)]
pub(super) struct Hearing {
    log: Log,
    ears: Vec<Ear>,
    /// Whose it is: a listener that is told of it keeps it until it has come.
    channel: Weak<Channel>,
}

/// One listener's place in it.
#[derive(Debug)]
struct Ear {
    listener: Arc<Listener>,
    watch: Arc<Watch>,
    cursor: u64,
    mode: Mode,
    /// The listener knows that there is something.
    is_told: bool,
}

impl Hearing {
    fn behind(offset: u64, channel: Weak<Channel>) -> Self {
        Self { log: Log::behind(offset), ears: Vec::new(), channel }
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// A publication was made.
    pub(super) fn append(
        &mut self,
        (payload, event): (&Payload<'_>, Option<&str>),
        (mark, position): (FrameMark, Position),
        replaced: u64,
        settings: &ChannelSettings,
        keys: &Keys,
    ) {
        let mut form = Vec::new();
        form.extend_from_slice(&position.epoch.to_le_bytes());
        form.extend_from_slice(&position.offset.to_le_bytes());
        form.push(u8::from(mark.is_beginning()));
        stored::write(payload, event, &mut form);
        self.log.append(&form, mark, replaced, settings, keys);
        let tail = self.log.tail();
        for ear in &mut self.ears {
            ear.watch.advance(tail, ear.cursor);
            let is_for_it = mark.kind != FrameKind::Snapshot || ear.mode == Mode::AwaitingKeyframe;
            if is_for_it
                && !std::mem::replace(&mut ear.is_told, true)
                && let Some(channel) = self.channel.upgrade()
            {
                ear.listener.tell(&channel);
            }
        }
    }
}

impl Channel {
    /// A listener hears it from now on, if it is to and does not.
    pub(super) fn attach(self: &Arc<Self>, listener: &Arc<Listener>) {
        let mut inner = self.lock();
        let offset = inner.offset;
        let hearing = inner.hearing.get_or_insert_with(|| Box::new(Hearing::behind(offset, Arc::downgrade(self))));
        if hearing.ears.iter().any(|ear| Arc::ptr_eq(&ear.listener, listener)) {
            return;
        }
        let tail = hearing.log.tail();
        let watch = Arc::new(Watch::new(usize::MAX, tail, View::default()));
        hearing.log.watches.push(Arc::clone(&watch));
        let listener = Arc::clone(listener);
        hearing.ears.push(Ear { listener, watch, cursor: tail, mode: Mode::Lagging, is_told: false });
        self.is_heard.store(true, Ordering::Release);
    }

    /// It hears no more.
    pub(super) fn detach(&self, listener: &Arc<Listener>) {
        if !self.is_heard.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.lock();
        let Some(hearing) = &mut inner.hearing else { return };
        let Some(index) = hearing.ears.iter().position(|ear| Arc::ptr_eq(&ear.listener, listener)) else { return };
        let ear = hearing.ears.swap_remove(index);
        hearing.log.watches.retain(|watch| !Arc::ptr_eq(&ear.watch, watch));
        if hearing.ears.is_empty() {
            inner.hearing = None;
            self.is_heard.store(false, Ordering::Release);
        }
    }

    /// Reads for one listener; whether it has read all.
    fn hear(
        self: &Arc<Self>,
        listener: &Arc<Listener>,
        count_max: usize,
        now_ns: u64,
        heard: &mut Vec<Heard>,
    ) -> Result<bool, Arc<str>> {
        let name: Arc<str> = Arc::from(self.name());
        let mut inner = self.lock();
        let Inner { hearing, keys, .. } = &mut *inner;
        let Some(hearing) = hearing else { return Ok(true) };
        let Hearing { log, ears, .. } = &mut **hearing;
        let Some(ear) = ears.iter_mut().find(|ear| Arc::ptr_eq(&ear.listener, listener)) else { return Ok(true) };
        let (tail, all) = (log.tail(), View::default());
        let first = heard.len();
        while ear.cursor < tail && heard.len() - first < count_max {
            let run = log.read(ear.cursor, tail, reader_of(&self.settings, (keys, &all), ear.mode, now_ns));
            if ear.mode == Mode::AwaitingKeyframe || ear.cursor < run.head {
                match self.overtaken_in(log, &all, (ear.cursor, ear.mode), tail, now_ns) {
                    Overtaken::Close => return Err(name),
                    Overtaken::Skip(cursor, mode, _) => (ear.cursor, ear.mode) = (cursor, mode),
                }
                continue;
            }
            ear.cursor = take(&run, first + count_max, |position, is_keyframe, (payload, event)| {
                let (channel, event) = (Arc::clone(&name), event.map(Box::from));
                heard.push(Heard { channel, position, event, is_keyframe, data: data_of(payload) });
                heard.len()
            });
            ear.mode = if ear.mode == Mode::AtKeyframe { Mode::Replaying } else { ear.mode };
        }
        ear.watch.advance(tail, ear.cursor);
        ear.is_told = ear.cursor < tail && ear.mode != Mode::AwaitingKeyframe;
        if !ear.is_told && ear.mode == Mode::Replaying {
            ear.mode = Mode::Lagging;
        }
        Ok(!ear.is_told)
    }
}

/// Hands over the publications of a run, until `hand` says that there are `count_max`; gives the cursor behind them.
fn take(
    run: &Run,
    count_max: usize,
    mut hand: impl FnMut(Position, bool, (Payload<'_>, Option<&str>)) -> usize,
) -> u64 {
    for slice in &run.slices {
        let mut bytes = slice.bytes();
        while let Some((epoch, rest)) = bytes.split_first_chunk() {
            let (offset, rest) = rest.split_first_chunk().expect("as it was written");
            let position = Position { epoch: u64::from_le_bytes(*epoch), offset: u64::from_le_bytes(*offset) };
            let (payload, event, behind) = stored::read_one(&rest[1..]);
            bytes = behind;
            if hand(position, rest[0] != 0, (payload, event)) >= count_max {
                return slice.position() + (slice.bytes().len() - bytes.len()) as u64;
            }
        }
    }
    run.end
}

fn reader_of<'a>(
    settings: &ChannelSettings,
    (keys, view): (&'a Keys, &'a View),
    mode: Mode,
    now_ns: u64,
) -> Reader<'a> {
    Reader {
        policy: settings.policy,
        keys,
        view,
        conflates: mode == Mode::Lagging && settings.policy == Policy::Latest,
        is_late: true,
        is_at_keyframe: mode == Mode::AtKeyframe,
        takes_all: false,
        now_ns,
    }
}

pub(super) fn data_of(payload: Payload<'_>) -> HeardData {
    match payload {
        Payload::Text(text) => HeardData::Text(text.into()),
        Payload::Binary(bytes) | Payload::Whole(_, bytes) => HeardData::Binary(bytes.into()),
        Payload::Object(encoded) | Payload::Arguments(encoded) => {
            HeardData::Json(encoded.json.or(encoded.hub_json).unwrap_or_default().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::{Appended, Publication, Registry, Stand};
    use super::*;
    use crate::settings::{ChannelRule, Settings};

    struct World {
        registry: Registry,
        settings: Settings,
        woken: Arc<AtomicUsize>,
    }

    impl World {
        fn new(policy: Policy, backlog_frames: usize) -> Self {
            let settings = ChannelSettings { policy, backlog_frames, ..ChannelSettings::default() };
            let rule = ChannelRule { pattern: Pattern::new("*").expect("one"), settings };
            let settings = Settings { channels: vec![rule], ..Settings::default() };
            Self { registry: Registry::listed(&Arc::default(), 100), settings, woken: Arc::default() }
        }

        fn listener(&self, pattern: &str) -> Arc<Listener> {
            let woken = Arc::clone(&self.woken);
            let wake = move || {
                woken.fetch_add(1, Ordering::Relaxed);
            };
            let listener = Arc::new(Listener::new(Pattern::new(pattern).expect("one"), wake));
            self.registry.listen(&listener).expect("there is room");
            listener
        }

        fn publish(&self, name: &str, text: &str) {
            let channel = self.registry.obtain(name, &self.settings, 0).expect("there is room");
            let is_keyframe = text.starts_with("keyframe");
            let publication = Publication { is_keyframe, ..Publication::new(Payload::Text(text)) };
            let appended = channel.append(&publication, Stand::Next, 0, u64::MAX, |_| {});
            assert!(matches!(appended, Ok(Appended::At(_))));
        }
    }

    fn texts(heard: &[Heard]) -> Vec<String> {
        let text = |one: &Heard| match &one.data {
            HeardData::Text(text) => format!("{} {text}", one.channel),
            other => panic!("{other:?}"),
        };
        heard.iter().map(text).collect()
    }

    #[test]
    fn it_is_woken_once_until_it_has_come_to_the_end() {
        let world = World::new(Policy::Every, 100);
        world.publish("a", "before");
        let listener = world.listener("*");
        for text in ["1", "2"] {
            world.publish("a", text);
        }
        world.publish("b", "3");
        assert_eq!(world.woken.load(Ordering::Relaxed), 1);
        assert_eq!(texts(&listener.read(1, 0).expect("all")), ["a 1"]);
        world.publish("b", "3b");
        assert_eq!(world.woken.load(Ordering::Relaxed), 1, "it knows that there is more");
        assert_eq!(texts(&listener.read(100, 0).expect("all")), ["b 3", "b 3b", "a 2"]);
        world.publish("a", "4");
        assert_eq!(world.woken.load(Ordering::Relaxed), 2);
        assert_eq!(texts(&listener.read(100, 0).expect("all")), ["a 4"]);
        assert!(listener.read(100, 0).expect("all").is_empty());
        world.publish("b", "5");
        assert_eq!(world.woken.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn what_is_not_taken_is_bounded_and_nobody_waits_for_it() {
        let world = World::new(Policy::Every, 10);
        let listener = world.listener("a");
        for number in 0..1_000 {
            world.publish("a", &number.to_string());
        }
        let channel = world.registry.find("a").expect("it was published to");
        let frames = channel.lock().hearing.as_ref().map(|hearing| hearing.log.frames.len());
        assert!(frames.is_some_and(|frames| frames <= 10), "{frames:?}");
        assert_eq!(listener.read(100, 0), Err(Arc::from("a")));
    }

    #[test]
    fn who_hears_by_name_hears_a_channel_that_is_made_later_and_no_other() {
        let world = World::new(Policy::Every, 10);
        let many: Vec<_> = (0..2_000).map(|_| world.listener("a")).collect();
        world.publish("b", "not for them");
        world.publish("a", "1");
        for listener in &many {
            assert_eq!(texts(&listener.read(9, 0).expect("all")), ["a 1"]);
        }
        let (last, others) = many.split_last().expect("some");
        others.iter().for_each(|listener| world.registry.unlisten(listener));
        world.publish("a", "2");
        assert_eq!(texts(&last.read(9, 0).expect("all")), ["a 2"]);
        assert!(others[0].read(9, 0).expect("nothing").is_empty());
        let channel = world.registry.find("a").expect("it was published to");
        assert_eq!(channel.lock().hearing.as_ref().map(|hearing| hearing.log.watches.len()), Some(1));
        world.registry.unlisten(last);
        assert!(channel.lock().hearing.is_none());
    }

    /// The first keyframe behind what it lost stands where it waits.
    #[test]
    fn one_that_was_overtaken_goes_on_at_the_next_keyframe() {
        let world = World::new(Policy::Keyframe, 10);
        let listener = world.listener("a");
        for number in 0..100 {
            world.publish("a", &number.to_string());
        }
        assert!(listener.read(100, 0).expect("it is not closed").is_empty());
        world.publish("a", "not yet");
        assert!(listener.read(100, 0).expect("it is not closed").is_empty());
        world.publish("a", "keyframe");
        world.publish("a", "behind it");
        assert_eq!(texts(&listener.read(100, 0).expect("it is not closed")), ["a keyframe", "a behind it"]);
    }

    #[test]
    fn who_hears_no_more_leaves_nothing_behind() {
        let world = World::new(Policy::Every, 10);
        let (one, other) = (world.listener("a"), world.listener("*"));
        world.publish("a", "1");
        let channel = world.registry.find("a").expect("it was published to");
        assert_eq!(channel.occupancy(), 0);
        world.registry.unlisten(&one);
        assert_eq!(texts(&other.read(9, 0).expect("all")), ["a 1"]);
        world.registry.unlisten(&other);
        assert!(channel.lock().hearing.is_none() && !channel.is_heard.load(Ordering::Relaxed));
        world.publish("a", "2");
        assert!(one.read(9, 0).expect("all").is_empty());
    }
}
