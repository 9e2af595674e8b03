// A run as the page shows it: one that was simulated, or the packets of a router that runs.

import type { Connection as Simulated, Run as SimulatedRun } from './protocol';

/** A running router has a number of its own for a connection. */
export type Connection = Simulated & { id?: number };

/** Of a running router the connections are known that were there before its first packet. */
export type Run = SimulatedRun & { base?: Connection[] };
