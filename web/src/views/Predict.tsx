import { useEffect, useState } from 'preact/hooks';
import { EXERCISES } from '../exercises';
import { questions } from '../replay';
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

/** Which step of the article is done, and what to think of. */
function Exercise({ store, state }: Pick<Props, 'store' | 'state'>) {
  const words = useWords();
  const chosen = state.exercise === null ? undefined : EXERCISES[state.exercise];
  return (
    <div class="exercise">
      <label>
        {words.exercise}{' '}
        <select
          id="exercise"
          value={state.exercise ?? ''}
          onChange={({ currentTarget: { value } }) =>
            void store.exercise(value === '' ? null : Number(value))
          }
        >
          <option value="">{words.noExercise}</option>
          {EXERCISES.map(({ lab, title }, number) => (
            <option key={lab} value={number}>
              {title[words.code]}
            </option>
          ))}
        </select>
      </label>
      {chosen && <p>{chosen.intro[words.code]}</p>}
    </div>
  );
}

/** On to the next packet or question; behind the last one what was to be learnt, and on to the next exercise. */
function Next({ store, state, isDone }: Pick<Props, 'store' | 'state'> & { isDone: boolean }) {
  const words = useWords();
  const { exercise } = state;
  const on = (label: string, act: () => Promise<void>) => (
    <button type="button" class="main" onClick={() => void act()}>
      {label}
    </button>
  );
  if (exercise === null) return on(words.next, () => store.forward());
  if (!isDone) return on(words.nextQuestion, () => store.nextQuestion());
  return (
    <>
      <p class="lesson">{EXERCISES[exercise]?.lesson[words.code]}</p>
      {exercise + 1 < EXERCISES.length && on(words.nextExercise, () => store.exercise(exercise + 1))}
    </>
  );
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
  if (!packet) {
    return (
      <section class="predict">
        <Exercise store={store} state={state} />
      </section>
    );
  }
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
  const asked = state.exercise === null ? [] : questions(run);
  const answered = asked.filter((one) => guesses.has(one)).length;
  return (
    <section class="predict">
      {!state.live && <Exercise store={store} state={state} />}
      {asked.includes(at) && (
        <p class="hint" id="question">
          {words.question(asked.indexOf(at) + 1, asked.length)}
        </p>
      )}
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
          <Next store={store} state={state} isDone={answered === asked.length} />
        </div>
      )}
      {guesses.size > 0 && <p class="hint">{words.score(right, guesses.size)}</p>}
    </section>
  );
}
