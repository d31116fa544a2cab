// The stock Socket.IO client: joins, speaks, shows a picture, and prints what it hears, a line each, until "bye".
// Arguments: the server's address, a name, and its transports, separated by commas.
const { io } = require("socket.io-client");

const [address, name, transports] = process.argv.slice(2);
const socket = io(address, { transports: transports.split(","), reconnection: false });
const print = (kind, value) => console.log(JSON.stringify([kind, value]));

socket.on("connect_error", (error) => {
  print("error", `${error}`);
  process.exit(1);
});
socket.on("connect", async () => {
  const engine = socket.io.engine;
  if (transports.endsWith("websocket") && engine.transport.name !== "websocket") {
    await new Promise((resolve) => engine.once("upgrade", resolve));
  }
  print("joined", await socket.emitWithAck("join", "7", name));
});
socket.on("said", (message) => {
  print("said", message);
  if (message.text === "bye") {
    socket.disconnect();
  }
});
socket.on("shown", ({ picture }) => print("shown", picture.toString("hex")));
process.stdin.on("data", (lines) => {
  for (const line of lines.toString().trim().split("\n")) {
    const [event, value] = JSON.parse(line);
    socket.emit(event, "7", event === "show" ? Buffer.from(value, "hex") : value);
  }
});
socket.on("disconnect", () => process.exit(0));
