// A state and a fate as words with a colour: never by the colour alone.

import { useWords } from '../use';

export function StateWord({ state }: { state: string | null }) {
  const words = useWords();
  if (!state) return <span class="state none">{words.noState}</span>;
  return (
    <span class={`state s-${state}`} title={words.stateMeans[state]}>
      {state}
    </span>
  );
}

const SIGNS: Record<string, string> = {
  forwarded: '→',
  dropped: '✕',
  rejected: '⮌',
  delivered: '●',
  queued: '…',
};

export function FateWord({ fate }: { fate: string }) {
  const words = useWords();
  return (
    <span class={`fate f-${fate}`}>
      <span aria-hidden="true">{SIGNS[fate] ?? ''} </span>
      {words.fates[fate] ?? fate}
    </span>
  );
}
