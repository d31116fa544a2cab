//! Class `Adopted`: a connection that a framework reads and frames for, as Python writes to it.
use std::sync::Arc;

use fanwire_core::channel::Origin;
use fanwire_core::protocol::Format;
use fanwire_core::{Adopted as CoreAdopted, Broadcasting, Engine as CoreEngine, Position as CorePosition};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::buffer::{self, Data};
use crate::errors::to_pyerr;
use crate::position::since_of;
use crate::settings::start_of;
use crate::tags::{Filter, view_of};

/// A connection whose write side the engine has.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Adopted {
    engine: Arc<CoreEngine>,
    adopted: CoreAdopted,
}

impl Adopted {
    pub(crate) fn new(py: Python<'_>, engine: &Arc<CoreEngine>, fd: i32, msgpack: bool) -> PyResult<Self> {
        let format = if msgpack { Format::RawMsgpack } else { Format::Raw };
        let adopted = engine.adopt(fd, format).map_err(|error| to_pyerr(py, error))?;
        Ok(Self { engine: Arc::clone(engine), adopted })
    }
}

/// Has each of them write one framed message. Gives, by their places in the list, those for whom more than so many bytes wait
/// now, with how many, and those that took nothing, with `None`.
pub(crate) fn broadcast(
    engine: &CoreEngine,
    adopted: &Bound<'_, PyList>,
    frame: &[u8],
    above: u64,
) -> PyResult<Vec<(usize, Option<u64>)>> {
    let choose = |to: &mut Broadcasting| {
        let mut told = Vec::new();
        for (index, one) in adopted.iter().enumerate() {
            match to.add(&one.cast::<Adopted>()?.get().adopted) {
                Some(waiting) if waiting <= above => {}
                waiting => told.push((index, waiting)),
            }
        }
        Ok(told)
    };
    engine.broadcast_adopted(frame.into(), true, choose).map_err(|error| to_pyerr(adopted.py(), error))?
}

#[pymethods]
impl Adopted {
    #[getter]
    fn connection(&self) -> u64 {
        self.adopted.id().to_bits()
    }

    #[getter]
    fn waiting(&self) -> u64 {
        self.adopted.waiting()
    }

    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        self.engine.begin_adopted(&self.adopted).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (data, *, wakes = true))]
    fn write(&self, data: &Bound<'_, PyAny>, wakes: bool) -> PyResult<Option<u64>> {
        let bytes: Box<[u8]> = match buffer::read(data)? {
            Data::Binary(bytes) => bytes.into(),
            Data::Copied(bytes) => bytes.into(),
            Data::Text(_) | Data::Object(_) => {
                let kind = data.get_type().name()?;
                return Err(PyTypeError::new_err(format!("data must be bytes, bytearray or memoryview, not {kind}")));
            }
        };
        self.engine.write_adopted(&self.adopted, bytes, !wakes).map_err(|error| to_pyerr(data.py(), error))
    }

    #[pyo3(signature = (channel, since = None, start = None, filter = None))]
    fn subscribe(
        &self,
        py: Python<'_>,
        channel: &str,
        #[pyo3(from_py_with = since_of)] since: Option<CorePosition>,
        start: Option<&str>,
        filter: Option<&Filter>,
    ) -> PyResult<()> {
        let origin = Origin { since, start: start.map(start_of).transpose()? };
        let chosen = (channel, view_of(filter));
        self.engine.subscribe_adopted(&self.adopted, chosen, origin).map_err(|error| to_pyerr(py, error))
    }

    fn unsubscribe(&self, py: Python<'_>, channel: &str) -> PyResult<()> {
        self.engine.unsubscribe_adopted(&self.adopted, channel).map_err(|error| to_pyerr(py, error))
    }

    fn notify(&self, py: Python<'_>, below: u64) -> PyResult<()> {
        self.engine.notify_adopted(&self.adopted, below).map_err(|error| to_pyerr(py, error))
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.engine.release_adopted(&self.adopted).map_err(|error| to_pyerr(py, error))
    }

    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.engine.abort_adopted(&self.adopted).map_err(|error| to_pyerr(py, error))
    }
}
