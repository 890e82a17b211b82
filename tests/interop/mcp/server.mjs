// A server made with the SDK of the Model Context Protocol, of the newer era: on standard input and output, or over HTTP on a free port,
// whose URL goes to a file.
//   server.mjs MODULES [--http READY_FILE] [--newer-only]
import { renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, ...flags] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/package.json`));
const load = (name) => import(pathToFileURL(require.resolve(name).replace(/\.cjs$/, '.mjs')));
const { McpServer, createMcpHandler, fromJsonSchema } = await load('@modelcontextprotocol/server');
const { serveStdio } = await load('@modelcontextprotocol/server/stdio');
const legacy = flags.includes('--newer-only');

const schema = (properties) => fromJsonSchema({ type: 'object', properties, required: Object.keys(properties) });

function make() {
  const server = new McpServer({ name: 'interop', version: '1.0.0' }, { capabilities: { tools: {} } });
  server.registerTool('add', { description: 'Adds.', inputSchema: schema({ a: { type: 'number' }, b: { type: 'number' } }) }, async ({ a, b }) => ({
    content: [{ type: 'text', text: String(a + b) }],
    structuredContent: { sum: a + b },
  }));
  server.registerTool(
    'where',
    { description: 'Has a parameter that is a header too.', inputSchema: schema({ region: { type: 'string', 'x-mcp-header': 'Region' } }) },
    async ({ region }) => ({ content: [{ type: 'text', text: `in ${region}` }] }),
  );
  server.registerTool('breaks', { description: 'Fails.', inputSchema: schema({}) }, async () => {
    throw new Error('it broke');
  });
  return server;
}

const at = flags.indexOf('--http');
if (at < 0) {
  serveStdio(make, legacy ? { legacy: 'reject' } : {});
} else {
  const handler = createMcpHandler(make, legacy ? { legacy: 'reject' } : {});
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const answer = await handler.fetch(
      new Request(`http://${request.headers.host}${request.url}`, {
        method: request.method,
        headers: request.headers,
        body: chunks.length ? Buffer.concat(chunks) : undefined,
      }),
    );
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    if (answer.body) for await (const chunk of answer.body) response.write(chunk);
    response.end();
  });
  server.listen(0, '127.0.0.1', () => {
    writeFileSync(`${flags[at + 1]}.new`, `http://127.0.0.1:${server.address().port}/mcp\n`);
    renameSync(`${flags[at + 1]}.new`, flags[at + 1]);
  });
}
