//! What is published, or sent to one client, on its way from Python to the engine.
use fanwire_core::channel::{Publication, Tags};
use fanwire_core::messages::ConnectionId;
use fanwire_core::protocol::{Format, Payload};
use fanwire_core::{Audience, Engine};
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::buffer::{self, Data};
use crate::encode::Encoder;
use crate::encoded::{Encoded, publish_object};
use crate::errors::to_pyerr;
use crate::position::{Place, Published};
use crate::settings::ttl_ns;
use crate::tags::Tagged;

/// The options of one publication.
#[derive(Default)]
pub(crate) struct Options<'a> {
    pub(crate) event: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) ttl: Option<f64>,
    pub(crate) deferred: bool,
    pub(crate) excluded: &'a [u64],
    pub(crate) is_keyframe: bool,
    pub(crate) is_snapshot: bool,
    pub(crate) is_removal: bool,
    pub(crate) tags: Tagged,
}

/// Publishes what Python gives, in the encodings that are needed.
pub(crate) fn publish(
    engine: &Engine,
    encoder: &Encoder,
    audience: Audience<'_>,
    data: &Bound<'_, PyAny>,
    options: Options<'_>,
) -> PyResult<Py<Published>> {
    let py = data.py();
    let Options { event, key, is_keyframe, is_snapshot, is_removal, .. } = options;
    let ttl_ns = options.ttl.map(ttl_ns).transpose().map_err(|error| to_pyerr(py, error))?;
    let excluded: SmallVec<[ConnectionId; 4]> =
        options.excluded.iter().map(|&id| ConnectionId::from_bits(id)).collect();
    let tags = Tags::read(&options.tags.0).expect("as they were written");
    let publish = |payload: Payload<'_>| {
        let excluded = &excluded;
        let publication =
            Publication { payload, event, key, ttl_ns, is_keyframe, is_snapshot, is_removal, excluded, tags };
        if let Some(placing) =
            engine.publish_for_all(audience, &publication, options.deferred).map_err(|error| to_pyerr(py, error))?
        {
            return Ok(Ok(Place::Awaited(placing)));
        }
        let placed = engine.publish_to(audience, &publication, options.deferred);
        placed.map(|placed| placed.map(Place::At)).map_err(|error| to_pyerr(py, error))
    };
    let place = match buffer::read(data)? {
        Data::Text(text) => publish(Payload::Text(text))?,
        Data::Binary(bytes) => publish(Payload::Binary(bytes))?,
        Data::Copied(bytes) => publish(Payload::Binary(&bytes))?,
        Data::Object(object) => Ok(publish_object(engine, encoder, (audience, object), publish)?),
    };
    match place.expect("only objects have encodings to miss") {
        Place::At(position) => Published::at(py, position),
        Place::Awaited(placing) => Published::awaited(py, placing),
    }
}

/// Sends what Python gives to one client, in the encoding that it speaks.
pub(crate) fn send(
    engine: &Engine,
    encoder: &Encoder,
    id: ConnectionId,
    data: &Bound<'_, PyAny>,
    event: Option<&str>,
) -> PyResult<()> {
    let sent = match buffer::read(data)? {
        Data::Text(text) => engine.send(id, &Payload::Text(text), event),
        Data::Binary(bytes) => engine.send(id, &Payload::Binary(bytes), event),
        Data::Copied(bytes) => engine.send(id, &Payload::Binary(&bytes), event),
        Data::Object(object) => {
            let format = engine.format_of(id).unwrap_or(Format::Raw);
            let encoded = Encoded::new(encoder, object, format.into(), None)?;
            engine.send(id, &encoded.payload(), event)
        }
    };
    sent.map_err(|error| to_pyerr(data.py(), error))
}
