// A Node server for `cargo xtask matrix`: `node server.js h1` or `node server.js h2c`. It prints its address.
const http = require('node:http');
const http2 = require('node:http2');

const BODY = Buffer.alloc(1000000, 'x');
const HALF = BODY.subarray(0, 500000);

function answer(request, response, end) {
  const what = request.url.split('/').pop();
  if (what === 'up') {
    let length = 0;
    request.on('data', (data) => { length += data.length; });
    request.on('end', () => response.end(String(length)));
  } else if (what === 'reset' || what === 'goaway') {
    response.writeHead(200, what === 'reset' ? { 'content-length': String(BODY.length) } : {});
    // The rest follows once this has been written.
    response.write(HALF, () => setTimeout(() => end(what, response), 50));
  } else {
    response.end(BODY);
  }
}

const server = process.argv[2] === 'h2c'
  ? http2.createServer((request, response) => answer(request, response, (what) => {
    if (what === 'reset') {
      response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    } else {
      // The client may be gone.
      response.stream?.session?.goaway();
      response.end(HALF);
    }
  }))
  : http.createServer((request, response) => answer(request, response, (what) => {
    if (what === 'reset') {
      response.socket.resetAndDestroy();
    } else {
      response.shouldKeepAlive = false;
      response.end(HALF);
    }
  }));
process.on('uncaughtException', (error) => console.error(error));
server.on('session', (session) => session.on('error', () => {}));
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
