// Loaded before the Portkey gateway (node --import), for two things that its npm build cannot be told.
import net from 'node:net';

// 1. Streams. A reply of fetch() has headers that cannot be changed, and the gateway changes them: every streamed answer
//    of 1.15.2 ends in HTTP 500 (its issues 1389 and 1550). A reply built anew around the same body has its own headers.
const { fetch: send, Response: Reply } = globalThis;
globalThis.fetch = (...request) =>
  send(...request).then(({ body, status, statusText, headers }) => new Reply(body, { status, statusText, headers }));

// 2. The network. It listens on every interface and has no option for that; a test's gateway is for this machine only.
const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port !== 'number' && typeof port !== 'string') return listen.call(this, { ...port, host: '127.0.0.1' }, ...rest);
  return listen.call(this, port, '127.0.0.1', ...rest.filter((option) => typeof option === 'function'));
};
