import { describe, expect, test } from 'vitest';
import type { EntryView, Verdict } from '../src/control';
import { LiveRun, rulesets } from '../src/live';
import { connectionsAt } from '../src/replay';

const SHOWN = {
  name: 'article',
  may_write: false,
  hosts: [
    { name: 'host104', port: 'a', addresses: ['192.0.2.104/24'], services: [] },
    { name: 'host77', port: 'b', addresses: ['192.0.2.77/24'], services: [] },
  ],
  files: {},
};
const PORTS = ['a', 'b'].map((name) => ({ name, addresses: [] }));

const verdict = (time: number, more: Partial<Verdict> = {}): Verdict => ({
  time,
  unix_time: 1000 + time,
  in: 'a',
  out: ['b'],
  src: '192.0.2.104',
  dst: '192.0.2.77',
  protocol: 6,
  sport: 40000,
  dport: 22,
  summary: 'tcp',
  ctstate: 'NEW',
  direction: 'original',
  fate: 'forwarded',
  rule: 'filter/FORWARD/2',
  reason: null,
  steps: [],
  ...more,
});

const flow = (src: string, dst: string, sport: number, dport: number) => ({
  ...{ src, dst, sport, dport, icmp_type: null, icmp_code: null, icmp_id: null },
});
const entry = (state: string, more: Partial<EntryView> = {}): EntryView => ({
  id: 7,
  family: 4,
  protocol: 6,
  name: 'tcp',
  timeout: 120,
  state,
  original: flow('192.0.2.104', '192.0.2.77', 40000, 22),
  reply: flow('192.0.2.77', '192.0.2.104', 22, 40000),
  status: ['CONFIRMED'],
  mark: 0,
  zone: 0,
  helper: null,
  uses: 1,
  line: '',
  ...more,
});

function live() {
  const run = new LiveRun(SHOWN);
  run.hear('ports', PORTS);
  return run;
}
const packet = (one: Verdict) => ({ verdict: one, values: [] });
const event = (kind: string, time: number, of: EntryView) => ({
  ...{ kind, time: 1000 + time, line: '', entry: of, expectation: null },
});

describe('a running router', () => {
  test('a packet goes from host to host, by address', () => {
    const run = live();
    run.hear('packet', packet(verdict(1)));
    run.hear('packet', packet(verdict(2, { in: 'b', out: [], src: '192.0.2.77', dst: '192.0.2.104' })));
    const [forward, stopped] = run.picture().packets;
    expect([forward?.sender, forward?.receivers, forward?.out_ports]).toEqual([0, [1], [1]]);
    expect([stopped?.sender, stopped?.receivers, stopped?.in_port]).toEqual([1, [], 1]);
  });

  test.each([true, false])('a connection belongs to its packet, whichever is told first', (isEventFirst) => {
    const run = live();
    const tell = [
      () => run.hear('connection', event('NEW', 1, entry('SYN_SENT'))),
      () => run.hear('packet', packet(verdict(1))),
    ];
    for (const say of isEventFirst ? tell : tell.reverse()) say();
    run.hear(
      'packet',
      packet(verdict(2, { in: 'b', src: '192.0.2.77', dst: '192.0.2.104', sport: 22, dport: 40000 })),
    );
    const picture = run.picture();
    expect(picture.packets.map((one) => one.connection)).toEqual([1, 1]);
    expect(connectionsAt(picture, -1)).toEqual([]);
    expect(connectionsAt(picture, 0).map((one) => [one.state, one.expires_us])).toEqual([
      ['SYN_SENT', 121e6],
    ]);
  });

  test('what ends leaves the table at the packet after which it ended, and not before', () => {
    const run = live();
    run.hear('connection', event('NEW', 1, entry('SYN_SENT')));
    run.hear('packet', packet(verdict(1)));
    run.hear('connection', event('DESTROY', 1.5, entry('SYN_SENT')));
    run.hear('packet', packet(verdict(2, { sport: 1 })));
    const picture = run.picture();
    expect(connectionsAt(picture, 0)).toEqual([]);
    expect(picture.packets[0]?.gone).toEqual([1]);
  });

  test('the table as it is corrects what nobody told', () => {
    const run = live();
    const table = (newest: EntryView[]) => ({
      ...{ count: newest.length, limit: 100, by_state: [], newest, matching: 0, snat: 0, dnat: 0 },
    });
    run.hear('table', table([entry('ESTABLISHED')]));
    expect(connectionsAt(run.picture(), -1).map((one) => one.state)).toEqual(['ESTABLISHED']);
    run.hear('table', table([]));
    expect(connectionsAt(run.picture(), -1)).toEqual([]);
  });

  test('the oldest packets go, and the table that they left stays', () => {
    const run = live();
    run.hear('connection', event('NEW', 1, entry('SYN_SENT')));
    for (let at = 1; at <= 4001; at++) run.hear('packet', packet(verdict(at, { ctstate: 'ESTABLISHED' })));
    const picture = run.picture();
    expect([picture.packets.length, run.gone]).toEqual([3501, 500]);
    expect(connectionsAt(picture, 0).map((one) => one.number)).toEqual([1]);
    expect(run.account(0)?.account.fate).toBe('forwarded');
  });

  test('rules read as iptables-save writes them, each with its line', () => {
    const count = (name: string, text: string) => ({ family: 4, name, text, packets: 0, bytes: 0 });
    const chain = (name: string) => ({ family: 4, table: 'filter', name });
    const rules = [
      count('filter/FORWARD/1', '-A FORWARD -j mine'),
      count('filter/FORWARD/policy', 'DROP'),
      count('filter/mine/1', '-A mine -j ACCEPT'),
    ];
    const [found] = rulesets(rules, [chain('FORWARD'), chain('mine')]);
    expect(found?.text).toBe(
      '*filter\n:FORWARD DROP [0:0]\n:mine - [0:0]\n-A FORWARD -j mine\n-A mine -j ACCEPT\nCOMMIT\n',
    );
    expect(found?.rules.map(({ name, line }) => [name, line])).toEqual([
      ['filter/FORWARD/policy', 2],
      ['filter/FORWARD/1', 4],
      ['filter/mine/1', 5],
    ]);
  });
});
