// Where labs are run. The page knows this interface alone, not what is behind it.

import type { Account, BuiltIn, Problem, Question, Run } from './protocol';
import type { Reply } from './worker';

export interface Rules {
  v4: string | null;
  v6: string | null;
}

export type Files = Record<string, string>;

export interface Told {
  account: Account;
  values: (string | null)[];
}

export type Outcome = { run: Run } | { problems: Problem[] };

export interface Source {
  labs(): Promise<{ labs: BuiltIn[]; version: string }>;
  run(files: Files, rules: Rules): Promise<Outcome>;
  check(files: Files, rules: Rules): Promise<Problem[]>;
  packet(number: number): Promise<Told>;
}

/** A lab whose virtual time runs into nothing would keep the worker for ever. */
const PATIENCE_MS = 30_000;

/** The router and the simulator as WebAssembly, in a worker of their own. */
export class WorkerSource implements Source {
  private worker: Worker | undefined;
  private waiting = new Map<number, { done: (reply: Reply) => void; timer: number }>();
  private asked = 0;

  async labs() {
    const answer = await this.ask({ ask: 'labs' });
    if (answer.answer !== 'labs') throw unexpected(answer);
    return { labs: answer.labs, version: answer.version };
  }

  async run(files: Files, rules: Rules): Promise<Outcome> {
    const answer = await this.ask({ ask: 'run', files, rules });
    if (answer.answer === 'problems') return { problems: answer.problems };
    if (answer.answer !== 'run') throw unexpected(answer);
    return { run: answer };
  }

  async check(files: Files, rules: Rules) {
    const answer = await this.ask({ ask: 'check', files, rules });
    if (answer.answer !== 'problems') throw unexpected(answer);
    return answer.problems;
  }

  async packet(number: number) {
    const answer = await this.ask({ ask: 'packet', number });
    if (answer.answer !== 'packet') throw unexpected(answer);
    return answer;
  }

  private async ask(question: Question) {
    this.worker ??= this.start();
    const id = ++this.asked;
    const { worker } = this;
    const reply = await new Promise<Reply>((done) => {
      const timer = window.setTimeout(
        () => this.restart(`no answer in ${PATIENCE_MS / 1000} s`),
        PATIENCE_MS,
      );
      this.waiting.set(id, { done, timer });
      worker.postMessage({ id, question });
    });
    if ('failed' in reply) throw new Error(reply.failed);
    if (reply.answer.answer === 'refused') throw new Error(reply.answer.message);
    return reply.answer;
  }

  private start() {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      if ('failed' in data) {
        this.restart(data.failed);
        return;
      }
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      window.clearTimeout(waiting?.timer);
      waiting?.done(data);
    };
    worker.onerror = (event) => this.restart(event.message || 'the worker cannot be loaded');
    return worker;
  }

  /** After a failure nothing is known of the module's memory: the next question gets a new one. */
  private restart(failed: string) {
    this.worker?.terminate();
    this.worker = undefined;
    for (const [id, { done, timer }] of this.waiting) {
      window.clearTimeout(timer);
      done({ id, failed });
    }
    this.waiting.clear();
  }
}

function unexpected(answer: { answer: string }) {
  return new Error(`an answer to something else: ${answer.answer}`);
}
