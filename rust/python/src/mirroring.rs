//! A relay's lanes over workers, as Python asks for them.
use fanwire_core::channel::{Newest, SharedId, Tie};
use fanwire_core::{Audience, Engine as CoreEngine};
use pyo3::prelude::*;

use crate::errors::to_pyerr;
use crate::routes::bad;
use crate::upstream::{protocol_of, seconds};

/// What names it to all workers; and of what comes for all, for a hub, the protocol.
pub(crate) type Source<'a> = (&'a [u8], Option<&'a str>);

/// A worker, and the number of an attempt.
pub(crate) type Tied = (u32, u32);

/// Messages and seconds at most, of what is sent; with neither and `true` nothing is sent.
pub(crate) type Bounds = (Option<usize>, Option<f64>, bool);

/// The name of a lane, or of a hub: its path.
fn audience(name: &str, is_hub: bool) -> Audience<'_> {
    if is_hub { Audience::Hub(name) } else { Audience::Lane(name) }
}

pub(crate) fn newest_of(messages_max: Option<usize>, age_max: Option<f64>) -> PyResult<Newest> {
    let age_max = age_max.map(|age_max| seconds("age_max", age_max)).transpose()?;
    let age_ns_max = age_max.map(|age_max| u64::try_from(age_max.as_nanos()).unwrap_or(u64::MAX));
    Ok(Newest { messages_max, age_ns_max })
}

fn shared_id(id: &[u8]) -> PyResult<SharedId> {
    id.try_into().map_err(|_| bad(format!("id has {} bytes, must have 16", id.len())))
}

pub(crate) fn mirror(
    py: Python<'_>,
    engine: &CoreEngine,
    name: &str,
    (id, protocol): Source<'_>,
    (worker, number): Tied,
    (messages_max, age_max, is_late): Bounds,
) -> PyResult<bool> {
    let (what, of) = (audience(name, protocol.is_some()), protocol.map(protocol_of).transpose()?);
    let (tie, newest) = (Tie { worker, number }, newest_of(messages_max, age_max)?);
    engine.mirror(what, (shared_id(id)?, of), tie, newest, is_late).map_err(|error| to_pyerr(py, error))
}

pub(crate) fn unmirror(engine: &CoreEngine, name: &str, (id, protocol): Source<'_>, worker: u32) -> PyResult<()> {
    engine.unmirror(audience(name, protocol.is_some()), &shared_id(id)?, worker);
    Ok(())
}

pub(crate) fn follow(
    py: Python<'_>,
    engine: &CoreEngine,
    name: &str,
    (id, protocol): Source<'_>,
    (worker, number): Tied,
    lost: Option<f64>,
) -> PyResult<()> {
    let lost = lost.map(|lost| seconds("lost", lost)).transpose()?;
    let what = audience(name, protocol.is_some());
    engine.follow(what, shared_id(id)?, Tie { worker, number }, lost).map_err(|error| to_pyerr(py, error))
}

pub(crate) fn unfollow(engine: &CoreEngine, id: &[u8], worker: u32) -> PyResult<Option<f64>> {
    Ok(engine.unfollow(shared_id(id)?, worker).map(|since| since.as_secs_f64()))
}
