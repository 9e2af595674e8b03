import { useRef, useState } from 'preact/hooks';
import type { Theme } from '../App';
import type { Files, Live } from '../source';
import { OWN, type State, type Store } from '../state';
import { useWords } from '../use';

interface Props {
  store: Store;
  state: State;
  theme: Theme;
  setTheme: (theme: Theme) => void;
  toggleLanguage: () => void;
}

export function Head({ store, state, theme, setTheme, toggleLanguage }: Props) {
  const words = useWords();
  const description = state.run?.lab.description;
  return (
    <header class="head">
      <h1>
        state<b>way</b>
      </h1>
      {state.live ? <LiveLab state={state} live={state.live} /> : <LabChoice store={store} state={state} />}
      <p class="description" title={description}>
        <bdi>{description}</bdi>
      </p>
      <div class="tools">
        {!state.live && (
          <>
            <Open store={store} />
            <button type="button" onClick={() => save(state)} disabled={!state.run}>
              {words.save}
            </button>
            <Share />
          </>
        )}
        <label>
          <span class="unseen">{words.theme}</span>
          <select value={theme} onChange={(event) => setTheme(event.currentTarget.value as Theme)}>
            {(['auto', 'light', 'dark'] as Theme[]).map((one) => (
              <option key={one} value={one}>
                {words.themes[one]}
              </option>
            ))}
          </select>
        </label>
        <button type="button" id="language" onClick={toggleLanguage}>
          {words.language}
        </button>
      </div>
    </header>
  );
}

function LabChoice({ store, state }: Pick<Props, 'store' | 'state'>) {
  const words = useWords();
  return (
    <label class="lab">
      <span class="unseen">{words.lab}</span>
      <select
        id="lab"
        value={state.lab}
        onChange={(event) => void store.choose(event.currentTarget.value)}
        disabled={state.labs.length === 0}
      >
        {state.labs.map(({ name }) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
        {state.lab === OWN && <option value={OWN}>{words.own}</option>}
      </select>
    </label>
  );
}

/** Which router it is, and whether it is there. */
function LiveLab({ state, live }: { state: State; live: Live }) {
  const words = useWords();
  return (
    <p class="live-lab" role="status">
      <b>
        <bdi>{state.run?.lab.name}</bdi>
      </b>
      <span class={live.isThere ? 'live-sign there' : 'live-sign'}>
        {live.isThere ? words.live : words.routerGone}
      </span>
      {live.lost > 0 && <span class="hint">{words.lost(live.lost)}</span>}
    </p>
  );
}

/** More than this is no lab. */
const MOST_BYTES = 4 << 20;

function Open({ store }: { store: Store }) {
  const words = useWords();
  const input = useRef<HTMLInputElement>(null);
  const open = async (list: FileList | null) => {
    const chosen = [...(list ?? [])].filter((file) => file.size <= MOST_BYTES);
    const files: Files = Object.fromEntries(
      await Promise.all(chosen.map(async (file) => [file.name, await file.text()] as const)),
    );
    // A lab file of another name is the lab, if it is the only one.
    const [only, ...others] = Object.keys(files).filter((name) => /\.ya?ml$/.test(name));
    if (!('lab.yaml' in files) && only && others.length === 0) {
      files['lab.yaml'] = files[only] ?? '';
      delete files[only];
    }
    if (chosen.length > 0) await store.openOwn(files);
  };
  return (
    <>
      <button type="button" title={words.openHint} onClick={() => input.current?.click()}>
        {words.open}
      </button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        aria-label={words.openHint}
        onChange={(event) => {
          void open(event.currentTarget.files);
          event.currentTarget.value = '';
        }}
      />
    </>
  );
}

/** The texts as files; rules that were tried stand beside the lab's own. */
function save({ files, rules }: State) {
  const all = { ...files };
  if (rules.v4 !== null) all['rules.v4'] = rules.v4;
  if (rules.v6 !== null) all['rules.v6'] = rules.v6;
  for (const [name, text] of Object.entries(all)) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type: 'text/plain' }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

function Share() {
  const words = useWords();
  const [isDone, setDone] = useState(false);
  const share = async () => {
    await navigator.clipboard.writeText(location.href);
    setDone(true);
    setTimeout(() => setDone(false), 2000);
  };
  return (
    <>
      <button type="button" id="share" onClick={() => void share()}>
        {isDone ? '✓ ' : ''}
        {words.share}
      </button>
      <span class="unseen" role="status">
        {isDone ? words.shared : ''}
      </span>
    </>
  );
}
