//! An object in the encodings that formats need.
use std::borrow::Cow;

use fanwire_core::protocol::{self, Encoding, Format, Formats, Payload};
use fanwire_core::{Audience, Engine};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::encode::{Encoder, Written};
use crate::position::Place;

/// An object in the encodings that some formats need.
pub(crate) struct Encoded {
    is_arguments: bool,
    written: Written,
}

/// Encodes for the formats in use, and again for those that came into use meanwhile: at most once a format.
pub(crate) fn publish_object(
    engine: &Engine,
    encoder: &Encoder,
    (audience, object): (Audience<'_>, &Bound<'_, PyAny>),
    publish: impl Fn(Payload<'_>) -> PyResult<Result<Place, Formats>>,
) -> PyResult<Place> {
    // JSON also when nobody listens: an object that can't be encoded is an error on a quiet channel, too.
    let nobody = if matches!(audience, Audience::Channel(_)) { Format::Raw } else { Format::HubJson };
    let mut formats = engine.formats_of(audience);
    if formats.is_empty() {
        formats = nobody.into();
    }
    let bytes_max = Some(engine.publication_bytes_max());
    loop {
        let encoded = Encoded::new(encoder, object, formats, bytes_max)?;
        match publish(encoded.payload())? {
            Ok(place) => return Ok(place),
            Err(missing) => formats = formats.and(missing),
        }
    }
}

impl Encoded {
    /// Encodes `object` for `formats`.
    ///
    /// Whether it is over `bytes_max` must not depend on these: where the others could be longer, all are written, and
    /// the longest counts.
    pub(crate) fn new(
        encoder: &Encoder,
        object: &Bound<'_, PyAny>,
        formats: Formats,
        bytes_max: Option<usize>,
    ) -> PyResult<Self> {
        let arguments = object.cast::<Arguments>().ok();
        let is_arguments = arguments.is_some();
        let object = match arguments {
            Some(arguments) => Cow::Owned(arguments.get().0.bind(object.py()).clone().into_any()),
            None => Cow::Borrowed(object),
        };
        let is_wanted = |encoding: &Encoding| formats.iter().any(|format| format.encoding() == *encoding);
        let wanted: Vec<Encoding> = Encoding::ALL.into_iter().filter(is_wanted).collect();
        let mut written = encoder.write(&object, &wanted)?;
        if bytes_max.is_some_and(|bytes_max| written.bytes().saturating_mul(written.growth_max()) > bytes_max) {
            written = encoder.write_all(&object)?;
        }
        Ok(Self { is_arguments, written })
    }

    pub(crate) fn payload(&self) -> Payload<'_> {
        let Written { json, msgpack, hub_json, hub_msgpack, is_alike } = &self.written;
        let encoded = if *is_alike {
            protocol::Encoded::alike(json.as_deref(), msgpack.as_deref())
        } else {
            protocol::Encoded {
                json: json.as_deref(),
                msgpack: msgpack.as_deref(),
                hub_json: hub_json.as_deref(),
                hub_msgpack: hub_msgpack.as_deref(),
            }
        };
        if self.is_arguments { Payload::Arguments(encoded) } else { Payload::Object(encoded) }
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
