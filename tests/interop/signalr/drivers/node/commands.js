// The command language of `signalr-origin client`, carried out by the stock JavaScript client; runs in Node and in a page.
// `makeDriver` gets the client's modules and `say`, which prints one event; it gives `run`, which carries out one command.
globalThis.makeDriver = ({ signalR, msgpack, options, say: print }) => {
  const isBinary = options.protocol === "messagepack";
  const seen = new Map();
  const noticed = new Set();
  const streams = new Map();
  let hub;
  let isClosed = Promise.resolve();

  const say = (event) => {
    print(event);
    for (const key of new Set([event.ev, `${event.ev}:${event.target}`, `${event.ev}:${event.id}`])) {
      seen.set(key, (seen.get(key) || 0) + 1);
    }
    noticed.forEach((check) => check());
  };

  const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));

  // A command's value as an application would pass it: base64 is what stands for bytes in JSON.
  const given = (value) => {
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map(given);
    if ("$bytes" in value) return isBinary ? fromBase64(value.$bytes) : value.$bytes;
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, given(inner)]));
  };

  const plain = (value) => {
    if (value === undefined) return null;
    if (value instanceof Uint8Array) return { $bytes: toBase64(value) };
    if (value instanceof Date) return value.toISOString();
    if (typeof value === "bigint") return Number(value);
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map(plain);
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)]));
  };

  const build = () => {
    const transports = { websockets: 1, sse: 2, longpolling: 4 };
    const http = { transport: transports[options.transport || "websockets"] };
    if (options.token) http.accessTokenFactory = () => options.token;
    if (options.header) http.headers = Object.fromEntries([options.header.split("=")]);
    if (options["skip-negotiation"]) http.skipNegotiation = true;
    const builder = new signalR.HubConnectionBuilder().withUrl(options.url, http).configureLogging(signalR.LogLevel.None);
    if (isBinary) builder.withHubProtocol(new msgpack.MessagePackHubProtocol());
    if (options.reconnect) builder.withAutomaticReconnect(Array(100).fill(200));
    if (options.stateful) builder.withStatefulReconnect();
    if (options.keepalive) builder.withKeepAliveInterval(options.keepalive * 1000);
    if (options["server-timeout"]) builder.withServerTimeout(options["server-timeout"] * 1000);
    const built = builder.build();
    built.onreconnecting((error) => say({ ev: "reconnecting", error: error ? error.message : null }));
    built.onreconnected(() => say({ ev: "reconnected" }));
    isClosed = new Promise((resolve) => {
      built.onclose((error) => {
        say({ ev: "closed", error: error ? error.message : null });
        resolve();
      });
    });
    return built;
  };

  const invoke = ({ id, method, args = [] }) =>
    hub.invoke(method, ...args.map(given)).then(
      (value) => say({ ev: "result", id, value: plain(value) }),
      (error) => say({ ev: "error", id, message: error.message }),
    );

  const receive = (stream, id) =>
    new Promise((resolve, reject) => {
      const subscription = stream.subscribe({
        next: (value) => say({ ev: "item", id, value: plain(value) }),
        error: reject,
        complete: () => {
          say({ ev: "end", id });
          resolve();
        },
      });
      streams.set(id, subscription);
    });

  const upload = async ({ id, method, items, streamed }) => {
    const subject = new signalR.Subject();
    const answer = streamed ? receive(hub.stream(method, subject), id) : hub.invoke(method, subject);
    items.forEach((item) => subject.next(given(item)));
    subject.complete();
    const value = await answer;
    if (!streamed) say({ ev: "result", id, value: plain(value) });
  };

  const wait = ({ ev, target, id, count = 1, timeoutMs = 10000 }) =>
    new Promise((resolve) => {
      const key = [ev, target ?? id].filter((part) => part !== undefined).join(":");
      const check = () => {
        if ((seen.get(key) || 0) >= count) finish();
      };
      const timer = setTimeout(() => {
        say({ ev: "timeout", waitedFor: key, wanted: count, seen: seen.get(key) || 0 });
        finish(true);
      }, timeoutMs);
      const finish = (isLate = false) => {
        noticed.delete(check);
        clearTimeout(timer);
        resolve(!isLate);
      };
      noticed.add(check);
      check();
    });

  const operations = {
    start: () => hub.start().then(() => say({ ev: "started" })),
    stop: async () => {
      await hub.stop();
      await isClosed;
    },
    on: ({ target }) => hub.on(target, (...args) => say({ ev: "message", target, args: args.map(plain) })),
    answer: ({ target, value }) =>
      hub.on(target, (question) => {
        say({ ev: "asked", target, args: [question] });
        if (value === undefined || value === null) throw new Error("the client has no answer");
        return value;
      }),
    invoke,
    "invoke-later": (command) => void invoke(command),
    send: async ({ id, method, args = [] }) => {
      await hub.send(method, ...args.map(given));
      say({ ev: "sent", id });
    },
    stream: ({ id, method, args = [] }) => {
      receive(hub.stream(method, ...args.map(given)), id).catch((error) => say({ ev: "error", id, message: error.message }));
    },
    // The JavaScript client forgets a stream that its application disposes of: it tells nobody that it is over.
    cancel: ({ id }) => {
      streams.get(id).dispose();
      say({ ev: "cancelled", id });
    },
    upload,
    "own-id": ({ id }) => say({ ev: "result", id, value: hub.connectionId }),
    sleep: ({ ms }) => new Promise((resolve) => setTimeout(resolve, ms)),
    wait,
  };

  // Resolves to true, or to false where the command failed or its wait ran out.
  return async (command) => {
    try {
      hub ??= build();
      const id = command.id === undefined ? "" : String(command.id);
      if (!operations[command.op]) throw new Error(`unknown op '${command.op}'`);
      return (await operations[command.op](command.id === undefined ? command : { ...command, id })) !== false;
    } catch (error) {
      say({ ev: "failed", op: command.op, error: error.name, message: error.message });
      return false;
    }
  };
};
