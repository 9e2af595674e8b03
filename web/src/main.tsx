import { render } from 'preact';
import { App } from './App';
import { fromFragment } from './share';
import { WorkerSource } from './source';
import { Store } from './state';
import './style.css';
import './views/views.css';

const store = new Store(new WorkerSource());

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
