// A lab as a folder that is packed (zip): what `Save` writes, and what `Open…` takes.

import { strFromU8, strToU8, unzipSync, zipSync } from 'fflate';
import type { Files, Rules } from './source';

/** More than this, unpacked, no lab has. */
const MOST_BYTES = 4 << 20;

/** Rules that were tried in place of the lab's own stand beside it, under these names. */
const TRIED: Record<keyof Rules, string> = { v4: 'tried.rules', v6: 'tried.rules6' };

export interface Folder {
  files: Files;
  rules: Rules;
}

export function toZip(name: string, { files, rules }: Folder): Uint8Array {
  const all: Files = { ...files };
  if (rules.v4 !== null) all[TRIED.v4] = rules.v4;
  if (rules.v6 !== null) all[TRIED.v6] = rules.v6;
  const texts = Object.entries(all).map(([file, text]) => [file, strToU8(text)]);
  // The same lab is the same file whenever it is saved.
  return zipSync({ [name]: Object.fromEntries(texts) }, { level: 9, mtime: '1980-01-01' });
}

/** Reads what somebody has chosen: files, or one that is packed. `null` if there is too much, or what is packed is broken. */
export function fromChosen(chosen: { name: string; bytes: Uint8Array }[]): Folder | null {
  let left = MOST_BYTES;
  const texts: Files = {};
  const take = (name: string, bytes: Uint8Array) => {
    left -= bytes.length;
    if (left >= 0) texts[name] = strFromU8(bytes);
  };
  for (const { name, bytes } of chosen) {
    if (!/\.zip$/i.test(name)) {
      take(name, bytes);
      continue;
    }
    try {
      // What a packed file says of its size is what room is made for.
      let size = 0;
      const filter = (file: { name: string; originalSize: number }) => {
        size += file.originalSize;
        return !file.name.endsWith('/') && size <= left;
      };
      const unpacked = Object.entries(unzipSync(bytes, { filter }));
      if (size > left) return null;
      for (const [file, content] of unpacked) take(file, content);
    } catch {
      return null;
    }
  }
  return left < 0 ? null : sorted(inside(texts));
}

/** The files by their names in the folder of the lab file. */
function inside(texts: Files): Files {
  const labs = Object.keys(texts).filter((name) => /(^|\/)lab\.ya?ml$/.test(name));
  const lab = labs.sort((a, b) => a.length - b.length)[0];
  const folder = lab?.replace(/[^/]*$/, '') ?? '';
  const below = Object.entries(texts).filter(([name]) => name.startsWith(folder));
  return Object.fromEntries(below.map(([name, text]) => [name.slice(folder.length), text]));
}

function sorted(texts: Files): Folder {
  const { [TRIED.v4]: v4 = null, [TRIED.v6]: v6 = null, ...files } = texts;
  // A lab file of another name is the lab, if it is the only one.
  const [only, ...others] = Object.keys(files).filter((name) => /\.ya?ml$/.test(name));
  if (!('lab.yaml' in files) && only && others.length === 0) {
    files['lab.yaml'] = files[only] ?? '';
    delete files[only];
  }
  return { files, rules: { v4, v6 } };
}
