import { useEffect, useMemo, useRef } from 'preact/hooks';
import type { Lab, Packet } from '../protocol';
import { isStopped } from '../replay';
import type { Run } from '../run';
import type { Speed } from '../state';
import { useQuery, useWords } from '../use';

/** How large things are: on a phone as many hosts stand nearer together. */
interface Sizes {
  width: number;
  host: number;
  router: number;
  /** From the middle to a port. */
  port: number;
}
const WIDE: Sizes = { width: 640, host: 150, router: 104, port: 100 };
const NARROW: Sizes = { width: 380, host: 104, router: 74, port: 62 };
const HEIGHT = 250;
/** So many hosts of a port are drawn; the others are one box. */
const MOST_HOSTS = 5;
const TRAVEL_MS = { slow: 1600, normal: 700, fast: 180 };

interface Point {
  x: number;
  y: number;
}

interface Box extends Point {
  label: string;
  below: string;
  /** Which hosts it stands for. */
  hosts: number[];
}

interface Drawn {
  sizes: Sizes;
  middle: Point;
  ports: (Point & { name: string; below: string })[];
  boxes: Box[];
  /** The box of each host. */
  boxOf: Map<number, Box>;
}

interface Props {
  run: Run;
  at: number;
  isHidden: boolean;
  speed: Speed;
  /** Packets come by themselves, and all of them travel. */
  isFollowing: boolean;
}

/** Hosts, router and ports, and the chosen packet: it ends at the router where a rule stops it. */
export function LabMap({ run, at, isHidden, speed, isFollowing }: Props) {
  const words = useWords();
  const sizes = useQuery('(max-width: 599px)') ? NARROW : WIDE;
  const drawn = useMemo(() => draw(run, sizes, words.moreHosts), [run, sizes, words]);
  const { middle } = drawn;
  const packet = run.packets[at];
  const { lab } = run;
  return (
    <svg
      class="map"
      viewBox={`0 0 ${sizes.width} ${HEIGHT}`}
      role="img"
      aria-label={told(lab, packet, isHidden, words)}
    >
      {drawn.boxes.map((box) => {
        const port = drawn.ports[lab.hosts[box.hosts[0] ?? 0]?.port ?? 0];
        return port && <path key={`link ${box.label}`} class="link" d={line([inner(drawn, box), port])} />;
      })}
      {drawn.ports.map((port) => (
        <path key={`port ${port.name}`} class="link" d={line([port, middle])} />
      ))}
      {drawn.boxes.map((box) => (
        <g key={box.label} class="host" transform={`translate(${box.x - sizes.host / 2} ${box.y - 17})`}>
          <rect width={sizes.host} height={34} rx={6} />
          <text x={sizes.host / 2} y={box.below ? 15 : 22}>
            {short(box.label, sizes.host / 7.5)}
          </text>
          {box.below && (
            <text class="below" x={sizes.host / 2} y={28}>
              {short(box.below, sizes.host / 6)}
            </text>
          )}
        </g>
      ))}
      {packet && (
        <Travel
          key={isFollowing ? 'last' : at}
          lab={lab}
          drawn={drawn}
          packet={packet}
          isHidden={isHidden}
          speed={speed}
          isFollowing={isFollowing}
        />
      )}
      {isFollowing && <Traffic run={run} drawn={drawn} />}
      <g class="router" transform={`translate(${middle.x - sizes.router / 2} ${middle.y - 26})`}>
        <rect width={sizes.router} height={52} rx={10} />
        <text x={sizes.router / 2} y={24}>
          {words.router}
        </text>
        <text class="below" x={sizes.router / 2} y={40}>
          {words.modes[lab.mode]}
        </text>
      </g>
      {drawn.ports.map((port) => (
        <g key={port.name} class="port">
          <circle cx={port.x} cy={port.y} r={4} />
          <text x={port.x} y={port.y - 9}>
            {short(port.name, 14)}
          </text>
        </g>
      ))}
    </svg>
  );
}

/** Ports stand to the left and to the right in turn, each side's hosts in a column. */
function draw({ lab, packets }: Run, sizes: Sizes, more: (count: number) => string): Drawn {
  const busy = new Set(packets.flatMap((packet) => [packet.sender ?? -1, ...packet.receivers]));
  const boxes: Box[] = [];
  const ports: Drawn['ports'] = [];
  const middle = { x: sizes.width / 2, y: HEIGHT / 2 };
  for (const side of [0, 1]) {
    const mine = lab.ports.map((port, at) => ({ port, at })).filter(({ at }) => at % 2 === side);
    const columns = mine.map(({ at }) => boxesOf(lab, at, busy, more));
    const count = columns.reduce((sum, column) => sum + Math.max(column.length, 1), 0);
    const x = side === 0 ? 6 + sizes.host / 2 : sizes.width - 6 - sizes.host / 2;
    let row = 0;
    mine.forEach(({ port, at }, index) => {
      const column = columns[index] ?? [];
      const first = row;
      for (const box of column) {
        boxes.push({ ...box, x, y: (HEIGHT * (row + 0.5)) / count });
        row += 1;
      }
      row = Math.max(row, first + 1);
      const y = (HEIGHT * (first + row)) / 2 / count;
      // Between the hosts' row and the router, nearer to the router.
      const place = {
        x: middle.x + (side === 0 ? -sizes.port : sizes.port),
        y: middle.y + (y - middle.y) * 0.55,
      };
      ports[at] = { ...place, name: port.name, below: port.addresses.join(' ') };
    });
  }
  const boxOf = new Map(boxes.flatMap((box) => box.hosts.map((host) => [host, box] as const)));
  return { sizes, middle, ports, boxes, boxOf };
}

function boxesOf(lab: Lab, port: number, busy: Set<number>, more: (count: number) => string): Box[] {
  const hosts = lab.hosts.map((host, at) => ({ host, at })).filter(({ host }) => host.port === port);
  // Those that say or hear something come first, in the order of the file.
  const wanted = hosts.length <= MOST_HOSTS ? hosts : hosts.filter(({ at }) => busy.has(at));
  const own = wanted.slice(0, hosts.length <= MOST_HOSTS ? MOST_HOSTS : MOST_HOSTS - 1);
  const rest = hosts.filter((one) => !own.includes(one));
  const boxes = own.map(({ host, at }) => ({
    x: 0,
    y: 0,
    label: host.name,
    below: host.addresses.map((address) => address.replace(/\/\d+$/, '')).join(' '),
    hosts: [at],
  }));
  if (rest.length > 0) {
    boxes.push({ x: 0, y: 0, label: more(rest.length), below: '', hosts: rest.map(({ at }) => at) });
  }
  return boxes;
}

/** Where a packet comes along, and where it goes: nowhere if that is not to be seen. */
function way(lab: Lab, drawn: Drawn, packet: Packet, isHidden: boolean) {
  const { middle } = drawn;
  const from = ends(drawn, packet.sender, packet.in_port);
  const outs = isHidden ? [] : packet.out_ports;
  const leaves = outs.map((port) => {
    const receiver = packet.receivers.find((host) => lab.hosts[host]?.port === port) ?? null;
    return [middle, ...ends(drawn, receiver, port).reverse()];
  });
  return { from, arrives: [...from, middle], leaves };
}

interface TravelProps {
  lab: Lab;
  drawn: Drawn;
  packet: Packet;
  isHidden: boolean;
  speed: Speed;
  isFollowing: boolean;
}

/** The packet's way as a line in the colour of its state, and a dot that goes along it once. */
function Travel({ lab, drawn, packet, isHidden, speed, isFollowing }: TravelProps) {
  const dot = useRef<SVGCircleElement>(null);
  const isStill = useQuery('(prefers-reduced-motion: reduce)');
  const { middle } = drawn;
  const { from, arrives, leaves } = way(lab, drawn, packet, isHidden);
  const whole = [...arrives, ...(leaves[0]?.slice(1) ?? [])];
  const last = whole.at(-1) ?? middle;
  useEffect(() => {
    if (isStill || isFollowing || !dot.current?.animate) return;
    const frames = whole.map(({ x, y }) => ({ transform: `translate(${x - last.x}px, ${y - last.y}px)` }));
    const going = dot.current.animate(frames, { duration: TRAVEL_MS[speed], easing: 'ease-in-out' });
    return () => going.cancel();
    // Once for each packet, and again when it is known where it goes.
  }, [isHidden]);
  const kind = isHidden ? 's-hidden' : `s-${packet.ctstate ?? 'none'}`;
  const stops = !isHidden && isStopped(packet);
  const answered = isHidden ? [] : packet.answers.map(({ port }) => [middle, drawn.ports[port] ?? middle]);
  return (
    <g class={`travel ${kind}`}>
      <path class="way" d={line(arrives)} />
      {leaves.map((points) => (
        <path key={line(points)} class="way" d={line(points)} />
      ))}
      {answered.map((points) => (
        <path key={line(points)} class="answer" d={line(points)} />
      ))}
      {(!isFollowing || isStill) && <circle ref={dot} class="dot" cx={last.x} cy={last.y} r={7} />}
      {stops && <Stop drawn={drawn} from={from.at(-1) ?? middle} packet={packet} />}
    </g>
  );
}

/** So many packets travel at once: beyond that they are a line. */
const MOST_DOTS = 48;
const DOT_MS = 600;
const SVG = 'http://www.w3.org/2000/svg';

/**
 * Every packet that comes, as a dot that goes its way once. Not drawn by Preact: hundreds come in a second, and each is the
 * browser's own to move.
 */
function Traffic({ run, drawn }: { run: Run; drawn: Drawn }) {
  const group = useRef<SVGGElement>(null);
  const isStill = useQuery('(prefers-reduced-motion: reduce)');
  const seen = useRef<Packet | undefined>(run.packets.at(-1));
  useEffect(() => {
    const { packets, lab } = run;
    const known = seen.current ? packets.lastIndexOf(seen.current) : -1;
    const fresh = packets.slice(known + 1).slice(-MOST_DOTS);
    seen.current = packets.at(-1);
    const place = group.current;
    if (!place?.animate || isStill) return;
    for (const packet of fresh) {
      if (place.childElementCount >= MOST_DOTS) break;
      const { arrives, leaves } = way(lab, drawn, packet, false);
      const whole = [...arrives, ...(leaves[0]?.slice(1) ?? [])];
      const dot = document.createElementNS(SVG, 'circle');
      dot.setAttribute('class', `dot s-${packet.ctstate ?? 'none'}${isStopped(packet) ? ' stopped' : ''}`);
      dot.setAttribute('r', '6');
      place.append(dot);
      const frames = whole.map(({ x, y }) => ({ transform: `translate(${x}px, ${y}px)` }));
      const going = dot.animate(frames, { duration: DOT_MS, easing: 'ease-in-out', fill: 'forwards' });
      going.onfinish = () => dot.remove();
    }
  }, [run]);
  return <g ref={group} class="traffic" />;
}

/** The cross where a packet was stopped: at the edge of the router. */
function Stop({ drawn, from, packet }: { drawn: Drawn; from: Point; packet: Packet }) {
  const { middle, sizes } = drawn;
  const edge = sizes.router / 2 + 12;
  const x = from.x < middle.x ? middle.x - edge : middle.x + edge;
  const y = middle.y + (from.y - middle.y) * 0.2;
  return (
    <g class="stop">
      <path d={`M${x - 7} ${y - 7}l14 14m0 -14l-14 14`} />
      <text x={middle.x} y={middle.y + 46}>
        {short(packet.rule ?? packet.reason ?? packet.fate, 30)}
      </text>
    </g>
  );
}

/** From a host to its port. */
function ends(drawn: Drawn, host: number | null, port: number): Point[] {
  const box = host === null ? undefined : drawn.boxOf.get(host);
  const at = drawn.ports[port];
  return [...(box ? [inner(drawn, box)] : []), ...(at ? [at] : [])];
}

/** Where a host's link leaves its box. */
function inner({ middle, sizes }: Drawn, box: Point): Point {
  return { x: box.x + (box.x < middle.x ? sizes.host : -sizes.host) / 2, y: box.y };
}

function line(points: Point[]): string {
  return points.map(({ x, y }, at) => `${at === 0 ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
}

function short(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** What a reader who does not see the picture is told. */
function told(
  lab: Lab,
  packet: Packet | undefined,
  isHidden: boolean,
  words: ReturnType<typeof useWords>,
): string {
  if (!packet) return `${words.map}: ${lab.name}`;
  if (isHidden) return `${packet.summary}, ${words.cameIn} ${lab.ports[packet.in_port]?.name ?? ''}`;
  return `${packet.summary}: ${packet.ctstate ?? words.noState}, ${words.fates[packet.fate] ?? packet.fate}`;
}
