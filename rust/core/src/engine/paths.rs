//! Paths come and go, before and while the engine serves.
use super::{Engine, REASON_BYTES_MAX, check_close};
use crate::error::EngineError;
use crate::messages::Command;
use crate::routes::{Route, RouteError, Wire};

impl Engine {
    /// Adds a path: requests that begin after this call find it. Before or while it serves.
    ///
    /// # Errors
    /// [`RouteError`]: it would hide another, or is one too many.
    pub fn add_route(&self, route: Route) -> Result<(), RouteError> {
        // What a relay's clients all get comes from its backend.
        let is_hub = matches!(route.wire, Wire::SignalR(_)) && !route.asks.records;
        let hub = is_hub.then(|| route.path().to_owned());
        self.common.routes.add(route)?;
        if let Some(path) = hub {
            self.want_hub(&self.common.hubs, &path);
        }
        Ok(())
    }

    /// Removes what was added under this path: requests that begin after this call do not find it. Who is connected by it
    /// stays. False if there is none.
    pub fn remove_route(&self, path: &str) -> bool {
        self.common.routes.remove(path).is_some()
    }

    /// The same, and closes who is connected by it, a few at a time; who asks to connect is answered with 404.
    ///
    /// # Errors
    /// As [`disconnect`](Self::disconnect); then nothing has changed.
    pub fn close_route(&self, path: &str, code: u16, reason: &str) -> Result<bool, EngineError> {
        self.check_running()?;
        check_close(code, reason, REASON_BYTES_MAX)?;
        let Some(removed) = self.common.routes.remove(path) else { return Ok(false) };
        let close = || Command::CloseRoute(removed.number, code, reason.into());
        self.shards.iter().for_each(|shard| shard.command(close()));
        Ok(true)
    }
}
