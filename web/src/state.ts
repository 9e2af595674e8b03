// What the page knows, and how it comes to know it.

import { EXERCISES } from './exercises';
import type { Folder } from './folder';
import type { BuiltIn, Problem } from './protocol';
import { changedFates, isStopped, questions } from './replay';
import type { Run } from './run';
import type { Shared, View } from './share';
import type { Files, Growth, Live, Rules, Source, Told } from './source';

export const OWN = 'own';
export const NO_RULES: Rules = { v4: null, v6: null };

export type Speed = 'slow' | 'normal' | 'fast';

export interface Guess {
  state: string;
  fate: string;
}

export interface State {
  labs: BuiltIn[];
  version: string;
  /** The name of a built-in lab, or `OWN`. */
  lab: string;
  /** As they are run. */
  files: Files;
  rules: Rules;
  /** The files are other than those of the built-in lab. */
  isEdited: boolean;
  run: Run | null;
  problems: Problem[];
  /** Fates that are others than in the run before, if there was one of this lab. */
  changed: Map<number, string> | null;
  isRunning: boolean;
  failure: string | null;
  /** The chosen packet, from 0; -1 is before the first one. */
  at: number;
  told: Told | null;
  isPlaying: boolean;
  speed: Speed;
  view: View;
  onlyStopped: boolean;
  isPredicting: boolean;
  guesses: Map<number, Guess>;
  /** Which step of the article is being done. */
  exercise: number | null;
  /** Set where the packets are those of a router that runs. While it plays, the last one is shown. */
  live: Live | null;
}

export const EMPTY: State = {
  labs: [],
  version: '',
  lab: '',
  files: {},
  rules: NO_RULES,
  isEdited: false,
  run: null,
  problems: [],
  changed: null,
  isRunning: false,
  failure: null,
  at: -1,
  told: null,
  isPlaying: false,
  speed: 'normal',
  view: 'packets',
  onlyStopped: false,
  isPredicting: false,
  guesses: new Map(),
  exercise: null,
  live: null,
};

/** A packet of which the learner has not said yet what will become of it. */
export function isHidden(state: State, at: number): boolean {
  return state.isPredicting && !state.guesses.has(at);
}

/** Whether a guess was right in both. */
export function isRight(run: Run, at: number, guess: Guess): boolean {
  const packet = run.packets[at];
  return packet?.fate === guess.fate && (packet.ctstate ?? '') === guess.state;
}

export class Store {
  state = EMPTY;
  private listeners = new Set<() => void>();
  /** Counts what was asked for: an answer that was overtaken is not shown. */
  private runs = 0;

  constructor(private source: Source) {}

  listen(listener: () => void) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  set(change: Partial<State>) {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }

  async begin(shared: Shared | null) {
    try {
      this.set(await this.source.labs());
      await this.show(shared);
      this.source.follow?.((growth) => this.grow(growth));
    } catch (error) {
      this.set({ failure: String(error) });
    }
  }

  /** Opens what a link says; without one the first lesson. */
  async show(shared: Shared | null) {
    const known = this.state.labs.find((lab) => lab.name === shared?.lab);
    if (shared?.files) {
      await this.open(known ? known.name : OWN, shared.files, shared.rules, shared);
      return;
    }
    const lab = known ?? this.state.labs.find((one) => one.name === 'article') ?? this.state.labs[0];
    if (lab) await this.open(lab.name, lab.files, shared && known ? shared.rules : NO_RULES, shared);
  }

  async choose(name: string) {
    this.set({ exercise: null });
    const lab = this.state.labs.find((one) => one.name === name);
    if (lab) await this.open(name, lab.files, NO_RULES, null);
  }

  /** A lab of the user's own. */
  async openOwn({ files, rules }: Folder) {
    await this.open(OWN, files, rules, null);
  }

  private async open(lab: string, files: Files, rules: Rules, shared: Shared | null) {
    const builtIn = this.state.labs.find((one) => one.name === lab);
    const isEdited = builtIn?.files !== files;
    const guesses = new Map<number, Guess>();
    this.set({
      lab,
      files,
      rules,
      isEdited,
      run: null,
      changed: null,
      problems: [],
      at: -1,
      told: null,
      guesses,
    });
    this.set({ isPlaying: false, view: shared?.view ?? this.state.view });
    await this.run(shared?.packet ?? -1);
  }

  /** Runs with other texts; all or nothing: if they are wrong, the last run stays. */
  async apply(files: Files, rules: Rules) {
    const builtIn = this.state.labs.find((one) => one.name === this.state.lab);
    const same = builtIn && JSON.stringify(builtIn.files) === JSON.stringify(files);
    this.set({ files: same ? builtIn.files : files, rules, isEdited: !same, guesses: new Map() });
    await this.run(this.state.at);
  }

  /** More packets have come. Who looks at one of them goes on looking at it. */
  private grow({ run, gone, live }: Growth) {
    const isFirst = this.state.live === null;
    const isPlaying = isFirst || this.state.isPlaying;
    const kept = Math.max(-1, this.state.at - gone);
    this.set({ run, live, isPlaying, problems: [], at: kept });
    if (isPlaying && kept !== run.packets.length - 1) void this.goTo(run.packets.length - 1);
  }

  /** Replaces the rules of a router that runs; what is wrong is said, and nothing is changed then. */
  async replace(rules: Rules): Promise<string | null> {
    return (await this.source.replace?.(rules)) ?? null;
  }

  async connection(id: number) {
    return (await this.source.connection?.(id)) ?? null;
  }

  async again() {
    await this.run(this.state.at);
  }

  private async run(at: number) {
    const number = ++this.runs;
    const { files, rules, run: before } = this.state;
    this.set({ isRunning: true, failure: null });
    try {
      const outcome = await this.source.run(files, rules);
      if (number !== this.runs) return;
      if ('problems' in outcome) {
        this.set({ isRunning: false, problems: outcome.problems, changed: null });
        if (!before) this.set({ view: 'rules' });
        return;
      }
      const { run } = outcome;
      const changed = before ? changedFates(before, run) : null;
      this.set({ run, changed, problems: run.warnings, isRunning: false, at: -1, told: null });
      await this.goTo(at);
    } catch (error) {
      if (number === this.runs) this.set({ isRunning: false, failure: String(error) });
    }
  }

  async check(files: Files, rules: Rules) {
    return this.source.check(files, rules);
  }

  /** What somebody looks at stays, whatever comes. */
  async choosePacket(wanted: number) {
    if (this.state.live) this.set({ isPlaying: false });
    await this.goTo(wanted);
  }

  async goTo(wanted: number) {
    const { run } = this.state;
    if (!run) return;
    const at = Math.max(-1, Math.min(wanted, run.packets.length - 1));
    const known = this.source.account?.(at) ?? null;
    this.set({ at, told: known });
    if (at < 0 || known) return;
    try {
      const told = await this.source.packet(at);
      if (this.state.run === run && this.state.at === at) this.set({ told });
    } catch (error) {
      this.set({ failure: String(error) });
    }
  }

  /** One packet on. While predicting, the next one waits for what the learner says. */
  async forward() {
    const { at, run, live } = this.state;
    if (live) await this.choosePacket(at + 1);
    else if (at >= (run?.packets.length ?? 0) - 1) this.set({ isPlaying: false });
    else if (at >= 0 && isHidden(this.state, at)) this.set({ isPlaying: false });
    else await this.goTo(at + 1);
  }

  /** The next one that was stopped; behind the last one of a running router, the first. */
  async nextStopped() {
    const { at, run, live } = this.state;
    const stopped = run?.packets.flatMap((packet, number) => (isStopped(packet) ? [number] : [])) ?? [];
    const next = stopped.find((number) => number > at) ?? (live ? stopped[0] : undefined);
    if (next !== undefined) await this.choosePacket(next);
  }

  /** Begins a step of the article, or ends it; the learner is asked of the first packet of each test. */
  async exercise(number: number | null) {
    const exercise = number === null ? undefined : EXERCISES[number];
    this.set({ exercise: exercise ? number : null });
    const lab = this.state.labs.find((one) => one.name === exercise?.lab);
    if (!lab) return;
    await this.open(lab.name, lab.files, NO_RULES, null);
    this.set({ isPredicting: true, view: 'way' });
    await this.nextQuestion();
  }

  /** The first packet that the exercise asks of, and that was not asked yet. */
  async nextQuestion() {
    const { run, guesses } = this.state;
    const next = run ? questions(run).find((at) => !guesses.has(at)) : undefined;
    if (next !== undefined) await this.goTo(next);
  }

  guess(guess: Guess) {
    const guesses = new Map(this.state.guesses);
    guesses.set(this.state.at, guess);
    this.set({ guesses });
  }
}
