// What both JavaScript drivers share: options of the command line, commands on stdin, events on stdout.
const readline = require("readline");

// `--name value`, or `--name` alone for true.
exports.readOptions = (words) => {
  const options = {};
  for (let at = 0; at < words.length; at++) {
    if (!words[at].startsWith("--")) throw new Error(`expected an option, got '${words[at]}'`);
    const isValued = at + 1 < words.length && !words[at + 1].startsWith("--");
    options[words[at].slice(2)] = isValued ? words[++at] : true;
  }
  if (!options.url) throw new Error("--url is needed");
  return options;
};

exports.say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

// Carries the commands out in order; resolves to whether all went well.
exports.runAll = async (run) => {
  let isGood = true;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    isGood = (await run(JSON.parse(line))) && isGood;
  }
  return isGood;
};
