// What the page shows, as the fragment of its address: a link that is shared opens the same, and a reload loses nothing. A
// fragment is never sent to a server.

import type { Files, Rules } from './source';

export type View = 'packets' | 'way' | 'connections' | 'rules' | 'tests';
export const VIEWS: View[] = ['packets', 'way', 'connections', 'rules', 'tests'];

export interface Shared {
  lab: string;
  /** From 0; -1 is before the first packet. */
  packet: number;
  view: View;
  /** The files of a lab of one's own, or that was edited. */
  files: Files | null;
  rules: Rules;
}

/** More than this, unpacked, no lab has. */
const MOST_BYTES = 4 << 20;

export async function toFragment(shared: Shared): Promise<string> {
  const { lab, packet, view, files, rules } = shared;
  // Counted from 1, as the page shows it.
  const params = new URLSearchParams({ lab, packet: String(packet + 1), view });
  if (files || rules.v4 !== null || rules.v6 !== null) {
    params.set('edit', await pack(JSON.stringify({ files, rules })));
  }
  return `#${params}`;
}

/** `null` if the fragment names no lab; throws if what was edited cannot be read. */
export async function fromFragment(fragment: string): Promise<Shared | null> {
  const params = new URLSearchParams(fragment.replace(/^#/, ''));
  const lab = params.get('lab');
  if (!lab) return null;
  const number = Number.parseInt(params.get('packet') ?? '', 10);
  const view = VIEWS.find((one) => one === params.get('view')) ?? 'packets';
  const edit = params.get('edit');
  const { files, rules } = edit ? edited(JSON.parse(await unpack(edit))) : NOTHING;
  return { lab, packet: Number.isSafeInteger(number) && number > 0 ? number - 1 : -1, view, files, rules };
}

const NOTHING = { files: null, rules: { v4: null, v6: null } };

/** A link comes from anybody: what is not a text of a file is left out. */
function edited(value: unknown): Pick<Shared, 'files' | 'rules'> {
  const { files, rules } = (value ?? {}) as { files?: unknown; rules?: Record<string, unknown> };
  const text = (one: unknown) => (typeof one === 'string' ? one : null);
  const texts = Object.entries(files ?? {}).filter(([, one]) => typeof one === 'string');
  return {
    files: texts.length > 0 ? (Object.fromEntries(texts) as Files) : null,
    rules: { v4: text(rules?.v4), v6: text(rules?.v6) },
  };
}

async function pack(text: string): Promise<string> {
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream('deflate'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

async function unpack(text: string): Promise<string> {
  const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
  const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const reader = stream.getReader();
  const parts: BlobPart[] = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > MOST_BYTES) {
      await reader.cancel();
      throw new Error('the link holds more than any lab');
    }
    parts.push(value as BlobPart);
  }
  return new Blob(parts).text();
}
