import { strToU8, zipSync } from 'fflate';
import { expect, test } from 'vitest';
import { fromChosen, toZip } from '../src/folder';

const file = (name: string, text: string) => ({ name, bytes: strToU8(text) });

test('what is saved is what is opened', () => {
  const folder = {
    files: { 'lab.yaml': 'name: mine\n', 'rules/v4.rules': '*filter\n', 'notes.md': '意' },
    rules: { v4: '*filter\nCOMMIT\n', v6: null },
  };
  const bytes = toZip('mine', folder);
  expect(fromChosen([{ name: 'mine.zip', bytes }])).toEqual(folder);
  expect(toZip('mine', folder)).toEqual(bytes);
});

test('files are taken as they are, and a lone lab file of another name is the lab', () => {
  expect(fromChosen([file('mine.yml', 'a'), file('x.rules', 'b')])?.files).toEqual({
    'lab.yaml': 'a',
    'x.rules': 'b',
  });
});

test('a folder may stand in others', () => {
  const bytes = zipSync({ a: { b: { 'lab.yaml': strToU8('x'), r: { v4: strToU8('y') } } }, c: strToU8('z') });
  expect(fromChosen([{ name: 'x.zip', bytes }])?.files).toEqual({ 'lab.yaml': 'x', 'r/v4': 'y' });
});

test('what is broken, or unpacks to more than a lab has, is refused', () => {
  expect(fromChosen([file('x.zip', 'not packed')])).toBeNull();
  const bytes = zipSync({ 'lab.yaml': new Uint8Array(5 << 20) });
  expect(bytes.length).toBeLessThan(100_000);
  expect(fromChosen([{ name: 'x.zip', bytes }])).toBeNull();
  expect(fromChosen([{ name: 'lab.yaml', bytes: new Uint8Array(5 << 20) }])).toBeNull();
});
