//! Stateful reconnect's books: what is acked, what is sent again, what is skipped.
use fanwire_core::protocol::signalr::sequence::{ReceivedSequence, SentSequence, SequenceError, Verdict};
use proptest::prelude::*;

/// Captured: three results sent, two acked, the socket cut, `{"type":9,"sequenceId":3}` and the third again.
#[test]
fn a_sequence_says_the_first_message_that_is_not_acked() {
    let mut sent = SentSequence::new();
    assert_eq!((sent.sequence_id(), sent.unacked().count()), (1, 0));
    assert_eq!([(); 3].map(|()| sent.handle_sent()), [1, 2, 3]);
    assert_eq!(sent.handle_ack(2).map(Vec::from_iter), Ok(vec![1, 2]));
    assert_eq!(sent.sequence_id(), 3);
    assert_eq!(sent.unacked(), 3..=3);
    assert_eq!(sent.handle_ack(3).map(Vec::from_iter), Ok(vec![3]));
    assert_eq!(sent.sequence_id(), 4, "all are acked: the next");
    assert!(sent.unacked().is_empty());
}

#[test]
fn an_ack_of_what_is_acked_releases_nothing() {
    let mut sent = SentSequence::new();
    sent.handle_sent();
    sent.handle_sent();
    assert_eq!(sent.handle_ack(2).map(Iterator::count), Ok(2));
    for sequence_id in [2, 1, 0, -5, i64::MIN] {
        assert_eq!(sent.handle_ack(sequence_id).map(Iterator::count), Ok(0), "{sequence_id}");
        assert_eq!(sent.sequence_id(), 3);
    }
}

#[test]
fn an_ack_of_what_was_never_sent_is_an_error() {
    let mut sent = SentSequence::new();
    sent.handle_sent();
    let before = sent;
    let error = sent.handle_ack(2).unwrap_err();
    assert_eq!(error, SequenceError::AckAboveSent { sequence_id: 2, sent: 1 });
    assert_eq!(error.to_string(), "ack of message 2, only 1 were sent");
    assert_eq!(sent, before);
}

#[test]
fn an_ack_says_the_highest_message_once() {
    let mut received = ReceivedSequence::new();
    assert_eq!(received.poll_ack(), None);
    assert_eq!(received.handle_message(true), Verdict::Process);
    assert_eq!(received.handle_message(false), Verdict::Process);
    assert_eq!(received.handle_message(true), Verdict::Process);
    assert_eq!(received.poll_ack(), Some(2));
    assert_eq!(received.poll_ack(), None);
}

#[test]
fn after_a_reconnect_all_is_skipped_up_to_the_sequence_and_then_what_was_had() {
    let mut received = ReceivedSequence::new();
    for _ in 0..4 {
        assert_eq!(received.handle_message(true), Verdict::Process);
    }
    received.handle_reconnected();
    assert_eq!(received.handle_message(true), Verdict::Skip);
    assert_eq!(received.handle_message(false), Verdict::Skip);
    assert_eq!(received.handle_sequence(3), Ok(()));
    assert_eq!([(); 3].map(|()| received.handle_message(true)), [Verdict::Skip, Verdict::Skip, Verdict::Process]);
    assert_eq!(received.poll_ack(), Some(5));
}

/// Captured: a server that was not told to wait numbers what comes before the Sequence, and answers it.
#[test]
fn without_a_word_of_the_reconnect_what_comes_before_the_sequence_counts() {
    let mut received = ReceivedSequence::new();
    for _ in 0..3 {
        assert_eq!(received.handle_message(true), Verdict::Process);
    }
    assert_eq!(received.handle_message(true), Verdict::Process, "before the Sequence");
    assert_eq!(received.handle_sequence(3), Ok(()));
    assert_eq!([(); 2].map(|()| received.handle_message(true)), [Verdict::Skip, Verdict::Skip]);
    assert_eq!(received.poll_ack(), Some(4));
}

#[test]
fn a_sequence_above_the_counter_is_an_error() {
    let mut received = ReceivedSequence::new();
    assert_eq!(received.handle_sequence(1), Ok(()));
    assert_eq!(received.handle_message(true), Verdict::Process);
    received.handle_reconnected();
    let before = received;
    let error = received.handle_sequence(3).unwrap_err();
    assert_eq!(error, SequenceError::AboveNext { sequence_id: 3, next_id: 2 });
    assert_eq!(error.to_string(), "sequence begins at message 3, expected at most 2");
    assert_eq!(received, before);
    assert_eq!(received.handle_sequence(2), Ok(()));
    assert_eq!(received.handle_message(true), Verdict::Process);
}

/// Where the reference ends the connection.
#[test]
fn a_reconnect_after_an_ack_within_a_replay_goes_on() {
    let mut received = ReceivedSequence::new();
    assert_eq!([(); 2].map(|()| received.handle_message(true)), [Verdict::Process; 2]);
    received.handle_reconnected();
    assert_eq!(received.handle_sequence(1), Ok(()));
    assert_eq!(received.poll_ack(), Some(2));
    received.handle_reconnected();
    assert_eq!(received.handle_sequence(3), Ok(()));
    assert_eq!(received.handle_message(true), Verdict::Process);
    assert_eq!(received.poll_ack(), Some(3));
}

/// Else a client that keeps what is not acked, and sends nothing while that is too much, would wait for ever.
#[test]
fn an_ack_that_was_lost_is_said_again_on_the_new_connection() {
    let mut received = ReceivedSequence::new();
    assert_eq!([(); 3].map(|()| received.handle_message(true)), [Verdict::Process; 3]);
    assert_eq!(received.poll_ack(), Some(3));
    assert!(!received.owes_ack());
    assert_eq!(received.handle_sequence(2), Ok(()));
    assert!(received.owes_ack());
    assert_eq!((received.poll_ack(), received.poll_ack()), (Some(3), None));
}

#[test]
fn a_sequence_below_the_first_message_is_taken_as_the_reference_does() {
    let mut received = ReceivedSequence::new();
    assert_eq!(received.handle_message(true), Verdict::Process);
    assert_eq!(received.handle_sequence(-1), Ok(()));
    let verdicts = [(); 4].map(|()| received.handle_message(true));
    assert_eq!(verdicts, [Verdict::Skip, Verdict::Skip, Verdict::Skip, Verdict::Process]);
    assert_eq!(received.handle_sequence(i64::MIN), Ok(()));
    assert_eq!(received.handle_message(true), Verdict::Skip);
}

/// What happens on a connection, with the messages themselves.
#[derive(Clone, Debug)]
enum Step {
    Send,
    /// Up to so many messages under way arrive.
    Arrive(usize),
    /// The receiver says what it has.
    Ack,
    /// What is under way is lost, and both ends begin again.
    Reconnect,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        4 => (0..6_usize).prop_map(Step::Arrive),
        1 => Just(Step::Ack),
        1 => Just(Step::Reconnect),
    ]
}

/// What is under way.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Message(i64),
    Sequence(i64),
}

proptest! {
    #[test]
    fn each_message_is_processed_once_and_in_order(steps in prop::collection::vec(any_step(), 0..100)) {
        let (mut sent, mut received) = (SentSequence::new(), ReceivedSequence::new());
        let mut under_way = std::collections::VecDeque::new();
        let mut kept = std::collections::BTreeSet::new();
        let mut processed = Vec::new();
        let mut total = 0;
        for step in steps.into_iter().chain([Step::Reconnect, Step::Arrive(usize::MAX)]) {
            match step {
                Step::Send => {
                    total = sent.handle_sent();
                    kept.insert(total);
                    under_way.push_back(Sent::Message(total));
                }
                Step::Arrive(count) => for arrived in under_way.drain(..count.min(under_way.len())) {
                    match arrived {
                        Sent::Sequence(id) => received.handle_sequence(id).unwrap(),
                        Sent::Message(id) => if received.handle_message(true) == Verdict::Process {
                            processed.push(id);
                        },
                    }
                },
                Step::Ack => if let Some(id) = received.poll_ack() {
                    for released in sent.handle_ack(id).unwrap() {
                        prop_assert!(kept.remove(&released));
                    }
                },
                Step::Reconnect => {
                    received.handle_reconnected();
                    under_way.clear();
                    under_way.push_back(Sent::Sequence(sent.sequence_id()));
                    prop_assert!(sent.unacked().eq(kept.iter().copied()));
                    under_way.extend(sent.unacked().map(Sent::Message));
                }
            }
        }
        prop_assert_eq!(processed, Vec::from_iter(1..=total));
    }
}
