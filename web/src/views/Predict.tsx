import { useEffect, useState } from 'preact/hooks';
import type { Run } from '../run';
import { isRight, type State, type Store } from '../state';
import { useWords } from '../use';

export const STATES = ['NEW', 'ESTABLISHED', 'RELATED', 'INVALID', 'UNTRACKED'];
const FATES = ['forwarded', 'dropped', 'rejected', 'delivered', 'queued'];

interface Props {
  store: Store;
  state: State;
  run: Run;
}

/** The learner says what will become of a packet, and is told whether that is so. */
export function Predict({ store, state, run }: Props) {
  const words = useWords();
  const { at, guesses } = state;
  const [told, setTold] = useState({ state: '', fate: '' });
  // Another packet is another question.
  useEffect(() => setTold({ state: '', fate: '' }), [at]);
  const packet = run.packets[at];
  const guess = guesses.get(at);
  if (!packet) return null;
  const right = [...guesses].filter(([number, one]) => isRight(run, number, one)).length;
  const choice = (name: 'state' | 'fate', value: string, label: string) => (
    <label key={value}>
      <input
        type="radio"
        name={name}
        value={value}
        checked={told[name] === value}
        onChange={() => setTold({ ...told, [name]: value })}
      />
      {label}
    </label>
  );
  return (
    <section class="predict">
      {!guess && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            store.guess({ ...told, state: told.state === 'none' ? '' : told.state });
          }}
        >
          <h2>{words.predictAsk}</h2>
          <p class="asked">
            <bdi>{packet.summary}</bdi>{' '}
            <span class="hint">
              {words.cameIn} <bdi>{run.lab.ports[packet.in_port]?.name}</bdi>
            </span>
          </p>
          <fieldset>
            <legend>{words.state}</legend>
            {STATES.map((state) => choice('state', state, state))}
            {choice('state', 'none', words.noState)}
          </fieldset>
          <fieldset>
            <legend>{words.fate}</legend>
            {FATES.map((fate) => choice('fate', fate, words.fates[fate] ?? fate))}
          </fieldset>
          <button type="submit" class="main" disabled={!told.state || !told.fate}>
            {words.check}
          </button>
        </form>
      )}
      {guess && (
        <div class={isRight(run, at, guess) ? 'answer right' : 'answer wrong'} role="status">
          <p>
            <b>{isRight(run, at, guess) ? `✓ ${words.right}` : `✕ ${words.wrong}`}</b>{' '}
            {words.itWas(packet.ctstate ?? words.noState, words.fates[packet.fate] ?? packet.fate)}
          </p>
          <button type="button" class="main" onClick={() => void store.forward()}>
            {words.next}
          </button>
        </div>
      )}
      {guesses.size > 0 && <p class="hint">{words.score(right, guesses.size)}</p>}
    </section>
  );
}
