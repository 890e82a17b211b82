// A step's process that uses OpenAI's client as any program does: all that it needs is in its environment.
import { createRequire } from 'node:module';
import path from 'node:path';

const OpenAI = createRequire(path.join(process.argv[2], 'package.json'))('openai');
const client = new OpenAI();
const messages = [{ role: 'user', content: 'from a step' }];
const whole = await client.chat.completions.create({ model: 'small', max_tokens: 11, messages });
const stream = await client.chat.completions.create(
    { model: 'small', max_tokens: 13, messages, stream: true, stream_options: { include_usage: true } });
const usages = [whole.usage];

for await (const chunk of stream)
    if (chunk.usage)
        usages.push(chunk.usage);
const sum = (name) => usages.reduce((n, u) => n + u[name], 0);

console.log(JSON.stringify({ prompt_tokens: sum('prompt_tokens'), completion_tokens: sum('completion_tokens') }));
