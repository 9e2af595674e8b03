import { useEffect, useMemo, useState } from 'preact/hooks';
import type { Problem } from '../protocol';
import { countsAt } from '../replay';
import type { Run } from '../run';
import type { Files, Rules as RulesText } from '../source';
import { NO_RULES, type State, type Store } from '../state';
import { useWords } from '../use';
import { Editor } from './Editor';
import { FateWord } from './Words';

/** What the editor shows: the rules of a family, or a file. */
type Doc = 'rules' | 'rules6' | string;

const FAMILY: Record<string, keyof RulesText> = { rules: 'v4', rules6: 'v6' };

/** The rules and the lab's files, to be edited and tried. */
export function Rules({ store, state }: { store: Store; state: State }) {
  const words = useWords();
  const { run, files, rules } = state;
  const docs = useMemo(() => documents(run, files, rules), [run?.lab, files, rules]);
  const [chosen, setChosen] = useState<Doc>('rules');
  const doc = docs.has(chosen) ? chosen : ([...docs.keys()][0] ?? 'lab.yaml');
  const applied = docs.get(doc) ?? '';
  const [draft, setDraft] = useState(applied);
  // Another text, or one that was put back, begins anew.
  useEffect(() => setDraft(applied), [doc, applied]);
  const problems = useProblems(store, state, doc, draft, applied);
  const mine = problems.filter(({ file }) => file === doc);
  const others = problems.filter(({ file }) => file !== doc);

  const { live } = state;
  const [refusal, setRefusal] = useState<string | null>(null);
  const apply = () => {
    const wanted = drafted(state, doc, draft);
    if (!live) void store.apply(wanted.files, wanted.rules);
    else if (live.mayWrite)
      void store.replace(wanted.rules).then(setRefusal, (why) => setRefusal(String(why)));
  };
  const isOther = rules.v4 !== null || rules.v6 !== null || state.isEdited;
  const marks = useMemo(
    () => (doc in FAMILY && run && draft === applied ? counters(run, doc, live?.counts ?? state.at) : []),
    [run?.lab, doc, live?.counts ?? state.at, draft, applied],
  );
  const deciding = marks.find(({ name }) => name === run?.packets[state.at]?.rule)?.line ?? null;

  return (
    <section class="rules">
      <div class="rules-head">
        <label>
          <span class="unseen">{words.document}</span>
          <select id="document" value={doc} onChange={(event) => setChosen(event.currentTarget.value)}>
            {[...docs.keys()].map((name) => (
              <option key={name} value={name}>
                {title(name, words.documents)}
              </option>
            ))}
          </select>
        </label>
        <button
          type="button"
          id="apply"
          class="main"
          title={words.applyHint}
          onClick={apply}
          disabled={state.isRunning || (live !== null && !live.mayWrite)}
        >
          {words.apply}
        </button>
        {isOther && (
          <button
            type="button"
            id="reset"
            onClick={() => {
              const own = state.labs.find(({ name }) => name === state.lab)?.files ?? files;
              void store.apply(own, NO_RULES);
            }}
          >
            {words.reset}
          </button>
        )}
      </div>
      <Editor
        key={doc}
        label={title(doc, words.documents)}
        isYaml={/\.ya?ml$/.test(doc)}
        text={draft}
        problems={mine}
        marks={marks}
        chosen={deciding}
        change={setDraft}
        apply={apply}
      />
      {refusal && (
        <div class="problems wrong" role="alert">
          <h3>{words.refused}</h3>
          <pre>{refusal}</pre>
        </div>
      )}
      {live && !live.mayWrite && <p class="hint">{words.readOnly}</p>}
      {marks.length > 0 && <p class="hint">{live ? words.countsLive : words.counts}</p>}
      <Problems problems={[...mine, ...others]} />
      {state.changed && run && problems.every((one) => one.is_warning) && (
        <Changes store={store} state={state} />
      )}
    </section>
  );
}

function title(doc: Doc, names: { v4: string; v6: string }): string {
  const family = FAMILY[doc];
  return family ? names[family] : doc;
}

/** Every text that can be edited, as it was applied last. */
function documents(run: Run | null, files: Files, rules: RulesText): Map<Doc, string> {
  const docs = new Map<Doc, string>();
  for (const [doc, family] of Object.entries(FAMILY)) {
    const own = run?.lab.rulesets.find((one) => one.family === (family === 'v4' ? 4 : 6))?.text;
    const text = rules[family] ?? own;
    if (text !== undefined) docs.set(doc, text);
  }
  for (const [name, text] of Object.entries(files)) docs.set(name, text);
  return docs;
}

/** What would be run if the draft were applied. */
function drafted({ files, rules }: State, doc: Doc, draft: string): { files: Files; rules: RulesText } {
  const family = FAMILY[doc];
  if (family) return { files, rules: { ...rules, [family]: draft } };
  return { files: { ...files, [doc]: draft }, rules };
}

/** What is wrong with a draft, said while it is written; of what is applied, what the run said. */
function useProblems(store: Store, state: State, doc: Doc, draft: string, applied: string): Problem[] {
  const [found, setFound] = useState<Problem[] | null>(null);
  useEffect(() => {
    if (draft === applied) {
      setFound(null);
      return;
    }
    let isOvertaken = false;
    const timer = setTimeout(async () => {
      const wanted = drafted(store.state, doc, draft);
      const problems = await store.check(wanted.files, wanted.rules);
      if (!isOvertaken) setFound(problems);
    }, 300);
    return () => {
      isOvertaken = true;
      clearTimeout(timer);
    };
  }, [store, doc, draft, applied]);
  return found ?? state.problems;
}

/** How many packets each rule has held for so far, by its line. */
function counters(run: Run, doc: Doc, at: number | Map<string, number>) {
  const ruleset = run.lab.rulesets.find(({ family }) => family === (doc === 'rules' ? 4 : 6));
  const counts = typeof at === 'number' ? countsAt(run, at) : at;
  const written = ruleset?.rules.filter(({ line }) => line > 0) ?? [];
  return written.map(({ name, line }) => ({ name, line, count: counts.get(name) ?? 0 }));
}

function Problems({ problems }: { problems: Problem[] }) {
  const words = useWords();
  if (problems.length === 0) return null;
  const isWrong = problems.some((one) => !one.is_warning);
  return (
    <div class={isWrong ? 'problems wrong' : 'problems'} role={isWrong ? 'alert' : 'note'}>
      <h3>{isWrong ? words.problems : words.warnings}</h3>
      <ul>
        {problems.map((one) => (
          <li key={`${one.file} ${one.line} ${one.column} ${one.message}`}>
            <code>
              {title(one.file, words.documents)}
              {one.line > 0 ? `:${one.line}:${one.column}` : ''}
            </code>{' '}
            {one.path && <code>{one.path}</code>} {one.message}
            {one.hint && <span class="hint"> {one.hint}</span>}
          </li>
        ))}
      </ul>
    </div>
  );
}

/** As many packets are listed. */
const LISTED = 12;

/** What the rules of now say otherwise than those of the run before. */
function Changes({ store, state }: { store: Store; state: State }) {
  const words = useWords();
  const changed = [...(state.changed ?? [])];
  if (changed.length === 0) return <p class="hint">{words.noChange}</p>;
  return (
    <div class="changes" role="status">
      <h3>{words.change(changed.length)}</h3>
      <ul>
        {changed.slice(0, LISTED).map(([at, was]) => {
          const packet = state.run?.packets[at];
          return (
            packet && (
              <li key={at}>
                <button type="button" class="link-button" onClick={() => void store.choosePacket(at)}>
                  {at + 1}
                </button>{' '}
                <bdi>{packet.summary}</bdi>: <FateWord fate={was} /> ⇒ <FateWord fate={packet.fate} />
              </li>
            )
          );
        })}
      </ul>
    </div>
  );
}
