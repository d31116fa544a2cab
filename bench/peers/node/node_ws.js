// Peer: Node's `ws` with its optional `bufferutil`. A publication is one Buffer, sent to each client in a loop, as the
// library's README does it; a burst runs inside one callback. Contract: ../README.md.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { WebSocketServer } from "ws";

const START_DELAY_NS = 20_000_000n;
const port = Number(process.argv[process.argv.indexOf("--port") + 1]);
const watchers = new Map(); // channel → Set of sockets
const sequences = new Map(); // channel index → next number

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: true });
const http = createServer();
http.on("upgrade", (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, (client) => {
    const asked = new URL(request.url, "http://localhost").searchParams.getAll("channel");
    const channels = asked.length > 0 ? asked : ["c0"];
    for (const channel of channels) {
      if (!watchers.has(channel)) watchers.set(channel, new Set());
      watchers.get(channel).add(client);
    }
    client.on("error", () => client.terminate());
    client.on("close", () => channels.forEach((channel) => watchers.get(channel).delete(client)));
  });
});

function publish(channel, text) {
  const payload = Buffer.from(text, "latin1");
  for (const client of watchers.get(channel) ?? []) client.send(payload, { binary: false });
}

function text(channel, dueNs, bytes) {
  const sequence = sequences.get(channel) ?? 0;
  sequences.set(channel, sequence + 1);
  const head = [[sequence, 10], [channel, 6], [dueNs, 20]].map(([value, width]) => String(value).padStart(width, "0"));
  return `${head.join(" ")} `.padEnd(bytes, "x");
}

function publishAll({ rounds, burst, interval_s: intervalS, bytes = 128, sequence: order = null }, done) {
  const start = process.hrtime.bigint() + START_DELAY_NS;
  const interval = BigInt(Math.round(intervalS * 1e9));
  let index = 0;
  let publishing = 0n;
  const turn = () => {
    const due = start + BigInt(index) * interval;
    const texts = [];
    for (let number = index * burst; number < (index + 1) * burst; number++) {
      const channel = order === null ? 0 : order[number];
      texts.push([`c${channel}`, text(channel, due, bytes)]);
    }
    const began = process.hrtime.bigint();
    for (const [channel, made] of texts) publish(channel, made);
    publishing += process.hrtime.bigint() - began;
    index += 1;
    if (index < rounds) return arm();
    const wall = Number(process.hrtime.bigint() - start) / 1e9;
    return done({ published: rounds * burst, seconds: wall, publish_seconds: Number(publishing) / 1e9 });
  };
  const arm = () => {
    const wait = start + BigInt(index) * interval - process.hrtime.bigint();
    if (wait > 0n) setTimeout(turn, Number(wait) / 1e6);
    else setImmediate(turn);
  };
  arm();
}

http.listen({ port, host: "127.0.0.1", backlog: 4096 }, () => {
  say({ ready: true, port });
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const command = JSON.parse(line);
    if (command.quit) process.exit(0);
    else if (command.connections) say({ connections: sockets.clients.size });
    else if (command.publish) publishAll(command.publish, say);
  });
  lines.on("close", () => process.exit(0));
});
