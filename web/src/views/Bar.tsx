import type { Speed, State, Store } from '../state';
import { useWords } from '../use';

/** Not every machine has letters for these. */
const SIGNS = {
  first: 'M3 3h2v10H3zM13 3v10L6 8z',
  back: 'M11 3v10L4 8zM12 3h1.5v10H12z',
  play: 'M4 2.5v11l9-5.5z',
  pause: 'M4 3h3v10H4zM9 3h3v10H9z',
  forward: 'M5 3v10l7-5zM2.5 3H4v10H2.5z',
  last: 'M11 3h2v10h-2zM3 3v10l7-5z',
  stopped: 'M0 5l1.2-1.2L4 6.6l2.8-2.8L8 5 5.2 7.8 8 10.6l-1.2 1.2L4 9l-2.8 2.8L0 10.6l2.8-2.8zM10 3v10l6-5z',
};

/** Steps through the packets, as the buttons of a player do. */
export function Bar({ store, state }: { store: Store; state: State }) {
  const words = useWords();
  const packets = state.run?.packets ?? [];
  const time = packets[state.at]?.time_us;
  const button = (id: string, label: string, sign: keyof typeof SIGNS, act: () => void, isOff: boolean) => (
    <button type="button" id={id} aria-label={label} title={label} onClick={act} disabled={isOff}>
      <svg class="sign" viewBox="0 0 16 16" aria-hidden="true">
        <path d={SIGNS[sign]} />
      </svg>
    </button>
  );
  const atStart = state.at < 0;
  const atEnd = state.at >= packets.length - 1;
  const { live } = state;
  const play = () => store.set({ isPlaying: !state.isPlaying });
  const playing = live ? words.stay : words.pause;
  const paused = live ? words.follow : words.play;
  return (
    <div class="bar">
      <div class="buttons">
        {button('first', words.first, 'first', () => void store.choosePacket(-1), atStart)}
        {button('back', words.back, 'back', () => void store.choosePacket(state.at - 1), atStart)}
        {button(
          'play',
          state.isPlaying ? playing : paused,
          state.isPlaying ? 'pause' : 'play',
          play,
          atEnd && !live,
        )}
        {button('forward', words.forward, 'forward', () => void store.forward(), atEnd)}
        {button('last', words.last, 'last', () => void store.choosePacket(packets.length - 1), atEnd)}
        {button('next-stopped', words.nextStopped, 'stopped', () => void store.nextStopped(), atEnd && !live)}
        {!live && <Simulated store={store} state={state} />}
      </div>
      <div class="place">
        <input
          type="range"
          aria-label={words.views.packets}
          min={0}
          max={packets.length}
          value={state.at + 1}
          onInput={(event) => void store.choosePacket(Number(event.currentTarget.value) - 1)}
        />
        <output>
          {atStart ? words.start : words.packetOf(state.at + 1, packets.length)}
          {time !== undefined && ` · ${clock(time)}`}
        </output>
      </div>
    </div>
  );
}

/** What only a run has that can be had again. */
function Simulated({ store, state }: { store: Store; state: State }) {
  const words = useWords();
  return (
    <>
      <label>
        <span class="unseen">{words.speed}</span>
        <select
          value={state.speed}
          onChange={(event) => store.set({ speed: event.currentTarget.value as Speed })}
        >
          {(['slow', 'normal', 'fast'] as Speed[]).map((speed) => (
            <option key={speed} value={speed}>
              {words.speeds[speed]}
            </option>
          ))}
        </select>
      </label>
      <label class="check" title={words.predictHint}>
        <input
          type="checkbox"
          id="predict"
          checked={state.isPredicting}
          onChange={(event) =>
            store.set({ isPredicting: event.currentTarget.checked, isPlaying: false, view: 'way' })
          }
        />
        {words.predict}
      </label>
    </>
  );
}

/** Virtual time since the lab came up: `0.012 s`, `3 d 04:05:06`. */
export function clock(us: number): string {
  const seconds = us / 1e6;
  if (seconds < 60) return `${seconds.toFixed(3)} s`;
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  const rest = `${two((seconds / 3600) % 24)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}`;
  return seconds < 86_400 ? rest : `${Math.floor(seconds / 86_400)} d ${rest}`;
}
