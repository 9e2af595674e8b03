import { memo } from 'preact/compat';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import type { Packet } from '../protocol';
import { isStopped, testOf } from '../replay';
import type { Run } from '../run';
import { isHidden, type State, type Store } from '../state';
import { useWords } from '../use';
import { clock } from './Bar';
import { FateWord, StateWord } from './Words';

interface Props {
  store: Store;
  state: State;
  run: Run;
}

/** Every packet that the router decided on, under the test that it belongs to. */
export function Packets({ store, state, run }: Props) {
  const words = useWords();
  const list = useRef<HTMLDivElement>(null);
  const shown = useMemo(
    () => (state.live ? around(run, state.onlyStopped, state.at) : null),
    [run, state.onlyStopped, state.at, state.live],
  );
  const groups = useMemo(
    () => (shown ? shown.groups : grouped(run, state.onlyStopped)),
    [run, state.onlyStopped, shown],
  );
  useEffect(() => {
    const row = list.current?.querySelector('[aria-current]');
    row?.scrollIntoView({ block: 'nearest' });
  }, [state.at]);
  return (
    <section class="packets" aria-label={words.views.packets}>
      <div class="packets-head">
        <h2>{words.views.packets}</h2>
        <label class="check">
          <input
            type="checkbox"
            id="only-stopped"
            checked={state.onlyStopped}
            onChange={(event) => store.set({ onlyStopped: event.currentTarget.checked })}
          />
          {words.onlyStopped}
        </label>
      </div>
      <div class="packets-list" ref={list}>
        {groups.length === 0 && <p class="hint">{state.live ? words.waiting : words.noPackets}</p>}
        {shown && shown.before > 0 && (
          <button
            type="button"
            class="link-button earlier"
            onClick={() => void store.choosePacket(shown.first - 1)}
          >
            … {words.earlier(shown.before)}
          </button>
        )}
        {groups.map(({ test, packets }) => (
          <section key={test}>
            {run.lab.tests[test] && (
              <h3>
                <bdi>{run.lab.tests[test].name}</bdi>
              </h3>
            )}
            <ol>
              {packets.map(([number, packet]) => (
                <Row
                  key={number}
                  store={store}
                  number={number}
                  packet={packet}
                  isChosen={number === state.at}
                  isHidden={isHidden(state, number)}
                  was={state.changed?.get(number)}
                />
              ))}
            </ol>
          </section>
        ))}
      </div>
    </section>
  );
}

function grouped(run: Run, onlyStopped: boolean) {
  const groups: { test: number; packets: [number, Packet][] }[] = [];
  run.packets.forEach((packet, number) => {
    if (onlyStopped && !isStopped(packet)) return;
    const test = testOf(packet);
    const last = groups.at(-1);
    if (last?.test === test) last.packets.push([number, packet]);
    else groups.push({ test, packets: [[number, packet]] });
  });
  return groups;
}

/** As many packets of a running router are drawn: those around the chosen one. */
const DRAWN = 120;

function around(run: Run, onlyStopped: boolean, at: number) {
  const all: number[] = [];
  run.packets.forEach((packet, number) => {
    if (!onlyStopped || isStopped(packet)) all.push(number);
  });
  const chosen = all.findLastIndex((number) => number <= at);
  const end = Math.min(all.length, Math.max(chosen + DRAWN / 2, DRAWN));
  const before = Math.max(0, end - DRAWN);
  const packets = all.slice(before, end).flatMap((number) => {
    const packet = run.packets[number];
    return packet ? [[number, packet] as [number, Packet]] : [];
  });
  return { before, first: all[before] ?? 0, groups: packets.length > 0 ? [{ test: 0, packets }] : [] };
}

interface RowProps {
  store: Store;
  number: number;
  packet: Packet;
  isChosen: boolean;
  isHidden: boolean;
  was: string | undefined;
}

const Row = memo(({ store, number, packet, isChosen, isHidden, was }: RowProps) => {
  const words = useWords();
  // What stops a packet is what is asked about: its way is shown at once.
  const choose = () => {
    if (store.state.view !== 'connections') store.set({ view: 'way' });
    void store.choosePacket(number);
  };
  return (
    <li>
      <button
        type="button"
        class={`row${isStopped(packet) && !isHidden ? ' stopped' : ''}`}
        aria-current={isChosen ? 'true' : undefined}
        data-packet={number}
        onClick={choose}
      >
        <span class="number">{number + 1}</span>
        <span class="time">{clock(packet.time_us)}</span>
        <span class="summary">
          <bdi>{packet.summary}</bdi>
        </span>
        {isHidden ? (
          <span class="hint">{words.hidden}</span>
        ) : (
          <span class="words">
            <StateWord state={packet.ctstate} />
            <FateWord fate={packet.fate} />
          </span>
        )}
        {was && !isHidden && <span class="was">{words.changedFrom(words.fates[was] ?? was)}</span>}
      </button>
    </li>
  );
});
