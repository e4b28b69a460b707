// A backend of Node's http: prints each whole request as method, target and body.
const http = require("http");
const fs = require("fs");
const server = http.createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const body = Buffer.concat(pieces).toString("hex");
    fs.writeSync(1, Buffer.from(`${request.method}\t${request.url}\t${body}\n`, "latin1"));
    response.end();
  });
});
server.listen(0, "127.0.0.1", () => fs.writeSync(1, `127.0.0.1:${server.address().port}\n`));
