import { firstOf } from '../replay';
import type { Run } from '../run';
import type { State, Store } from '../state';
import { useWords } from '../use';

interface Props {
  store: Store;
  state: State;
  run: Run;
}

/** What the lab tests, and the lines that `stateway lab test --on sim` prints. */
export function Tests({ store, state, run }: Props) {
  const words = useWords();
  const passed = run.reports.filter(({ ending }) => ending === 'pass').length;
  return (
    <section class="tests">
      <header class="tests-head">
        <p id="tests-summary">{words.passed(passed, run.reports.length)}</p>
        <button type="button" onClick={() => void store.again()} disabled={state.isRunning}>
          {state.isRunning ? words.running : words.again}
        </button>
      </header>
      <ol>
        {run.reports.map((report, at) => {
          const test = run.lab.tests[at];
          const first = firstOf(run, at);
          return (
            <li key={test?.path ?? at} class={`test e-${report.ending.replace(' ', '-')}`}>
              <header>
                <span class="ending">{words.endings[report.ending] ?? report.ending}</span>
                <h3>
                  <bdi>{test?.name}</bdi>
                </h3>
                {first !== undefined && (
                  <button type="button" class="link-button" onClick={() => void store.choosePacket(first)}>
                    {words.packetsOf} {first + 1} …
                  </button>
                )}
              </header>
              <p class="test-line">{report.line}</p>
              {report.details && <pre class="test-details">{report.details}</pre>}
            </li>
          );
        })}
      </ol>
    </section>
  );
}
