//! Subscriptions with filters: who gets what, who says it, what is refused, what keyframes and removals do.
mod support;

use fanwire_core::channel::{Policy, Publication, TagValue, Tags, write_tags};
use fanwire_core::protocol::Payload;
use fanwire_core::{ChannelSettings, Engine, Position, Settings};
use serde_json::{Value, json};
use support::{Client, connect, on_each_poller, promising, read_text, start};
use tungstenite::Message;

/// Channels that keep a hundred publications, and may have three filters.
fn keeping(policy: Policy) -> ChannelSettings {
    ChannelSettings { policy, history_frames: 100, filters_max: 3, ..ChannelSettings::default() }
}

fn start_with(settings: Settings, channel: ChannelSettings) -> (Engine, String) {
    start(Settings { channels: promising("*", channel), ..settings })
}

/// Publishes a text, tagged with a league; `change` makes something else of it.
fn put(
    engine: &Engine,
    text: &str,
    league: Option<&str>,
    change: impl FnOnce(Publication<'_>) -> Publication<'_>,
) -> Position {
    let mut bytes = Vec::new();
    if let Some(league) = league {
        write_tags(vec![("league", TagValue::Text(league))], &mut bytes).expect("tags");
    }
    let tags = Tags::read(&bytes).expect("tags");
    let publication = change(Publication { tags, ..Publication::new(Payload::Text(text)) });
    engine.publish("a", &publication, false).expect("the engine runs").expect("nothing to encode")
}

fn plain(publication: Publication<'_>) -> Publication<'_> {
    publication
}

fn keyframe(publication: Publication<'_>) -> Publication<'_> {
    Publication { is_keyframe: true, key: Some("board"), ..publication }
}

fn filtered(address: &str, league: &str, more: &str) -> Client {
    connect(address, &format!("channel=a&filter=%7B%22league%22%3A%22{league}%22%7D{more}"))
}

fn ask(client: &mut Client, request: &Value) -> Value {
    client.send(Message::text(request.to_string())).expect("it is open");
    serde_json::from_str(&read_text(client)).expect("JSON")
}

fn expect(client: &mut Client, texts: &[&str]) {
    let got: Vec<String> = texts.iter().map(|_| read_text(client)).collect();
    assert_eq!(got, texts);
}

#[test]
fn each_gets_what_passes_in_the_channels_own_positions() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(Settings { shards: 2, ..settings }, keeping(Policy::Every));
        let mut clients: Vec<_> =
            ["x", "y", "x", "y"].iter().map(|league| (*league, filtered(&address, league, ""))).collect();
        let mut all = connect(&address, "channel=a");
        let mut enveloped = filtered(&address, "y", "&envelope=1");
        for number in 0..50 {
            put(&engine, &format!("x{number}"), Some("x"), plain);
            put(&engine, &format!("none{number}"), None, plain);
            put(&engine, &format!("y{number}"), Some("y"), plain);
        }
        for number in 0..50 {
            for (league, client) in &mut clients {
                expect(client, &[&format!("{league}{number}")]);
            }
            expect(&mut all, &[&format!("x{number}"), &format!("none{number}"), &format!("y{number}")]);
            let told: Value = serde_json::from_str(&read_text(&mut enveloped)).expect("JSON");
            assert_eq!((&told["data"], &told["position"][1]), (&json!(format!("y{number}")), &json!(3 * number + 3)));
        }
    });
}

#[test]
fn who_comes_back_gets_what_passes_behind_its_position() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping(Policy::Every));
        let all: Vec<_> = (0..10)
            .flat_map(|number| ["x", "y"].map(|league| put(&engine, &format!("{league}{number}"), Some(league), plain)))
            .collect();
        let mut client = filtered(&address, "y", &format!("&since={}", all[14]));
        let told: Value = serde_json::from_str(&read_text(&mut client)).expect("JSON");
        assert_eq!(told["result"]["recovered"]["a"], json!(true));
        expect(&mut client, &["y7", "y8", "y9"]);
        put(&engine, "x10", Some("x"), plain);
        put(&engine, "y10", Some("y"), plain);
        expect(&mut client, &["y10"]);
    });
}

#[test]
fn what_is_no_filter_and_one_too_many_are_an_error_to_whoever_brings_it() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping(Policy::Every));
        let mut client = connect(&address, "");
        let subscribe = |channel: &str, filter: Value| json!({ "subscribe": [channel], "filter": filter, "id": 1 });
        let error = ask(&mut client, &subscribe("a", json!({ "league": [] })))["error"].clone();
        assert_eq!(error, "filter: tag \"league\": an empty array lets nothing through");
        let mut others: Vec<_> = ["x", "y", "z"].iter().map(|league| filtered(&address, league, "")).collect();
        let mut same = filtered(&address, "x", "");
        put(&engine, "z", Some("z"), plain);
        expect(&mut others[2], &["z"]); // all three are there
        let error = ask(&mut client, &subscribe("a", json!({ "league": "w" })))["error"].clone();
        assert_eq!(error, "filters_max: 4 is over the bound of 3");
        let known = ask(&mut client, &subscribe("a", json!({ "league": ["x"] })));
        assert_eq!(known["result"]["subscribed"], json!(["a"]), "one that others have is no new one");
        assert_eq!(ask(&mut client, &subscribe("a", json!({ "league": "x" })))["result"]["subscribed"], json!(["a"]));
        let error = ask(&mut client, &subscribe("a", json!({ "league": "y" })))["error"].clone();
        assert_eq!(error, "channel \"a\" is watched with another filter: unsubscribe it first");
        put(&engine, "x", Some("x"), plain);
        expect(&mut client, &["x"]);
        expect(&mut same, &["x"]);
    });
}

#[test]
fn state_passes_every_filter_unless_it_is_tagged() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping(Policy::Latest));
        put(&engine, "before", Some("x"), plain);
        put(&engine, "board", None, keyframe);
        put(&engine, "y", Some("y"), |one| Publication { key: Some("k"), ..one });
        let mut client = filtered(&address, "x", "");
        expect(&mut client, &["board"]);
        put(&engine, "x", Some("x"), |one| Publication { key: Some("m"), ..one });
        put(&engine, "k has ended", None, |one| Publication { key: Some("k"), is_removal: true, ..one });
        put(&engine, "m has ended for y", Some("y"), |one| Publication { key: Some("m"), is_removal: true, ..one });
        put(&engine, "board of y", Some("y"), keyframe);
        put(&engine, "after", Some("x"), |one| Publication { key: Some("n"), ..one });
        expect(&mut client, &["x", "k has ended", "after"]);
        let mut newcomer = filtered(&address, "x", "");
        expect(&mut newcomer, &["after"]);
        let mut theirs = filtered(&address, "y", "");
        expect(&mut theirs, &["board of y"]);
    });
}
