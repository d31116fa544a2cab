// The stock browser bundle in a page of headless Chromium, driven by the commands of `signalr-origin client` on stdin.
// The page has an origin of its own, so every request to the hub is one of another site, with credentials.
const fs = require("fs");
const http = require("http");
const path = require("path");
const { chromium } = require("playwright-core");
const { readOptions, runAll, say } = require("./input.js");

const packages = path.join(__dirname, "node_modules", "@microsoft");
const scripts = [
  path.join(packages, "signalr", "dist", "browser", "signalr.js"),
  path.join(packages, "signalr-protocol-msgpack", "dist", "browser", "signalr-protocol-msgpack.js"),
  path.join(__dirname, "commands.js"),
];
const html = `<!doctype html><meta charset="utf-8"><title>driver</title><link rel="icon" href="data:,">
${scripts.map((_, index) => `<script src="/${index}.js"></script>`).join("\n")}`;

const serve = () =>
  new Promise((resolve) => {
    const server = http.createServer((request, response) => {
      const script = scripts[Number.parseInt(request.url.slice(1), 10)];
      response.setHeader("Content-Type", script ? "text/javascript; charset=utf-8" : "text/html; charset=utf-8");
      response.end(script ? fs.readFileSync(script) : html);
    });
    server.listen(0, "127.0.0.1", () => resolve(server));
  });

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
flags.push("--disable-background-networking", "--disable-component-update", "--disable-sync");

const main = async () => {
  const { browser: executablePath, ...options } = readOptions(process.argv.slice(2));
  const server = await serve();
  const browser = await chromium.launch({ executablePath, args: flags, headless: true });
  try {
    const page = await browser.newPage();
    await page.exposeFunction("say", say);
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.evaluate((options) => {
      const print = window.say;
      const protocols = signalR.protocols;
      window.run = makeDriver({ signalR, msgpack: protocols.msgpack, options, say: print });
    }, options);
    return await runAll((command) => page.evaluate((command) => window.run(command), command));
  } finally {
    await browser.close();
    server.close();
  }
};

main().then((isGood) => process.exit(isGood ? 0 : 1));
