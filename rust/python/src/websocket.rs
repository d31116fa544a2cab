//! One WebSocket whose socket is a Python program's: its handshake, what comes of its bytes, and frames to send.
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use fanwire_core::http::{forgery, parse_head, write_own_head, write_response};
use fanwire_core::ws::{
    Codec, DeflateAgreement, Deflater, Opcode, Received, Upgrade, offered_subprotocols, read_upgrade, write_accept,
    write_close, write_header,
};
use fanwire_core::{CLOSE_CODES, CloseCode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::buffer;

thread_local! {
    /// One for all connections of a thread: none takes its context over.
    static DEFLATER: RefCell<Deflater> = RefCell::default();
}

/// Names and values of headers, as ASGI has them.
type Headers<'py> = Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

/// What the handshake itself writes.
const HANDSHAKE_HEADERS: [&str; 4] = ["connection", "sec-websocket-accept", "sec-websocket-extensions", "upgrade"];

/// A request that asks rightly for a WebSocket.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct WebSocketHandshake {
    #[pyo3(get)]
    raw_path: Py<PyBytes>,
    #[pyo3(get)]
    query: Py<PyBytes>,
    #[pyo3(get)]
    headers: Py<PyList>,
    #[pyo3(get)]
    subprotocols: Vec<String>,
    upgrade: Upgrade,
    deflate: Option<DeflateAgreement>,
}

/// A ping, to be answered by a pong of the same payload.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct Ping {
    payload: Py<PyBytes>,
}

/// A pong.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct Pong {
    payload: Py<PyBytes>,
}

/// The peer's Close frame, the last that is heard.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct CloseFrame {
    code: u16,
    reason: String,
}

/// The peer's misdeed: nothing is heard behind it.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct Misdeed {
    code: u16,
    reason: String,
}

/// The state of a WebSocket after its handshake.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct WebSocketCodec(Mutex<Codec>);

/// A request's whole head, read; or the response that refuses it.
#[pyfunction]
#[pyo3(signature = (head, *, deflates))]
fn read_handshake<'py>(py: Python<'py>, head: &[u8], deflates: bool) -> PyResult<Bound<'py, PyAny>> {
    let refusal = |status: u16, headers: &[(&str, &str)], text: String| {
        let mut out = Vec::new();
        write_response(&mut out, status, headers, "text/plain; charset=utf-8", text.as_bytes(), false);
        Ok(PyBytes::new(py, &out).into_any())
    };
    let read = match parse_head(head, head.len()) {
        Ok(Some((read, _))) => read,
        Ok(None) => return refusal(400, &[], "the head of the request is not whole".to_owned()),
        Err(error) => return refusal(error.status(), &[], error.to_string()),
    };
    let upgrade = match read_upgrade(&read) {
        Ok(upgrade) => upgrade,
        Err(error) => return refusal(error.status(), error.headers(), error.to_string()),
    };
    let pairs = read
        .headers
        .iter()
        .map(|&(name, value)| (PyBytes::new(py, name.to_ascii_lowercase().as_bytes()), PyBytes::new(py, value)));
    let extensions = deflates.then(|| read.headers_named("sec-websocket-extensions"));
    let handshake = WebSocketHandshake {
        raw_path: PyBytes::new(py, read.path.as_bytes()).unbind(),
        query: PyBytes::new(py, read.query.unwrap_or_default().as_bytes()).unbind(),
        headers: PyList::new(py, pairs.collect::<Vec<_>>())?.unbind(),
        subprotocols: offered_subprotocols(&read).map(str::to_owned).collect(),
        upgrade,
        deflate: extensions.and_then(DeflateAgreement::negotiate),
    };
    Ok(Bound::new(py, handshake)?.into_any())
}

/// The head of a response with these headers and no others.
#[pyfunction]
fn response_head<'py>(py: Python<'py>, status: u16, headers: Headers<'py>) -> PyResult<Bound<'py, PyBytes>> {
    let headers = checked(&headers)?;
    let mut out = Vec::new();
    write_own_head(&mut out, status, &borrowed(&headers));
    Ok(PyBytes::new(py, &out))
}

#[pymethods]
impl WebSocketHandshake {
    #[getter]
    fn deflates(&self) -> bool {
        self.deflate.is_some()
    }

    fn accept<'py>(
        &self,
        py: Python<'py>,
        subprotocol: Option<&str>,
        headers: Headers<'py>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut headers = checked(&headers)?;
        if let Some((name, _)) = headers.iter().find(|(name, _)| HANDSHAKE_HEADERS.contains(&&**name)) {
            return Err(PyValueError::new_err(format!("header {name:?} is the handshake's own to set")));
        }
        if let Some(why) = subprotocol.and_then(|name| forgery(name, name.as_bytes())) {
            return Err(PyValueError::new_err(format!("subprotocol {subprotocol:?} {why}")));
        }
        if let Some(agreement) = &self.deflate {
            headers.push(("sec-websocket-extensions".to_owned(), agreement.answer().into_bytes()));
        }
        let mut out = Vec::new();
        write_accept(&mut out, &self.upgrade, subprotocol, &borrowed(&headers));
        Ok(PyBytes::new(py, &out))
    }

    fn codec(&self, message_bytes_max: usize) -> WebSocketCodec {
        WebSocketCodec(Mutex::new(Codec::new(message_bytes_max, self.deflate)))
    }
}

#[pymethods]
impl WebSocketCodec {
    fn receive<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        messages_max: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let copied;
        let bytes = match data.cast::<PyBytes>() {
            Ok(bytes) => bytes.as_bytes(),
            Err(_) => {
                copied = buffer::copy(data)?;
                &copied
            }
        };
        let heard = PyList::empty(py);
        let mut result = Ok(());
        let mut codec = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = codec.receive(bytes, messages_max, |received| {
            if result.is_ok() {
                result = to_python(py, received).and_then(|event| heard.append(event));
            }
        });
        result?;
        if let Err(error) = end {
            heard.append(Bound::new(py, Misdeed { code: error.close_code().0, reason: error.to_string() })?)?;
        }
        Ok(heard)
    }

    #[getter]
    fn has_rest(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_rest()
    }

    fn text<'py>(&self, py: Python<'py>, text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(self.frame(py, Opcode::Text, text.to_str()?.as_bytes()))
    }

    fn binary<'py>(&self, py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        match data.cast::<PyBytes>() {
            Ok(bytes) => Ok(self.frame(py, Opcode::Binary, bytes.as_bytes())),
            Err(_) => Ok(self.frame(py, Opcode::Binary, &buffer::copy(data)?)),
        }
    }

    #[staticmethod]
    fn ping<'py>(py: Python<'py>, payload: &[u8]) -> Bound<'py, PyBytes> {
        control(py, Opcode::Ping, payload)
    }

    #[staticmethod]
    fn pong<'py>(py: Python<'py>, payload: &[u8]) -> Bound<'py, PyBytes> {
        control(py, Opcode::Pong, payload)
    }

    #[staticmethod]
    #[pyo3(signature = (code, reason = ""))]
    fn close<'py>(py: Python<'py>, code: Option<u16>, reason: &str) -> PyResult<Bound<'py, PyBytes>> {
        let code = CloseCode(code.unwrap_or(CloseCode::NO_STATUS.0));
        if code != CloseCode::NO_STATUS && !code.may_be_sent() {
            return Err(PyValueError::new_err(format!("close code {code} is not {CLOSE_CODES}")));
        }
        let mut out = Vec::new();
        write_close(&mut out, code, reason);
        Ok(PyBytes::new(py, &out))
    }
}

impl WebSocketCodec {
    fn frame<'py>(&self, py: Python<'py>, opcode: Opcode, payload: &[u8]) -> Bound<'py, PyBytes> {
        let mut out = Vec::new();
        let codec = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        DEFLATER.with_borrow_mut(|deflater| codec.write_message(opcode, payload, deflater, &mut out));
        PyBytes::new(py, &out)
    }
}

fn to_python<'py>(py: Python<'py>, received: Received<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match received {
        Received::Text(text) => PyString::new(py, text).into_any(),
        Received::Binary(bytes) => PyBytes::new(py, bytes).into_any(),
        Received::Ping(bytes) => Bound::new(py, Ping { payload: PyBytes::new(py, bytes).unbind() })?.into_any(),
        Received::Pong(bytes) => Bound::new(py, Pong { payload: PyBytes::new(py, bytes).unbind() })?.into_any(),
        Received::Close { code, reason } => {
            let code = code.unwrap_or(CloseCode::NO_STATUS).0;
            Bound::new(py, CloseFrame { code, reason: reason.to_owned() })?.into_any()
        }
    })
}

fn control<'py>(py: Python<'py>, opcode: Opcode, payload: &[u8]) -> Bound<'py, PyBytes> {
    let mut out = Vec::with_capacity(2 + payload.len());
    write_header(&mut out, opcode, payload.len());
    out.extend_from_slice(payload);
    PyBytes::new(py, &out)
}

/// Headers that forge no others, with names in lower case.
fn checked(headers: &Headers<'_>) -> PyResult<Vec<(String, Vec<u8>)>> {
    let copied = |value: &Bound<'_, PyAny>| match value.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => buffer::copy(value),
    };
    let read = |(name, value): &(Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let name = String::from_utf8_lossy(&copied(name)?).to_ascii_lowercase();
        let value = copied(value)?;
        match forgery(&name, &value) {
            Some(why) => Err(PyValueError::new_err(format!("header {name:?} {why}"))),
            None => Ok((name, value)),
        }
    };
    headers.iter().map(read).collect()
}

fn borrowed(headers: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (&**name, &**value)).collect()
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_handshake, module)?)?;
    module.add_function(wrap_pyfunction!(response_head, module)?)?;
    module.add_class::<CloseFrame>()?;
    module.add_class::<Misdeed>()?;
    module.add_class::<Ping>()?;
    module.add_class::<Pong>()?;
    module.add_class::<WebSocketCodec>()?;
    module.add_class::<WebSocketHandshake>()
}
