// Made of crates/runtime/src/control/protocol.rs: UPDATE_EXPECT=1 cargo test -p stateway-runtime the_types

import type { WayStep } from './protocol';

export type Verdict = { 
/**
 * Seconds since the router began to forward.
 */
time: number, 
/**
 * Seconds since 1970.
 */
unix_time: number, 
/**
 * The port where it came in.
 */
in: string, 
/**
 * The ports where it left.
 */
out?: Array<string>, src: string | null, dst: string | null, 
/**
 * The upper-layer protocol by its number.
 */
protocol: number | null, sport: number | null, dport: number | null, 
/**
 * The flags of a TCP segment, as a number.
 */
tcp_flags?: number | null, 
/**
 * Type and code of an ICMP or ICMPv6 message.
 */
icmp?: [number, number] | null, 
/**
 * Identification and offset of a fragment.
 */
fragment?: [number, number] | null, 
/**
 * The packet for people: `tcp S 192.0.2.77:40000 → 192.0.2.104:22`.
 */
summary: string, 
/**
 * As `-m conntrack --ctstate` sees it; absent if the packet never came so far.
 */
ctstate: string | null, direction: string | null, fate: string, 
/**
 * The rule that decided, `policy` where none did.
 */
rule: string | null, 
/**
 * A stable code: why it was not forwarded, or why it is INVALID.
 */
reason: string | null, 
/**
 * Its way, if that was asked for: a line for each step, and the same as `explain --format json` writes it.
 */
way?: Array<string>, steps?: WayStep[], };

export type EventView = { 
/**
 * `NEW`, `UPDATE`, `DESTROY`.
 */
kind: string, 
/**
 * Seconds since 1970.
 */
time: number, 
/**
 * As `conntrack -E -o extended` prints it.
 */
line: string, entry: EntryView | null, expectation: ExpectationView | null, };

export type EntryView = { 
/**
 * As `-o id` prints it: the same in every event of the connection.
 */
id: number, 
/**
 * 4 or 6.
 */
family: number, 
/**
 * By its number, and by the name that conntrack-tools give it.
 */
protocol: number, name: string, 
/**
 * Seconds that are left.
 */
timeout?: number, 
/**
 * The protocol's state, where it has one.
 */
state: string | null, original: FlowView, reply: FlowView, status: Array<string>, mark: number, zone: number, helper: string | null, 
/**
 * How many hold on to it: the table, and each living connection that it announced.
 */
uses: number, 
/**
 * SCTP's verification tags, of the original and the reply direction.
 */
vtags?: [number, number] | null, 
/**
 * As `conntrack -L -o extended` prints it.
 */
line: string, };

export type FlowView = { src: string, dst: string, sport: number | null, dport: number | null, icmp_type: number | null, icmp_code: number | null, icmp_id: number | null, 
/**
 * While `nf_conntrack_acct` is set.
 */
packets?: number, bytes?: number, };

export type ExpectationView = { timeout: number, protocol: number, src: string, dst: string, dport: number, 
/**
 * The tuple of the connection that announced it.
 */
master: string, helper: string, 
/**
 * As `conntrack -L expect` prints it.
 */
line: string, };

export type RuleCount = { 
/**
 * 4 or 6.
 */
family: number, 
/**
 * `filter/FORWARD/1`, or `filter/FORWARD/policy`.
 */
name: string, 
/**
 * The rule as iptables-save prints it, or the policy.
 */
text: string, packets: number, bytes: number, };

export type ChainName = { 
/**
 * 4 or 6.
 */
family: number, table: string, name: string, };

export type Summary = { count: number, 
/**
 * `nf_conntrack_max`.
 */
limit: number, 
/**
 * `tcp ESTABLISHED`, `udp`, …: how many there are of each.
 */
by_state: Array<Named>, 
/**
 * Those that came first in the order that was asked for: the newest, if none was.
 */
newest: Array<EntryView>, 
/**
 * How many are meant.
 */
matching: number, 
/**
 * How many have a translated source, and how many a translated destination.
 */
snat: number, dnat: number, 
/**
 * The one that was to be shown; `None` if it is over.
 */
shown?: ConnectionView | null, };

export type ConnectionView = { entry: EntryView, 
/**
 * Seconds since its first packet.
 */
age: number, 
/**
 * Seconds that are left.
 */
timeout: number, 
/**
 * Of TCP: what is known of who opened it, and of the other side.
 */
windows?: Array<WindowView>, 
/**
 * The connection that announced it, as `conntrack -L -o extended` prints it.
 */
master?: string | null, 
/**
 * How its first packet came in.
 */
let_in: LetInView, };

export type LetInView = { "rule": { name: string, text: string, } } | "other_rules" | "not_known";

export type WindowView = { 
/**
 * Behind the last byte it sent.
 */
end: number, 
/**
 * Behind the last byte it may send.
 */
max_end: number, 
/**
 * The largest window it offered, in bytes; 0: nothing was heard of it.
 */
max_win: number, 
/**
 * The highest acknowledgement it sent.
 */
max_ack?: number | null, wscale?: number | null, 
/**
 * Segments outside its window are let pass: its beginning was not seen.
 */
is_liberal: boolean, };

export type Named = { name: string, count: number, };
