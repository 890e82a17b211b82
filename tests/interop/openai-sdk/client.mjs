// OpenAI's own client for Node, unmodified, against the edge of coxd, whose models are cox-modelsim's. `SIM` is its
// admin URL: what it counts says what became of a call.
import { createRequire } from 'node:module';
import assert from 'node:assert/strict';
import http from 'node:http';
import path from 'node:path';

const require = createRequire(path.join(process.env.COX_INTEROP_MODULES, 'package.json'));
const OpenAI = require('openai');
const sim = process.env.SIM;
const model = 'small';
const calls = []; // of fetch: {url, at, status, headers}

async function recorded(url, init) {
    const at = performance.now();
    const response = await fetch(url, init);

    calls.push({ url: String(url), at, status: response.status, headers: response.headers });
    return response;
}

const client = new OpenAI({ maxRetries: 0, fetch: recorded });
const hello = [{ role: 'user', content: 'Say something about ships.' }];
const tools = [{
    type: 'function',
    function: { name: 'grep', description: 'finds', parameters: { type: 'object', properties: { pattern: { type: 'string' } } } },
}];

let failed = 0;

async function test(name, body) {
    const late = new Promise((_, reject) => { setTimeout(() => reject(new Error('took more than 60 s')), 60000).unref(); });
    try {
        await Promise.race([body(), late]);
        console.log(`ok ${name}`);
    } catch (error) {
        failed++;
        console.log(`    ${error.stack.split('\n').slice(0, 6).join('\n    ')}`);
        console.log(`not ok ${name}`);
    }
}

async function failure(promise) {
    try {
        await promise;
    } catch (error) {
        return error;
    }
    throw new Error('it should have failed');
}

async function state() {
    return (await fetch(`${sim}/sim/state`)).json();
}

async function faults(change) {
    const response = await fetch(`${sim}/sim/faults`, { method: 'POST', body: JSON.stringify({ reset: true, ...change }) });

    assert.equal(response.status, 200, await response.text());
}

// The backend says so; it hears of it when the socket closes.
async function until(what, holds) {
    for (let i = 0; i < 3000; i++) {
        if (holds(await state()))
            return;
        await new Promise((resolve) => { setTimeout(resolve, 10); });
    }
    throw new Error(`never ${what}: ${JSON.stringify(await state())}`);
}

async function collect(stream) {
    const chunks = [];

    for await (const chunk of stream)
        chunks.push(chunk);
    return chunks;
}

const text_of = (chunks) => chunks.map((c) => c.choices[0]?.delta?.content ?? '').join('');

// ---- chat ----

await test('chat', async () => {
    const answer = await client.chat.completions.create({ model, messages: hello });

    assert.equal(answer.object, 'chat.completion');
    assert.equal(answer.choices[0].message.role, 'assistant');
    assert.ok(answer.choices[0].message.content.length > 0);
    assert.equal(answer.choices[0].finish_reason, 'stop');
    assert.ok(answer.usage.prompt_tokens > 0 && answer.usage.completion_tokens > 0);
    assert.ok(answer._request_id, 'x-request-id');
});

await test('the id of a request is the caller\'s', async () => {
    const answer = await client.chat.completions.create({ model, messages: hello }, { headers: { 'x-request-id': 'ship-7' } });

    assert.equal(answer._request_id, 'ship-7');
});

await test('chat in a stream', async () => {
    const whole = await client.chat.completions.create({ model, messages: hello, max_tokens: 20 });
    const chunks = await collect(await client.chat.completions.create({ model, messages: hello, max_tokens: 20, stream: true }));

    assert.ok(chunks.length > 5);
    assert.ok(chunks.every((c) => c.object === 'chat.completion.chunk' && c.id === chunks[0].id));
    assert.equal(text_of(chunks), whole.choices[0].message.content);
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'length');
    assert.ok(chunks.every((c) => c.choices.length === 1), 'nobody asked for usage: clients read choices[0] of every chunk');
});

await test('chat in a stream, with usage', async () => {
    const chunks = await collect(await client.chat.completions.create(
        { model, messages: hello, max_tokens: 20, stream: true, stream_options: { include_usage: true } }));

    assert.deepEqual(chunks.at(-1).choices, []);
    assert.equal(chunks.at(-1).usage.completion_tokens, 20);
});

await test('the stream that collects itself', async () => {
    const stream = client.chat.completions.stream({ model, messages: hello, max_tokens: 20 });
    let heard = '';

    stream.on('content', (delta) => { heard += delta; });
    assert.equal(await stream.finalContent(), heard);
    assert.ok(heard.length > 0);
});

await test('text completions, whole and in a stream', async () => {
    const whole = await client.completions.create({ model, prompt: 'Once', max_tokens: 9 });
    const chunks = await collect(await client.completions.create({ model, prompt: 'Once', max_tokens: 9, stream: true }));

    assert.equal(chunks.map((c) => c.choices[0]?.text ?? '').join(''), whole.choices[0].text);
});

await test('a conversation of 400 KB and 200 turns', async () => {
    const messages = [];

    for (let i = 0; i < 200; i++)
        messages.push({ role: i % 2 ? 'assistant' : 'user', content: `turn ${i} `.repeat(200) });
    messages.push(hello[0]);
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 5 });

    assert.ok(answer.usage.prompt_tokens > 50000);
});

await test('fields that nobody knows pass', async () => {
    const answer = await client.chat.completions.create({ model, messages: hello, max_tokens: 3, vllm_xargs: { a: [1, { b: null }] } });

    assert.equal(answer.usage.completion_tokens, 3);
});

// ---- tools ----

for (const no_tool_ids of [false, true]) {
    const which = no_tool_ids ? ', of a server that leaves ids out' : '';

    await test(`tools${which}`, async () => {
        await faults({ no_tool_ids });
        const answer = await client.chat.completions.create({ model, messages: hello, tools });
        const [call] = answer.choices[0].message.tool_calls;

        assert.equal(answer.choices[0].finish_reason, 'tool_calls');
        assert.equal(call.function.name, 'grep');
        assert.ok(typeof JSON.parse(call.function.arguments) === 'object');
        assert.match(call.id, /^call_/);
    });

    await test(`tools in a stream${which}`, async () => {
        await faults({ no_tool_ids });
        const chunks = await collect(await client.chat.completions.create({ model, messages: hello, tools, stream: true }));
        const pieces = chunks.flatMap((c) => c.choices[0]?.delta?.tool_calls ?? []);
        const ids = new Set(pieces.map((p) => p.id).filter((id) => id));

        assert.equal(ids.size, 1);
        assert.ok(typeof JSON.parse(pieces.map((p) => p.function?.arguments ?? '').join('')) === 'object');
    });

    await test(`a loop of tools, run by the client${which}`, async () => {
        await faults({ no_tool_ids });
        let n = 0;
        const run = client.chat.completions.runTools({
            model, messages: hello,
            tools: [{ ...tools[0], function: { ...tools[0].function, parse: JSON.parse, function: () => { n++; return 'found'; } } }],
        });

        assert.ok((await run.finalContent()).length > 0);
        assert.ok(n >= 1);
    });
}
await faults({});

// ---- abort ----

await test('a stream that is aborted frees its place at the backend', async () => {
    const before = await state();
    const stream = await client.chat.completions.create({ model, messages: hello, max_tokens: 20000, ignore_eos: true, stream: true });

    for await (const chunk of stream) {
        assert.ok(chunk);
        break; // which aborts it
    }
    await until('cancelled', (s) => s.in_flight === 0 && s.cancelled === before.cancelled + 1);
});

await test('a call that is aborted before its first token does, too', async () => {
    await faults({ hang_first: 1 });
    const before = await state();
    const controller = new AbortController();
    const answer = client.chat.completions.create({ model, messages: hello }, { signal: controller.signal });

    answer.catch(() => {});
    await until('there', (s) => s.in_flight > 0);
    controller.abort();
    assert.ok((await failure(answer)) instanceof OpenAI.APIUserAbortError);
    await until('cancelled', (s) => s.in_flight === 0 && s.cancelled > before.cancelled);
    await faults({});
});

// ---- embeddings, models ----

await test('embeddings', async () => {
    const one = await client.embeddings.create({ model, input: 'a ship' }); // base64, and decoded by the client
    const two = await client.embeddings.create({ model, input: ['a ship', 'a boat'], encoding_format: 'float', dimensions: 8 });

    assert.ok(one.data[0].embedding.length > 8 && one.data[0].embedding.every(Number.isFinite));
    assert.deepEqual(two.data.map((d) => d.embedding.length), [8, 8]);
    assert.ok(two.usage.prompt_tokens > 0);
});

await test('models', async () => {
    const ids = [];

    for await (const m of client.models.list())
        ids.push(m.id);
    assert.ok(ids.includes(model), ids.join(' '));
    assert.equal((await client.models.retrieve(model)).id, model);
    assert.ok((await failure(client.models.retrieve('org/none'))) instanceof OpenAI.NotFoundError);
});

// ---- errors ----

await test('a model that is not there', async () => {
    const error = await failure(client.chat.completions.create({ model: 'none', messages: hello }));

    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, 'model_not_found');
    assert.match(error.message, /none/);
    assert.ok(error.requestID);
});

await test('a request that is none', async () => {
    const error = await failure(client.chat.completions.create({ model, messages: 'hello' }));

    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.param, 'messages');
    assert.equal(error.type, 'invalid_request_error');
    assert.ok((await failure(client.chat.completions.create({ messages: hello }))) instanceof OpenAI.BadRequestError);
});

await test('servers that only say 429', async () => {
    await faults({ error_429: 1, retry_after_s: 1 });
    const error = await failure(client.chat.completions.create({ model, messages: hello }));

    assert.ok(error instanceof OpenAI.RateLimitError, String(error));
    assert.ok(Number(error.headers.get('retry-after')) > 0);
    await faults({});
});

await test('servers that only say 500', async () => {
    await faults({ error_500: 1 });
    const error = await failure(client.chat.completions.create({ model, messages: hello }));

    assert.ok(error instanceof OpenAI.InternalServerError, String(error));
    await faults({});
});

await test('the client tries again, when it was told to', async () => {
    await until('idle', (s) => s.in_flight === 0);
    await faults({ error_429: 1, retry_after_s: 2 });
    calls.length = 0;
    const answer = client.chat.completions.create({ model, messages: hello }, { maxRetries: 9 });

    answer.catch(() => {});
    while (calls.length === 0)
        await new Promise((resolve) => { setTimeout(resolve, 5); });
    await faults({});
    assert.ok((await answer).choices[0].message.content.length > 0);
    assert.ok(calls.length >= 2, 'it was asked once');
    for (let i = 0; i + 1 < calls.length; i++)
        assert.ok(calls[i + 1].at - calls[i].at >= 1000 * Number(calls[i].headers.get('retry-after')), 'too early');
});

// ---- the wire ----

await test('a connection takes one call after the other', async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ask = (stream) => new Promise((resolve, reject) => {
        const url = new URL(`${process.env.OPENAI_BASE_URL}/chat/completions`);
        const request = http.request(url, { agent, method: 'POST', headers: {
            authorization: `Bearer ${process.env.OPENAI_API_KEY}`, 'content-type': 'application/json' } }, (response) => {
            response.resume();
            response.on('end', () => { setImmediate(() => resolve([response.statusCode, request.reusedSocket])); });
        });

        request.on('error', reject);
        request.end(JSON.stringify({ model, messages: hello, max_tokens: 3, stream }));
    });

    assert.deepEqual(await ask(false), [200, false]);
    assert.deepEqual(await ask(true), [200, true]);
    assert.deepEqual(await ask(false), [200, true]);
    agent.destroy();
});

await test('forty calls at once', async () => {
    const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => client.chat.completions.create(
        { model, messages: [{ role: 'user', content: `${i}` }], max_tokens: 4 + (i % 9) })));

    answers.forEach((a, i) => assert.equal(a.usage.completion_tokens, 4 + (i % 9)));
    await until('idle', (s) => s.in_flight === 0);
});

process.exit(failed ? 1 : 0);
