// The AI SDK of Vercel with its OpenAI provider: `npm install ai @ai-sdk/openai`.

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { PIXEL, tell } from "./report.mjs";

const openai = createOpenAI({
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
});
const model = openai.responses(process.env.MODEL);
const settings = { model, maxRetries: 0 };
const calls = [];

const cityTool = (name, output) =>
  tool({
    description: name,
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      calls.push([name, city]);
      return output;
    },
  });

await tell({
  async plain() {
    return { text: (await generateText({ ...settings, prompt: "say: hello world" })).text };
  },

  async stream() {
    const deltas = [];
    const result = streamText({ ...settings, prompt: "tokens: 20" });
    for await (const delta of result.textStream) deltas.push(delta);
    return { text: await result.text, deltas: deltas.length, joined: deltas.join("") };
  },

  async tools() {
    const result = streamText({
      ...settings,
      prompt: 'call: get_weather {"city": "Paris"} ; then: get_time {"city": "Paris"}',
      tools: { get_weather: cityTool("get_weather", "sunny"), get_time: cityTool("get_time", "noon") },
      stopWhen: stepCountIs(5),
      onError: () => {},
    });
    let deltas = 0;
    for await (const part of result.fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type.endsWith("-delta")) deltas += 1;
    }
    return { text: await result.text, calls, deltas };
  },

  async follow_up() {
    const first = await generateText({ ...settings, prompt: "say: one" });
    const previousResponseId = first.providerMetadata.openai.responseId;
    const second = await generateText({
      ...settings,
      prompt: "script:recall",
      providerOptions: { openai: { previousResponseId } },
    });
    return { text: second.text };
  },

  async structured() {
    const schema = z.object({ city: z.string(), days: z.number().int().min(1) });
    const result = await generateText({
      ...settings,
      prompt: "Plan a trip.",
      output: Output.object({ schema }),
    });
    return { value: result.output };
  },

  async image() {
    const content = [
      { type: "text", text: "What is this?" },
      { type: "file", mediaType: "image/png", data: PIXEL },
    ];
    return { text: (await generateText({ ...settings, messages: [{ role: "user", content }] })).text };
  },

  async wrong_model() {
    const stranger = openai.responses("no-such-model");
    return { text: (await generateText({ ...settings, model: stranger, prompt: "hi" })).text };
  },

  async wrong_key() {
    const stranger = createOpenAI({
      baseURL: process.env.OPENAI_BASE_URL,
      apiKey: "sk-antiphon-wrong",
    }).responses(process.env.MODEL);
    return { text: (await generateText({ ...settings, model: stranger, prompt: "hi" })).text };
  },

  async refused() {
    return { text: (await generateText({ ...settings, prompt: "fault:400" })).text };
  },
});
