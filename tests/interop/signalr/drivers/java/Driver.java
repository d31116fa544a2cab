import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.microsoft.signalr.HttpHubConnectionBuilder;
import com.microsoft.signalr.HubConnection;
import com.microsoft.signalr.HubConnectionBuilder;
import com.microsoft.signalr.TransportEnum;
import io.reactivex.rxjava3.core.Observable;
import io.reactivex.rxjava3.core.Single;
import io.reactivex.rxjava3.disposables.Disposable;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Type;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** The stock Java client, driven by the commands of `signalr-origin client` on stdin; its events go to stdout. JSON only. */
public final class Driver {
    private final Gson gson = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private final Map<String, Integer> seen = new HashMap<>();
    private final Map<String, Disposable> streams = new ConcurrentHashMap<>();
    private final CountDownLatch closed = new CountDownLatch(1);
    private final HubConnection hub;

    private Driver(Map<String, String> options) {
        TransportEnum transport = options.getOrDefault("transport", "websockets").equals("longpolling")
                ? TransportEnum.LONG_POLLING : TransportEnum.WEBSOCKETS;
        HttpHubConnectionBuilder builder = HubConnectionBuilder.create(options.get("url")).withTransport(transport);
        if (options.containsKey("token")) builder.withAccessTokenProvider(Single.just(options.get("token")));
        if (options.containsKey("header")) {
            String[] header = options.get("header").split("=", 2);
            builder.withHeader(header[0], header[1]);
        }
        if (options.containsKey("skip-negotiation")) builder.shouldSkipNegotiate(true);
        if (options.containsKey("keepalive")) builder.withKeepAliveInterval(seconds(options.get("keepalive")));
        if (options.containsKey("server-timeout")) builder.withServerTimeout(seconds(options.get("server-timeout")));
        hub = builder.build();
        hub.onClosed(error -> {
            JsonObject event = event("closed");
            event.addProperty("error", error == null ? null : error.getMessage());
            say(event);
            closed.countDown();
        });
    }

    public static void main(String[] words) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int at = 0; at < words.length; at++) {
            boolean isValued = at + 1 < words.length && !words[at + 1].startsWith("--");
            options.put(words[at].substring(2), isValued ? words[++at] : "true");
        }
        Driver driver = new Driver(options);
        boolean isGood = true;
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = commands.readLine()) != null; ) {
            if (!line.isBlank() && !line.startsWith("#")) {
                isGood &= driver.run(JsonParser.parseString(line).getAsJsonObject());
            }
        }
        System.exit(isGood ? 0 : 1);
    }

    private static long seconds(String text) {
        return (long) (Double.parseDouble(text) * 1000);
    }

    private boolean run(JsonObject command) {
        String op = command.get("op").getAsString();
        try {
            return carryOut(op, command);
        } catch (Throwable error) {
            JsonObject event = event("failed");
            event.addProperty("op", op);
            event.addProperty("error", error.getClass().getSimpleName());
            event.addProperty("message", error.getMessage());
            say(event);
            return false;
        }
    }

    private boolean carryOut(String op, JsonObject command) throws Exception {
        String id = command.has("id") ? command.get("id").getAsString() : "";
        String method = command.has("method") ? command.get("method").getAsString() : "";
        switch (op) {
            case "start":
                hub.start().blockingAwait();
                say(event("started"));
                return true;
            case "stop":
                hub.stop().blockingAwait();
                closed.await(2, TimeUnit.SECONDS);
                return true;
            case "on":
                on(command.get("target").getAsString(), command.has("types") ? command.getAsJsonArray("types").size() : 1);
                return true;
            case "answer":
                answer(command.get("target").getAsString(), command.get("value"));
                return true;
            case "invoke":
                invoke(id, method, arguments(command)).blockingSubscribe(ignored -> { }, error -> { });
                return true;
            case "invoke-later":
                invoke(id, method, arguments(command)).subscribe(ignored -> { }, error -> { });
                return true;
            case "send":
                hub.send(method, arguments(command));
                say(event("sent", id));
                return true;
            case "stream":
                streams.put(id, receive(id, hub.stream((Type) JsonElement.class, method, arguments(command))));
                return true;
            case "cancel": // who disposes of a stream hears nothing more of it
                streams.get(id).dispose();
                say(event("cancelled", id));
                return true;
            case "upload":
                upload(id, method, command);
                return true;
            case "own-id":
                String own = hub.getConnectionId();
                say(event("result", id), "value", own == null ? JsonNull.INSTANCE : new JsonPrimitive(own));
                return true;
            case "sleep":
                Thread.sleep(command.get("ms").getAsLong());
                return true;
            case "wait":
                return waitFor(command);
            default:
                throw new IllegalArgumentException("unknown op '" + op + "'");
        }
    }

    private Single<JsonElement> invoke(String id, String method, Object... arguments) {
        return hub.<JsonElement>invoke((Type) JsonElement.class, method, arguments)
                .doOnSuccess(value -> say(event("result", id), "value", value))
                .doOnError(error -> { // a Single has no null: the client fails where the server answered with nothing
                    if (error instanceof NullPointerException) say(event("result", id), "value", JsonNull.INSTANCE);
                    else say(event("error", id), "message", new JsonPrimitive(String.valueOf(error.getMessage())));
                });
    }

    private Disposable receive(String id, Observable<JsonElement> stream) {
        return stream.subscribe(
                value -> say(event("item", id), "value", value),
                error -> say(event("error", id), "message", new JsonPrimitive(String.valueOf(error.getMessage()))),
                () -> say(event("end", id)));
    }

    private void upload(String id, String method, JsonObject command) {
        List<Object> items = new ArrayList<>();
        command.getAsJsonArray("items").forEach(item -> items.add(plain(item)));
        Observable<Object> source = Observable.fromIterable(items);
        if (command.has("streamed") && command.get("streamed").getAsBoolean()) {
            hub.<JsonElement>stream((Type) JsonElement.class, method, source)
                    .doOnNext(value -> say(event("item", id), "value", value))
                    .blockingSubscribe();
            say(event("end", id));
        } else {
            say(event("result", id), "value", hub.<JsonElement>invoke((Type) JsonElement.class, method, source).blockingGet());
        }
    }

    /** Java's handlers have as many parameters as the message: more or fewer make the client drop it. */
    private void on(String target, int count) {
        Type t = JsonElement.class;
        switch (count) {
            case 1:
                hub.<JsonElement>on(target, a -> message(target, a), t);
                break;
            case 2:
                hub.<JsonElement, JsonElement>on(target, (a, b) -> message(target, a, b), t, t);
                break;
            case 3:
                hub.<JsonElement, JsonElement, JsonElement>on(target, (a, b, c) -> message(target, a, b, c), t, t, t);
                break;
            case 7:
                hub.<JsonElement, JsonElement, JsonElement, JsonElement, JsonElement, JsonElement, JsonElement>on(
                        target, (a, b, c, d, e, f, g) -> message(target, a, b, c, d, e, f, g), t, t, t, t, t, t, t);
                break;
            default:
                throw new IllegalArgumentException("no handler of " + count + " arguments");
        }
    }

    private void message(String target, JsonElement... arguments) {
        JsonArray got = new JsonArray();
        for (JsonElement argument : arguments) got.add(argument);
        JsonObject event = event("message");
        event.addProperty("target", target);
        say(event, "args", got);
    }

    private void answer(String target, JsonElement value) {
        hub.<JsonElement, String>onWithResult(target, question -> {
            JsonArray got = new JsonArray();
            got.add(question);
            JsonObject event = event("asked");
            event.addProperty("target", target);
            say(event, "args", got);
            if (value == null || value.isJsonNull()) throw new IllegalStateException("the client has no answer");
            return Single.just(value.getAsString());
        }, JsonElement.class);
    }

    private boolean waitFor(JsonObject command) throws InterruptedException {
        String key = command.get("ev").getAsString();
        if (command.has("target")) key += ":" + command.get("target").getAsString();
        else if (command.has("id")) key += ":" + command.get("id").getAsString();
        int wanted = command.has("count") ? command.get("count").getAsInt() : 1;
        long timeout = command.has("timeoutMs") ? command.get("timeoutMs").getAsLong() : 10_000;
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeout);
        synchronized (seen) {
            while (seen.getOrDefault(key, 0) < wanted) {
                long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
                if (left <= 0) {
                    JsonObject event = event("timeout");
                    event.addProperty("waitedFor", key);
                    event.addProperty("wanted", wanted);
                    event.addProperty("seen", seen.getOrDefault(key, 0));
                    say(event);
                    return false;
                }
                seen.wait(left);
            }
        }
        return true;
    }

    private Object[] arguments(JsonObject command) {
        List<Object> values = new ArrayList<>();
        if (command.has("args")) command.getAsJsonArray("args").forEach(value -> values.add(plain(value)));
        return values.toArray();
    }

    /** A command's value as an application would pass it; bytes are base64, as the hub's JSON wants them. */
    private JsonElement plain(JsonElement value) {
        if (value.isJsonArray()) {
            JsonArray items = new JsonArray();
            value.getAsJsonArray().forEach(item -> items.add(plain(item)));
            return items;
        }
        if (!value.isJsonObject()) return value;
        if (value.getAsJsonObject().has("$bytes")) return value.getAsJsonObject().get("$bytes");
        JsonObject members = new JsonObject();
        value.getAsJsonObject().entrySet().forEach(member -> members.add(member.getKey(), plain(member.getValue())));
        return members;
    }

    private static JsonObject event(String name) {
        JsonObject event = new JsonObject();
        event.addProperty("ev", name);
        return event;
    }

    private static JsonObject event(String name, String id) {
        JsonObject event = event(name);
        event.addProperty("id", id);
        return event;
    }

    private void say(JsonObject event, String name, JsonElement value) {
        event.add(name, value);
        say(event);
    }

    private void say(JsonObject event) {
        synchronized (seen) {
            out.println(gson.toJson(event));
            String name = event.get("ev").getAsString();
            count(name);
            for (String member : new String[] {"target", "id"}) {
                if (event.has(member)) count(name + ":" + event.get(member).getAsString());
            }
            seen.notifyAll();
        }
    }

    private void count(String key) {
        seen.merge(key, 1, Integer::sum);
    }
}
