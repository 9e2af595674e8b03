// A lab that is up, in a real browser: `stateway lab web` and its page. It takes root and a /run of its own, which
// `scripts/web-test` gives it; PLAYGROUND is the page, STATEWAY the program.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { beginAt } from './browser.mjs';

const { PLAYGROUND, STATEWAY } = process.env;
assert.ok(PLAYGROUND && STATEWAY, 'PLAYGROUND and STATEWAY must be set: run scripts/web-test');
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const LAB = new URL('../../topologies/article', import.meta.url).pathname;

const stateway = (...words) => execFileSync(STATEWAY, words, { encoding: 'utf8', stdio: 'pipe' });

/** Begins `lab web`, and says where its page is. */
async function web(...options) {
  const words = ['lab', 'web', LAB, '--page', PLAYGROUND, ...options];
  const server = spawn(STATEWAY, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: server.stdout });
  const { value: link } = await lines[Symbol.asyncIterator]().next();
  assert.match(link ?? '', /^http:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{32}\/$/);
  const end = () =>
    new Promise((done) => {
      server.once('exit', done);
      server.kill('SIGTERM');
    });
  return { link, end };
}

/** The status of an answer to a request as it is written. */
function status(link, { path, host, headers = {}, method = 'GET', body = '' }) {
  const { port, host: own, pathname } = new URL(link);
  const all = {
    host: host ?? own,
    connection: 'close',
    'content-length': Buffer.byteLength(body),
    ...headers,
  };
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return new Promise((done, fail) => {
    let said = '';
    const socket = createConnection(Number(port), '127.0.0.1');
    socket.on('data', (data) => {
      said += data;
    });
    socket.on('error', fail);
    socket.on('close', () => done(Number(said.split(' ')[1])));
    socket.write(`${method} ${path ?? pathname} HTTP/1.1\r\n${head.join('')}\r\n${body}`);
  });
}

let reader;
let browser;
before(async () => {
  stateway('lab', 'up', LAB);
  reader = await web();
  browser = await beginAt(reader.link);
});
after(async () => {
  await browser?.end();
  await reader?.end();
  stateway('lab', 'down', LAB);
});

const row = (page, text) => page.locator('.row', { hasText: text });

describe('a lab that is up', () => {
  test('ssh 104 to 77 is accepted, and 77 to 104 is blocked, as they happen', async () => {
    const page = await browser.open();
    await page.waitForSelector('.live-sign.there');
    assert.equal(stateway('lab', 'ssh', '--lab', LAB, 'host104', 'host77', 'hostname').trim(), 'host77');
    const accepted = row(page, /tcp S 192\.0\.2\.104:\d+ → 192\.0\.2\.77:22/).first();
    assert.match(await accepted.textContent(), /NEW.*forwarded/);
    // It waits for an answer until it is told to stop: one packet is enough.
    const caller = spawn(STATEWAY, ['lab', 'ssh', '--lab', LAB, 'host77', 'host104', 'hostname']);
    const blocked = row(page, /tcp S 192\.0\.2\.77:\d+ → 192\.0\.2\.104:22/).first();
    assert.match(await blocked.textContent(), /NEW.*dropped/);
    const ended = new Promise((done) => caller.once('exit', done));
    caller.kill('SIGTERM');
    await ended;

    await blocked.click();
    await page.waitForSelector('.steps');
    assert.match(await page.textContent('#decided-by'), /policy/);
    const values = await page.locator('.rule.no .value').allTextContents();
    assert.deepEqual(values, ['the packet is NEW', 'the packet came in on host77']);

    await accepted.click();
    await page.waitForFunction(() =>
      /FORWARD\/2/.test(document.querySelector('#decided-by')?.textContent ?? ''),
    );
    await page.click('#tab-connections');
    await page.waitForSelector('.connections [aria-current]');
    assert.match(await page.textContent('.connections [aria-current]'), /tcp.*SYN_SENT.*192\.0\.2\.104/);

    // Who comes later, or again, sees the same.
    await page.reload();
    await accepted.waitFor();
    await blocked.waitFor();
    assert.deepEqual(browser.complaints, []);
    await page.close();
  });

  test('rules are shown with their counters, and nothing may be changed', async () => {
    const page = await browser.open('#view=rules');
    await page.click('#tab-rules');
    await page
      .locator('.cm-line', { hasText: '-A FORWARD -i host104 -m state --state NEW -j ACCEPT' })
      .waitFor();
    assert.equal(await page.isDisabled('#apply'), true);
    const headers = { origin: new URL(reader.link).origin, 'content-type': 'application/json' };
    const path = `${new URL(reader.link).pathname}live/rules`;
    const answer = { path, headers, method: 'POST', body: '{"v4":"*filter\\nCOMMIT\\n","v6":null}' };
    assert.equal(await status(reader.link, answer), 403);
    await page.close();
  });

  test('axe finds nothing serious, and nothing is wider than a phone', async () => {
    const page = await browser.open();
    await page.waitForSelector('.live-sign.there');
    await page.evaluate(await readFile(AXE, 'utf8'));
    for (const view of ['way', 'connections', 'rules']) {
      await page.click(`#tab-${view}`);
      await page.waitForSelector(`#view-${view}`);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
      assert.deepEqual(
        serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join('\n')}`),
        [],
        view,
      );
      await page.setViewportSize({ width: 360, height: 740 });
      const [width, most] = await page.evaluate(() => [
        document.documentElement.scrollWidth,
        document.documentElement.clientWidth,
      ]);
      assert.ok(width <= most, `${view}: ${width} > ${most}`);
      await page.setViewportSize({ width: 1280, height: 720 });
    }
    await page.close();
  });

  test('findings are told in the editor while rules are written', async () => {
    const page = await browser.open();
    await page.click('#tab-rules');
    await page.locator('.cm-line', { hasText: '--state NEW -j ACCEPT' }).waitFor();
    await page.click('.cm-content');
    await page.keyboard.press('ControlOrMeta+a');
    const rules = '-A FORWARD -p tcp -m tcp --sport 22 -j ACCEPT';
    await page.keyboard.insertText(`*filter\n:FORWARD DROP [0:0]\n${rules}\nCOMMIT\n`);
    await page
      .locator('.problems li', { hasText: /:3:.*\[SW\d+\]/ })
      .first()
      .waitFor();
    await page.waitForSelector('.cm-lintRange-warning');
    await page.close();
  });

  test('with --write the page replaces rules, all or nothing', async () => {
    const writer = await web('--write');
    const page = await browser.context.newPage();
    await page.goto(writer.link);
    await page.click('#tab-rules');
    await page.locator('.cm-line', { hasText: '--state NEW -j ACCEPT' }).waitFor();
    const write = async (text) => {
      await page.click('.cm-content');
      await page.keyboard.press('ControlOrMeta+a');
      await page.keyboard.insertText(text);
      await page.click('#apply');
    };
    await write('*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j ACCPT\nCOMMIT\n');
    await page.waitForSelector('.cm-lintRange-error');
    await page.waitForSelector('.problems.wrong pre');
    assert.match(stateway('lab', 'rules', LAB, '-S'), /--state NEW -j ACCEPT/);
    await write('*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n');
    await page.waitForSelector('.problems.wrong pre', { state: 'detached' });
    await page.locator('.cm-gutterElement', { hasText: '0' }).first().waitFor();
    assert.match(stateway('lab', 'rules', LAB, '-S'), /-A FORWARD -p udp -j ACCEPT/);
    await page.close();
    await writer.end();
    stateway('lab', 'reload', LAB);
  });
});

describe('who may ask', () => {
  test('a foreign Host is refused', async () => {
    const { host } = new URL(reader.link);
    assert.equal(await status(reader.link, {}), 200);
    assert.equal(await status(reader.link, { host: host.replace('127.0.0.1', 'localhost') }), 200);
    for (const other of ['example.org', `example.org:${new URL(reader.link).port}`, '127.0.0.1', '']) {
      assert.equal(await status(reader.link, { host: other }), 421, other);
    }
  });

  test('a foreign Origin is refused', async () => {
    const path = `${new URL(reader.link).pathname}live/shown`;
    assert.equal(await status(reader.link, { path }), 200);
    for (const origin of ['http://example.org', 'null', 'https://127.0.0.1']) {
      assert.equal(await status(reader.link, { path, headers: { origin } }), 403, origin);
    }
  });

  test('without the token there is nothing', async () => {
    const { pathname } = new URL(reader.link);
    for (const path of ['/', '/live/shown', '/live/news', `${pathname.slice(0, -2)}/`, '/assets/x.js']) {
      assert.equal(await status(reader.link, { path }), 403, path);
    }
  });

  test('no page of somebody else can read anything', async () => {
    const page = await browser.context.newPage();
    await page.goto('about:blank');
    const read = await page.evaluate(async (link) => {
      try {
        await fetch(`${link}live/shown`);
        return 'read';
      } catch {
        return 'refused';
      }
    }, reader.link);
    assert.equal(read, 'refused');
    await page.close();
  });
});
