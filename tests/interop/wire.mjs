// What the programs beside this file share: the services as @grpc/grpc-js makes them of proto/, a worker, and
// the lines that tests print. None of our code: what a stranger would write from the documentation.
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.env.COX_INTEROP_MODULES, 'package.json'));
export const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

export const address = process.env.COX_ADDRESS;
const proto = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../../proto');
const options = { includeDirs: [proto], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const files = ['coxswain/v1/task_service.proto', 'coxswain/v1/worker_service.proto', 'coxswain/v1/fleet_service.proto',
    'grpc/health/v1/health.proto', 'grpc/reflection/v1/reflection.proto'];
const loaded = grpc.loadPackageDefinition(loader.loadSync(files, options));

export function connect(Service) {
    return new Service(address, grpc.credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
}
export const v1 = loaded.coxswain.v1;
export const health = loaded.grpc.health.v1.Health;
export const reflection = loaded.grpc.reflection.v1.ServerReflection;
export const { status } = grpc;

// A unary call as a promise.
export function call(client, method, request) {
    return new Promise((resolve, reject) => {
        client[method](request, (error, response) => (error ? reject(error) : resolve(response)));
    });
}

// The error of a call that must fail.
export async function failure(promise) {
    try {
        await promise;
    } catch (error) {
        return error;
    }
    throw new Error('it should have failed');
}

// ---- tests ----

let failed = 0;

export async function test(name, body) {
    const late = new Promise((_, reject) => { setTimeout(() => reject(new Error('took more than 30 s')), 30000).unref(); });
    try {
        await Promise.race([body(), late]);
        console.log(`ok ${name}`);
    } catch (error) {
        failed++;
        console.log(`    ${error.stack.split('\n').slice(0, 4).join('\n    ')}`);
        console.log(`not ok ${name}`);
    }
}

export function finish() {
    process.exit(failed ? 1 : 0);
}

export function equal(found, expected) {
    const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
    if (a !== b) throw new Error(`found ${a}, expected ${b}`);
}

export function match(text, pattern) {
    if (!pattern.test(text)) throw new Error(`found "${text}", expected ${pattern}`);
}

// ---- a worker ----

// A stream of Attach, its messages to be awaited one after the other, and how it ended.
export class Attached {
    constructor(client) {
        this.messages = [];
        this.waiting = [];
        this.stream = client.Attach();
        this.ended = new Promise((resolve) => { this.stream.on('status', resolve); });
        this.stream.on('error', () => {});
        this.stream.on('data', (message) => {
            this.messages.push(message);
            this.waiting.splice(0).forEach((wake) => wake());
        });
    }

    send(message) {
        this.stream.write(message);
    }

    hello(id, more = {}) {
        this.send({ hello: { worker_id: id, boot_id: 'boot-1', slots: 2, handlers: ['echo@1'], version: 'js', ...more } });
    }

    // The next of a repeated field ("assigns", "answers", "cancels") or the welcome, in whatever message it comes.
    async next(field) {
        for (;;) {
            for (const message of this.messages) {
                if (field === 'welcome' && message.welcome) {
                    const { welcome } = message;
                    message.welcome = null;
                    return welcome;
                }
                if (field !== 'welcome' && message[field].length) return message[field].shift();
            }
            await new Promise((resolve) => { this.waiting.push(resolve); });
        }
    }

    close() {
        this.stream.cancel();
        return this.ended;
    }
}

export function result(ref, value, more = {}) {
    return { results: [{ ref, status: 'ATTEMPT_STATUS_SUCCEEDED', output_json: Buffer.from(JSON.stringify(value)), ...more }] };
}
