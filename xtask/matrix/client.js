// A client with Node's http2 for `cargo xtask matrix`: `node client.js URL h2 TYPE CASE...`. Prints a line for each case.
const http2 = require('node:http2');

const [address, , kind, ...cases] = process.argv.slice(2);
const url = new URL(address);
const session = http2.connect(url.origin, { rejectUnauthorized: false });
session.on('error', () => {});
// A gRPC message as long as the body; other servers ignore its content.
const UPLOAD = Buffer.alloc(1000000);
UPLOAD.writeUInt32BE(999995, 1);

function ask(what) {
  return new Promise((resolve, reject) => {
    const empty = kind === 'application/grpc' ? Buffer.alloc(5) : undefined;
    const body = what === 'up' ? UPLOAD : empty;
    const fields = body ? { ':method': 'POST', 'content-type': kind } : { ':method': 'GET' };
    const stream = session.request({ ...fields, ':path': url.pathname + what });
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
  for (const what of cases) {
    let [body, error] = [Buffer.alloc(0), ''];
    try { body = await ask(what); } catch (failure) { error = failure.message || 'an error'; }
    let good = what === 'up' ? body.toString('latin1').endsWith('1000000') : body.length === 1000000;
    if (what === 'reset' || what === 'cut') { [good, error] = [error !== '', 'no error']; }
    console.log(what, good ? 'ok' : `bad ${error}`);
  }
  session.close();
}
main();
