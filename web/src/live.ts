// A router that runs, as the page shows a run: every packet that it told of, the table after each, and the rules. What the server
// sends (src/cli/web) goes in; nothing here asks for anything.

import type { ChainName, EntryView, EventView, RuleCount, Summary, Verdict } from './control';
import type { Host, Lab, Packet, Rule, Ruleset, Value } from './protocol';
import { connectionsAt } from './replay';
import type { Connection, Run } from './run';
import type { Told } from './source';

/** What is shown beside the packets: src/cli/web/shown.rs. */
export interface Shown {
  name: string;
  may_write: boolean;
  hosts: { name: string; port: string; addresses: string[]; services: string[] }[];
  files: Record<string, string>;
}

/** What the server tells, by its kind: src/cli/web/feed.rs. */
export interface News {
  router: { is_there: boolean; mode?: string; version?: string };
  ports: { name: string; addresses: string[] }[];
  rules: { rules: RuleCount[]; chains: ChainName[] };
  table: Summary;
  packet: { verdict: Verdict; values: (Value | null)[] };
  connection: EventView;
  lost: { count: number };
}
export const KINDS: (keyof News)[] = ['router', 'ports', 'rules', 'table', 'packet', 'connection', 'lost'];

/** So many packets are kept; when there are more, the oldest of them go. */
const MOST_PACKETS = 4000;
const GO_AT_ONCE = 500;
/** What became of a connection is told with the time of its packet: such times are the same one. */
const SAME_S = 1e-6;
/** A timer that differs by less is the same one, looked at at another moment. */
const SAME_TIMER_US = 1_500_000;

interface Known {
  number: number;
  connection: Connection;
}

export class LiveRun {
  run: Run;
  isThere = true;
  lost = 0;
  /** What each rule has counted since the router began. */
  counts = new Map<string, number>();
  /** How many packets have gone at the front, since that was asked last. */
  gone = 0;
  private told: Told[] = [];
  private unixTimes: number[] = [];
  private known = new Map<number, Known>();
  private byTuple = new Map<string, number>();
  private connections = 0;
  private waiting: EventView[] = [];
  private base: Connection[] = [];
  /** From the time of day to that of the router, in seconds. */
  private offset: number | null = null;
  private ruleTexts = '';

  constructor(private shown: Shown) {
    this.run = { lab: emptyLab(shown), reports: [], packets: [], warnings: [], base: this.base };
  }

  account(number: number): Told | undefined {
    return this.told[number];
  }

  hear<K extends keyof News>(kind: K, news: News[K]) {
    const hearing: { [K in keyof News]: (news: News[K]) => void } = {
      router: (router) => {
        this.isThere = router.is_there;
        if (router.mode) this.run.lab = { ...this.run.lab, mode: router.mode };
      },
      ports: (ports) => this.hearPorts(ports),
      rules: (rules) => this.hearRules(rules),
      table: (table) => this.hearTable(table),
      packet: ({ verdict, values }) => this.hearPacket(verdict, values),
      connection: (event) => this.hearConnection(event),
      lost: ({ count }) => {
        this.lost += count;
      },
    };
    hearing[kind](news);
  }

  /** The run as it is now, to be shown. */
  picture(): Run {
    this.run = { ...this.run, base: this.base };
    return this.run;
  }

  private hearPorts(ports: News['ports']) {
    const numbers = new Map(ports.map((port, at) => [port.name, at]));
    // Of a router that runs alone nobody knows who is behind its ports: the port stands for them.
    const hosts: Host[] =
      this.shown.hosts.length > 0
        ? this.shown.hosts.map((host) => ({ ...host, port: numbers.get(host.port) ?? 0 }))
        : ports.map((port, at) => ({ name: port.name, port: at, addresses: [], services: [] }));
    this.run.lab = { ...this.run.lab, ports, hosts };
  }

  private hearRules({ rules, chains }: News['rules']) {
    this.counts = new Map(rules.map(({ name, packets }) => [name, packets]));
    const texts = JSON.stringify(rules.map(({ family, name, text }) => [family, name, text]));
    if (texts === this.ruleTexts) return;
    this.ruleTexts = texts;
    this.run.lab = { ...this.run.lab, rulesets: rulesets(rules, chains) };
  }

  private hearPacket(verdict: Verdict, values: (Value | null)[]) {
    this.offset = verdict.time - verdict.unix_time;
    const packet = this.packetOf(verdict);
    this.settleBefore(verdict.unix_time - SAME_S);
    this.run.packets.push(packet);
    this.told.push({ account: accountOf(verdict), values });
    this.unixTimes.push(verdict.unix_time);
    this.settleBefore(verdict.unix_time + SAME_S);
    if (this.run.packets.length > MOST_PACKETS) this.forget();
  }

  private hearConnection(event: EventView) {
    if (!event.entry) return;
    const last = this.unixTimes.at(-1);
    if (last !== undefined && event.time <= last + SAME_S) this.attach(event);
    else this.waiting.push(event);
  }

  /** What became of connections up to a time belongs to packets that are there. */
  private settleBefore(time: number) {
    const due = this.waiting.filter((event) => event.time <= time);
    this.waiting = this.waiting.filter((event) => event.time > time);
    for (const event of due) this.attach(event);
  }

  private attach(event: EventView) {
    const at = this.unixTimes.findLastIndex((time) => time <= event.time + SAME_S);
    const isOwn = at >= 0 && Math.abs((this.unixTimes[at] ?? 0) - event.time) <= SAME_S;
    if (!event.entry) return;
    this.change(event.entry, at, event.kind === 'DESTROY', isOwn, event.time);
  }

  private change(entry: EntryView, at: number, isGone: boolean, isOwn: boolean, unixTime: number) {
    const packet = this.run.packets[at];
    const known = this.known.get(entry.id);
    const number = known?.number ?? ++this.connections;
    if (isGone) {
      this.known.delete(entry.id);
      for (const key of keys(entry)) if (this.byTuple.get(key) === number) this.byTuple.delete(key);
      if (packet) packet.gone = [...packet.gone, number];
      else this.base = this.base.filter((one) => one.number !== number);
      return;
    }
    const expires = (unixTime + (this.offset ?? 0) + (entry.timeout ?? 0)) * 1e6;
    const connection = connectionOf(entry, number, expires);
    this.known.set(entry.id, { number, connection });
    for (const key of keys(entry)) this.byTuple.set(key, number);
    if (packet) packet.changed = [...packet.changed, connection];
    else this.base = [...this.base.filter((one) => one.number !== number), connection];
    if (packet && isOwn && packet.connection === null) packet.connection = number;
  }

  /** The table as it is says what nobody told: timers that packets have set anew, and what went by itself. */
  private hearTable(table: Summary) {
    this.settleBefore(Number.POSITIVE_INFINITY);
    const last = this.run.packets.length - 1;
    const now = Date.now() / 1000;
    const isWhole = table.newest.length >= table.count;
    const there = new Set(table.newest.map(({ id }) => id));
    for (const entry of [...table.newest].reverse()) {
      const known = this.known.get(entry.id)?.connection;
      const expires = (now + (this.offset ?? 0) + (entry.timeout ?? 0)) * 1e6;
      const isSame =
        known &&
        Math.abs(known.expires_us - expires) < SAME_TIMER_US &&
        known.state === (entry.state ?? null) &&
        known.status.length === entry.status.length;
      if (!isSame) this.change(entry, last, false, false, now);
    }
    if (!isWhole) return;
    for (const [id, { number }] of [...this.known]) {
      if (there.has(id)) continue;
      this.known.delete(id);
      const packet = this.run.packets[last];
      if (packet) packet.gone = [...packet.gone, number];
      else this.base = this.base.filter((one) => one.number !== number);
    }
  }

  /** The oldest packets go; the table that they left stays. */
  private forget() {
    this.base = connectionsAt(this.picture(), GO_AT_ONCE - 1);
    this.run.packets.splice(0, GO_AT_ONCE);
    this.told.splice(0, GO_AT_ONCE);
    this.unixTimes.splice(0, GO_AT_ONCE);
    this.gone += GO_AT_ONCE;
  }

  private packetOf(verdict: Verdict): Packet {
    const { lab } = this.run;
    const port = (name: string) => lab.ports.findIndex((one) => one.name === name);
    const steps = verdict.steps ?? [];
    const inPort = Math.max(0, port(verdict.in));
    const outPorts = (verdict.out ?? []).map(port).filter((at) => at >= 0);
    const receivers = outPorts
      .map((at) => hostOf(lab, at, verdict.dst ?? null))
      .filter((host) => host !== null);
    return {
      time_us: verdict.time * 1e6,
      step: '',
      summary: verdict.summary,
      in_port: inPort,
      out_ports: outPorts,
      sender: hostOf(lab, inPort, verdict.src ?? null),
      receivers,
      ctstate: verdict.ctstate ?? null,
      direction: verdict.direction ?? null,
      fate: verdict.fate,
      rule: verdict.rule ?? null,
      reason: verdict.reason ?? null,
      why: null,
      connection: this.byTuple.get(keyOf(verdict)) ?? null,
      held: steps.flatMap((step) =>
        (step.step === 'rule' && step.matched) || step.step === 'policy' ? [step.rule] : [],
      ),
      bytes: '',
      answers: steps.flatMap((step) =>
        step.step === 'answer' ? [{ port: Math.max(0, port(step.port)), summary: step.packet }] : [],
      ),
      changed: [],
      gone: [],
    };
  }
}

function emptyLab(shown: Shown): Lab {
  return { name: shown.name, description: '', mode: '', ports: [], hosts: [], rulesets: [], tests: [] };
}

function accountOf(verdict: Verdict): Told['account'] {
  const account: Told['account'] = {
    packet: verdict.summary,
    in: verdict.in,
    steps: verdict.steps ?? [],
    fate: verdict.fate,
  };
  if (verdict.out) account.out = verdict.out;
  if (verdict.rule) account.rule = verdict.rule;
  if (verdict.reason) account.reason = verdict.reason;
  return account;
}

/** Who is behind a port by that address; the only one who is there, where no address says it. */
function hostOf(lab: Lab, port: number, address: string | null): number | null {
  const behind = lab.hosts.flatMap((host, at) => (host.port === port ? [at] : []));
  const isIt = (at: number) => lab.hosts[at]?.addresses.some((one) => one.split('/')[0] === address);
  return behind.find(isIt) ?? (behind.length === 1 ? (behind[0] ?? null) : null);
}

/** By which a packet finds its connection. */
function keyOf(verdict: Verdict): string {
  const { protocol, src, dst, sport, dport } = verdict;
  return [protocol, src, dst, sport ?? '', dport ?? ''].join(' ');
}

function keys({ protocol, original, reply }: EntryView): string[] {
  return [original, reply].map(({ src, dst, sport, dport }) =>
    [protocol, src, dst, sport ?? '', dport ?? ''].join(' '),
  );
}

function connectionOf(entry: EntryView, number: number, expires: number): Connection {
  return {
    number,
    id: entry.id,
    protocol: entry.name,
    state: entry.state ?? null,
    original: tuple(entry.original),
    reply: tuple(entry.reply),
    status: entry.status,
    mark: entry.mark,
    helper: entry.helper ?? null,
    expires_us: expires,
    windows: null,
  };
}

function tuple(flow: EntryView['original']): string {
  const parts = [`src=${flow.src}`, `dst=${flow.dst}`];
  if (flow.sport !== undefined && flow.sport !== null) parts.push(`sport=${flow.sport}`);
  if (flow.dport !== undefined && flow.dport !== null) parts.push(`dport=${flow.dport}`);
  if (flow.icmp_id !== undefined && flow.icmp_id !== null) {
    parts.push(`type=${flow.icmp_type}`, `code=${flow.icmp_code}`, `id=${flow.icmp_id}`);
  }
  return parts.join(' ');
}

/** The rules as iptables-save writes them, with the line of each. */
export function rulesets(rules: RuleCount[], chains: ChainName[]): Ruleset[] {
  return [4, 6].flatMap((family) => {
    const mine = rules.filter((rule) => rule.family === family);
    const named = chains.filter((chain) => chain.family === family);
    if (named.length === 0) return [];
    const lines: string[] = [];
    const placed: Rule[] = [];
    for (const table of new Set(named.map((chain) => chain.table))) {
      lines.push(`*${table}`);
      const own = named.filter((chain) => chain.table === table);
      const policy = (chain: string) => mine.find(({ name }) => name === `${table}/${chain}/policy`);
      for (const { name } of own) {
        const found = policy(name);
        lines.push(`:${name} ${found?.text ?? '-'} [0:0]`);
        if (found) placed.push({ name: found.name, text: found.text, line: lines.length });
      }
      for (const { name: chain } of own) {
        const prefix = `${table}/${chain}/`;
        for (const { name, text } of mine.filter((rule) => rule.name.startsWith(prefix))) {
          if (name === `${prefix}policy`) continue;
          lines.push(text);
          placed.push({ name, text, line: lines.length });
        }
      }
      lines.push('COMMIT');
    }
    return [{ family, text: `${lines.join('\n')}\n`, rules: placed }];
  });
}
