// Holds an OpenAPI document against Redocly's strict rules, and against JSON itself: no name twice in an object.
// usage: node lint.mjs FILE FOLDER-OF-NODE_MODULES
import { createRequire } from "node:module";

const [file, modules] = process.argv.slice(2);
const { lint, createConfig } = createRequire(`${modules}/`)("@redocly/openapi-core");
const problems = await lint({ ref: file, config: await createConfig({ extends: ["recommended-strict"] }) });
for (const p of problems) console.log(p.severity, p.ruleId, p.message, p.location?.[0]?.pointer ?? "");
process.exit(problems.length > 0 ? 1 : 0);
