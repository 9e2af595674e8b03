import { useRef, useState } from 'preact/hooks';
import type { Theme } from '../App';
import { fromChosen, toZip } from '../folder';
import type { Live } from '../source';
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
            <button type="button" id="save" onClick={() => save(state)} disabled={!state.run}>
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

function Open({ store }: { store: Store }) {
  const words = useWords();
  const input = useRef<HTMLInputElement>(null);
  const open = async (list: FileList | null) => {
    const chosen = [...(list ?? [])].map(async (file) => ({
      name: file.name,
      bytes: new Uint8Array(await file.arrayBuffer()),
    }));
    if (chosen.length === 0) return;
    const folder = fromChosen(await Promise.all(chosen));
    if (folder) await store.openOwn(folder);
    else store.set({ failure: words.cannotOpen });
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

/** All of it as one packed folder. */
function save({ lab, run, files, rules }: State) {
  const name = lab === OWN ? (run?.lab.name ?? OWN) : lab;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(
    new Blob([toZip(name, { files, rules }) as BlobPart], { type: 'application/zip' }),
  );
  link.download = `${name}.zip`;
  link.click();
  URL.revokeObjectURL(link.href);
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
