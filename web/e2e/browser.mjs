// A real browser on the folder of static files, as a static host would serve it.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

/** Nothing here is measured by time: a busy machine only has to come to an end. */
const PATIENCE_MS = 120_000;

/** Serves a folder on a port of loopback that is free. */
async function serve(folder) {
  const server = createServer(async (request, response) => {
    const name = new URL(request.url, 'http://page').pathname.replace(/\/$/, '/index.html');
    try {
      const body = await readFile(path.join(folder, path.normalize(name)));
      response.writeHead(200, { 'content-type': TYPES[path.extname(name)] ?? 'application/octet-stream' });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { server, address: `http://127.0.0.1:${server.address().port}/` };
}

/** Begins a browser on a folder. */
export async function begin(folder) {
  const { server, address } = await serve(folder);
  const browser = await beginAt(address);
  const end = async () => {
    await browser.end();
    server.closeAllConnections?.();
    await new Promise((done) => server.close(done));
  };
  return { ...browser, end };
}

/** Begins a browser with a profile of its own; `open` opens the page at an address, and watches it. */
export async function beginAt(address) {
  const profile = await mkdtemp(path.join(tmpdir(), 'stateway-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    timeout: PATIENCE_MS,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
    viewport: { width: 1280, height: 720 },
    locale: 'en-GB',
    // The picture is the one at which a packet has arrived.
    reducedMotion: 'reduce',
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const complaints = [];
  const open = async (fragment = '') => {
    const page = await context.newPage();
    page.on('pageerror', (error) => complaints.push(`error: ${error}`));
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(`console: ${message.text()}`);
    });
    page.on('request', (request) => {
      const url = request.url();
      if (!url.startsWith(address) && !/^(blob|data):/.test(url)) complaints.push(`asked for ${url}`);
    });
    await page.goto(address + fragment);
    await settled(page);
    return page;
  };
  const end = async () => {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  };
  return { address, context, open, end, complaints };
}

/** Waits until the lab that was asked for has run. */
export async function settled(page) {
  await page.waitForSelector('main[data-settled="true"]');
}
