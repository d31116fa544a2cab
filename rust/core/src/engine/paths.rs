//! Paths come and go, before and while the engine serves.
use super::Engine;
use crate::routes::{Route, RouteError};

impl Engine {
    /// Adds a path: requests that begin after this call find it. Before or while it serves.
    ///
    /// # Errors
    /// [`RouteError`]: it would hide another, or is one too many.
    pub fn add_route(&self, route: Route) -> Result<(), RouteError> {
        self.common.routes.add(route)
    }

    /// Removes what was added under this path: requests that begin after this call do not find it. Who is connected by it
    /// stays. False if there is none.
    pub fn remove_route(&self, path: &str) -> bool {
        self.common.routes.remove(path)
    }
}
