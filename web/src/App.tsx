import { useEffect, useRef, useState } from 'preact/hooks';
import { type Shared, toFragment, VIEWS, type View } from './share';
import { isHidden, type Store } from './state';
import { en } from './text/en';
import { zh } from './text/zh';
import { useChoice, useQuery, useStore, useWords, WordsContext } from './use';
import { Bar } from './views/Bar';
import { Connections } from './views/Connections';
import { Head } from './views/Head';
import { Keys } from './views/Keys';
import { LabMap } from './views/LabMap';
import { Packets } from './views/Packets';
import { Predict, STATES } from './views/Predict';
import { Rules } from './views/Rules';
import { Tests } from './views/Tests';
import { Way } from './views/Way';
import { StateWord } from './views/Words';

const STEP_MS = { slow: 2200, normal: 1000, fast: 250 };

export type Language = 'en' | 'zh';
export type Theme = 'auto' | 'light' | 'dark';

export function App({ store }: { store: Store }) {
  const state = useStore(store);
  const usual = navigator.language.startsWith('zh') ? 'zh' : 'en';
  const [language, setLanguage] = useChoice<Language>('language', ['en', 'zh'], usual);
  const [theme, setTheme] = useChoice<Theme>('theme', ['auto', 'light', 'dark'], 'auto');
  const isDarkOutside = useQuery('(prefers-color-scheme: dark)');
  const words = language === 'zh' ? zh : en;

  useEffect(() => {
    document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
    document.title = words.title;
  }, [language, words]);
  useEffect(() => {
    const isDark = theme === 'auto' ? isDarkOutside : theme === 'dark';
    document.documentElement.dataset.theme = isDark ? 'dark' : 'light';
  }, [theme, isDarkOutside]);

  useEffect(() => {
    // What a running router says comes by itself.
    if (!state.isPlaying || state.live) return;
    const timer = setTimeout(() => void store.forward(), STEP_MS[state.speed]);
    return () => clearTimeout(timer);
  }, [store, state.isPlaying, state.live !== null, state.at, state.speed]);

  const shared: Shared = {
    lab: state.lab,
    packet: state.live ? -1 : state.at,
    view: state.view,
    files: state.isEdited ? state.files : null,
    rules: state.rules,
  };
  useAddress(shared, state.run !== null && !state.isRunning);

  return (
    <WordsContext.Provider value={words}>
      <Head
        store={store}
        state={state}
        theme={theme}
        setTheme={setTheme}
        toggleLanguage={() => setLanguage(language === 'zh' ? 'en' : 'zh')}
      />
      <Page store={store} />
    </WordsContext.Provider>
  );
}

/** Keeps the address of the page what the page shows, so that a reload loses nothing. */
function useAddress(shared: Shared, isSettled: boolean) {
  const text = JSON.stringify(shared);
  useEffect(() => {
    if (!isSettled) return;
    let isOvertaken = false;
    void toFragment(JSON.parse(text)).then((fragment) => {
      if (!isOvertaken && location.hash !== fragment) history.replaceState(null, '', fragment);
    });
    return () => {
      isOvertaken = true;
    };
  }, [text, isSettled]);
}

function Page({ store }: { store: Store }) {
  const state = useStore(store);
  const words = useWords();
  const isWide = useQuery('(min-width: 900px)');
  const [isHelping, setHelping] = useState(false);
  useKeys(store, () => setHelping((is) => !is));
  const { run, view } = state;

  // On a wide page the list of packets has a place of its own.
  const isThere = (one: View) => !(isWide && one === 'packets') && !(state.live && one === 'tests');
  const views = VIEWS.filter(isThere);
  const shown = views.includes(view) ? view : 'way';
  const isAsked = run !== null && state.isPredicting;

  return (
    <main
      class={isWide ? 'page wide' : 'page'}
      data-lab={state.lab}
      data-at={state.at + 1}
      data-told={state.told !== null}
      data-settled={!state.isRunning && (run !== null || state.problems.length > 0)}
    >
      {state.failure && (
        <p class="failure" role="alert">
          {words.failed}: {state.failure}
        </p>
      )}
      {!run && !state.failure && <p class="loading">{words.loading}</p>}
      <section class="stage" aria-label={words.map}>
        <p class="legend">
          {STATES.map((one) => (
            <StateWord key={one} state={one} />
          ))}
        </p>
        {run && (
          <LabMap
            run={run}
            at={state.at}
            isHidden={isHidden(state, state.at)}
            speed={state.speed}
            isFollowing={state.live !== null && state.isPlaying}
          />
        )}
        <Bar store={store} state={state} />
      </section>
      {isWide && run && <Packets store={store} state={state} run={run} />}
      <section class="side">
        <Tabs views={views} shown={shown} choose={(view) => store.set({ view })} />
        <div class="view" id={`view-${shown}`} role="tabpanel" aria-labelledby={`tab-${shown}`} tabIndex={-1}>
          {shown === 'packets' && run && <Packets store={store} state={state} run={run} />}
          {shown === 'way' && run && isAsked && <Predict store={store} state={state} run={run} />}
          {shown === 'way' && run && !isHidden(state, state.at) && (
            <Way run={run} at={state.at} told={state.told} />
          )}
          {shown === 'connections' && run && <Connections store={store} run={run} at={state.at} />}
          {shown === 'rules' && <Rules store={store} state={state} />}
          {shown === 'tests' && run && <Tests store={store} state={state} run={run} />}
        </div>
      </section>
      {isHelping && <Keys close={() => setHelping(false)} />}
    </main>
  );
}

function Tabs({ views, shown, choose }: { views: View[]; shown: View; choose: (view: View) => void }) {
  const words = useWords();
  const list = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const next = views[(views.indexOf(shown) + step + views.length) % views.length];
    if (!next) return;
    choose(next);
    list.current?.querySelector<HTMLElement>(`#tab-${next}`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" ref={list}>
      {views.map((view) => (
        <button
          key={view}
          type="button"
          role="tab"
          id={`tab-${view}`}
          aria-selected={view === shown}
          aria-controls={view === shown ? `view-${view}` : undefined}
          tabIndex={view === shown ? 0 : -1}
          onClick={() => choose(view)}
          onKeyDown={move}
        >
          {words.views[view]}
        </button>
      ))}
    </div>
  );
}

/** Where keys are text, or have a meaning of their own. */
const OTHERS = 'input, textarea, select, [contenteditable], dialog';

function useKeys(store: Store, help: () => void) {
  useEffect(() => {
    const heard = (event: KeyboardEvent) => {
      const [first] = event.composedPath();
      const target = first instanceof Element ? first : null;
      if (event.ctrlKey || event.altKey || event.metaKey || target?.closest(OTHERS)) return;
      // A button is pressed by the space bar.
      if (event.key === ' ' && target?.closest('button, summary')) return;
      const { state } = store;
      const act: Record<string, () => void> = {
        ArrowLeft: () => void store.choosePacket(state.at - 1),
        ArrowRight: () => void store.forward(),
        ' ': () => store.set({ isPlaying: !state.isPlaying }),
        n: () => void store.nextStopped(),
        Home: () => void store.choosePacket(-1),
        End: () => void store.choosePacket((state.run?.packets.length ?? 0) - 1),
        '?': help,
      };
      VIEWS.forEach((view, at) => {
        act[String(at + 1)] = () => store.set({ view });
      });
      const wanted = act[event.key];
      if (!wanted) return;
      event.preventDefault();
      wanted();
    };
    addEventListener('keydown', heard);
    return () => removeEventListener('keydown', heard);
  }, [store, help]);
}
