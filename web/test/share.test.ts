import { expect, test } from 'vitest';
import { fromFragment, type Shared, toFragment } from '../src/share';
import { en } from '../src/text/en';
import { zh } from '../src/text/zh';

const plain: Shared = { lab: 'article', packet: 4, view: 'way', files: null, rules: { v4: null, v6: null } };

test('a lab as it is has a link that people can read', async () => {
  expect(await toFragment(plain)).toBe('#lab=article&packet=5&view=way');
  expect(await fromFragment('#lab=article&packet=5&view=way')).toEqual(plain);
});

test('edits come back byte for byte', async () => {
  const files = { 'lab.yaml': `name: ä\n${'x'.repeat(70_000)}`, 'other.rules': '规则\n' };
  const edited: Shared = { ...plain, lab: 'own', files, rules: { v4: '*filter\nCOMMIT\n', v6: null } };
  const fragment = await toFragment(edited);
  expect(fragment).toMatch(/^#[\w.~%&=-]+$/);
  expect(await fromFragment(fragment)).toEqual(edited);
});

test('a fragment that names no lab is none', async () => {
  expect(await fromFragment('')).toBeNull();
  expect(await fromFragment('#packet=3')).toBeNull();
});

test('what is odd in a link is left out', async () => {
  expect(await fromFragment('#lab=a&packet=-3&view=nowhere')).toEqual({
    ...plain,
    lab: 'a',
    packet: -1,
    view: 'packets',
  });
  const odd = await toFragment({ ...plain, files: { a: 1, b: 'x' } as unknown as Shared['files'] });
  expect((await fromFragment(odd))?.files).toEqual({ b: 'x' });
});

test('a link that is cut short, or unpacks to more than a lab, is refused', async () => {
  await expect(fromFragment('#lab=a&edit=AAAA')).rejects.toThrow();
  const large = await toFragment({ ...plain, files: { a: ' '.repeat(5 << 20) } });
  await expect(fromFragment(large)).rejects.toThrow(/more than any lab/);
});

test('both languages say the same things', () => {
  const shape = (value: unknown): unknown =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).map(([key, one]) => [key, shape(one)]))
      : typeof value;
  expect(shape(zh)).toEqual(shape(en));
});
