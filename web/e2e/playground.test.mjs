// The playground in a real browser. `scripts/web-test` says where its files are (PLAYGROUND) and which program says what is right
// (STATEWAY).

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { begin, settled } from './browser.mjs';

const { PLAYGROUND, STATEWAY } = process.env;
assert.ok(PLAYGROUND && STATEWAY, 'PLAYGROUND and STATEWAY must be set: run scripts/web-test');
const TOPOLOGIES = new URL('../../topologies/', import.meta.url);
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

let browser;
before(async () => {
  browser = await begin(PLAYGROUND);
});
after(async () => {
  await browser?.end();
});

/** A page that nobody has touched, and nothing to complain of at the end. */
async function on(fragment, look) {
  browser.complaints.length = 0;
  const page = await browser.open(fragment);
  try {
    await look(page);
    assert.deepEqual(browser.complaints, []);
  } finally {
    await page.close();
  }
}

const chooseLab = async (page, name) => {
  await page.selectOption('#lab', name);
  await page.waitForSelector(`main[data-lab="${name}"][data-settled="true"]`);
};

const stopped = (page) => page.locator('.row.stopped').first();

/** What the page shows of the chosen packet. */
const picture = (page) =>
  page.evaluate(() => [
    document.querySelector('.map').outerHTML,
    document.querySelector('.way-view')?.outerHTML ?? '',
    document.querySelector('.bar output').textContent,
  ]);

/** Writes a text in place of what the editor holds. */
const write = async (page, text) => {
  await page.click('.cm-content');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.press('Delete');
  await page.keyboard.insertText(text);
};

const at = (page, number) => page.waitForSelector(`main[data-at="${number}"][data-told="true"]`);

describe('labs', () => {
  const names = readdirSync(TOPOLOGIES).sort();

  test('every lab of the folder is there', async () => {
    await on('', async (page) => {
      const options = await page.locator('#lab option').allTextContents();
      assert.deepEqual(options, names);
    });
  });

  test('every lab gives the lines of the program', async () => {
    await on('#lab=article&view=tests', async (page) => {
      for (const name of names) {
        await chooseLab(page, name);
        const lines = await page.locator('.test-line').allTextContents();
        assert.deepEqual(lines, programLines(name), name);
      }
    });
  });
});

/** The lines of tests that the program prints of a lab. */
function programLines(name) {
  const lab = path.join(TOPOLOGIES.pathname, name);
  const text = execFileSync(STATEWAY, ['lab', 'test', lab, '--on', 'sim'], { encoding: 'utf8' });
  return text.split('\n').filter((line) => /^(pass|FAIL|skip|LATE|BROKEN|not run) +sim /.test(line));
}

describe('packets', () => {
  test('what is dropped is explained by one click', async () => {
    await on('#lab=article', async (page) => {
      await stopped(page).click();
      await page.waitForSelector('.steps');
      assert.match(await page.textContent('#decided-by'), /policy/);
      const marks = await page.locator('.rule.no mark').allTextContents();
      assert.deepEqual(marks, ['-m state --state RELATED,ESTABLISHED', '-i host104']);
      const values = await page.locator('.rule.no .value').allTextContents();
      assert.deepEqual(values, ['the packet is NEW', 'the packet came in on host77']);
    });
  });

  test('there and back again is the same picture', async () => {
    await on('#lab=five-states&packet=1&view=way', async (page) => {
      await at(page, 1);
      const seen = [];
      for (let number = 1; number <= 12; number++) {
        await at(page, number);
        seen.push(await picture(page));
        await page.click('#forward');
      }
      assert.equal(new Set(seen.map(String)).size, seen.length, 'packets look alike');
      for (let number = 12; number >= 1; number--) {
        await page.click('#back');
        await at(page, number);
        assert.deepEqual(await picture(page), seen[number - 1], `packet ${number}`);
      }
    });
  });

  test('keys step, and choose a view', async () => {
    await on('#lab=article', async (page) => {
      await page.keyboard.press('ArrowRight');
      await at(page, 1);
      await page.keyboard.press('ArrowRight');
      await at(page, 2);
      await page.keyboard.press('3');
      await page.waitForSelector('.connections');
      await page.keyboard.press('Home');
      await page.waitForSelector('main[data-at="0"]');
    });
  });

  test('the table holds a connection from its first packet on', async () => {
    await on('#lab=article&packet=1&view=connections', async (page) => {
      await at(page, 1);
      assert.equal(await page.locator('.connections tbody tr').count(), 1);
      assert.match(await page.textContent('.connections tbody'), /SYN_SENT.*120 s|SYN_SENT.*2:00/);
      await page.click('#forward');
      await at(page, 2);
      assert.match(await page.textContent('.connections tbody'), /SYN_RECV/);
      assert.match(await page.textContent('.chosen'), /filter\/FORWARD\/2/);
    });
  });
});

describe('rules', () => {
  const OPEN = '*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n';

  test('an edited rule changes the next verdict', async () => {
    await on('#lab=article&view=rules', async (page) => {
      const number = await stopped(page).getAttribute('data-packet');
      await write(page, OPEN);
      await page.click('#apply');
      await page.waitForSelector('.changes li');
      const row = page.locator(`[data-packet="${number}"]`);
      assert.match(await row.textContent(), /forwarded.*was dropped before/);
      // The own rules come back whole.
      await page.click('#reset');
      await page.waitForSelector('#reset', { state: 'detached' });
      await page.waitForSelector('.row.stopped');
      assert.equal(await stopped(page).getAttribute('data-packet'), number);
    });
  });

  test('what is wrong is said in its line, and nothing runs', async () => {
    await on('#lab=article&view=rules', async (page) => {
      const before = await page.locator('.row').count();
      await write(page, '*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j ACCPT\nCOMMIT\n');
      await page.waitForSelector('.problems.wrong');
      assert.match(await page.textContent('.problems'), /:3:\d+.*ACCPT/);
      await page.waitForSelector('.cm-lintRange-error');
      await page.click('#apply');
      await settled(page);
      assert.equal(await page.locator('.row').count(), before);
    });
  });
});

describe('links', () => {
  test('a link opens what was shared, edits too, and a reload loses nothing', async () => {
    await on('#lab=article&view=rules', async (page) => {
      await write(page, '*filter\n:FORWARD DROP [0:0]\nCOMMIT\n');
      await page.click('#apply');
      await page.waitForSelector('.changes li');
      await page.locator('[data-packet="2"]').click();
      await at(page, 3);
      await page.waitForFunction(() => /packet=3.*view=way.*edit=/.test(location.hash));
      const link = await page.evaluate(() => location.href);
      const seen = await picture(page);
      await page.reload();
      await at(page, 3);
      assert.deepEqual(await picture(page), seen);
      const other = await browser.open(new URL(link).hash);
      await at(other, 3);
      assert.deepEqual(await picture(other), seen);
      await other.close();
    });
  });

  test('a link that was cut short leads to the page, and says so', async () => {
    const page = await browser.open('#lab=article&edit=AAAA');
    assert.match(await page.textContent('[role=alert]'), /link/);
    await page.close();
  });
});

describe('folders', () => {
  test('a lab that was edited is saved, and opened again, whole', async () => {
    await on('#lab=article&view=rules', async (page) => {
      await write(page, '*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n');
      await page.click('#apply');
      await page.waitForSelector('.changes li');
      const download = page.waitForEvent('download');
      await page.click('#save');
      const saved = await download;
      assert.equal(saved.suggestedFilename(), 'article.zip');
      const buffer = await readFile(await saved.path());
      await chooseLab(page, 'five-states');
      await page.setInputFiles('input[type=file]', {
        name: 'article.zip',
        mimeType: 'application/zip',
        buffer,
      });
      await page.waitForSelector('main[data-lab="own"][data-settled="true"]');
      assert.equal(await stopped(page).count(), 0);
      await page.locator('.cm-line', { hasText: ':FORWARD ACCEPT' }).waitFor();
    });
  });

  test('<stateway-lab> shows the lab of a file beside a page', async () => {
    const course = path.join(PLAYGROUND, '..', 'course-tested');
    await rm(course, { recursive: true, force: true });
    await mkdir(path.join(course, 'mine'), { recursive: true });
    await cp(PLAYGROUND, path.join(course, 'playground'), { recursive: true });
    await cp(path.join(TOPOLOGIES.pathname, 'invalid', 'lab.yaml'), path.join(course, 'mine', 'lab.yaml'));
    const html = `<!doctype html><title>A course</title>
      <script type="module" src="playground/stateway-lab.js"></script>
      <stateway-lab src="mine/lab.yaml" packet="1" view="way"></stateway-lab>`;
    await writeFile(path.join(course, 'index.html'), html);
    const others = await begin(course);
    const page = await others.context.newPage();
    await page.goto(others.address);
    const frame = page.frameLocator('stateway-lab iframe');
    await frame.locator('main[data-lab="own"][data-at="1"][data-told="true"]').waitFor();
    assert.match(await frame.locator('.way-view').textContent(), /conntrack/);
    await others.end();
  });
});

describe('what others wrote', () => {
  const HOSTILE = '<img src=x onerror=document.title=1>';

  test('names and payloads of a lab stay text', async () => {
    const lab = `name: hostile
description: "${HOSTILE}"
router:
  ports: { a: {}, b: {} }
  rules: |
    *filter
    :FORWARD DROP [0:0]
    -A FORWARD -m comment --comment "${HOSTILE}" -j ACCEPT
    COMMIT
hosts:
  a: { port: a, address: 192.0.2.1/24 }
  b: { port: b, address: 192.0.2.2/24, services: [echo] }
tests:
  - name: "${HOSTILE}"
    udp: { from: a, to: b, port: 7, send: "${HOSTILE}" }
    expect: { result: ok, stdout: "other ${HOSTILE}" }
`;
    await on('', async (page) => {
      await page.setInputFiles('input[type=file]', {
        name: 'lab.yaml',
        mimeType: 'text/yaml',
        buffer: Buffer.from(lab),
      });
      await page.waitForSelector('main[data-lab="own"][data-settled="true"]');
      assert.equal(await page.textContent('.description'), HOSTILE);
      await page.locator('[data-packet="0"]').click();
      await at(page, 1);
      assert.match(await page.textContent('.steps'), /onerror/);
      await page.click('#tab-tests');
      assert.match(await page.textContent('.test-details'), /onerror/);
      await page.click('#tab-rules');
      await page.waitForSelector('.cm-content');
      assert.equal(await page.locator('img').count(), 0);
      assert.equal(await page.title(), 'stateway playground');
    });
  });
});

describe('everybody', () => {
  const views = ['way', 'connections', 'rules', 'tests'];

  for (const theme of ['light', 'dark']) {
    test(`axe finds nothing serious, ${theme}`, async () => {
      await on('#lab=article&packet=30&view=way', async (page) => {
        await page.emulateMedia({ colorScheme: theme, reducedMotion: 'reduce' });
        await page.waitForSelector(`html[data-theme="${theme}"]`);
        await page.evaluate(await readFile(AXE, 'utf8'));
        for (const view of views) {
          await page.click(`#tab-${view}`);
          await page.waitForSelector(`#view-${view}`);
          const { violations } = await page.evaluate(() => globalThis.axe.run());
          const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
          const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join('\n')}`);
          assert.deepEqual(told, [], view);
        }
      });
    });
  }

  test('the page speaks Chinese', async () => {
    await on('#lab=article', async (page) => {
      await page.click('#language');
      await page.waitForSelector('html[lang="zh-CN"]');
      assert.match(await page.textContent('.packets h2'), /数据包/);
      await page.click('#language');
      await page.waitForSelector('html[lang="en"]');
      assert.match(await page.textContent('.packets h2'), /Packets/);
    });
  });

  test('nothing is wider than a phone', async () => {
    await on('#lab=article&packet=3&view=way', async (page) => {
      await page.setViewportSize({ width: 360, height: 740 });
      for (const view of ['packets', ...views]) {
        await page.click(`#tab-${view}`);
        await page.waitForSelector(`#view-${view}`);
        const [width, most] = await page.evaluate(() => [
          document.documentElement.scrollWidth,
          document.documentElement.clientWidth,
        ]);
        assert.ok(width <= most, `${view}: ${width} > ${most}`);
      }
    });
  });

  test('an exercise asks of each test, and ends with what was to be learnt', async () => {
    await on('#lab=five-states', async (page) => {
      await page.check('#predict');
      await page.selectOption('#exercise', '3');
      await page.waitForSelector('main[data-lab="article"]');
      const tests = 13;
      for (let number = 1; number <= tests; number++) {
        await page.waitForFunction(
          (text) => document.querySelector('#question')?.textContent.includes(text),
          `${number} of ${tests}`,
        );
        await page.waitForSelector('.predict form');
        const isIn = /77:\d+ → 192\.0\.2\.104|192\.0\.2\.77 → 192\.0\.2\.104/.test(
          await page.textContent('.asked'),
        );
        await page.check('input[name=state][value=NEW]');
        await page.check(`input[name=fate][value=${isIn ? 'dropped' : 'forwarded'}]`);
        await page.click('.predict button[type=submit]');
        await page.waitForSelector('.answer.right');
        if (number < tests) await page.click('.answer .main');
      }
      assert.match(await page.textContent('.lesson'), /memory/);
    });
  });

  test('why a packet is INVALID is told in Chinese', async () => {
    await on('#lab=tcp-flags', async (page) => {
      await page.click('#language');
      await page.locator('.row', { hasText: 'INVALID' }).first().click();
      await page.waitForSelector('.steps');
      assert.match(await page.textContent('.facts'), /不能建立连接/);
      assert.match(await page.textContent('.steps'), /数据包/);
      await page.click('#language');
    });
  });

  test('who predicts sees nothing before', async () => {
    await on('#lab=article', async (page) => {
      await page.check('#predict');
      await page.click('#forward');
      await at(page, 1);
      assert.equal(await page.locator('.row .state').count(), 0);
      assert.equal(await page.locator('.way-view').count(), 0);
      await page.check('input[name=state][value=NEW]');
      await page.check('input[name=fate][value=forwarded]');
      await page.click('.predict button[type=submit]');
      await page.waitForSelector('.answer.right');
      await page.waitForSelector('.way-view');
      assert.equal(await page.locator('.row .state').count(), 1);
    });
  });
});
