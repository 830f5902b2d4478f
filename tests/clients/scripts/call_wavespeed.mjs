// Calls methods of WaveSpeed's JavaScript client; see call_wavespeed.py, its messages are the same.
// Its module folder is the first argument.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.argv[2] + "/");
const wavespeed = require("wavespeed");

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  const client = new wavespeed.Client(call.key, { baseUrl: call.url, retryInterval: 0.1 });
  let answer;
  try {
    answer = { value: await client[call.method](...call.arguments) };
  } catch (error) {
    answer = { error: [error.name], message: error.message, version: wavespeed.version };
  }
  console.log(`answer: ${JSON.stringify(answer)}`);
}
