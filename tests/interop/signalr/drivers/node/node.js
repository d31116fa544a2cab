// The stock JavaScript client in Node, driven by the commands of `signalr-origin client` on stdin.
require("./commands.js");
const { readOptions, runAll, say } = require("./input.js");

const run = makeDriver({
  signalR: require("@microsoft/signalr"),
  msgpack: require("@microsoft/signalr-protocol-msgpack"),
  options: readOptions(process.argv.slice(2)),
  say,
});

runAll(run).then((isGood) => process.exit(isGood ? 0 : 1));
