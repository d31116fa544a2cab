//! What a log knows of some of its frames besides their marks: whom one is not for, and its tags.
use std::collections::VecDeque;
use std::sync::Arc;

use super::mark::Exclusion;
use super::tags::Tags;
use crate::connection_id::ConnectionId;

/// Of one frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Besides {
    /// Those who are not to get it, in order.
    pub(super) excluded: Option<Arc<[ConnectionId]>>,
    /// Its tags, as bytes.
    pub(super) tags: Option<Arc<[u8]>>,
}

impl Besides {
    /// Of a publication.
    pub(super) fn of(excluded: &[ConnectionId], tags: Tags<'_>) -> Self {
        let mut sorted: Option<Arc<[ConnectionId]>> = (!excluded.is_empty()).then(|| Arc::from(excluded));
        if let Some(excluded) = sorted.as_mut().and_then(Arc::<[ConnectionId]>::get_mut) {
            excluded.sort_unstable();
        }
        Self { excluded: sorted, tags: (!tags.is_empty()).then(|| Arc::from(tags.bytes())) }
    }

    /// The tags.
    pub(super) fn tags(&self) -> Tags<'_> {
        Tags::known(self.tags.as_deref().unwrap_or_default())
    }

    /// Those who are not to get it.
    pub(super) fn excluded(&self) -> &[ConnectionId] {
        self.excluded.as_deref().unwrap_or_default()
    }

    /// What it takes, whoever shares it.
    pub(super) fn bytes(&self) -> u64 {
        (self.excluded.as_deref().map_or(0, size_of_val) + self.tags.as_deref().map_or(0, <[u8]>::len)) as u64
    }
}

/// Of the frames that a log has.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Frames that are not for everyone, oldest first.
    pub(super) exclusions: VecDeque<Exclusion>,
    /// Where frames with tags end, oldest first.
    tagged: VecDeque<(u64, Arc<[u8]>)>,
    /// Of the lists and the tags; a list that several in a row share counts once.
    bytes: u64,
}

impl Noted {
    /// Of the frame that is the newest.
    pub(super) fn note(&mut self, (start, end): (u64, u64), besides: &Besides) {
        if let Some(excluded) = &besides.excluded {
            let before = self.exclusions.back().filter(|before| before.excluded == *excluded);
            let list = before.map_or(excluded, |before| &before.excluded);
            let exclusion = Exclusion { start, end, excluded: Arc::clone(list) };
            self.bytes += if before.is_none() { size_of_val(&*exclusion.excluded) as u64 } else { 0 };
            self.exclusions.push_back(exclusion);
        }
        if let Some(tags) = &besides.tags {
            self.bytes += tags.len() as u64;
            self.tagged.push_back((end, Arc::clone(tags)));
        }
    }

    /// The frames that end here or before are gone.
    pub(super) fn let_go(&mut self, end: u64) {
        while self.exclusions.front().is_some_and(|exclusion| exclusion.end <= end) {
            let gone = self.exclusions.pop_front().expect("there is one");
            let is_shared = self.exclusions.front().is_some_and(|next| Arc::ptr_eq(&next.excluded, &gone.excluded));
            self.bytes -= if is_shared { 0 } else { size_of_val(&*gone.excluded) as u64 };
        }
        while self.tagged.front().is_some_and(|tagged| tagged.0 <= end) {
            let (_, gone) = self.tagged.pop_front().expect("there is one");
            self.bytes -= gone.len() as u64;
        }
        if self.tagged.is_empty() {
            self.tagged = VecDeque::new(); // most channels have no tags
        }
    }

    /// Of the frame that ends here.
    pub(super) fn of(&self, end: u64) -> Besides {
        let excluded = self.exclusions.binary_search_by_key(&end, |exclusion| exclusion.end).ok();
        let excluded = excluded.map(|index| Arc::clone(&self.exclusions[index].excluded));
        Besides { excluded, tags: self.tagged_at(end).cloned() }
    }

    /// The tags of the frame that ends here.
    pub(super) fn tags_at(&self, end: u64) -> Tags<'_> {
        Tags::known(self.tagged_at(end).map_or(&[], |tags| tags))
    }

    fn tagged_at(&self, end: u64) -> Option<&Arc<[u8]>> {
        let index = self.tagged.binary_search_by_key(&end, |tagged| tagged.0).ok()?;
        Some(&self.tagged[index].1)
    }

    /// What all of it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
