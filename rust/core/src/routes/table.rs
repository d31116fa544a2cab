//! The table itself: frozen states of it, and which one stands now.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::path::{nearest, normal};
use super::route::{NEGOTIATE, ROUTES_MAX, Route, RouteError};

/// A route in its place.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Never used twice: by this a token is its path's alone, also when another route has taken the path.
    pub(crate) number: u64,
    pub(crate) route: Route,
}

impl std::ops::Deref for Placed {
    type Target = Route;

    fn deref(&self) -> &Route {
        &self.route
    }
}

/// One state of the table; frozen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    version: u64,
    /// By [`Route::key`], and so are the folded ones.
    exact: HashMap<Box<str>, Arc<Placed>>,
    /// SignalR's.
    folded: HashMap<Box<str>, Arc<Placed>>,
    /// The more exact first.
    patterns: Vec<Arc<Placed>>,
}

/// What a request's path leads to.
pub(crate) struct Found {
    pub(crate) route: Arc<Placed>,
    /// It is SignalR's `/negotiate` below that.
    pub(crate) is_negotiate: bool,
}

impl Routes {
    /// Who answers for a request's path, however it is encoded. Nobody does for one with a segment `.` or `..`.
    pub(crate) fn find(&self, path: &str) -> Option<Found> {
        let path = &*normal(path)?;
        let found = |route: &Arc<Placed>| Found { route: Arc::clone(route), is_negotiate: false };
        if let Some(route) = self.exact.get(path) {
            return Some(found(route));
        }
        if !self.folded.is_empty() {
            let folded = path.strip_suffix('/').unwrap_or(path).to_ascii_lowercase();
            if let Some(route) = self.folded.get(&*folded) {
                return Some(found(route));
            }
            if let Some(route) = folded.strip_suffix(NEGOTIATE).and_then(|above| self.folded.get(above)) {
                return Some(Found { is_negotiate: true, ..found(route) });
            }
        }
        self.patterns.iter().find(|route| route.matches(path)).map(found)
    }

    /// Whether a path that nobody has begins as a SignalR path does.
    pub(crate) fn is_below_signalr(&self, path: &str) -> bool {
        let begins = |hub: &str| path.get(..hub.len()).is_some_and(|start| start.eq_ignore_ascii_case(hub));
        self.folded.keys().any(|hub| begins(hub))
    }

    /// Which path a client may have meant that asked for one that there is not.
    pub(crate) fn nearest(&self, path: &str) -> Option<&str> {
        let paths = self.exact.values().chain(self.folded.values()).map(|placed| placed.path());
        nearest(path, paths.filter(|&one| one != "/"))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Placed>> {
        self.exact.values().chain(self.folded.values()).chain(&self.patterns)
    }

    fn add(&mut self, number: u64, route: Route) -> Result<(), RouteError> {
        let path = route.path.to_string();
        if let Some(other) = self.all().find(|other| other.clashes_with(&route)) {
            return Err(RouteError::Clash { path, other: other.path.to_string() });
        }
        if self.all().count() >= ROUTES_MAX {
            return Err(RouteError::TooMany { path });
        }
        let placed = Arc::new(Placed { number, route });
        let key = placed.key().into();
        if placed.is_signalr() {
            self.folded.insert(key, placed);
        } else if placed.is_pattern() {
            let at = self.patterns.partition_point(|other| other.exactness() <= placed.exactness());
            self.patterns.insert(at, placed);
        } else {
            self.exact.insert(key, placed);
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Option<Arc<Placed>> {
        let removed = self.all().find(|placed| placed.path() == path).map(Arc::clone)?;
        let stays = |placed: &Arc<Placed>| placed.number != removed.number;
        self.exact.retain(|_, placed| stays(placed));
        self.folded.retain(|_, placed| stays(placed));
        self.patterns.retain(stays);
        Some(removed)
    }
}

/// The table as it stands, for all threads.
#[derive(Debug, Default)]
pub(crate) struct Table {
    current: Mutex<Arc<Routes>>,
    version: AtomicU64,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Arc<Routes>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `held` what stands now. One load where nothing has changed.
    pub(crate) fn refresh(&self, held: &mut Arc<Routes>) {
        if held.version != self.version.load(Ordering::Acquire) {
            *held = Arc::clone(&self.lock());
        }
    }

    /// The paths of SignalR's hubs.
    pub(crate) fn hubs(&self) -> Vec<String> {
        self.lock().folded.values().map(|placed| placed.path().to_owned()).collect()
    }

    /// Adds a route: requests that begin after this call find it.
    pub(crate) fn add(&self, route: Route) -> Result<(), RouteError> {
        self.change(|routes, number| routes.add(number, route))
    }

    /// Removes what was added under this path, and gives it: requests that begin after this call find nothing.
    pub(crate) fn remove(&self, path: &str) -> Option<Arc<Placed>> {
        self.change(|routes, _| routes.remove(path).ok_or(())).ok()
    }

    fn change<T, E>(&self, act: impl FnOnce(&mut Routes, u64) -> Result<T, E>) -> Result<T, E> {
        let mut current = self.lock();
        let mut routes = Routes::clone(&current);
        routes.version += 1;
        let done = act(&mut routes, current.version + 1)?;
        let version = routes.version;
        *current = Arc::new(routes);
        self.version.store(version, Ordering::Release);
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::route::{OwnerId, Transports, Wire};

    const OWNER: OwnerId = OwnerId(0);
    const HUB: Wire = Wire::SignalR(Transports::ALL);

    fn route(path: &str, wire: Wire) -> Route {
        Route::new(path, wire, OWNER).expect(path)
    }

    fn table(routes: &[(&str, Wire)]) -> Routes {
        let mut table = Routes::default();
        for (number, &(path, wire)) in (0..).zip(routes) {
            table.add(number, route(path, wire)).expect(path);
        }
        table
    }

    #[test]
    fn the_most_exact_route_answers() {
        let sockets = ["/", "/ws", "/{any}", "/rooms/{room}", "/rooms/main", "/{a}/main/{b}", "/rooms/{a}/{b}"];
        let mut routes: Vec<_> = sockets.map(|path| (path, Wire::WebSocket)).to_vec();
        routes.extend([("/Live", HUB), ("/Feed", Wire::Plain)]);
        for _ in 0..2 {
            let table = table(&routes);
            let found = |path: &str| table.find(path).map(|found| (found.route.path().to_owned(), found.is_negotiate));
            let cases = [
                ("/", Some(("/", false))),
                ("/ws", Some(("/ws", false))),
                ("/WS", Some(("/{any}", false))),
                ("/x", Some(("/{any}", false))),
                ("/x/", None),
                ("/rooms/", None),
                ("/rooms/7", Some(("/rooms/{room}", false))),
                ("/rooms/main", Some(("/rooms/main", false))),
                ("/rooms/main/7", Some(("/rooms/{a}/{b}", false))),
                ("/halls/main/7", Some(("/{a}/main/{b}", false))),
                ("/halls/7/7", None),
                ("/live/", Some(("/Live", false))),
                ("/lIVE/NEGOTIATE", Some(("/Live", true))),
                ("/Feed", Some(("/Feed", false))),
                ("/feed", Some(("/{any}", false))),
                ("", None),
            ];
            for (path, expected) in cases {
                assert_eq!(found(path), expected.map(|(path, is)| (path.to_owned(), is)), "{path}");
            }
            routes.reverse(); // the order in which they come does not matter
        }
    }

    #[test]
    fn no_encoding_leads_to_another_owner() {
        let table = table(&[
            ("/rooms/{room}", Wire::WebSocket),
            ("/rooms/main", Wire::EventStream),
            ("/caf\u{e9}", Wire::Plain),
            ("/a%2fb", Wire::Plain),
            ("/a/b", Wire::Request),
            ("/\u{fc}/live", HUB),
        ]);
        let found = |path: &str| table.find(path).map(|found| (found.route.path().to_owned(), found.is_negotiate));
        for (path, expected) in [
            ("/rooms/m%61in", Some(("/rooms/main", false))),
            ("/%72ooms/%6Dain", Some(("/rooms/main", false))),
            ("/rooms/m%2561in", Some(("/rooms/{room}", false))),
            ("/rooms%2Fmain", None),
            ("/rooms/x%2F..%2Fmain", Some(("/rooms/{room}", false))),
            ("/rooms/x/../main", None),
            ("/rooms/..", None),
            ("/rooms/%2e%2E", None),
            ("/./rooms/main", None),
            ("/caf%C3%A9", Some(("/caf\u{e9}", false))),
            ("/caf%c3%a9", Some(("/caf\u{e9}", false))),
            ("/caf%E9", None),
            ("/cafe%CC%81", None),
            ("/a%2Fb", Some(("/a%2fb", false))),
            ("/a%2fb", Some(("/a%2fb", false))),
            ("/a%252fb", None),
            ("/a/b", Some(("/a/b", false))),
            ("/%C3%BC/LIVE/", Some(("/\u{fc}/live", false))),
            ("/%c3%bc/l%69ve/n%65gotiate", Some(("/\u{fc}/live", true))),
            ("/%C3%9C/live", None),
            ("/%C3%BC%2Flive", None),
        ] {
            assert_eq!(found(path), expected.map(|(path, is)| (path.to_owned(), is)), "{path}");
        }
    }

    #[test]
    fn what_would_hide_another_is_refused() {
        let there = [("/ws", Wire::WebSocket), ("/live", HUB), ("/Feed", Wire::Plain), ("/a/{x}", Wire::EventStream)];
        for (path, wire, other) in [
            ("/ws", Wire::EventStream, Some("/ws")),
            ("/WS", HUB, Some("/ws")),
            ("/WS", Wire::Plain, None),
            ("/LIVE", Wire::WebSocket, Some("/live")),
            ("/live/Negotiate", Wire::WebSocket, Some("/live")),
            ("/live/negotiate", HUB, Some("/live")),
            ("/feed", HUB, Some("/Feed")),
            ("/a/{y}", Wire::WebSocket, Some("/a/{x}")),
            ("/{a}/{x}", Wire::WebSocket, None),
            ("/a/b", HUB, None),
            ("/%77s", Wire::WebSocket, Some("/ws")),
            ("/l%49ve", Wire::Plain, Some("/live")),
            ("/%61/{y}", Wire::WebSocket, Some("/a/{x}")),
        ] {
            let mut table = table(&there);
            let clash = other.map(|other| RouteError::Clash { path: path.to_owned(), other: other.to_owned() });
            assert_eq!(table.add(9, route(path, wire)).err(), clash, "{path}");
        }
    }

    #[test]
    fn a_change_is_seen_at_the_next_look() {
        let table = Table::default();
        let mut held = Arc::default();
        table.add(route("/a", Wire::WebSocket)).expect("room");
        assert!(table.add(route("/a", Wire::WebSocket)).is_err());
        table.refresh(&mut held);
        let first = held.find("/a").expect("added").route;
        assert!(table.remove("/a").is_some() && table.remove("/a").is_none());
        table.add(route("/a", Wire::Plain)).expect("free again");
        assert!(held.find("/a").is_some(), "what is held does not change");
        table.refresh(&mut held);
        let second = held.find("/a").expect("added").route;
        assert!(first.number < second.number && second.wire == Wire::Plain);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let table = Table::default();
        for number in 0..ROUTES_MAX {
            table.add(route(&format!("/{number}"), Wire::WebSocket)).expect("room");
        }
        let error = table.add(route("/x", Wire::WebSocket)).expect_err("full").to_string();
        assert_eq!(error, "path \"/x\": 1024 paths is the bound");
    }
}
