use super::*;

const EPOCH: u64 = 1 << 51;

fn at(offset: u64) -> Position {
    Position { epoch: EPOCH, offset }
}

fn record(offset: u64) -> Record {
    Record { previous: at(offset - 1), position: at(offset), published_ms: 0, bytes: vec![0; 9] }
}

fn question(after: Position) -> Question {
    Question { channel: "ca".into(), after, limit: 1_024 }
}

fn begun(id: u64, recovered: Option<bool>, position: u64, newest: u64) -> String {
    let recovered = recovered.map_or(json!({}), |is| json!({ "a": is }));
    let result = json!({
        "subscribed": ["a"], "recovered": recovered, "positions": {"a": [EPOCH, position]}, "newest": {"a": [EPOCH, newest]},
    });
    json!({ "id": id, "result": result }).to_string()
}

/// What was told, in short.
fn told(following: &mut Following) -> Vec<String> {
    let short = |event: Event| match event {
        Event::Wanted { top, .. } => format!("wanted {}", top.offset),
        Event::Record { record, .. } => format!("record {}", record.position.offset),
        Event::Since { after, records, top, is_whole, .. } => {
            let offsets: Vec<_> = records.iter().map(|one| one.position.offset).collect();
            format!("since {} {offsets:?} {} {is_whole}", after.offset, top.offset)
        }
        Event::SinceFailed { .. } => "failed".to_owned(),
        Event::Unheard { reason, .. } => format!("unheard {reason}"),
        other => format!("{other:?}"),
    };
    following.take().0.into_iter().map(short).collect()
}

fn requests(following: &mut Following) -> Vec<String> {
    std::iter::from_fn(|| following.next_request()).collect()
}

#[test]
fn what_is_kept_is_the_answer_to_the_question_and_what_follows_is_news() {
    let mut following = Following::default();
    following.want("a", None);
    assert_eq!(requests(&mut following), [r#"{"id":1,"since":{},"start":"history","subscribe":["a"]}"#]);
    assert_eq!(following.text(&begun(1, None, 3, 5)), None);
    assert_eq!(told(&mut following), ["wanted 5"]);
    following.record("a", record(4));
    following.ask("a", question(Position { epoch: 7, offset: 0 }));
    assert_eq!(told(&mut following), [""; 0]);
    following.record("a", record(5));
    following.record("a", record(6));
    assert_eq!(told(&mut following), ["since 0 [4, 5] 5 false", "record 6"]);
}

#[test]
fn a_channel_of_which_nothing_is_kept_is_level_at_once() {
    let mut following = Following::default();
    following.want("a", Some(at(5)));
    requests(&mut following);
    following.text(&begun(1, Some(true), 5, 5));
    following.ask("a", question(at(5)));
    assert_eq!(told(&mut following), ["wanted 5", "since 5 [] 5 false"]);
    following.record("a", record(6));
    assert_eq!(told(&mut following), ["record 6"]);
}

#[test]
fn where_something_is_missing_it_is_asked_for_and_nothing_of_the_earlier_subscription_counts() {
    let mut following = Following::default();
    following.want("a", Some(at(5)));
    requests(&mut following);
    following.text(&begun(1, Some(true), 5, 5));
    following.record("a", record(9));
    following.ask("a", question(at(5)));
    let asked = requests(&mut following);
    assert_eq!(asked[0], r#"{"unsubscribe":["a"]}"#);
    assert!(asked[1].contains(&format!("\"since\":{{\"a\":[{EPOCH},5]}}")), "{}", asked[1]);
    following.record("a", record(10));
    following.text(&begun(2, Some(true), 5, 7));
    (6..=8).for_each(|offset| following.record("a", record(offset)));
    assert_eq!(told(&mut following), ["wanted 5", "record 9", "since 5 [6, 7] 7 true", "record 8"]);
}

#[test]
fn an_answer_that_never_reaches_the_newest_is_over_when_nothing_comes() {
    let mut following = Following::default();
    following.want("a", None);
    requests(&mut following);
    following.text(&begun(1, None, 3, 9));
    following.ask("a", question(at(0)));
    following.record("a", record(4));
    (0..QUIET_TICKS).for_each(|_| following.tick());
    assert_eq!(told(&mut following), ["wanted 9", "since 0 [4] 4 false"]);
}

#[test]
fn a_long_answer_comes_in_parts() {
    let mut following = Following::default();
    following.want("a", None);
    requests(&mut following);
    let count = RECORDS_MAX as u64 + 3;
    following.text(&begun(1, None, 0, count));
    following.ask("a", question(at(0)));
    (1..=count).for_each(|offset| following.record("a", record(offset)));
    let first = told(&mut following);
    assert!(first[1].starts_with("since 0 [1, ") && first[1].ends_with(&format!("{RECORDS_MAX}] {count} false")));
    following.ask("a", question(at(RECORDS_MAX as u64)));
    assert_eq!(told(&mut following), [format!("since 1024 [1025, 1026, 1027] {count} false")]);
}

#[test]
fn channels_that_were_refused_together_are_asked_for_one_by_one() {
    let mut following = Following::default();
    following.want("a", None);
    following.want("b", None);
    assert_eq!(requests(&mut following).len(), 1);
    following.text(r#"{"id":1,"error":"b: no"}"#);
    assert_eq!(requests(&mut following).len(), 4);
    following.text(r#"{"id":3,"error":"b: no"}"#);
    following.text(&begun(2, None, 0, 0));
    assert_eq!(told(&mut following), ["unheard b: no", "wanted 0"]);
}

#[test]
fn what_nobody_asked_for_harms_nothing() {
    let mut following = Following::default();
    following.record("x", record(1));
    for text in [r#"{"hello":1}"#, r#"{"id":7,"result":{}}"#, r#"{"error":"live"}"#, "[1]"] {
        assert_eq!(following.text(text), None, "{text}");
    }
    assert!(following.text("nonsense").is_some());
    assert_eq!(told(&mut following), [""; 0]);
}
