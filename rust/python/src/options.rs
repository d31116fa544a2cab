//! The settings that the hub in Python keeps to itself, as rows of the table beside the engine's.
use fanwire_core::CLOSE_CODES;
use fanwire_core::settings::{Kind, Setting, Value};

/// A number of things, without a bound of its own.
const MANY: Kind = Kind::Whole(1, (1 << 31) - 1);

/// Rows, in the form that those of the engine have.
macro_rules! rows {
    ($(
        $(#[doc = $meaning:literal])+
        $name:ident in $group:literal = $default:expr, $kind:expr
        $(, $limits:literal)? $(, default $usual:literal)?, cost $cost:literal;
    )+) => {
        vec![$( Setting {
            name: stringify!($name),
            group: $group,
            meaning: concat!($($meaning),+),
            kind: $kind,
            limits: concat!($($limits)?),
            default: $default,
            usual: concat!($($usual)?),
            cost: $cost,
        }, )+]
    };
}

/// The arguments of `serve`, `start` and `run` that are no options of a hub.
pub(crate) fn of_serving() -> Vec<Setting> {
    rows! {
        /// text, or a port as an int: `"0.0.0.0:8000"`, `"[::1]:8000"`, `"unix:/run/live.sock"`; `8000` is
        /// `"127.0.0.1:8000"`, `":8000"` all addresses; `"fd:3"` or `"fd:3,4"` sockets that the process has inherited,
        /// `"systemd"` those of socket activation
        address in "Serving" = Value::Nothing,
            Kind::Other("ports 0 (any free one) to 65,535; a path of 107 bytes at most"), default "it is required",
            cost "a host of several addresses, such as `localhost`, is listened on at all that this machine has, one port for all";
        /// processes that serve, under a supervisor, which listens; see [workers.md](workers.md)
        workers in "Serving" = Value::Whole(0), Kind::Other("0 to 128, or `\"auto\"`: as many as the process may use CPUs"),
            default "this process serves", cost "an interpreter each, and whatever your program holds";
        /// seconds within which a worker's loop has to give a sign, and it has to serve when it starts (there 30 at least);
        /// one that does not is killed, and replaced
        worker_timeout in "Serving" = Value::Number(30.0), Kind::Seconds(1.0, 86_400.0),
            cost "a worker that is stuck keeps its clients for so long; a callback that blocks the loop for longer ends its worker";
    }
}

/// Options of a hub.
pub(crate) fn of_hub() -> Vec<Setting> {
    rows! {
        /// seconds that serving waits, at its end, for clients to answer the close
        drain_timeout in "Serving" = Value::Number(5.0), Kind::Seconds(0.0, f64::INFINITY),
            "`math.inf`: for as long as it takes",
            cost "the end of `serve` takes so long when clients do not answer; at most 1 s when it is cancelled";
        /// seconds over which the closes are spread before that, so that not all clients come back at once
        drain_spread in "Serving" = Value::Number(0.0), Kind::Seconds(0.0, 3_600.0),
            cost "the end of `serve` takes so much longer";
        /// the close code at the end of serving; SignalR clients get 1000, which they take as a reason to reconnect
        drain_code in "Serving" = Value::Whole(1001), Kind::Other(CLOSE_CODES), cost "–";
        /// whether clients are told class and text of exceptions, as `EnableDetailedErrors` has it in ASP.NET Core
        detailed_errors in "Serving" = Value::Truth(false), Kind::Truth,
            cost "clients read class and text of every exception, secrets too: for development";
        /// list of subprotocols of WebSockets that are accepted without a callback: of those that a client offers the
        /// first that is here
        subprotocols in "Who may connect" = names(&[]), Kind::Other("RFC 9110 tokens; `msgpack` is the engine's own"),
            cost "a browser that offers subprotocols and gets none fails with 1006; `authenticate` may choose by `request.subprotocol`";
        /// `authenticate` and `authorize` of connections at work at once, if async; the others wait in order
        openings_max in "Who may connect" = Value::Whole(256), MANY,
            cost "so many tasks, and so many questions to your database, at once. What a relay asks its backend does not count";
        /// bytes of all that waits in Python on behalf of one client, with what an entry itself costs: calls, uploads,
        /// questions, what a relay has yet to pass on
        client_bytes_max in "What clients may do" = Value::Whole(1 << 20), Kind::Bytes(1 << 16, 1 << 40),
            cost "so much each client; then it is not read, or answered with an error that names the bound, counted in `fanwire_client_refusals_total{bound}`";
        /// list of paths that have the hub's own methods; `Hub.endpoint` adds others
        signalr_paths in "SignalR" = names(&["/signalr"]),
            Kind::Other("each begins with `/`, ends without, and is none of the hub's own; at most 255, relays' included"),
            cost "–";
        /// invocations of one client at work at once; streams do not count
        signalr_parallel_max in "SignalR" = Value::Whole(1), MANY, cost "so many tasks each client";
        /// list of those of `WebSockets`, `ServerSentEvents`, `LongPolling` that clients may use;
        /// `Hub.endpoint(path, transports=…)` has its own
        signalr_transports in "SignalR" = Value::Nothing, Kind::Other("one at least"), default "all",
            cost "the others are 404";
        /// streams of one client at once
        signalr_streams_max in "SignalR" = Value::Whole(100), MANY,
            cost "a task each, about 8 KiB with what it was called with; one more is answered with an error that names the bound";
        /// `Client.invoke` of one client that it has not answered
        signalr_questions_max in "SignalR" = Value::Whole(100), MANY,
            cost "about 2 KiB each, beside the task that asks; one more raises `LimitReached`";
        /// list of what clients may ask for
        formats in "What you may publish" = names(&["json", "msgpack"]),
            Kind::Other("`(\"json\", \"msgpack\")`, `(\"json\",)`"),
            cost "with both, an integer beyond 64 bits is refused; without MessagePack, who asks for it";
        /// a function of one object of a class that has no form here, which gives what is written in its place, as
        /// msgspec's `enc_hook`; it raises NotImplementedError for one that it does not know
        encode in "What you may publish" = Value::Nothing, Kind::Other("–"),
            default "an object of an unknown class is `UnsupportedType`",
            cost "it runs in each `publish` of such an object; see [types.md](types.md)";
        /// name of the form in which a `Decimal` is written
        decimal in "What you may publish" = Value::Nothing, Kind::Choice(&["number", "string"]),
            "of JSON alone: MessagePack has text", default "a number to SignalR's clients, as .NET has it, a string to others",
            cost "an object with a `Decimal` is encoded twice where both kinds listen";
        /// name of the form in which a `timedelta` is written
        duration in "What you may publish" = Value::Nothing, Kind::Choice(&["dotnet", "iso8601"]),
            "`\"dotnet\"` is `[-][d.]hh:mm:ss[.fffffff]`, in MessagePack ticks of 100 ns, at most 10,675,199 days",
            default "`\"dotnet\"` to SignalR's clients, `\"iso8601\"` to others", cost "as `decimal`";
    }
}

/// What a channel's rule has beyond what the engine keeps to.
pub(crate) fn of_channel() -> Vec<Setting> {
    rows! {
        /// boolean or name: whether it is told who comes and goes, or how many are there
        presence in "Channels" = Value::Truth(false), Kind::Other("False, True, `\"counts\"`"),
            cost "an event for Python a subscription and its end, in batches; about 300 bytes of Python's memory each";
        /// seconds for which one who is gone may come back
        presence_linger in "Channels" = Value::Number(5.0), Kind::Seconds(0.0, 86_400.0),
            cost "who went is remembered for so long";
    }
}

fn names(names: &[&str]) -> Value {
    Value::Texts(names.iter().map(|&name| name.to_owned()).collect())
}
