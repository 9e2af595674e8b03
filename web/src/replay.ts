// What the page shows at one packet of a run, worked out of the run alone: stepping back and forward gives the same picture.

import type { Packet } from './protocol';
import type { Connection, Run } from './run';

/** The connections in the table right after packet `at`; -1 is before the first one. */
export function connectionsAt(run: Run, at: number): Connection[] {
  const table = new Map<number, Connection>((run.base ?? []).map((one) => [one.number, one]));
  for (const packet of run.packets.slice(0, at + 1)) {
    for (const connection of packet.changed) table.set(connection.number, connection);
    for (const number of packet.gone) table.delete(number);
  }
  return [...table.values()].sort((a, b) => a.number - b.number);
}

/** How many packets each rule and policy has held for, up to packet `at`. */
export function countsAt(run: Run, at: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (const packet of run.packets.slice(0, at + 1)) {
    for (const name of packet.held) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

/** The packet that brought a connection into the table. */
export function openerOf(run: Run, number: number): number | undefined {
  const at = run.packets.findIndex((packet) => packet.changed.some((one) => one.number === number));
  return at < 0 ? undefined : at;
}

/** Which test a packet belongs to, from 0. */
export function testOf(packet: Packet): number {
  return Number(/^tests\[(\d+)\]/.exec(packet.step)?.[1] ?? 0);
}

/** The first packet of a test. */
export function firstOf(run: Run, test: number): number | undefined {
  const at = run.packets.findIndex((packet) => testOf(packet) === test);
  return at < 0 ? undefined : at;
}

/** What an exercise asks of: of each test the first packet that met rules, which ARP never does. */
export function questions(run: Run): number[] {
  const first = new Map<number, number>();
  run.packets.forEach((packet, at) => {
    if (packet.ctstate !== null && !first.has(testOf(packet))) first.set(testOf(packet), at);
  });
  return [...first.values()];
}

export function isStopped(packet: Packet): boolean {
  return packet.fate === 'dropped' || packet.fate === 'rejected';
}

/** Seconds that are left to a connection at a time. */
export function secondsLeft(connection: Connection, timeUs: number): number {
  return Math.max(0, (connection.expires_us - timeUs) / 1e6);
}

/** Whose fate is another one than in the run before, and what that was. Packets are the same by step, place in it and content. */
export function changedFates(before: Run, after: Run): Map<number, string> {
  const keyed = (run: Run) => {
    const seen = new Map<string, number>();
    return run.packets.map((packet) => {
      const content = `${packet.step} ${packet.in_port} ${packet.summary}`;
      const nth = seen.get(content) ?? 0;
      seen.set(content, nth + 1);
      return `${content} ${nth}`;
    });
  };
  const fates = new Map<string, string>();
  keyed(before).forEach((key, at) => {
    fates.set(key, before.packets[at]?.fate ?? '');
  });
  const changed = new Map<number, string>();
  keyed(after).forEach((key, at) => {
    const was = fates.get(key);
    if (was !== undefined && was !== after.packets[at]?.fate) changed.set(at, was);
  });
  return changed;
}

/** The stages of the netfilter diagram, in the order in which a packet passes them. */
export type Stage = { table: string; chain: string };

export const FORWARDED: Stage[] = [
  { table: 'raw', chain: 'PREROUTING' },
  { table: 'conntrack', chain: 'PREROUTING' },
  { table: 'mangle', chain: 'PREROUTING' },
  { table: 'nat', chain: 'PREROUTING' },
  { table: 'routing', chain: '' },
  { table: 'mangle', chain: 'FORWARD' },
  { table: 'filter', chain: 'FORWARD' },
  { table: 'mangle', chain: 'POSTROUTING' },
  { table: 'nat', chain: 'POSTROUTING' },
  { table: 'confirm', chain: 'POSTROUTING' },
];

export const DELIVERED: Stage[] = [
  ...FORWARDED.slice(0, 5),
  { table: 'mangle', chain: 'INPUT' },
  { table: 'filter', chain: 'INPUT' },
  { table: 'nat', chain: 'INPUT' },
  { table: 'confirm', chain: 'INPUT' },
];
