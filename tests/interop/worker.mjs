// A worker: attaches, runs steps by the name of their handler, keeps results until they are answered.
import { Attached, connect, result, v1 } from './wire.mjs';

const handlers = {
    'echo@1': (input) => input,
    'join@1': (input) => ({ text: input.parts.join(' ') }),
    'flaky@1': (input, attempt) => {
        if (attempt < 3) throw new Error(`attempt ${attempt} is one that fails`);
        return { attempt };
    },
};

const worker = new Attached(connect(v1.WorkerService));
let granted = 4;

worker.hello('js-worker', { slots: 4, handlers: Object.keys(handlers), labels: { language: 'javascript' } });
const { beat_ms } = await worker.next('welcome');
worker.send({ credit: { granted } });
setInterval(() => worker.send({ beat: {} }), beat_ms / 2).unref();
console.log('attached');
worker.ended.then((status) => { console.log(`ended: ${status.code} ${status.details}`); process.exit(1); });
process.on('SIGTERM', () => { worker.send({ draining: true }); worker.stream.end(); process.exit(0); });

for (;;) {
    const { ref, handler, spec_json, attempt } = await worker.next('assigns');
    let report;
    try {
        report = result(ref, handlers[handler](JSON.parse(spec_json), attempt));
    } catch (error) {
        report = { results: [{ ref, status: 'ATTEMPT_STATUS_FAILED', error: { code: 'EXIT_NONZERO', message: error.message } }] };
    }
    granted += 1;
    worker.send({ ...report, credit: { granted } });
}
