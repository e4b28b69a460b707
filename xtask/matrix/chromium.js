// Headless Chromium for `cargo xtask matrix`: `node chromium.js URL h1|h2 TYPE CASE...`. A page of the same origin sends the requests, and
// reports over the pipe of the DevTools protocol. Prints a line for each case.
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const [address, version, kind, ...cases] = process.argv.slice(2);
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'matrix-'));
const browser = spawn('chromium', [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--ignore-certificate-errors', '--no-proxy-server', '--remote-debugging-pipe',
  `--user-data-dir=${profile}`, ...(version === 'h1' ? ['--disable-http2'] : []), 'about:blank',
], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
const [, , , commands, answers] = browser.stdio;
const waiting = new Map();
const listeners = new Map();
let text = '';
answers.on('data', (data) => {
  text += data;
  const messages = text.split('\0');
  text = messages.pop();
  for (const message of messages.map(JSON.parse)) {
    const settle = waiting.get(message.id);
    if (settle) { settle(message); } else { listeners.get(message.method)?.(); }
  }
});

function call(method, params, sessionId) {
  return new Promise((resolve, reject) => {
    const id = waiting.size + 1;
    waiting.set(id, ({ result, error }) => (error ? reject(new Error(error.message)) : resolve(result)));
    commands.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  });
}

// Runs in the page. Returns the length of the body, its end, the HTTP version of the response, and the error.
async function fetched(url, kind, what) {
  const upload = new Uint8Array(1000000);
  new DataView(upload.buffer).setUint32(1, 999995);
  const empty = kind === 'application/grpc' ? new Uint8Array(5) : undefined;
  const body = what === 'up' ? upload : empty;
  const options = body ? { method: 'POST', body, headers: { 'content-type': kind } } : {};
  try {
    const response = await fetch(url + what, { ...options, cache: 'no-store' });
    const bytes = new Uint8Array(await response.arrayBuffer());
    const error = response.status === 200 ? '' : `status ${response.status}`;
    return { length: bytes.length, end: String.fromCharCode(...bytes.slice(-7)), error };
  } catch (failure) {
    return { length: 0, end: '', error: String(failure) };
  }
}

async function main() {
  const { targetId } = await call('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
    if (exceptionDetails) { throw new Error(exceptionDetails.exception?.description || exceptionDetails.text); }
    return result.value;
  };
  const loaded = new Promise((resolve) => { listeners.set('Page.loadEventFired', resolve); });
  await call('Page.enable', {}, sessionId);
  await call('Page.navigate', { url: new URL('/page', address).href }, sessionId);
  await loaded;
  const spoken = await evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol");
  const expected = version === 'h1' ? 'http/1.1' : 'h2';
  if (spoken !== expected) { throw new Error(`it speaks ${spoken}`); }
  for (const what of cases) {
    const words = [address, kind, what].map((word) => JSON.stringify(word)).join();
    let { length, end, error } = await evaluate(`(${fetched})(${words})`);
    let good = what === 'up' ? end === '1000000' : length === 1000000;
    if (what === 'reset' || what === 'cut') { [good, error] = [error !== '', 'no error']; }
    console.log(what, good ? 'ok' : `bad ${error}`);
  }
}

browser.on('exit', () => {
  fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  process.exit();
});
main().catch((error) => console.log(`bad ${error}`)).finally(() => browser.kill('SIGKILL'));
