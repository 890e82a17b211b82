// Peers that break the protocol. Each gets a named error, or an answer that says what it is; nobody else
// notices.
import { Attached, call, connect, equal, failure, finish, health, match, result, status, test, v1 } from './wire.mjs';

const tasks = connect(v1.TaskService);
const workers = connect(v1.WorkerService);
const fleet = connect(v1.FleetService);
const path = (method) => `/coxswain.v1.TaskService/${method}`;
const as_is = (x) => x;

function raw(method, bytes) {
    return new Promise((resolve, reject) => {
        tasks.makeUnaryRequest(path(method), as_is, as_is, bytes, (error, response) => (error ? reject(error) : resolve(response)));
    });
}

// A task with a step for the handler that only this test's worker has; where its attempt belongs.
async function one_step(worker, handler, more = {}) {
    const steps = { s: { uses: handler }, ...more };
    const document = Buffer.from(JSON.stringify({ api_version: 'v1', name: 'abuse', steps }));
    const { id } = await call(tasks, 'SubmitTask', { document });
    return { id, ...(await worker.next('assigns')) };
}

async function attach(id, more = {}) {
    const worker = new Attached(workers);
    worker.hello(id, more);
    worker.shard_uid = (await worker.next('welcome')).shard_uid;
    return worker;
}

async function refused(name, pattern, ...messages) {
    await test(name, async () => {
        const worker = new Attached(workers);
        for (const message of messages) worker.send(message);
        const end = await worker.ended;
        equal([end.code, status[end.code]], [status.INVALID_ARGUMENT, 'INVALID_ARGUMENT']);
        match(end.details, pattern);
    });
}

const hello = { worker_id: 'liar', boot_id: 'b', slots: 2, handlers: ['lie@1'] };

// ---- bytes that are no message ----

await test('a truncated message', async () => {
    const error = await failure(raw('SubmitTask', Buffer.from([0x0a, 0xff, 0x01, 0x41])));
    equal(error.code, status.INVALID_ARGUMENT);
});
await test('bytes at random', async () => {
    for (let i = 0; i < 200; i++) {
        const bytes = Buffer.from(Array.from({ length: 1 + (i % 40) }, (_, k) => (i * 2654435761 + k * k * 40503) >>> 11 & 255));
        const error = await failure(raw('SubmitTask', bytes));
        equal(error.code, status.INVALID_ARGUMENT);
    }
});
await test('a string that is not UTF-8', async () => {
    const error = await failure(raw('GetTask', Buffer.from([0x0a, 0x02, 0xc3, 0x28])));
    equal(error.code, status.INVALID_ARGUMENT);
    match(error.details, /not a well-formed coxswain\.v1\.GetTaskRequest/);
});
await test('a message of 17 MiB', async () => {
    const error = await failure(call(tasks, 'SubmitTask', { document: Buffer.alloc(17 << 20, 0x20) }));
    equal(error.code, status.RESOURCE_EXHAUSTED);
});
await test('a document of 5 MiB', async () => {
    const error = await failure(call(tasks, 'SubmitTask', { document: Buffer.alloc(5 << 20, 0x20) }));
    equal(error.code, status.INVALID_ARGUMENT);
    match(error.details, /4 MiB/);
});
await test('1,001 tasks in a batch', async () => {
    const error = await failure(call(tasks, 'SubmitTasks', { tasks: Array(1001).fill({}) }));
    equal(error.code, status.INVALID_ARGUMENT);
    match(error.details, /1,?000/);
});
await test('a method that does not exist', async () => {
    equal((await failure(raw('Sing', Buffer.alloc(0)))).code, status.UNIMPLEMENTED);
});

// ---- workers that break the protocol ----

await refused('no hello', /hello: missing/, { credit: { granted: 1 } });
await refused('hello twice', /hello: sent twice/, { hello }, { hello });
await refused('a worker without a name', /hello\.worker_id: empty/, { hello: { ...hello, worker_id: '' } });
await refused('a worker without slots', /hello\.slots: 0, expected 1 to 65536/, { hello: { ...hello, slots: 0 } });
await refused('a worker with four billion slots', /hello\.slots: 4294967295, expected 1 to 65536/, { hello: { ...hello, slots: 4294967295 } });
await refused('a worker without handlers', /hello\.handlers: 0, expected/, { hello: { ...hello, handlers: [] } });
await refused('negative memory', /hello\.resources: a negative/, { hello: { ...hello, resources: { memory_bytes: '-1' } } });
await refused('credit that falls', /credit\.granted: 1 after 2/, { hello }, { credit: { granted: 2 } }, { credit: { granted: 1 } });
await refused('a result without a ref', /results\[0\]\.ref: no task or no token/, { hello }, { results: [{ status: 'ATTEMPT_STATUS_SUCCEEDED' }] });
await refused('a result that is no end', /results\[0\]\.status: 2 is not/, { hello },
    { results: [{ ref: { task: '1', step: 0, token: { epoch: '1', counter: '1' } }, status: 'ATTEMPT_STATUS_RUNNING' }] });

await test('a result for an attempt never given, and one given twice', async () => { // the task goes on meanwhile
    const worker = await attach('honest', { handlers: ['once@1'] });
    worker.send({ credit: { granted: 1 } });
    const { id, ref } = await one_step(worker, 'once@1', { t: { uses: 'nobody@1' } });
    const never = { ...ref, token: { ...ref.token, counter: '999999999' } };
    const answer_to = async (r, value) => { worker.send(result(r, value)); return (await worker.next('answers')).kind; };
    equal(await answer_to({ ...ref, task: '123456789' }, 'lie'), 'ANSWER_KIND_UNKNOWN');
    equal(await answer_to({ ...ref, step: 7 }, 'lie'), 'ANSWER_KIND_UNKNOWN');
    equal(await answer_to(never, 'lie'), 'ANSWER_KIND_STALE');
    equal(await answer_to(ref, 'truth'), 'ANSWER_KIND_ACCEPTED');
    equal(await answer_to(ref, 'lie'), 'ANSWER_KIND_DUPLICATE');
    equal(JSON.parse((await call(tasks, 'GetOutput', { id, step: 's' })).json), 'truth');
    await worker.close();
});

await test('an output that is not JSON', async () => {
    const worker = await attach('scribe', { handlers: ['scribble@1'] });
    worker.send({ credit: { granted: 1 } });
    const { id, ref } = await one_step(worker, 'scribble@1');
    worker.send(result(ref, null, { output_json: Buffer.from('{"a":') }));
    const { task } = await call(tasks, 'GetTask', { id, wait: { seconds: 10 } });
    equal([task.status, task.error.code], ['TASK_STATUS_FAILED', 'OUTPUT_INVALID']);
    await worker.close();
});

await test('credit for more than it has slots is not believed without end', async () => {
    const worker = await attach('greedy', { handlers: ['hoard@1'], slots: 1 });
    worker.send({ credit: { granted: '18446744073709551615' } });
    const document = Buffer.from(JSON.stringify({ api_version: 'v1', name: 'hoard',
        steps: Object.fromEntries(Array.from({ length: 20000 }, (_, i) => [`s${i}`, { uses: 'hoard@1' }])) }));
    const { id } = await call(tasks, 'SubmitTask', { document });
    await worker.next('assigns');
    const { worker: seen } = await call(fleet, 'DescribeWorker', { id: 'greedy' });
    equal(seen.slots, 1);
    equal((await call(tasks, 'CancelTask', { id })).status !== 'TASK_STATUS_SUCCEEDED', true);
    await worker.close();
});

await test('the newest stream of a worker wins', async () => {
    const first = await attach('twin', { handlers: ['twin@1'] });
    const second = await attach('twin', { handlers: ['twin@1'], boot_id: 'boot-2' });
    equal((await first.ended).code, status.ABORTED);
    second.send({ credit: { granted: 1 } });
    const { id, ref } = await one_step(second, 'twin@1');
    second.send(result(ref, 2));
    equal((await call(tasks, 'GetTask', { id, wait: { seconds: 10 } })).task.status, 'TASK_STATUS_SUCCEEDED');
    await second.close();
});

await test('a worker that comes back with what it holds', async () => {
    const first = await attach('sailor', { handlers: ['sail@1'] });
    first.send({ credit: { granted: 1 } });
    const { id, ref } = await one_step(first, 'sail@1');
    await first.close();
    const second = await attach('sailor', { handlers: ['sail@1'], holds: [ref], shard_uid: first.shard_uid });
    second.send(result(ref, 'home'));
    equal((await second.next('answers')).kind, 'ANSWER_KIND_ACCEPTED');
    equal((await call(tasks, 'GetTask', { id, wait: { seconds: 10 } })).task.status, 'TASK_STATUS_SUCCEEDED');
    await second.close();
});

await test('a worker that comes back with nothing gets its step again, and its old result counts no more', async () => {
    const first = await attach('castaway', { handlers: ['drift@1'] });
    first.send({ credit: { granted: 1 } });
    const { id, ref } = await one_step(first, 'drift@1');
    await first.close();
    const second = await attach('castaway', { handlers: ['drift@1'], shard_uid: first.shard_uid });
    second.send({ credit: { granted: 1 } });
    const again = await second.next('assigns');
    equal(again.attempt, 2);
    second.send(result(ref, 'old'));
    equal((await second.next('answers')).kind, 'ANSWER_KIND_STALE');
    second.send(result(again.ref, 'new'));
    equal((await call(tasks, 'GetTask', { id, wait: { seconds: 10 } })).task.status, 'TASK_STATUS_SUCCEEDED');
    equal(JSON.parse((await call(tasks, 'GetOutput', { id, step: 's' })).json), 'new');
    await second.close();
});

await test('after all of this it serves', async () => {
    equal((await call(connect(health), 'Check', {})).status, 'SERVING');
});
finish();
