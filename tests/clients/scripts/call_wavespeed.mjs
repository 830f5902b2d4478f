// Calls one method of WaveSpeed's JavaScript client; see call_wavespeed.py, its messages are the same.
// Its module folder is the first argument.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const wavespeed = require("wavespeed");

const call = JSON.parse(readFileSync(0, "utf8"));
const client = new wavespeed.Client(call.key, { baseUrl: call.url, retryInterval: 0.1 });
let answer;
try {
  answer = { value: await client[call.method](...call.arguments) };
} catch (error) {
  answer = { error: [error.name], message: error.message, version: wavespeed.version };
}
console.log(JSON.stringify(answer));
