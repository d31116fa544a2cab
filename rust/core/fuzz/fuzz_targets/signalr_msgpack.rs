//! Invariant: a stream of MessagePack records gives the same whole and cut, and what is read reads the same once
//! written.
#![no_main]
mod signalr_stream;

use fanwire_core::protocol::signalr::HubProtocol;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| signalr_stream::check(HubProtocol::MessagePack, input, |_, _| ()));
