import { render } from 'preact';
import { App } from './App';
import { fromFragment } from './share';
import { LiveSource, WorkerSource } from './source';
import { Store } from './state';
import './style.css';
import './views/views.css';

// `stateway web` says it of the page that it serves (src/cli/web/page.rs).
const marked = document.querySelector<HTMLMetaElement>('meta[name=stateway-source]')?.content;
const store = new Store(marked === 'live' ? new LiveSource() : new WorkerSource());

async function begin() {
  const page = document.getElementById('page');
  if (page) render(<App store={store} />, page);
  try {
    await store.begin(await fromFragment(location.hash));
  } catch (error) {
    // A link that was cut short still leads to the page.
    await store.begin(null);
    store.set({ failure: `the link cannot be read: ${error}` });
  }
}

// Another link that is opened in the same tab changes the fragment alone.
addEventListener('hashchange', async () => {
  try {
    await store.show(await fromFragment(location.hash));
  } catch (error) {
    store.set({ failure: `the link cannot be read: ${error}` });
  }
});

void begin();
