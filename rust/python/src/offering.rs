//! What a relay's clients are let do without Python, as Python says it: to open, and to join a lane by their first call.
//! Here are also messages that call, and that say how a call ended.
use std::borrow::Cow;

use fanwire_core::protocol::signalr::{HubMessage, Outcome};
use fanwire_core::{Engine as CoreEngine, OfferTerms, OfferedAnswer, OfferedCall, OwnerId};
use pyo3::prelude::*;

use crate::errors::to_pyerr;
use crate::routes::bad;
use crate::upstream::{protocol_of, seconds};

/// The number of the path's owner, hub protocol, method, arguments.
pub(crate) type Call<'a> = (u16, &'a str, &'a str, &'a [u8]);

/// Outcome and body, as `Upstream` has them.
pub(crate) type End<'a> = (&'a str, &'a [u8]);

/// Seconds for which any beginning is new enough, messages behind a snapshot, and the age of one later.
pub(crate) type Terms = (f64, Option<usize>, Option<f64>);

/// How a call ended, in the words of `Upstream.outcome`.
pub(crate) fn outcome_of<'a>(outcome: &str, body: &'a [u8]) -> Outcome<'a> {
    match outcome {
        "error" => Outcome::Error(String::from_utf8_lossy(body)),
        "void" => Outcome::Void,
        _ => Outcome::Result(body),
    }
}

pub(crate) fn invocation<'a>(id: Option<&'a str>, target: &'a str, arguments: &'a [u8]) -> HubMessage<'a> {
    let (id, target) = (id.map(Cow::Borrowed), Cow::Borrowed(target));
    HubMessage::Invocation { id, target, arguments, stream_ids: Vec::new() }
}

pub(crate) fn completion<'a>(id: &'a str, outcome: Outcome<'a>) -> HubMessage<'a> {
    HubMessage::Completion { id: Cow::Borrowed(id), outcome }
}

pub(crate) fn admit(
    py: Python<'_>,
    engine: &CoreEngine,
    owner: u16,
    headers: Vec<(String, String)>,
    valid_for: f64,
) -> PyResult<u64> {
    let bytes = |value: &str| value.chars().map(|one| u8::try_from(u32::from(one)).ok()).collect::<Option<Vec<u8>>>();
    let headers = headers.into_iter().map(|(name, value)| Some((name, bytes(&value)?))).collect::<Option<Vec<_>>>();
    let headers = headers.ok_or_else(|| bad("a header's value has a character beyond latin-1".to_owned()))?;
    let valid_for = seconds("valid_for", valid_for)?;
    engine.admit_alike(OwnerId(owner), headers, valid_for).map_err(|error| to_pyerr(py, error))
}

pub(crate) fn offer(
    py: Python<'_>,
    engine: &CoreEngine,
    lane: &str,
    (owner, protocol, target, arguments): Call<'_>,
    (outcome, body): End<'_>,
    (new_for, messages_max, age_max): Terms,
) -> PyResult<u64> {
    let call = OfferedCall { owner: OwnerId(owner), protocol: protocol_of(protocol)?, target, arguments };
    let answer = match outcome_of(outcome, body) {
        Outcome::Result(result) => OfferedAnswer::Result(result.into()),
        Outcome::Void => OfferedAnswer::Void,
        Outcome::Error(_) => return Err(bad("a call that was refused is no offer".to_owned())),
    };
    let age_max = age_max.map(|age_max| seconds("age_max", age_max)).transpose()?;
    let terms = OfferTerms { new_for: seconds("new_for", new_for)?, messages_max, age_max };
    engine.offer_lane(lane, call, answer, terms).map_err(|error| to_pyerr(py, error))
}
