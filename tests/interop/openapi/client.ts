// A client of types that were generated from /openapi.json: it compiles only while they say what is meant.
import createClient from "openapi-fetch";
import type { components, paths } from "./coxswain.js";

const api = createClient<paths>({ baseUrl: process.argv[2] });
let failed = 0;

function report(name: string, ok: boolean, seen?: unknown): void {
    if (!ok) console.log(`${name}: ${JSON.stringify(seen)}`);
    console.log(`${ok ? "ok" : "not ok"} a generated client ${name}`);
    if (!ok) failed = 1;
}

const submitted = await api.POST("/api/v1/tasks", {
    body: {
        document: {
            api_version: "v1", name: "typed",
            steps: { a: { run: { argv: ["printf", "%s", "${{ inputs.who }}"] } } },
            inputs: { who: { type: "string" } }, outputs: { said: "${{ steps.a.output.stdout }}" },
        },
        inputs: { who: "crew" },
        labels: { by: "generated" },
    },
});
report("submits a task", submitted.response.status === 200 && submitted.data?.existed === false, submitted.error);
const id: string = submitted.data?.id ?? "";

const read = await api.GET("/api/v1/tasks/{id}", { params: { path: { id }, query: { wait: "20s" } } });
const task: components["schemas"]["Task"] | null | undefined = read.data?.task;
const status: components["schemas"]["TaskStatus"] | undefined = task?.status;
report("reads it once it has ended", status === "SUCCEEDED" && JSON.stringify(task?.outputs) === '{"said":"crew"}', read);
report("reads its labels", task?.labels.by === "generated", task?.labels);

const steps = await api.GET("/api/v1/tasks/{id}/steps", { params: { path: { id } } });
report("reads its steps", steps.data?.steps[0]?.attempts[0]?.exit_code === 0, steps);

const output = await api.GET("/api/v1/tasks/{id}/steps/{step}/output", { params: { path: { id, step: "a" } } });
report("reads an output", (output.data as { stdout?: string })?.stdout === "crew", output);

const logs = await api.GET("/api/v1/tasks/{id}/steps/{step}/logs", { params: { path: { id, step: "a" } }, parseAs: "text" });
report("reads a log", logs.data === "crew", logs);

const batch = await api.GET("/api/v1/tasks:batch", { params: { query: { ids: [id, id] } } });
report("gives a list of values", batch.data?.tasks.length === 2, batch);

const none = await api.GET("/api/v1/tasks/{id}", { params: { path: { id: "t0-zzzzzz" } } });
const error: components["schemas"]["HttpError"]["error"] | undefined = none.error?.error;
report("gets errors by their type", none.response.status === 404 && error?.code === "NOT_FOUND", none);

const again = await api.POST("/api/v1/tasks/{id}:cancel", { params: { path: { id } }, body: { reason: "late" } });
report("uses verbs", again.response.status !== 404 && again.response.status !== 405, again);

process.exit(failed);
