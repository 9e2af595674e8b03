// Hooks that more than one view has use for.

import { createContext } from 'preact';
import { useContext, useEffect, useState } from 'preact/hooks';
import { EMPTY, type State, type Store } from './state';
import { en, type Words } from './text/en';

export const WordsContext = createContext<Words>(en);
export const useWords = () => useContext(WordsContext);

export function useStore(store: Store): State {
  const [state, setState] = useState(EMPTY);
  useEffect(() => {
    setState(store.state);
    const stop = store.listen(() => setState(store.state));
    return () => void stop();
  }, [store]);
  return state;
}

/** A media query of the reader's settings. */
export function useQuery(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const heard = () => setMatches(list.matches);
    list.addEventListener('change', heard);
    return () => list.removeEventListener('change', heard);
  }, [query]);
  return matches;
}

/** A choice that the browser keeps, where it may. */
export function useChoice<T extends string>(
  key: string,
  known: readonly T[],
  usual: T,
): [T, (value: T) => void] {
  const [value, setValue] = useState<T>(() => {
    try {
      return known.find((one) => one === localStorage.getItem(`stateway.${key}`)) ?? usual;
    } catch {
      return usual;
    }
  });
  const set = (value: T) => {
    setValue(value);
    try {
      localStorage.setItem(`stateway.${key}`, value);
    } catch {
      // Private windows may keep nothing; the choice holds until the page is closed.
    }
  };
  return [value, set];
}
