// Echoes what it learns as JSON lines: each message that arrives, then the close.
const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2], { perMessageDeflate: false });
const say = (line) => console.log(JSON.stringify(line));

socket.on("open", () => socket.send(JSON.stringify({ call: "ready", args: ["node"], id: 1 })));
socket.on("message", (data, isBinary) => say({ data: isBinary ? data.toString("hex") : data.toString(), isBinary }));
socket.on("ping", () => say({ ping: true }));
socket.on("close", (code, reason) => say({ code, reason: reason.toString() }));
socket.on("error", (error) => say({ error: error.message }));
