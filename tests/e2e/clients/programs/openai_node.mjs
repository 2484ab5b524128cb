// The official client for Node: `npm install openai`.

import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { PIXEL, tell } from "./report.mjs";

const client = new OpenAI({ maxRetries: 0 });
const model = process.env.MODEL;
const Trip = z.object({ city: z.string(), days: z.number().int().min(1) });

const tool = (name) => ({
  type: "function",
  name,
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
});

await tell({
  async plain() {
    const answer = await client.responses.create({ model, input: "say: hello world" });
    return { text: answer.output_text };
  },

  async stream() {
    const deltas = [];
    const stream = client.responses.stream({ model, input: "tokens: 20" });
    stream.on("response.output_text.delta", (event) => deltas.push(event.delta));
    const final = await stream.finalResponse();
    return { text: final.output_text, deltas: deltas.length, joined: deltas.join("") };
  },

  async tools() {
    const calls = [];
    let deltas = 0;
    let previous_response_id;
    let input = 'call: get_weather {"city": "Paris"} ; then: get_time {"city": "Paris"}';
    for (let round = 0; round < 5; round++) {
      const stream = await client.responses.create({
        model,
        input,
        previous_response_id,
        stream: true,
        tools: [tool("get_weather"), tool("get_time")],
      });
      let answer;
      for await (const event of stream) {
        if (event.type.endsWith(".delta")) deltas += 1;
        if (event.type === "response.completed") answer = event.response;
      }
      previous_response_id = answer.id;
      const asked = answer.output.filter((item) => item.type === "function_call");
      if (!asked.length) return { text: answer.output[0].content[0].text, calls, deltas };
      calls.push(...asked.map((item) => [item.name, item.arguments]));
      input = asked.map(({ call_id, name }) => ({
        type: "function_call_output",
        call_id,
        output: { get_weather: "sunny", get_time: "noon" }[name],
      }));
    }
  },

  async follow_up() {
    const first = await client.responses.create({ model, input: "say: one" });
    const second = await client.responses.create({
      model,
      input: "script:recall",
      previous_response_id: first.id,
    });
    return { text: second.output_text };
  },

  async structured() {
    const answer = await client.responses.parse({
      model,
      input: "Plan a trip.",
      text: { format: zodTextFormat(Trip, "trip") },
    });
    return { value: answer.output_parsed };
  },

  async image() {
    const content = [
      { type: "input_text", text: "What is this?" },
      { type: "input_image", image_url: PIXEL, detail: "auto" },
    ];
    const answer = await client.responses.create({ model, input: [{ role: "user", content }] });
    return { text: answer.output_text };
  },

  async wrong_model() {
    return { text: (await client.responses.create({ model: "no-such-model", input: "hi" })).id };
  },

  async wrong_key() {
    const stranger = new OpenAI({ maxRetries: 0, apiKey: "sk-antiphon-wrong" });
    return { text: (await stranger.responses.create({ model, input: "hi" })).id };
  },

  async refused() {
    return { text: (await client.responses.create({ model, input: "fault:400" })).id };
  },

  async broken() {
    const input = "script:failed rate_limit_exceeded";
    const final = await client.responses.stream({ model, input }).finalResponse();
    return { failed: final.error.code };
  },
});
