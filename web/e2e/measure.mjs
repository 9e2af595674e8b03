// How fast the page is, by the browser's own trace: `scripts/web-bench` runs it. These are figures, not tests: a machine that does
// something else gives others.

import { execFileSync, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { begin, beginAt } from './browser.mjs';

const { PLAYGROUND, STATEWAY } = process.env;
const LAB = new URL('../../topologies/article', import.meta.url).pathname;
/** Echo requests and replies together are 200 packets in a second. */
const PINGS = 1000;
const INTERVAL_S = '0.01';

/** From the beginning of the navigation to the first packet with its state and fate, in a browser that has cached nothing. */
async function firstVerdict() {
  const browser = await begin(PLAYGROUND);
  const times = [];
  for (let time = 0; time < 5; time++) {
    const page = await browser.context.newPage();
    const session = await browser.context.newCDPSession(page);
    await session.send('Network.setCacheDisabled', { cacheDisabled: true });
    await page.addInitScript(() => {
      const look = () => {
        if (document.querySelector('.row .fate')) performance.mark('first-verdict');
        else requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    });
    await page.goto(browser.address);
    await page.waitForSelector('.row .fate');
    times.push(await page.evaluate(() => performance.getEntriesByName('first-verdict')[0].startTime));
    await page.close();
  }
  await browser.end();
  return times.sort((a, b) => a - b)[2];
}

/** Frames in a second while packets come, on the view that is asked for. */
async function frames(browser, view) {
  const page = await browser.open(`#view=${view}`);
  await page.emulateMedia({ reducedMotion: 'no-preference' });
  await page.waitForSelector('.live-sign.there');
  const words = [
    'lab',
    'exec',
    LAB,
    'host104',
    'ping',
    '-q',
    '-i',
    INTERVAL_S,
    '-c',
    String(PINGS),
    '192.0.2.77',
  ];
  const ping = spawn(STATEWAY, words, { stdio: 'ignore' });
  const ended = new Promise((done) => ping.once('exit', done));
  await page.waitForSelector('.row');
  const session = await browser.context.newCDPSession(page);
  const events = [];
  session.on('Tracing.dataCollected', ({ value }) => events.push(...value));
  const complete = new Promise((done) => session.once('Tracing.tracingComplete', done));
  const categories = ['benchmark', 'cc', 'devtools.timeline'];
  await session.send('Tracing.start', {
    transferMode: 'ReportEvents',
    traceConfig: { includedCategories: categories },
  });
  await new Promise((done) => setTimeout(done, 6000));
  await session.send('Tracing.end');
  await complete;
  await ended;
  await page.close();
  return judge(events);
}

/** What the browser has put on its display, and how long its page was busy at a stretch. */
function judge(events) {
  const shown = events.filter(({ name }) => name === 'Display::FrameDisplayed').map(({ ts }) => ts / 1000);
  shown.sort((a, b) => a - b);
  const gaps = shown.slice(1).map((at, number) => at - shown[number]);
  const perSecond = gaps.length / ((shown.at(-1) - shown[0]) / 1000);
  const late = gaps.filter((gap) => gap > 25).length;
  const updates = events.filter(({ name }) => name === 'FireAnimationFrame').length;
  return { perSecond, longest: Math.max(...gaps), late, frames: shown.length, updates };
}

const median = await firstVerdict();
console.log(
  `first verdict: ${median.toFixed(0)} ms after the navigation began (median of 5, nothing cached)`,
);

execFileSync(STATEWAY, ['lab', 'up', LAB], { stdio: 'pipe' });
const server = spawn(STATEWAY, ['lab', 'web', LAB, '--page', PLAYGROUND], {
  stdio: ['ignore', 'pipe', 'ignore'],
});
const lines = createInterface({ input: server.stdout });
const { value: link } = await lines[Symbol.asyncIterator]().next();
const browser = await beginAt(link);
try {
  for (const view of ['way', 'connections']) {
    const { perSecond, longest, late, frames: count, updates } = await frames(browser, view);
    console.log(
      `${view}, 200 packets a second: ${perSecond.toFixed(1)} frames a second, ${late} of ${count} late, the longest after ` +
        `${longest.toFixed(0)} ms; ${updates} updates of the page`,
    );
  }
} finally {
  await browser.end();
  server.kill('SIGTERM');
  execFileSync(STATEWAY, ['lab', 'down', LAB], { stdio: 'pipe' });
}
