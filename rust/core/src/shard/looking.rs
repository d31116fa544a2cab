//! What the shard shows an operator of its connections: a bounded number of slots in one go, between two turns' work.
use std::cmp::Reverse;
use std::sync::Arc;

use super::connection::Connection;
use super::{Io, Shard};
use crate::channel::{Channel, Mode};
use crate::clock::{self, NO_TICK};
use crate::looking::{By, CHANNELS_SHOWN, Lag, Look, Page, Seen, TcpSeen, Why};
use crate::socket;

/// So many subscriptions of one that lags are looked at: each is a look at its channel.
const LAGS_MAX: usize = 64;

impl<I: Io> Shard<I> {
    /// Those that are asked for, or a page of all.
    pub(super) fn page_of(&self, look: &Look) -> Page {
        if !look.ids.is_empty() {
            let slots = look.ids.iter().filter_map(|&id| self.slot_of(id)).filter(|&slot| self.is_meant(slot, look));
            return Page { seen: slots.filter_map(|slot| self.seen(slot)).collect(), next: None };
        }
        let end = (self.slab.slots() as u32).min(look.from.saturating_add(look.looks_max));
        let next = ((end as usize) < self.slab.slots()).then_some(end);
        let meant = (look.from..end).filter(|&slot| self.is_meant(slot, look));
        if let Some(by) = look.by {
            let mut all: Vec<_> = meant.map(|slot| (self.measure(slot, by), slot)).filter(|one| one.0 > 0).collect();
            all.sort_unstable_by_key(|one| Reverse(one.0));
            let first = all.iter().take(look.count_max);
            return Page { seen: first.filter_map(|&(_, slot)| self.seen(slot)).collect(), next };
        }
        let mut page = Page { seen: Vec::new(), next };
        for slot in meant {
            if page.seen.len() >= look.count_max {
                page.next = Some(slot);
                break;
            }
            page.seen.extend(self.seen(slot));
        }
        page
    }

    fn is_meant(&self, slot: u32, look: &Look) -> bool {
        let Some(connection) = self.opened(slot) else { return false };
        let path = connection.route.as_ref().map(|route| route.path());
        look.path.as_deref().is_none_or(|wanted| path == Some(wanted))
            && look.channel.as_ref().is_none_or(|channel| self.watches(connection, channel))
            && (!look.is_lagging || lags(connection))
    }

    fn opened(&self, slot: u32) -> Option<&Connection> {
        self.slab.get(slot).filter(|one| one.session.is_opened() && !one.session.is_over())
    }

    /// What it is put in order by; 0 of one that is left out.
    fn measure(&self, slot: u32, by: By) -> u64 {
        let Some(connection) = self.opened(slot) else { return 0 };
        let waiting = || waiting_bytes(connection);
        let lag = || lags(connection).then(|| self.worst_lag(connection, waiting()));
        match by {
            By::LagAge => lag().map_or(0, |lag| lag.age_ns.max(1)),
            By::LagBytes => lag().map_or(0, |lag| lag.bytes.max(1)),
            By::Sent => tcp_of(connection).map_or(0, |tcp| tcp.acked_bytes),
            By::Waiting => waiting(),
        }
    }

    /// How a connection stands.
    fn seen(&self, slot: u32) -> Option<Seen> {
        let connection = self.opened(slot)?;
        let path = connection.route.as_ref().map(|route| route.path());
        let listed = connection.subscriptions.iter().filter_map(|one| self.feeds.get(one.feed));
        let names = listed.map(|feed| &feed.channel).filter(|channel| channel.is_listed);
        let waiting_bytes = waiting_bytes(connection);
        let age_ticks = match connection.since_tick {
            NO_TICK => 0,
            since => self.timers.tick().saturating_sub(since),
        };
        Some(Seen {
            id: self.id_of(slot),
            path: path.map(Box::from),
            peer: self.client_at(slot),
            format: connection.format,
            is_adopted: !connection.session.is_read(),
            age_ns: clock::start_of(age_ticks),
            channels: names.take(CHANNELS_SHOWN).map(|channel| channel.name().to_owned()).collect(),
            subscriptions: connection.subscriptions.len(),
            waiting_bytes,
            pending: connection.pending,
            tcp: tcp_of(connection),
            lag: lags(connection).then(|| self.worst_lag(connection, waiting_bytes)),
        })
    }

    fn watches(&self, connection: &Connection, channel: &Arc<Channel>) -> bool {
        let mut feeds = connection.subscriptions.iter().filter_map(|one| self.feeds.get(one.feed));
        feeds.any(|feed| Arc::ptr_eq(&feed.channel, channel))
    }

    fn worst_lag(&self, connection: &Connection, waiting_bytes: u64) -> Lag {
        let session = &connection.session;
        let why = |mode: Option<Mode>| match mode {
            Some(Mode::AwaitingKeyframe) => Why::AwaitsKeyframe,
            _ if session.is_detached() || session.is_polled() => Why::Away,
            _ if connection.transport.is_blocked => Why::SocketFull,
            Some(Mode::Replaying | Mode::AtKeyframe) => Why::Replaying,
            _ => Why::Behind,
        };
        let mut worst = Lag { channel: None, publications: 0, bytes: 0, age_ns: 0, why: why(None) };
        let lagging = connection.subscriptions.iter().filter(|one| one.is_lagging()).take(LAGS_MAX);
        for subscription in lagging {
            let Some(feed) = self.feeds.get(subscription.feed) else { continue };
            let behind = feed.channel.behind(feed.log, subscription.cursor, self.clock.now_ns());
            if worst.channel.is_none() || behind.bytes > worst.bytes {
                let name = feed.channel.is_listed.then(|| feed.channel.name().to_owned());
                let (publications, bytes, age_ns) = (behind.publications, behind.bytes, behind.age_ns);
                let why = why(Some(subscription.mode()));
                worst = Lag { channel: name, publications, bytes, age_ns, why };
            }
        }
        worst.bytes += waiting_bytes;
        worst
    }
}

fn waiting_bytes(connection: &Connection) -> u64 {
    connection.transport.unsent().iter().map(|bytes| bytes.len() as u64).sum()
}

fn tcp_of(connection: &Connection) -> Option<TcpSeen> {
    TcpSeen::read(&connection.transport.socket().and_then(socket::tcp_info)?)
}

/// Whether it has not got all that was published and sent to it.
fn lags(connection: &Connection) -> bool {
    connection.transport.is_blocked || connection.subscriptions.iter().any(|one| one.is_lagging())
}
