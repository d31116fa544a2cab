//! How a hub writes objects, and the bounds of any object.
use super::forms::Forms;
use pyo3::prelude::*;

/// Containers inside one another, the outermost counted; one more is refused, and so every circle is.
pub(super) const DEPTH_MAX: usize = 128;

/// Bytes set aside before an object's size is known: glibc serves them from the thread's own cache.
pub(super) const CAPACITY_START: usize = 1024;

/// What a hub's options say of objects.
pub(super) struct Rules {
    /// `function(object)` gives what stands for an object of a class that has no form here.
    pub(super) hook: Option<Py<PyAny>>,
    /// MessagePack is one of the hub's formats: what it cannot hold is refused.
    pub(super) has_msgpack: bool,
    pub(super) plain: Forms,
    /// The forms for SignalR's clients.
    pub(super) hub: Forms,
}
