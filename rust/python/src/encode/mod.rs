//! A Python object to JSON or MessagePack bytes.
//!
//! [`walk`] knows Python's objects and no format; [`json`] and [`msgpack`] know a format's bytes and no object. The walk
//! refuses, for every format, what one of the hub's formats has no form for: whether an object can be published depends
//! on the object and on the [`Encoder`], never on who listens (`docs/decisions/0007-what-can-be-published-never-depends-on-who-listens.md`).
//! The forms are msgspec's; what .NET reads otherwise has a form of its own for SignalR's clients.
//!
//! No input panics.
#![allow(unsafe_code)] // the walk reads borrowed references; JSON writes behind one capacity check

pub(crate) mod error;
mod json;
pub(crate) mod kind;
mod lower;
mod msgpack;
mod rules;
mod text;
mod walk;

use error::{EncodeError, Step};
use fanwire_core::protocol::Encoding;
use json::Json;
use lower::Duration;
use msgpack::MessagePack;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rules::{Forms, Rules};
use walk::{Key, Sink, Walk};

/// How a hub writes objects.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Encoder(Rules);

/// The hub that has no options.
pub(crate) static DEFAULT: Encoder =
    Encoder(Rules { hook: None, has_msgpack: true, plain: Forms::PLAIN, hub: Forms::DOTNET });

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (*, hook = None, msgpack = true, decimal = None, duration = None))]
    fn new(hook: Option<Py<PyAny>>, msgpack: bool, decimal: Option<&str>, duration: Option<&str>) -> PyResult<Self> {
        let [plain, hub] = [Forms::PLAIN, Forms::DOTNET].map(|forms| forms.with(decimal, duration));
        Ok(Self(Rules { hook, has_msgpack: msgpack, plain: plain?, hub: hub? }))
    }

    /// `data` as JSON, for SignalR's clients with `hub`.
    #[pyo3(signature = (data, *, hub = false))]
    pub(crate) fn json<'py>(&self, data: &Bound<'py, PyAny>, hub: bool) -> PyResult<Bound<'py, PyBytes>> {
        let encoding = if hub { Encoding::HubJson } else { Encoding::Json };
        Ok(PyBytes::new(data.py(), &self.encode(data, encoding)?))
    }

    /// `data` as MessagePack, for SignalR's clients with `hub`.
    #[pyo3(signature = (data, *, hub = false))]
    pub(crate) fn msgpack<'py>(&self, data: &Bound<'py, PyAny>, hub: bool) -> PyResult<Bound<'py, PyBytes>> {
        let encoding = if hub { Encoding::HubMsgpack } else { Encoding::Msgpack };
        Ok(PyBytes::new(data.py(), &self.encode(data, encoding)?))
    }
}

/// What was written in one walk.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) json: Option<Vec<u8>>,
    pub(crate) msgpack: Option<Vec<u8>>,
    pub(crate) hub_json: Option<Vec<u8>>,
    pub(crate) hub_msgpack: Option<Vec<u8>>,
    /// SignalR's clients get what others get: of each two only one was written, for both.
    pub(crate) is_alike: bool,
}

impl Encoder {
    /// Whether MessagePack is one of the hub's formats.
    pub(crate) fn has_msgpack(&self) -> bool {
        self.0.has_msgpack
    }

    /// `object` in one encoding, after the same checks as for any.
    ///
    /// # Errors
    /// `UnsupportedType` and `UnsupportedValue` with the path, the same for every encoding; what Python code raises.
    pub(crate) fn encode(&self, object: &Bound<'_, PyAny>, encoding: Encoding) -> PyResult<Vec<u8>> {
        let result = match encoding {
            Encoding::Json => return self.json_of(object, self.0.plain),
            Encoding::HubJson => self.walk(object, Json::new(self.0.hub)).map(|(sink, _)| sink.out),
            Encoding::Msgpack => self.walk(object, MessagePack::new(self.0.plain)).map(|(sink, _)| sink.out),
            Encoding::HubMsgpack => self.walk(object, MessagePack::new(self.0.hub)).map(|(sink, _)| sink.out),
        };
        result.map_err(|error| self.explain(object, error))
    }

    /// `object` in the encodings that are asked for, in one walk.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub(crate) fn write(&self, object: &Bound<'_, PyAny>, wanted: &[Encoding]) -> PyResult<Written> {
        let wants = |encoding| wanted.contains(&encoding);
        let is_plain = wants(Encoding::Json) || wants(Encoding::Msgpack);
        let is_hub = wants(Encoding::HubJson) || wants(Encoding::HubMsgpack);
        let forms = if is_plain { self.0.plain } else { self.0.hub };
        let has_json = wants(Encoding::Json) || wants(Encoding::HubJson);
        let has_msgpack = wants(Encoding::Msgpack) || wants(Encoding::HubMsgpack);
        let written = match (has_json, has_msgpack) {
            (true, true) => self
                .walk(object, Pair(Json::new(forms), MessagePack::new(forms)))
                .map(|(Pair(json, msgpack), has_forms)| (Some(json.out), Some(msgpack.out), has_forms)),
            (false, true) => self
                .walk(object, MessagePack::new(forms))
                .map(|(msgpack, has_forms)| (None, Some(msgpack.out), has_forms)),
            _ => self.walk(object, Json::new(forms)).map(|(json, has_forms)| (Some(json.out), None, has_forms)),
        };
        let (json, msgpack, has_forms) = written.map_err(|error| self.explain(object, error))?;
        match (has_forms, is_plain && is_hub) {
            (false, _) => Ok(Written { json, msgpack, is_alike: true, ..Written::default() }),
            (true, true) => self.write_all(object),
            (true, false) if is_plain => Ok(Written { json, msgpack, ..Written::default() }),
            (true, false) => Ok(Written { hub_json: json, hub_msgpack: msgpack, ..Written::default() }),
        }
    }

    /// `object` in every encoding that the hub has, in one walk.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub(crate) fn write_all(&self, object: &Bound<'_, PyAny>) -> PyResult<Written> {
        let jsons = Pair(Json::new(self.0.plain), Json::new(self.0.hub));
        let written = if self.0.has_msgpack {
            let msgpacks = Pair(MessagePack::new(self.0.plain), MessagePack::new(self.0.hub));
            self.walk(object, Pair(jsons, msgpacks)).map(|(Pair(jsons, msgpacks), _)| (jsons, Some(msgpacks)))
        } else {
            self.walk(object, jsons).map(|(jsons, _)| (jsons, None))
        };
        let (Pair(json, hub_json), msgpacks) = written.map_err(|error| self.explain(object, error))?;
        let (msgpack, hub_msgpack) = msgpacks.map(|Pair(plain, hub)| (plain.out, hub.out)).unzip();
        Ok(Written { json: Some(json.out), hub_json: Some(hub_json.out), msgpack, hub_msgpack, is_alike: false })
    }

    fn json_of(&self, object: &Bound<'_, PyAny>, forms: Forms) -> PyResult<Vec<u8>> {
        match self.walk(object, Json::new(forms)) {
            Ok((sink, _)) => Ok(sink.out),
            Err(error) => Err(error.into_pyerr(object.py())),
        }
    }

    fn walk<S: Sink>(&self, object: &Bound<'_, PyAny>, sink: S) -> Result<(S, bool), EncodeError> {
        let mut walk = Walk::new(&self.0, sink);
        walk.walk(object, 0)?;
        Ok((walk.sink, walk.has_forms))
    }

    /// The exception for a refusal, its path as plain JSON has the keys, whatever was written.
    #[cold]
    fn explain(&self, object: &Bound<'_, PyAny>, error: EncodeError) -> PyErr {
        self.json_of(object, self.0.plain).err().unwrap_or_else(|| error.into_pyerr(object.py()))
    }
}

impl Written {
    /// Bytes of the longest.
    pub(crate) fn bytes(&self) -> usize {
        let all = [&self.json, &self.msgpack, &self.hub_json, &self.hub_msgpack];
        all.into_iter().flatten().map(Vec::len).max().unwrap_or(0)
    }

    /// How many times longer one of the other encodings can be, at most.
    ///
    /// From JSON: `0.5,` is four bytes, and nine in MessagePack. From MessagePack: a key `False` is one byte, and
    /// `"false":` eight.
    pub(crate) fn growth_max(&self) -> usize {
        if self.json.is_some() || self.hub_json.is_some() { 3 } else { 8 }
    }
}

/// Two formats in one pass, so that both have the same of an object whose Python code never says the same twice.
///
/// Whatever comes goes to both; a path is told by the first.
struct Pair<A, B>(A, B);

macro_rules! to_both {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $name(&mut self, $($argument: $kind),*) {
            self.0.$name($($argument),*);
            self.1.$name($($argument),*);
        })*
    };
}

impl<A: Sink, B: Sink> Sink for Pair<A, B> {
    const WANTS_SECONDS: bool = A::WANTS_SECONDS || B::WANTS_SECONDS;

    to_both! {
        null();
        boolean(value: bool);
        int(value: i64);
        unsigned(value: u64);
        digits(digits: &[u8]);
        float(value: f64);
        text(text: &[u8]);
        binary(bytes: &[u8]);
        instant(text: &[u8], since: (i64, u32));
        decimal(digits: &[u8]);
        duration(duration: &Duration);
        array_start(count: usize);
        item(index: usize);
        array_end();
        map_start(count: usize);
        text_key(index: usize, text: &[u8]);
        other_key(index: usize, key: &Key<'_>);
        map_end();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn step(&self, start: usize, end: usize) -> Step {
        self.0.step(start, end)
    }
}
