// Made of crates/wasm/src/protocol.rs: UPDATE_EXPECT=1 cargo test -p stateway-wasm

export type Question = { "ask": "labs" } | { "ask": "run", 
/**
 * The files of the lab by their names, `lab.yaml` among them.
 */
files: Record<string, string>, 
/**
 * Rules in the place of the lab's own.
 */
rules: OtherRules, } | { "ask": "check", 
/**
 * The files of the lab by their names, `lab.yaml` among them.
 */
files: Record<string, string>, 
/**
 * Rules in the place of the lab's own.
 */
rules: OtherRules, } | { "ask": "packet", 
/**
 * Its place in the list, from 0.
 */
number: number, };

export type OtherRules = { 
/**
 * As iptables-save prints them.
 */
v4: string | null, 
/**
 * As ip6tables-save prints them.
 */
v6: string | null, };

export type Answer = { "answer": "labs", 
/**
 * In the order of their names.
 */
labs: Array<BuiltIn>, 
/**
 * The version of the program that this was built with.
 */
version: string, } | { "answer": "run" } & Run | { "answer": "packet", 
/**
 * Its whole way.
 */
account: Account, 
/**
 * For each step of it that is a rule which said no: what the packet has in place of what the rule wants.
 */
values: Array<Value | null>, } | { "answer": "problems", 
/**
 * All of them.
 */
problems: Array<Problem>, } | { "answer": "refused", 
/**
 * Why not.
 */
message: string, };

export type Value = { 
/**
 * `state`, `in`, `to-port`, …
 */
what: string, 
/**
 * In the words of rules; two of them for ports, and for type and code.
 */
said: Array<string>, };

export type BuiltIn = { 
/**
 * By which it is asked for.
 */
name: string, 
/**
 * In one line.
 */
description: string, 
/**
 * Its files by their names.
 */
files: Record<string, string>, };

export type Problem = { 
/**
 * Which text it is about: `rules`, `rules6`, or the name of a file.
 */
file: string, 
/**
 * From 1; 0 where it is about no line.
 */
line: number, 
/**
 * From 1, in characters.
 */
column: number, 
/**
 * The value that it is about: `tests[2].ssh.to`.
 */
path: string, 
/**
 * What is wrong.
 */
message: string, 
/**
 * What may help.
 */
hint: string | null, 
/**
 * It keeps nothing from running.
 */
is_warning: boolean, };

export type Run = { 
/**
 * The lab itself.
 */
lab: Lab, 
/**
 * One for each test, in the order of the lab file.
 */
reports: Array<Report>, 
/**
 * Every packet that the router decided on.
 */
packets: Array<Packet>, 
/**
 * What deserves a second look.
 */
warnings: Array<Problem>, };

export type Lab = { 
/**
 * Its name.
 */
name: string, 
/**
 * In one line.
 */
description: string, 
/**
 * `bridge` or `route`.
 */
mode: string, 
/**
 * The ports of the router.
 */
ports: Array<Port>, 
/**
 * Who is behind them.
 */
hosts: Array<Host>, 
/**
 * The rules that were in force at the beginning, IPv4 first.
 */
rulesets: Array<Ruleset>, 
/**
 * What is tested.
 */
tests: Array<Test>, };

export type Port = { 
/**
 * As `-i` and `-o` name it.
 */
name: string, 
/**
 * The router's own addresses there.
 */
addresses: Array<string>, };

export type Host = { 
/**
 * Its name.
 */
name: string, 
/**
 * Which port it is behind, from 0.
 */
port: number, 
/**
 * Each with the length of its network.
 */
addresses: Array<string>, 
/**
 * What it serves: `ssh`, `http:8080`.
 */
services: Array<string>, };

export type Ruleset = { 
/**
 * 4 or 6.
 */
family: number, 
/**
 * As they were loaded.
 */
text: string, 
/**
 * Its rules and policies.
 */
rules: Array<Rule>, };

export type Rule = { 
/**
 * `filter/FORWARD/1`.
 */
name: string, 
/**
 * Of the text, from 1; 0 for a policy.
 */
line: number, 
/**
 * As iptables-save prints it; for a policy its word.
 */
text: string, };

export type Test = { 
/**
 * What it is called.
 */
name: string, 
/**
 * Its place in the lab file: `tests[2]`.
 */
path: string, 
/**
 * Its line there, from 1.
 */
line: number, 
/**
 * What it does.
 */
steps: Array<Step>, };

export type Step = { 
/**
 * Its place in the lab file: `tests[2].steps[0]`.
 */
path: string, 
/**
 * `ssh host104 → host77`.
 */
title: string, };

export type Report = { 
/**
 * `pass`, `fail`, `skip`, `broken`, `not run`.
 */
ending: string, 
/**
 * The line that `stateway lab test --on sim` prints.
 */
line: string, 
/**
 * What was not as expected, and why.
 */
details: string, 
/**
 * What came of it, in virtual microseconds.
 */
took_us: number, };

export type Packet = { 
/**
 * Since the lab came up, in virtual microseconds.
 */
time_us: number, 
/**
 * The path of the step that was under way.
 */
step: string, 
/**
 * For people: `tcp S 192.0.2.77:40000 → 192.0.2.104:22`.
 */
summary: string, 
/**
 * The port where it came in, from 0.
 */
in_port: number, 
/**
 * The ports where it left.
 */
out_ports: Array<number>, 
/**
 * The host that sent it, from 0.
 */
sender: number | null, 
/**
 * The hosts that it goes to.
 */
receivers: Array<number>, 
/**
 * `NEW`, `ESTABLISHED`, …; none if it never came as far as connection tracking.
 */
ctstate: string | null, 
/**
 * `original` or `reply`, where a connection stands behind it.
 */
direction: string | null, 
/**
 * `forwarded`, `dropped`, `rejected`, `delivered`, `queued`.
 */
fate: string, 
/**
 * Who decided: `filter/FORWARD/1`, `policy`.
 */
rule: string | null, 
/**
 * Why it was stopped, or is INVALID.
 */
reason: string | null, 
/**
 * The reason in a sentence.
 */
why: string | null, 
/**
 * The number of the connection behind it.
 */
connection: number | null, 
/**
 * The rules and policies that held, by their names.
 */
held: Array<string>, 
/**
 * The frame as it came, in hexadecimal.
 */
bytes: string, 
/**
 * What the router sent because of it.
 */
answers: Array<Sent>, 
/**
 * Connections that are new or have changed since the packet before.
 */
changed: Array<Connection>, 
/**
 * The numbers of those that have gone.
 */
gone: Array<number>, };

export type Sent = { 
/**
 * The port where it leaves, from 0.
 */
port: number, 
/**
 * For people.
 */
summary: string, };

export type Connection = { 
/**
 * From 1, in the order in which they were first seen.
 */
number: number, 
/**
 * `tcp`, `udp`, `icmp`, ….
 */
protocol: string, 
/**
 * The state of its protocol, where it has one.
 */
state: string | null, 
/**
 * What the first packet was like: `src=… dst=… sport=… dport=…`.
 */
original: string, 
/**
 * What answers are like.
 */
reply: string, 
/**
 * In the kernel's words: `SEEN_REPLY`, `ASSURED`, ….
 */
status: Array<string>, 
/**
 * The connection mark.
 */
mark: number, 
/**
 * Who reads its payload.
 */
helper: string | null, 
/**
 * When it ends unless a packet comes, in virtual microseconds.
 */
expires_us: number, 
/**
 * Of TCP: what is known of the numbers of the one who opened it, and of the other.
 */
windows: [Window, Window] | null, };

export type Window = { 
/**
 * Behind the last byte it sent.
 */
end: number, 
/**
 * Behind the last byte it may send.
 */
max_end: number, 
/**
 * The largest window it offered, scaled, in bytes.
 */
max_win: number, 
/**
 * By how many bits its windows are shifted, if its SYN said so.
 */
wscale: number | null, };

export type Account = { packet: string, in: string, steps: Array<WayStep>, fate: string, out?: Array<string>, rule?: string, reason?: string, 
/**
 * The reason in a sentence.
 */
why?: string, 
/**
 * The connection behind the packet.
 */
entry?: string, emitted?: Array<Emitted>, };

export type WayStep = { "step": "hook", table: string, chain: string, } | { "step": "rule", rule: string, text: string, matched: boolean, 
/**
 * The match that said no.
 */
failed?: string, } | { "step": "policy", rule: string, policy: string, } | { "step": "conntrack", ctstate: string, direction?: string, reason?: string, 
/**
 * In a sentence.
 */
why: string, } | { "step": "tolerated", why: string, } | { "step": "routed", out: string, next_hop?: string, } | { "step": "local" } | { "step": "translated", 
/**
 * The rule of the nat table; without one the connection is bound to what it has.
 */
rule?: string, side: string, from: string, to: string, how: string, 
/**
 * In a sentence.
 */
why: string, } | { "step": "confirmed" } | { "step": "expected", connection: string, } | { "step": "unannounced", helper: string, why: string, } | { "step": "sent", port: string, } | { "step": "answer", packet: string, port: string, } | { "step": "unanswered", fate: string, reason?: string, };

export type Emitted = { port: string, bytes: string, };
