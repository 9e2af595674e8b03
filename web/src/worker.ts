// The WebAssembly module: a question goes in as JSON, an answer comes out.

import wasm from '../wasm/stateway.wasm?url';
import type { Answer, Question } from './protocol';

export type Reply = { id: number; answer: Answer } | { id: number; failed: string };

interface Exports {
  memory: WebAssembly.Memory;
  stateway_room(length: number): number;
  stateway_ask(): number;
  stateway_answer(): number;
}

const module = load();

async function load(): Promise<Exports> {
  const response = await fetch(wasm);
  if (!response.ok) throw new Error(`${wasm}: ${response.status} ${response.statusText}`);
  // Not every static host names the type that streaming asks for.
  const { instance } = await WebAssembly.instantiate(await response.arrayBuffer());
  return instance.exports as unknown as Exports;
}

function answer(exports: Exports, question: Question): Answer {
  const bytes = new TextEncoder().encode(JSON.stringify(question));
  const room = exports.stateway_room(bytes.length);
  new Uint8Array(exports.memory.buffer, room, bytes.length).set(bytes);
  const length = exports.stateway_ask();
  // The memory may have grown meanwhile, and then has another buffer.
  const said = new Uint8Array(exports.memory.buffer, exports.stateway_answer(), length);
  return JSON.parse(new TextDecoder().decode(said));
}

self.onmessage = async ({ data }: MessageEvent<{ id: number; question: Question }>) => {
  const { id, question } = data;
  let reply: Reply;
  try {
    reply = { id, answer: answer(await module, question) };
  } catch (error) {
    reply = { id, failed: String(error) };
  }
  self.postMessage(reply);
};
