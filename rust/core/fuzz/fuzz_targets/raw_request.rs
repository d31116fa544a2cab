//! Invariant: a request is read as serde_json reads its text, what is no JSON is no request, each reply is JSON.
#![no_main]
use fanwire_core::protocol::{Request, parse_request, write_reply_error, write_reply_result};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let request = parse_request(text);
    // serde_json's own depth is bounded: deeper text has no oracle.
    let oracle = serde_json::from_str::<Value>(text);
    match request {
        Ok(Request::Other) => {}
        Ok(Request::Subscribe { channels, since, start, filter, id }) => {
            if let Ok(value) = oracle {
                assert_eq!(Value::from_iter(channels.iter().map(|name| &**name)), value["subscribe"]);
                assert_eq!(since.is_some(), value.get("since").is_some_and(|since| !since.is_null()));
                assert!(since.iter().flatten().all(|since| value["since"].get(&*since.channel).is_some()));
                assert!(start.is_none_or(|start| value["start"] == *start));
                let filter = filter.map(|filter| serde_json::from_str::<Value>(filter).expect("JSON"));
                assert!(filter.is_none_or(|filter| value["filter"] == filter));
            }
            check_replies(id);
        }
        Ok(Request::Unsubscribe { channels, id }) => {
            if let Ok(value) = oracle {
                assert_eq!(Value::from_iter(channels.iter().map(|name| &**name)), value["unsubscribe"]);
            }
            check_replies(id);
        }
        Ok(Request::Call { target, arguments, id }) => {
            if let Ok(value) = oracle {
                assert_eq!(&*target, value["call"]);
                assert!(serde_json::from_str::<Value>(arguments).is_ok_and(|args| args.is_array()));
            }
            check_replies(id);
        }
        Err(error) => {
            let mut out = Vec::new();
            write_reply_error(&mut out, error.id.as_deref(), &error.to_string());
            check_reply(&out, error.id.as_deref());
        }
    }
});

fn check_replies(id: Option<&str>) {
    let mut out = Vec::new();
    write_reply_result(&mut out, id, "null");
    check_reply(&out, id);
    out.clear();
    write_reply_error(&mut out, id, id.unwrap_or("\u{0}\"\\"));
    check_reply(&out, id);
}

fn check_reply(reply: &[u8], id: Option<&str>) {
    // What ids serde_json cannot hold as a value (1e999, half a surrogate pair) are repeated all the same.
    if id.is_none_or(|id| serde_json::from_str::<Value>(id).is_ok()) {
        let reply: Value = serde_json::from_slice(reply).expect("a reply is JSON");
        assert_eq!(reply.get("id").map(Value::to_string).is_some(), id.is_some());
    }
}
