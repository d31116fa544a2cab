// One stock client, Node's `ws` as it comes, for ../../stock.py: listens to the URL of the command line, and says how much
// it has heard when it is asked.
import { createInterface } from "node:readline";
import WebSocket from "ws";

const heard = { messages: 0, bytes: 0 };
const socket = new WebSocket(process.argv[2]);
socket.on("message", (data) => {
  heard.messages += 1;
  heard.bytes += data.length;
});
socket.on("close", () => process.exit(1));

const lines = createInterface({ input: process.stdin });
lines.on("line", () => console.log(JSON.stringify({ heard })));
lines.on("close", () => process.exit(0));
