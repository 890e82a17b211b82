// A client: asks what is served, submits tasks, watches them, reads what came of them.
import { call, connect, equal, failure, finish, grpc, health, match, reflection, status, test, v1 } from './wire.mjs';

const tasks = connect(v1.TaskService);
const document = (steps, more = {}) => Buffer.from(JSON.stringify({ api_version: 'v1', name: 'interop', steps, ...more }));

const diamond = document({
    a: { uses: 'echo@1', with: { text: '${{ inputs.who }}', n: 1 } },
    b: { uses: 'echo@1', with: { text: 'b', n: '${{ steps.a.output.n + 1 }}' } },
    c: { uses: 'echo@1', with: { text: 'ç', n: '${{ steps.a.output.n + 2 }}' } },
    d: { uses: 'join@1', with: { parts: ['${{ steps.a.output.text }}', '${{ steps.b.output.text }}', '${{ steps.c.output.text }}'] } },
}, { inputs: { who: { type: 'string' } }, outputs: { text: '${{ steps.d.output.text }}', sum: '${{ steps.b.output.n + steps.c.output.n }}' } });

function watch(id) {
    return new Promise((resolve, reject) => {
        const events = [];
        tasks.WatchTask({ id }).on('data', (e) => events.push(e)).on('error', reject).on('end', () => resolve(events));
    });
}

await test('health', async () => {
    const client = connect(health);
    equal((await call(client, 'Check', {})).status, 'SERVING');
    equal((await call(client, 'Check', { service: 'coxswain.v1.TaskService' })).status, 'SERVING');
    equal((await failure(call(client, 'Check', { service: 'no.such.Service' }))).code, status.NOT_FOUND);
});

await test('reflection', async () => {
    const stream = connect(reflection).ServerReflectionInfo();
    const answer = () => new Promise((resolve) => { stream.once('data', resolve); });
    stream.write({ list_services: '' });
    const names = (await answer()).list_services_response.service.map((s) => s.name);
    for (const name of ['TaskService', 'WorkerService', 'FleetService']) match(names.join(' '), new RegExp(`coxswain.v1.${name}\\b`));
    stream.write({ file_containing_symbol: 'coxswain.v1.TaskService.SubmitTask' });
    match((await answer()).file_descriptor_response.file_descriptor_proto.map((f) => f.toString('latin1')).join(''), /SubmitTaskRequest/);
    stream.end();
});

await test('submit, watch, read', async () => {
    const { id } = await call(tasks, 'SubmitTask', { document: diamond, inputs_json: '{"who": "hello"}', labels: { by: 'js' } });
    const events = await watch(id);
    equal(events.findLast((e) => e.task).task.status, 'TASK_STATUS_SUCCEEDED');
    const ended = events.filter((e) => e.step?.status === 'STEP_STATUS_SUCCEEDED').map((e) => e.step.address.split('/')[1]);
    equal(ended.at(-1), 'd');
    const { task } = await call(tasks, 'GetTask', { id });
    equal(JSON.parse(task.outputs_json), { text: 'hello b ç', sum: 5 });
    equal(task.labels, { by: 'js' });
    const output = await call(tasks, 'GetOutput', { id, step: 'd' });
    equal(JSON.parse(output.json), { text: 'hello b ç' });
});

await test('a key gives one task', async () => {
    const request = { document: diamond, inputs_json: '{"who": "again"}', key: `js-${process.pid}` };
    const first = await call(tasks, 'SubmitTask', request);
    const second = await call(tasks, 'SubmitTask', request);
    equal([second.id, first.existed, second.existed], [first.id, false, true]);
    const other = await failure(call(tasks, 'SubmitTask', { ...request, inputs_json: '{"who": "other"}' }));
    equal(other.code, status.ALREADY_EXISTS);
});

await test('retries of a handler that fails twice', async () => {
    const flaky = document({ s: { uses: 'flaky@1', retry: { max_attempts: 5, initial_backoff: '10ms' } } });
    const { id } = await call(tasks, 'SubmitTask', { document: flaky });
    const { task } = await call(tasks, 'GetTask', { id, wait: { seconds: 20 } });
    equal(task.status, 'TASK_STATUS_SUCCEEDED');
    const { steps } = await call(tasks, 'DescribeTask', { id });
    equal(steps[0].attempts.map((a) => a.status), ['FAILED', 'FAILED', 'SUCCEEDED'].map((s) => `ATTEMPT_STATUS_${s}`));
    equal(steps[0].attempts[1].error.message, 'attempt 2 is one that fails');
});

await test('a thousand tasks at once', async () => {
    const one = { document: document({ s: { uses: 'echo@1', with: { n: 7 } } }, { outputs: { n: '${{ steps.s.output.n }}' } }) };
    const { results } = await call(tasks, 'SubmitTasks', { tasks: Array(1000).fill(one) });
    equal(results.filter((r) => r.code).length, 0);
    const ids = results.map((r) => r.id);
    const { tasks: done } = await call(tasks, 'BatchGetTasks', { ids, wait: { seconds: 20 } });
    equal(done.filter((t) => t.status === 'TASK_STATUS_SUCCEEDED' && t.outputs_json === '{"n":7}').length, 1000);
});

await test('a bad document is refused in a way that programs can read', async () => {
    const error = await failure(call(tasks, 'SubmitTask', { document: document({ s: { usse: 'echo@1' } }) }));
    equal(error.code, status.INVALID_ARGUMENT);
    match(error.details, /steps\.s\.usse: unknown field; did you mean `uses`/);
    const details = error.metadata.get('grpc-status-details-bin')[0].toString('latin1');
    match(details, /google\.rpc\.ErrorInfo/);
    match(details, /google\.rpc\.BadRequest/);
});

grpc.closeClient(tasks);
finish();
