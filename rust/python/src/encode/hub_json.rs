//! JSON as .NET's hubs write it: as [`Json`], and bytes as base64, a `datetime` as ISO 8601.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::error::{EncodeError, Step};
use super::json::Json;
use super::msgpack::datetime_class;
use super::walk::{Format, Kind};
use crate::buffer;

/// RFC 8259, with two types more.
pub(super) struct HubJson;

impl Format for HubJson {
    const NAME: &'static str = Json::NAME;

    #[inline(always)]
    fn null(out: &mut Vec<u8>) {
        Json::null(out);
    }

    #[inline(always)]
    fn boolean(out: &mut Vec<u8>, value: bool) {
        Json::boolean(out, value);
    }

    #[inline(always)]
    fn int(out: &mut Vec<u8>, value: i64) {
        Json::int(out, value);
    }

    #[inline(always)]
    fn float(out: &mut Vec<u8>, value: f64) -> Result<(), EncodeError> {
        Json::float(out, value)
    }

    #[inline(always)]
    fn text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), EncodeError> {
        Json::text(out, text)
    }

    /// What [`Json`] takes, bytes of any kind and a `datetime`.
    fn other(out: &mut Vec<u8>, object: &Bound<'_, PyAny>, kind: Kind) -> Result<(), EncodeError> {
        let py = object.py();
        if kind == Kind::Int {
            return Json::other(out, object, kind);
        }
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Json::text(out, STANDARD.encode(bytes.as_bytes()).as_bytes());
        }
        if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
            let bytes = buffer::copy(object).map_err(|error| EncodeError::value(py, error))?;
            return Json::text(out, STANDARD.encode(bytes).as_bytes());
        }
        if object.is_instance(datetime_class(py).map_err(EncodeError::raised)?).map_err(EncodeError::raised)? {
            let text: String =
                object.call_method0("isoformat").and_then(|text| text.extract()).map_err(EncodeError::raised)?;
            return Json::text(
                out,
                text.strip_suffix("+00:00").map_or(text.clone(), |utc| format!("{utc}Z")).as_bytes(),
            );
        }
        Json::other(out, object, kind)
    }

    #[inline(always)]
    fn array_start(out: &mut Vec<u8>, count: usize) -> Result<(), EncodeError> {
        Json::array_start(out, count)
    }

    #[inline(always)]
    fn item(out: &mut Vec<u8>, index: usize) {
        Json::item(out, index);
    }

    #[inline(always)]
    fn array_end(out: &mut Vec<u8>) {
        Json::array_end(out);
    }

    #[inline(always)]
    fn map_start(out: &mut Vec<u8>, count: usize) -> Result<(), EncodeError> {
        Json::map_start(out, count)
    }

    #[inline(always)]
    fn text_key(out: &mut Vec<u8>, index: usize, text: &[u8]) -> Result<(), EncodeError> {
        Json::text_key(out, index, text)
    }

    fn other_key(
        out: &mut Vec<u8>,
        index: usize,
        key: &Bound<'_, PyAny>,
        kind: Kind,
        depth: usize,
    ) -> Result<(), EncodeError> {
        Json::other_key(out, index, key, kind, depth)
    }

    #[inline(always)]
    fn map_end(out: &mut Vec<u8>) {
        Json::map_end(out);
    }

    fn step(key: &[u8]) -> Step {
        Json::step(key)
    }
}
