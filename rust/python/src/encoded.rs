//! An object in the encodings that formats need, each made at most once.
use std::borrow::Cow;

use fanwire_core::messages::ConnectionId;
use fanwire_core::protocol::{Encoding, Format, Payload};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::encode;

/// An object in the encoding of a connection's hub protocol.
pub(crate) fn encode_for(connection: u64, object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let encoding = ConnectionId::from_bits(connection).format().unwrap_or(Format::HubJson).encoding();
    let mut out = Vec::with_capacity(256);
    match encoding {
        Encoding::Json => encode::hub_json(object, &mut out),
        Encoding::Msgpack => encode::msgpack(object, &mut out),
    }
    .map_err(|error| error.into_pyerr(object.py()))?;
    Ok(out)
}

/// An object in the encodings made so far.
pub(crate) struct Encoded<'a, 'py> {
    object: Cow<'a, Bound<'py, PyAny>>,
    is_arguments: bool,
    json: Option<Vec<u8>>,
    msgpack: Option<Vec<u8>>,
}

impl<'a, 'py> Encoded<'a, 'py> {
    pub(crate) fn new(object: &'a Bound<'py, PyAny>) -> Self {
        let arguments = object.cast::<Arguments>().ok();
        let is_arguments = arguments.is_some();
        let object = match arguments {
            Some(arguments) => Cow::Owned(arguments.get().0.bind(object.py()).clone().into_any()),
            None => Cow::Borrowed(object),
        };
        Self { object, is_arguments, json: None, msgpack: None }
    }

    /// Adds what `formats` (bits) need.
    pub(crate) fn with(mut self, formats: u16) -> PyResult<Self> {
        type Encode = fn(&Bound<'_, PyAny>, &mut Vec<u8>) -> Result<(), encode::EncodeError>;
        // One JSON for all who want it: where others than hubs do, what only hubs have a form for is an error.
        let others = [Format::Raw, Format::Sse, Format::Envelope];
        let is_for_hubs = others.into_iter().all(|format| formats & format.bit() == 0);
        let json: Encode = if is_for_hubs { encode::hub_json } else { encode::json };
        for format in Format::ALL.into_iter().filter(|format| formats & format.bit() != 0) {
            let (target, encode): (_, Encode) = match format.encoding() {
                Encoding::Json => (&mut self.json, json),
                Encoding::Msgpack => (&mut self.msgpack, encode::msgpack),
            };
            if target.is_none() {
                let mut out = Vec::with_capacity(1_024);
                encode(&self.object, &mut out).map_err(|error| error.into_pyerr(self.object.py()))?;
                *target = Some(out);
            }
        }
        Ok(self)
    }

    pub(crate) fn payload(&self) -> Payload<'_> {
        let (json, msgpack) = (self.json.as_deref(), self.msgpack.as_deref());
        if self.is_arguments { Payload::Arguments { json, msgpack } } else { Payload::Object { json, msgpack } }
    }
}

/// Several arguments of one invocation; to clients of other protocols an array.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Arguments(Py<PyTuple>);

#[pymethods]
impl Arguments {
    #[new]
    #[pyo3(signature = (*items))]
    fn new(items: Bound<'_, PyTuple>) -> Self {
        Self(items.unbind())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Arguments{}", self.0.bind(py).repr()?))
    }
}
