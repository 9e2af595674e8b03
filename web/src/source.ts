// Where labs are run. The page knows this interface alone, not what is behind it.

import type { ConnectionView } from './control';
import { KINDS, LiveRun, type News, type Shown } from './live';
import type { Account, BuiltIn, Problem, Question, Value } from './protocol';
import type { Run } from './run';
import type { Reply } from './worker';

export interface Rules {
  v4: string | null;
  v6: string | null;
}

export type Files = Record<string, string>;

export interface Told {
  account: Account;
  values: (Value | null)[];
}

export type Outcome = { run: Run } | { problems: Problem[] };

/** What is known of a router that runs, beside its packets. */
export interface Live {
  isThere: boolean;
  mayWrite: boolean;
  /** So many packets came too fast to be told of. */
  lost: number;
  /** What each rule has counted. */
  counts: Map<string, number>;
}

/** The run has grown, and has lost so many of its oldest packets. */
export interface Growth {
  run: Run;
  gone: number;
  live: Live;
}

export interface Source {
  /** Set where packets come by themselves: whom to tell, no more often than a picture is drawn. */
  follow?(heard: (growth: Growth) => void): void;
  /** As `packet`, where it is known already. */
  account?(number: number): Told | undefined;
  /** Replaces the rules of a router that runs: what is wrong with them, if they are refused. */
  replace?(rules: Rules): Promise<string | null>;
  /** One connection of a router that runs. */
  connection?(id: number): Promise<ConnectionView | null>;
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

/** A router that runs, behind the server that this page comes from. */
export class LiveSource implements Source {
  private shown: Shown | undefined;
  private live: LiveRun | undefined;

  async labs() {
    const shown: Shown = await (await asked('live/shown')).json();
    this.shown = shown;
    return { labs: [{ name: shown.name, description: '', files: {} }], version: '' };
  }

  async run(): Promise<Outcome> {
    if (!this.shown) throw new Error('the server has not said what it shows');
    this.live ??= new LiveRun(this.shown);
    return { run: this.live.picture() };
  }

  follow(heard: (growth: Growth) => void) {
    const { live, shown } = this;
    if (!live || !shown) return;
    let isDue = false;
    const tell = () => {
      isDue = false;
      const gone = live.gone;
      live.gone = 0;
      const { isThere, lost, counts } = live;
      heard({ run: live.picture(), gone, live: { isThere, lost, counts, mayWrite: shown.may_write } });
    };
    const due = () => {
      if (isDue) return;
      isDue = true;
      // A page that nobody sees draws nothing; it keeps up all the same.
      if (document.hidden) setTimeout(tell, 250);
      else requestAnimationFrame(tell);
    };
    const stream = new EventSource('live/news');
    for (const kind of KINDS) {
      stream.addEventListener(kind, ({ data }: MessageEvent<string>) => {
        live.hear(kind, JSON.parse(data) as News[typeof kind]);
        due();
      });
    }
    // The browser tries again by itself, and says how far it had come.
    stream.onerror = () => {
      live.isThere = false;
      due();
    };
    tell();
  }

  /** By the program itself, which finds more than the page could: what `stateway rules check` does. */
  async check(_files: Files, rules: Rules): Promise<Problem[]> {
    const answer = await sent('live/check', rules);
    if (!answer.ok) return [];
    const { v4, v6 }: Record<keyof Rules, Finding[]> = await answer.json();
    return [
      ...v4.map((found) => problemOf('rules', found)),
      ...v6.map((found) => problemOf('rules6', found)),
    ];
  }

  async packet(number: number) {
    const told = this.live?.account(number);
    if (!told) throw new Error(`packet ${number + 1} has been forgotten`);
    return told;
  }

  account(number: number) {
    return this.live?.account(number);
  }

  async replace(rules: Rules) {
    const answer = await sent('live/rules', rules);
    return answer.ok ? null : await answer.text();
  }

  async connection(id: number): Promise<ConnectionView | null> {
    return (await asked(`live/connection/${id}`)).json();
  }
}

async function asked(path: string): Promise<Response> {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
  return answer;
}

function sent(path: string, what: unknown): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return fetch(path, { method: 'POST', headers, body: JSON.stringify(what) });
}

/** As `stateway rules check --format json` prints it. */
interface Finding {
  severity: string;
  line: number;
  column: number;
  message: string;
  hint?: string;
  code?: string;
}

function problemOf(file: string, { severity, line, column, message, hint, code }: Finding): Problem {
  return {
    ...{ file, line, column, path: '', hint: hint ?? null, is_warning: severity !== 'error' },
    message: code ? `${message} [${code}]` : message,
  };
}
