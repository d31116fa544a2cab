// Listens on each URL that comes as a line of JSON on stdin, and says what it has heard once the last message is there:
// {"number": as it was told, "heard": ["t<SHA-256>", "b<SHA-256>", …]}, text and binary.
const crypto = require("crypto");
const readline = require("readline");
const WebSocket = require("ws");

const say = (line) => console.log(JSON.stringify(line));

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { number, url, last, options } = JSON.parse(line);
  const heard = [];
  const socket = new WebSocket(url, { perMessageDeflate: options ?? true });
  socket.on("message", (data, isBinary) => {
    heard.push((isBinary ? "b" : "t") + crypto.createHash("sha256").update(data).digest("hex"));
    if (heard.at(-1) === last) {
      say({ number, heard });
      socket.terminate();
    }
  });
  socket.on("close", (code, reason) => heard.at(-1) !== last && say({ number, failed: `${code} ${reason}`, heard }));
  socket.on("error", (error) => say({ number, failed: error.message, heard }));
});
