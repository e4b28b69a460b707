// A client of Node's http2 for `cargo xtask matrix`: `node client.js URL`. A line for each case.
const http2 = require('node:http2');

const url = new URL(process.argv[2]);
const session = http2.connect(url.origin, { rejectUnauthorized: false });
session.on('error', () => {});

function ask(what, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': body ? 'POST' : 'GET', ':path': url.pathname + what });
    const pieces = [];
    let status = 0;
    stream.on('response', (fields) => { status = fields[':status']; });
    stream.on('data', (data) => pieces.push(data));
    stream.on('error', reject);
    stream.on('end', () => (status === 200 ? resolve(Buffer.concat(pieces)) : reject(new Error(`status ${status}`))));
    stream.end(body);
  });
}

async function main() {
  const attempt = async (what, body) => {
    try { return [await ask(what, body), '']; } catch (error) { return [Buffer.alloc(0), error.message || 'an error']; }
  };
  const say = (what, good, error) => console.log(what, good ? 'ok' : `bad ${error}`);
  let [body, error] = await attempt('down');
  say('down', body.length === 1000000, error);
  [body, error] = await attempt('up', Buffer.alloc(1000000));
  say('up', body.toString() === '1000000', error);
  [body, error] = await attempt('reset');
  say('reset', error !== '', 'no error');
  [body, error] = await attempt('goaway');
  say('goaway', body.length === 1000000, error);
  session.close();
}
main();
