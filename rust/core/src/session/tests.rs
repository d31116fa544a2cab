//! The table at the head of the room, row by row; what messages lead to, however their frames are cut.
use std::sync::Arc;

use super::signalr::{Due as SignalRDue, Patience, Record, RecordTerms};
use super::*;
use crate::channel::View;
use crate::http::Body;
use crate::messages::{ConnectionId, Event, Request, Whose};
use crate::protocol::Format;
use crate::protocol::signalr::HubProtocol;
use crate::protocol::signalr::handshake::{HandshakeError, parse_request};
use crate::routes::{Asks, OwnerId, Wire};

fn id() -> ConnectionId {
    ConnectionId::new(0, 0, 0, 7)
}

fn made(change: impl FnOnce(&mut Session)) -> Session {
    let mut session = Session::default();
    change(&mut session);
    session
}

fn asked(is_plain: bool) -> Session {
    made(|session| session.ask(Asked { is_plain, ..Asked::default() }))
}

fn carrying(is_poll: bool) -> Session {
    let carrier = Carrier { to: id(), body: Body::NONE, expects_continue: false, keeps_alive: true, readable_by: None };
    made(|session| session.carry(carrier, is_poll))
}

fn coming() -> Session {
    let (wire, peer) = (Wire::Request, "unix:".to_owned());
    let (method, target, headers) = ("POST".to_owned(), "/".to_owned(), Vec::new());
    let request = Request {
        method,
        target,
        headers,
        peer,
        channels: Vec::new(),
        view: View::default(),
        wire,
        subprotocols: Vec::new(),
    };
    let (asked, body, content) = (Asked { is_plain: true, ..Asked::default() }, Body::Length(1), Vec::new());
    made(|session| session.take_in(Incoming { request: Box::new(request), asked, body, content }))
}

fn signalr(transport: Transport, is_stateful: bool) -> Session {
    made(|session| {
        let mut signalr = SignalR::new(transport, [1; 16]);
        signalr.has_shaken_hands = true;
        signalr.stateful = is_stateful.then(Box::default);
        session.open_signalr(signalr);
    })
}

fn websocket() -> Session {
    made(|session| session.open_websocket(false))
}

/// What bytes are, what its time brings, whether an answer is owed behind the peer's half, how an end begins, whether
/// publications are for it and go to its own socket.
type Row = (Reads, Due, bool, Farewell, (bool, bool));

#[test]
fn every_row_of_the_table() {
    use {Due as D, Farewell as F, Reads as R};
    let (none, own, kept) = ((false, false), (true, true), (true, false));
    let rows: Vec<(&str, Session, Row)> = vec![
        ("a head", Session::default(), (R::Head, D::Drop, true, F::Silent, none)),
        (
            "half a head",
            made(|session| session.keep_partial_head(b"GET".to_vec())),
            (R::Head, D::Refuse, true, F::Silent, none),
        ),
        ("asked for a stream", asked(false), (R::Later, D::Refuse, false, F::Silent, none)),
        ("asked for an answer", asked(true), (R::Later, D::Refuse, true, F::Silent, none)),
        ("a body comes", coming(), (R::Wanted, D::Refuse, false, F::Silent, none)),
        ("posting", carrying(false), (R::Body, D::Refuse, false, F::Silent, none)),
        ("polling", carrying(true), (R::Later, D::EmptyPoll, false, F::Silent, none)),
        ("raw", websocket(), (R::Frames, D::Ping, false, F::CloseFrame, own)),
        ("plain", made(|session| session.open_websocket(true)), (R::Frames, D::Ping, false, F::CloseFrame, own)),
        ("stream", made(Session::open_event_stream), (R::Nothing, D::Comment, false, F::Silent, own)),
        (
            "adopted",
            made(|session| session.adopt(Adopted::new(Arc::default(), 0))),
            (R::Nothing, D::Drop, false, F::Silent, own),
        ),
        ("SignalR", signalr(Transport::WebSockets, false), (R::Frames, D::SignalR, false, F::CloseFrame, own)),
        (
            "SignalR's stream",
            signalr(Transport::ServerSentEvents, false),
            (R::Nothing, D::SignalR, false, F::Silent, own),
        ),
        ("polled", signalr(Transport::LongPolling, false), (R::Later, D::SignalR, false, F::ByPoll, kept)),
        (
            "detached",
            {
                let mut session = signalr(Transport::WebSockets, true);
                assert!(session.detach() && !session.detach());
                session
            },
            (R::Nothing, D::SignalR, false, F::Silent, kept),
        ),
        (
            "closing",
            {
                let mut session = websocket();
                session.end();
                session
            },
            (R::LastFrames, D::Drop, false, F::Begun, none),
        ),
        ("over", made(|session| session.finish_request(false)), (R::Rest, D::Drop, true, F::Silent, none)),
        (
            "over, once open",
            made(|session| {
                session.open_event_stream();
                session.end();
            }),
            (R::Rest, D::Drop, false, F::Silent, none),
        ),
    ];
    for (name, mut session, expected) in rows {
        let takes = (session.takes_publications(), session.writes_publications());
        let reads = session.reads();
        let due = session.handle_timeout(Held::default());
        let is_owed = session.handle_end_of_stream(true);
        assert_eq!((reads, due, is_owed, session.end(), takes), expected, "{name}");
        assert!(!session.takes_publications() && session.end() != Farewell::CloseFrame, "{name} has ended");
    }
}

#[test]
fn who_says_nothing_is_pinged_and_then_given_up() {
    let (quiet, full) = (Held::default(), Held { is_blocked: true, ..Held::default() });
    let mut session = websocket();
    assert_eq!([session.handle_timeout(quiet), session.handle_timeout(quiet)], [Due::Ping, Due::Silent]);
    assert!(session.handle_received(), "silence counts from here");
    assert_eq!(session.handle_timeout(quiet), Due::Ping);
    let unread = Held { is_unread: true, ..full };
    assert_eq!(session.handle_timeout(unread), Due::Probe, "its pong may wait among what is not read");
    let mut stream = made(Session::open_event_stream);
    assert_eq!([stream.handle_timeout(quiet), stream.handle_timeout(full)], [Due::Comment, Due::Patience]);
    stream.handle_taken(1);
    assert_eq!([stream.handle_timeout(full), stream.handle_timeout(full)], [Due::Patience, Due::Stuck]);
}

#[test]
fn what_is_asked_is_answered_by_who_may() {
    let mut plain = asked(true);
    assert!(plain.take_asked(false).is_none() && plain.asked().is_some(), "an opening's answer is none to it");
    assert!(plain.take_asked(true).is_some() && plain.take_asked(true).is_none());
    let mut poll = carrying(true);
    assert!(poll.take_carrier(false).is_none() && poll.poll().is_some());
    assert!(poll.take_carrier(true).is_some() && poll.poll().is_none());
}

/// A client's frame.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [9, 8, 7, 6];
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x80 | opcode, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

/// What a stream of frames leads to, handed over in pieces of `step` bytes.
fn heard(session: &mut Session, asks: Asks, bytes: &[u8], step: usize) -> (Vec<Heard>, String) {
    let whose = Whose { connection: id(), owner: OwnerId(0) };
    let terms = Terms { whose, asks, message_bytes_max: 1_000, inflates: false };
    let (mut all, mut out) = (Vec::new(), Vec::new());
    for piece in bytes.to_vec().chunks_mut(step) {
        let mut at = 0;
        while at < piece.len() {
            let (taken, heard) = session.handle_frames(&mut piece[at..], terms, &mut out);
            at += taken;
            all.extend(heard);
        }
    }
    (all, String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn messages_of_the_raw_protocol_mean_the_same_however_they_are_cut() {
    let texts = [
        &br#"{"subscribe":["a"],"since":{"a":[9,1]},"id":1}"#[..],
        br#"{"unsubscribe":["a"]}"#,
        br#"{"call":"add","args":[1],"id":"x"}"#,
        br#"{"subscribe":["a"],"start":"nowhere"}"#,
        b"hello",
        b"hello again",
    ];
    let mut bytes: Vec<u8> = texts.iter().flat_map(|text| frame(1, text)).collect();
    bytes.extend([frame(9, b"?"), frame(2, b"\x01"), frame(8, b"")].concat());
    let takes_all = Asks { messages: true, subscribing: true, ..Asks::default() };
    for step in [1, 2, 7, bytes.len()] {
        let (seen, out) = heard(&mut websocket(), Asks::default(), &bytes, step);
        assert!(
            matches!(
                &seen[..],
                [
                    Heard::Subscribe(names, Some(_), wanted),
                    Heard::Unsubscribe(_, None),
                    Heard::Event(Event::Call(..)),
                    Heard::Answered, // nowhere
                    Heard::Answered, // what it may send, once
                    Heard::Answered, // the pong
                    Heard::Close(None, _),
                ] if names == &["a"] && wanted.is_told && wanted.since.len() == 1
            ),
            "{seen:?}"
        );
        assert!(out.contains("nowhere") && out.matches("this is no request").count() == 1, "{out}");
        let (seen, _) = heard(&mut websocket(), takes_all, &bytes, step);
        let is_expected = matches!(
            &seen[..],
            [
                Heard::Event(Event::Subscribing(..)),
                Heard::Unsubscribe(..),
                Heard::Event(Event::Call(..)),
                Heard::Answered,
                Heard::Event(Event::Text(_, first)),
                Heard::Event(Event::Text(..)),
                Heard::Answered,
                Heard::Event(Event::Binary(..)),
                Heard::Close(..),
            ] if first == "hello"
        );
        assert!(is_expected, "{seen:?}");
        let mut plain = made(|session| session.open_websocket(true));
        let (seen, _) = heard(&mut plain, Asks::default(), &bytes, step);
        let passed_on = seen.iter().filter(|one| matches!(one, Heard::Event(Event::Relayed(..)))).count();
        assert_eq!((seen.len(), passed_on), (9, 7));
    }
}

#[test]
fn who_breaks_a_rule_is_heard_no_more() {
    let mut session = websocket();
    let (seen, _) = heard(&mut session, Asks::default(), &[0x81, 0x01, b'x'], 3); // no mask
    assert!(matches!(&seen[..], [Heard::Broken(_)]), "{seen:?}");
    assert!(session.fail() && !session.fail() && session.reads() == Reads::Rest);
    let mut closing = websocket();
    assert_eq!(closing.end(), Farewell::CloseFrame);
    assert_eq!(closing.handle_last_frames(&mut frame(1, b"late"), 1_000), Some((10, false)));
    assert_eq!(closing.handle_last_frames(&mut frame(8, b""), 1_000), Some((6, true)));
    assert!(closing.handle_close() && !closing.handle_close(), "it answers ours, once");
}

const RECORDS: RecordTerms =
    RecordTerms { protocol: HubProtocol::Json, bytes_max: 1_000, is_relayed: false, has_msgpack: false };

#[test]
fn a_signalr_client_shakes_hands_first_and_its_records_come_however_they_are_cut() {
    let stream = b"{\"protocol\":\"json\",\"version\":1}\x1e{\"type\":6}\x1e\
                   {\"type\":1,\"target\":\"add\",\"arguments\":[1]}\x1e{\"type\":7}\x1e{\"type\":99}\x1e]\x1e";
    for step in [1, 5, stream.len()] {
        let mut signalr = SignalR::new(Transport::WebSockets, [1; 16]);
        let mut seen = Vec::new();
        for piece in stream.chunks(step) {
            let mut at = 0;
            while at < piece.len() {
                let (taken, record) = signalr.handle_records(&piece[at..], 5, RECORDS);
                at += taken;
                if let Some(Record::Handshake(Ok(request))) = &record {
                    assert_eq!(signalr.shake_hands(request), Ok((Format::HubJson, false)));
                }
                seen.extend(record);
            }
        }
        let is_expected = matches!(
            &seen[..],
            [
                Record::Handshake(Ok(_)),
                Record::Ping,
                Record::Message(message),
                Record::Goodbye,
                Record::Skipped,
                Record::Broken(_),
            ] if message.target == "add" && message.body == b"[1]" && message.record.is_none()
        );
        assert!(is_expected, "{seen:?}");
        assert!(signalr.is_between_records() && signalr.heard_tick == 5);
    }
    let request = parse_request(b"{\"protocol\":\"messagepack\",\"version\":1}", &[HubProtocol::MessagePack]);
    let mut stream = SignalR::new(Transport::ServerSentEvents, [1; 16]);
    let refused = stream.shake_hands(&request.expect("a handshake"));
    assert_eq!(refused, Err(HandshakeError::UnsupportedFormat), "an event stream is text");
}

/// Both ping every 15 s, at other times at first: from the client's first ping on ours goes out with it, and only then.
#[test]
fn pings_of_the_same_pace_go_out_together() {
    let patience = Patience { step: 5, keepalive: 150, client_timeout: 300 };
    let mut signalr = SignalR::new(Transport::WebSockets, [1; 16]);
    (signalr.has_shaken_hands, signalr.heard_tick, signalr.ping_tick) = (true, 173, 250);
    signalr.pace.handle_ping(173, 150);
    assert!(signalr.answers_ping(173, patience));
    for round in 1..40 {
        let (begins, ends) = (170 + 150 * round, 180 + 150 * round);
        assert_eq!(signalr.poll_timeout(patience), begins.min(signalr.ping_tick.next_multiple_of(5)));
        signalr.pace.hush(true);
        assert_eq!(signalr.handle_silence(begins, patience, true), SignalRDue::Nothing);
        assert_eq!(signalr.poll_timeout(patience), ends);
        signalr.heard_tick = ends;
        signalr.pace.handle_expected();
        assert!(signalr.pace.unhush() && signalr.answers_ping(ends, patience));
    }
    signalr.handle_written(6_040, patience);
    assert!(!signalr.answers_ping(6_045, patience), "a publication went out just now");
    let mut eager = SignalR::new(Transport::WebSockets, [1; 16]);
    (eager.has_shaken_hands, eager.ping_tick) = (true, 150);
    let answered = (0..=300).step_by(10).filter(|&tick| {
        eager.pace.handle_ping(tick, 10);
        eager.answers_ping(tick, patience)
    });
    assert_eq!(answered.count(), 2, "one that pings every second is not pinged more often than others");
}

#[test]
fn a_signalr_client_is_pinged_acknowledged_and_given_up_in_time() {
    let patience = Patience { step: 5, keepalive: 150, client_timeout: 300 };
    let mut signalr = SignalR::new(Transport::WebSockets, [1; 16]);
    assert_eq!(signalr.handle_timeout(), SignalRDue::RefuseHandshake);
    signalr.has_shaken_hands = true;
    assert_eq!(signalr.handle_timeout(), SignalRDue::Upkeep);
    (signalr.heard_tick, signalr.ping_tick) = (10, 160);
    assert_eq!(signalr.poll_timeout(patience), 160);
    assert_eq!(signalr.handle_silence(400, patience, true), SignalRDue::Ping, "it has promised nothing");
    assert_eq!((signalr.ping_tick, signalr.poll_timeout(patience)), (550, 550));
    signalr.stateful = Some(Box::default());
    signalr.stateful.as_mut().expect("it has books").owe_ack(410);
    assert_eq!(signalr.poll_timeout(patience), 410);
    assert_eq!(signalr.handle_silence(410, patience, true), SignalRDue::Ack);
    signalr.pace.handle_ping(410, 0);
    assert_eq!(signalr.handle_silence(709, patience, false), SignalRDue::Ack, "its pings may wait to be read");
    signalr.stateful = None;
    assert_eq!(signalr.handle_silence(1_008, patience, true), SignalRDue::Ping);
    assert_eq!(signalr.handle_silence(1_009, patience, true), SignalRDue::Nothing, "never early");
    assert_eq!(signalr.handle_silence(1_010, patience, true), SignalRDue::Silent);
    let mut polled = SignalR::new(Transport::LongPolling, [1; 16]);
    polled.has_shaken_hands = true;
    assert_eq!(polled.handle_timeout(), SignalRDue::NoPoll);
}
