// Publishes to clients of fanwire from Node, by Redis or Valkey: node publish.mjs 127.0.0.1:6379 odds:7 '{"home":1.85}'
// `fanwire script > publish.lua` writes the script that it needs. docs/records.md says what the arguments are.
import { readFileSync } from "node:fs";
import { connect } from "node:net";

const [address, channel, data] = process.argv.slice(2);
const [host, port] = address.split(":");
const name = "c" + channel;
const keys = [`fanwire:m:${name}`, `fanwire:s:${name}`];
const kept = ["100", "300000"]; // publications, milliseconds: what the hubs' channel says
const terms = [`fanwire:c:${name}`, "PUBLISH", "", "0", "0", ...kept, "604800000", "300000"];
const record = JSON.stringify({ data: JSON.parse(data) });
const words = ["EVAL", readFileSync("publish.lua", "utf8"), "2", ...keys, ...terms, "0", record];

const socket = connect(Number(port), host);
socket.write(`*${words.length}\r\n` + words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join(""));
socket.once("data", (answer) => {
  console.log(answer.toString().match(/\d+/g).slice(1).join("-")); // its position: epoch and offset
  socket.end();
});
