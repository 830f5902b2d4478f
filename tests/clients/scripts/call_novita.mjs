// Novita's JavaScript client; see call_novita.py, its messages are the same. It has no waiting of its own
// and downloads nothing. Its module folder is the first argument.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.argv[2] + "/");
const { NovitaError, NovitaSDK, TaskStatus } = require("novita-sdk");

const methods = {
  submit: async (client, body) => (await client.hunyuanVideoFast(body)).task_id,
  result: async (client, taskId) => await client.progress({ task_id: taskId }),
  wait: async (client, taskId) => {
    const seen = [];
    for (;;) {
      const result = await client.progress({ task_id: taskId });
      seen.push(result.task);
      if ([TaskStatus.SUCCEED, TaskStatus.FAILED].includes(result.task.status)) return { result, seen };
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  const client = new NovitaSDK(call.key);
  client.setBaseUrl(call.url);
  let answer;
  try {
    answer = { value: await methods[call.method](client, ...call.arguments) };
  } catch (error) {
    if (!(error instanceof NovitaError)) throw error;
    const { code, reason, metadata } = error;
    answer = { error: "NovitaError", message: error.msg, code, reason, metadata };
  }
  console.log(`answer: ${JSON.stringify(answer)}`);
}
