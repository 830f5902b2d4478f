// Novita's JavaScript client; see call_novita.py, its messages are the same. It has no waiting of its own
// and downloads nothing. Its module folder is the first argument.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const { NovitaError, NovitaSDK, TaskStatus } = require("novita-sdk");

const call = JSON.parse(readFileSync(0, "utf8"));
const client = new NovitaSDK(call.key);
client.setBaseUrl(call.url);

const methods = {
  submit: async (body) => (await client.hunyuanVideoFast(body)).task_id,
  result: async (taskId) => await client.progress({ task_id: taskId }),
  wait: async (taskId) => {
    const seen = [];
    for (;;) {
      const result = await client.progress({ task_id: taskId });
      seen.push(result.task);
      if ([TaskStatus.SUCCEED, TaskStatus.FAILED].includes(result.task.status)) return { result, seen };
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  },
};

let answer;
try {
  answer = { value: await methods[call.method](...call.arguments) };
} catch (error) {
  if (!(error instanceof NovitaError)) throw error;
  const { code, reason, metadata } = error;
  answer = { error: "NovitaError", message: error.msg, code, reason, metadata };
}
console.log(JSON.stringify(answer));
