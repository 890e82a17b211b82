// Compares proto/task.v1.schema.json, read by ajv, with `cox validate` over all samples.
//   node schema.mjs SCHEMA COX FOLDER     one line a sample: ok NAME / not ok NAME
import { createRequire } from 'node:module';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bad, good } from './samples.mjs';

const [schemaFile, cox, folder] = process.argv.slice(2);
const Ajv = createRequire(join(process.env.COX_INTEROP_MODULES, 'x.js'))('ajv/dist/2020').default;
const accepts = new Ajv({ strict: true, strictTypes: false, strictRequired: false, allErrors: true })
  .compile(JSON.parse(readFileSync(schemaFile)));

// What `cox validate` says: '' when it takes the document.
function refusal(document) {
  const file = join(folder, 'sample.json');
  writeFileSync(file, JSON.stringify(document, null, 1));
  try {
    execFileSync(cox, ['validate', file], { stdio: 'pipe' });
    return '';
  } catch (e) {
    if (e.status !== 2) throw e;
    return e.stderr.toString();
  }
}

let failed = 0;
function check(name, ok, why) {
  if (!ok) {
    failed++;
    console.log(why);
  }
  console.log(`${ok ? 'ok' : 'not ok'} ${name}`);
}

for (const [name, document] of Object.entries(good)) {
  const schema = accepts(document);
  const said = refusal(document);
  check(`both take: ${name}`, schema && said === '', JSON.stringify(accepts.errors) + said);
}
for (const [name, document] of Object.entries(bad)) {
  const schema = accepts(document);
  const said = refusal(document);
  check(`both refuse: ${name}`, !schema && said !== '', `schema ${schema ? 'takes' : 'refuses'} it, cox said: ${said}`);
}
process.exitCode = failed ? 1 : 0;
