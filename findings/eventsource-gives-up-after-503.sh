#!/usr/bin/env bash
# One 503 permanently ends an event stream's reconnecting; a connection that is cut without an answer does not.
#
# Needs: node.
#
# Expected: EventSource exists to reconnect on its own. While a backend restarts it gets 502 or 503 from the proxy, tries again after its
# "retry" time, and continues when the backend is back. An honest status is at least as good as a reset.
#
# What happens: the HTML standard retries after network errors and after a 200 that ends, and gives up permanently (readyState CLOSED) after
# any other status. eventsource 4.0.0 and the EventSource of undici 7.30.2 do just that: after one 502, 503 or 429 between two healthy
# connections, with "Retry-After: 0" or without, they make no further request. eventsource 2.0.2 did try again after 502 and 503.
#
# Why it matters: at a rollout all event streams end at once and all come back within a second, just when there may be no endpoint or when a
# limit on connections is reached. Those that meet the proxy's error page are gone until the page is reloaded, and the proxy shows nothing
# but fewer requests. For a GET that accepts text/event-stream, waiting a little for an endpoint is worth more than elsewhere, and so is
# ending old streams at different times. Of all ways to refuse, only closing lets the client recover.
#
# Seen with Node.js 20.20.2 (connections made; the second one meets what stands at the left, the third one would be served):
#   second answer    eventsource 4.0.0  undici 7.30.2  eventsource 2.0.2
#   503                              2              2                  3
#   502                              2              2                  3
#   429                              2              2                  2
#   reset                            3              3                  3
#   200, ends                        3              3                  3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund eventsource@4.0.0 older@npm:eventsource@2.0.2 undici@7.30.2 >/dev/null

cat >client.mjs <<'JS'
import http from "node:http";
import { EventSource as Current } from "eventsource";
import { EventSource as Undici } from "undici";
import Older from "older";

const EVENTS = { "content-type": "text/event-stream" };

/** Connections made until one is served again, or until the client has given up. */
async function count(EventSource, second) {
  let connections = 0;
  const server = http.createServer((request, response) => {
    connections += 1;
    if (connections === 2 && second === "reset") request.socket.destroy();
    else if (connections === 2 && second === "200, ends") response.writeHead(200, EVENTS).end();
    else if (connections === 2) response.writeHead(Number(second), { "retry-after": "0" }).end();
    else response.writeHead(200, EVENTS).write(`retry: 50\n\ndata: ${connections}\n\n`);
    if (connections === 1) response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const source = new EventSource(`http://127.0.0.1:${server.address().port}/`);
  const served = new Promise((resolve) => (source.onmessage = ({ data }) => data === "3" && resolve()));
  const givenUp = new Promise((resolve) => (source.onerror = () => setTimeout(() => source.readyState === 2 && resolve(), 500)));
  await Promise.race([served, givenUp]);
  source.close();
  server.closeAllConnections();
  server.close();
  return String(connections);
}

console.log("second answer    eventsource 4.0.0  undici 7.30.2  eventsource 2.0.2");
for (const second of ["503", "502", "429", "reset", "200, ends"]) {
  const [current, undici, older] = [await count(Current, second), await count(Undici, second), await count(Older, second)];
  console.log(`${second.padEnd(15)}  ${current.padStart(17)}  ${undici.padStart(13)}  ${older.padStart(17)}`);
}
process.exit(0);
JS
node --no-warnings client.mjs | tee seen

cat >expected <<'TEXT'
second answer    eventsource 4.0.0  undici 7.30.2  eventsource 2.0.2
503                              2              2                  3
502                              2              2                  3
429                              2              2                  2
reset                            3              3                  3
200, ends                        3              3                  3
TEXT
diff expected seen && echo "As described: Node.js $(node -v)."
