//! Class `Look`: what an operator is shown of an engine. All that may wait lets go of the GIL.
use std::sync::Arc;

use fanwire_core::channel::{ChannelSeen, HeardData};
use fanwire_core::messages::ConnectionId;
use fanwire_core::{By, Engine as CoreEngine, Lag, Look as CoreLook, Seen};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::engine::Engine;
use crate::position::Position;

/// An operator's eye on an engine.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Look(Arc<CoreEngine>);

type Place = (usize, u64);
type Rows<'py> = Vec<Bound<'py, PyDict>>;
type Listed<'py> = PyResult<(Rows<'py>, Option<Place>)>;
type Kept<'py> = PyResult<Option<(Position, Rows<'py>, bool)>>;

#[pymethods]
impl Look {
    #[new]
    fn new(engine: &Engine) -> Self {
        Self(Arc::clone(&engine.0))
    }

    #[getter]
    fn shards(&self) -> usize {
        self.0.shard_count()
    }

    #[getter]
    fn next_epoch(&self) -> u64 {
        self.0.next_epoch()
    }

    #[pyo3(signature = (shard, from_slot, count_max, *, looks_max = 4096, channel = None, path = None, lagging = false, by = None))]
    #[allow(clippy::too_many_arguments)] // all but three are keyword-only
    fn connections<'py>(
        &self,
        py: Python<'py>,
        shard: usize,
        from_slot: u32,
        count_max: usize,
        looks_max: u32,
        channel: Option<&str>,
        path: Option<&str>,
        lagging: bool,
        by: Option<&str>,
    ) -> PyResult<Option<(Rows<'py>, Option<u32>)>> {
        let (path, by) = (path.map(Box::from), by.and_then(By::named));
        let terms = CoreLook { path, is_lagging: lagging, by, ..CoreLook::default() };
        let look = CoreLook { from: from_slot, count_max, looks_max, ..terms };
        let Some(page) = py.detach(|| self.0.look_at_connections(shard, look, channel)) else { return Ok(None) };
        let seen: PyResult<Vec<_>> = page.seen.iter().map(|one| connection(py, one)).collect();
        Ok(Some((seen?, page.next)))
    }

    #[pyo3(signature = (connections, *, channel = None, path = None, lagging = false))]
    fn of<'py>(
        &self,
        py: Python<'py>,
        connections: Vec<u64>,
        channel: Option<&str>,
        path: Option<&str>,
        lagging: bool,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let mut by_shard = vec![Vec::new(); self.0.shard_count()];
        for id in connections.into_iter().map(ConnectionId::from_bits) {
            if let Some(ids) = by_shard.get_mut(self.0.shard_index_of(id)) {
                ids.push(id);
            }
        }
        let mut seen = Vec::new();
        for (shard, ids) in by_shard.into_iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
            let look = CoreLook { ids, path: path.map(Box::from), is_lagging: lagging, ..CoreLook::default() };
            let page = py.detach(|| self.0.look_at_connections(shard, look, channel));
            for one in page.iter().flat_map(|page| &page.seen) {
                seen.push(connection(py, one)?);
            }
        }
        Ok(seen)
    }

    fn channels<'py>(&self, py: Python<'py>, place: Place, count_max: usize) -> Listed<'py> {
        let (seen, next) = py.detach(|| self.0.look_at_channels(place, count_max));
        let rows: PyResult<Vec<_>> = seen.iter().map(|one| channel(py, one)).collect();
        Ok((rows?, next))
    }

    fn channel<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.0.look_at_channel(name).map(|one| channel(py, &one)).transpose()
    }

    #[pyo3(signature = (name, since, count_max))]
    fn history<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        since: Option<&Bound<'py, Position>>,
        count_max: usize,
    ) -> Kept<'py> {
        let since = since.map(|since| since.get().0);
        let kept = py.detach(|| self.0.kept_of(name, since, count_max));
        let Some((newest, kept, is_whole)) = kept else { return Ok(None) };
        let rows: PyResult<Vec<_>> = kept
            .iter()
            .map(|one| {
                let row = PyDict::new(py);
                row.set_item("position", Position(one.position))?;
                row.set_item("event", one.event.as_deref())?;
                row.set_item("at", one.at_ms as f64 / 1_000.0)?;
                row.set_item("keyframe", one.is_keyframe)?;
                let (data, is_json) = match &one.data {
                    HeardData::Text(text) => (PyString::new(py, text).into_any(), false),
                    HeardData::Binary(bytes) => (PyBytes::new(py, bytes).into_any(), false),
                    HeardData::Json(bytes) => (PyBytes::new(py, bytes).into_any(), true),
                };
                row.set_item("data", data)?;
                row.set_item("is_json", is_json)?;
                Ok(row)
            })
            .collect();
        Ok(Some((Position(newest), rows?, is_whole)))
    }
}

fn connection<'py>(py: Python<'py>, seen: &Seen) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("connection", seen.id.to_bits())?;
    row.set_item("path", seen.path.as_deref())?;
    row.set_item("address", &seen.peer)?;
    row.set_item("format", format!("{:?}", seen.format))?;
    row.set_item("is_adopted", seen.is_adopted)?;
    row.set_item("age", seconds(seen.age_ns))?;
    row.set_item("channels", &seen.channels)?;
    row.set_item("channels_count", seen.subscriptions)?;
    row.set_item("waiting_bytes", seen.waiting_bytes)?;
    row.set_item("pending", seen.pending)?;
    row.set_item("sent_bytes", seen.tcp.map(|tcp| tcp.acked_bytes))?;
    row.set_item("in_flight_bytes", seen.tcp.map(|tcp| tcp.in_flight_bytes))?;
    row.set_item("unsent_bytes", seen.tcp.map(|tcp| tcp.unsent_bytes))?;
    row.set_item("rtt", seen.tcp.map(|tcp| f64::from(tcp.rtt_us) / 1e6))?;
    row.set_item("lag", seen.lag.as_ref().map(|one| lag(py, one)).transpose()?)?;
    Ok(row)
}

fn lag<'py>(py: Python<'py>, lag: &Lag) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("channel", lag.channel.as_deref())?;
    row.set_item("publications", lag.publications)?;
    row.set_item("bytes", lag.bytes)?;
    row.set_item("seconds", seconds(lag.age_ns))?;
    row.set_item("why", lag.why.name())?;
    Ok(row)
}

fn channel<'py>(py: Python<'py>, seen: &ChannelSeen) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("channel", &seen.name)?;
    row.set_item("made", seen.made)?;
    row.set_item("position", Position(seen.position))?;
    row.set_item("published", seen.published)?;
    row.set_item("subscribers", seen.subscribers)?;
    row.set_item("policy", seen.policy.name())?;
    row.set_item("idle", seen.idle_s)?;
    row.set_item("backlog", seen.backlog)?;
    row.set_item("backlog_bytes", seen.backlog_bytes)?;
    row.set_item("unsent_bytes", seen.unsent_bytes)?;
    row.set_item("kept", seen.kept)?;
    row.set_item("kept_bytes", seen.kept_bytes)?;
    Ok(row)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
