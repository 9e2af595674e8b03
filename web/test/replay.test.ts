import { describe, expect, test } from 'vitest';
import type { Packet } from '../src/protocol';
import { changedFates, connectionsAt, countsAt, firstOf, openerOf, secondsLeft } from '../src/replay';
import type { Connection, Run } from '../src/run';
import { clock } from '../src/views/Bar';
import { duration, ends } from '../src/views/Connections';

const connection = (number: number, state: string): Connection => ({
  number,
  protocol: 'tcp',
  state,
  original: '',
  reply: '',
  status: [],
  mark: 0,
  helper: null,
  expires_us: 5_000_000,
  windows: null,
});

const packet = (over: Partial<Packet>): Packet => ({
  time_us: 0,
  step: 'tests[0]',
  summary: 'udp',
  in_port: 0,
  out_ports: [],
  sender: null,
  receivers: [],
  ctstate: 'NEW',
  direction: null,
  fate: 'forwarded',
  rule: null,
  reason: null,
  why: null,
  connection: null,
  held: [],
  bytes: '',
  answers: [],
  changed: [],
  gone: [],
  ...over,
});

const run = (...packets: Packet[]): Run => ({
  lab: { name: 'lab', description: '', mode: 'bridge', ports: [], hosts: [], rulesets: [], tests: [] },
  reports: [],
  packets,
  warnings: [],
});

describe('the table at a packet', () => {
  const story = run(
    packet({ changed: [connection(1, 'SYN_SENT')], held: ['filter/FORWARD/1'] }),
    packet({ changed: [connection(2, 'SYN_SENT')], step: 'tests[1].steps[0]' }),
    packet({ changed: [connection(1, 'ESTABLISHED')], gone: [2], held: ['filter/FORWARD/1'] }),
  );

  test('is empty before the first', () => expect(connectionsAt(story, -1)).toEqual([]));
  test('holds what is new, changed and not gone', () => {
    const states = [0, 1, 2].map((at) =>
      connectionsAt(story, at).map(({ number, state }) => [number, state]),
    );
    expect(states).toEqual([
      [[1, 'SYN_SENT']],
      [
        [1, 'SYN_SENT'],
        [2, 'SYN_SENT'],
      ],
      [[1, 'ESTABLISHED']],
    ]);
  });
  test('knows who opened a connection', () => {
    expect([openerOf(story, 1), openerOf(story, 2), openerOf(story, 3)]).toEqual([0, 1, undefined]);
  });
  test('counts packets by rule', () => {
    expect([countsAt(story, -1), countsAt(story, 2)].map((counts) => counts.get('filter/FORWARD/1'))).toEqual(
      [undefined, 2],
    );
  });
  test('finds the first packet of a test', () =>
    expect([firstOf(story, 1), firstOf(story, 7)]).toEqual([1, undefined]));
  test('timers end at nothing', () => {
    const left = [4_000_000, 5_000_000, 6_000_000].map((time) => secondsLeft(connection(1, ''), time));
    expect(left).toEqual([1, 0, 0]);
  });
});

test('a changed fate is told of the same packet, not of the same place', () => {
  const before = run(packet({ summary: 'a' }), packet({ summary: 'b' }), packet({ summary: 'b' }));
  const after = run(
    packet({ summary: 'b' }),
    packet({ summary: 'b', fate: 'dropped' }),
    packet({ summary: 'c' }),
  );
  expect([...changedFates(before, after)]).toEqual([[1, 'forwarded']]);
});

test('times and tuples are told in few characters', () => {
  expect([12_345, 3_600_000_000, 90_061_000_000].map(clock)).toEqual(['0.012 s', '01:00:00', '1 d 01:01:01']);
  expect([29.9, 120, 431_999].map(duration)).toEqual(['29 s', '02:00', '4 d 23:59:59']);
  expect(ends('src=192.0.2.1 dst=192.0.2.2 sport=1 dport=22')).toBe('192.0.2.1:1 → 192.0.2.2:22');
  expect(ends('src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2')).toBe('[2001:db8::1]:1 → [2001:db8::2]:2');
  expect(ends('src=192.0.2.1 dst=192.0.2.2 type=8 code=0 id=7')).toBe(
    '192.0.2.1 → 192.0.2.2 type=8 code=0 id=7',
  );
});
