#include "cox/attach.h"

#include <stdio.h>
#include <string.h>

/* Arrays in the message, by what fills them; sized for the worst before they are filled. */
static void *make_array(struct cox_arena *arena, size_t n)
{
    return cox_arena_alloc(arena, (n + 1) * sizeof(void *));
}

static ProtobufCBinaryData bytes_of(struct cox_slice s)
{
    return (ProtobufCBinaryData){ .len = s.len, .data = (uint8_t *)(uintptr_t)s.data };
}

static Coxswain__V1__AttemptRef *make_ref(struct cox_arena *arena, struct cox_ref ref)
{
    struct {
        Coxswain__V1__AttemptRef ref;
        Coxswain__V1__Token token;
    } *m = cox_arena_alloc(arena, sizeof(*m));

    coxswain__v1__attempt_ref__init(&m->ref);
    coxswain__v1__token__init(&m->token);
    m->token.epoch = ref.token.epoch;
    m->token.counter = ref.token.counter;
    m->ref.task = ref.task;
    m->ref.step = ref.step;
    m->ref.token = &m->token;
    return &m->ref;
}

static void put_labels(struct cox_arena *arena, Coxswain__V1__Hello *hello, const struct cox_attach_who *who)
{
    hello->labels = make_array(arena, who->n_labels);
    for (; hello->n_labels < who->n_labels; hello->n_labels++) {
        Coxswain__V1__Hello__LabelsEntry *entry = cox_arena_alloc(arena, sizeof(*entry));

        coxswain__v1__hello__labels_entry__init(entry);
        entry->key = (char *)(uintptr_t)who->labels[hello->n_labels].key;
        entry->value = (char *)(uintptr_t)who->labels[hello->n_labels].value;
        hello->labels[hello->n_labels] = entry;
    }
}

/* The built-in handlers, then a program's "name@major" each. */
static void put_handlers(struct cox_arena *arena, Coxswain__V1__Hello *hello,
                         const struct cox_attach_who *who)
{
    hello->handlers = make_array(arena, who->n_handlers + who->n_programs);
    hello->programs = make_array(arena, who->n_programs);
    for (size_t i = 0; i < who->n_handlers; i++)
        hello->handlers[hello->n_handlers++] = (char *)(uintptr_t)who->handlers[i];
    for (size_t i = 0; i < who->n_programs; i++) {
        const struct cox_attach_program *p = &who->programs[i];
        Coxswain__V1__Program *m = cox_arena_alloc(arena, sizeof(*m));

        coxswain__v1__program__init(m);
        m->name = (char *)(uintptr_t)p->name;
        m->version = (char *)(uintptr_t)p->version;
        m->description = (char *)(uintptr_t)p->description;
        m->input_schema_json = bytes_of(p->input_schema);
        m->output_schema_json = bytes_of(p->output_schema);
        m->idempotent = p->idempotent;
        hello->programs[hello->n_programs++] = m;
        hello->handlers[hello->n_handlers++] = (char *)(uintptr_t)p->handler;
    }
}

static Coxswain__V1__Hello *make_hello(struct cox_arena *arena, const struct cox_attach_who *who,
                                       const struct cox_agent_action *act)
{
    Coxswain__V1__Hello *hello = cox_arena_alloc(arena, sizeof(*hello));
    Coxswain__V1__Resources *resources = cox_arena_alloc(arena, sizeof(*resources));

    coxswain__v1__hello__init(hello);
    coxswain__v1__resources__init(resources);
    hello->worker_id = (char *)(uintptr_t)who->worker_id;
    hello->boot_id = (char *)(uintptr_t)who->boot_id;
    hello->version = (char *)(uintptr_t)who->version;
    hello->slots = who->slots;
    put_handlers(arena, hello, who);
    put_labels(arena, hello, who);
    resources->cpu_milli = who->resources.cpu_milli;
    resources->memory_bytes = who->resources.memory_bytes;
    resources->disk_bytes = who->resources.disk_bytes;
    hello->resources = resources;
    hello->shard_uid = act->u.hello.shard_uid;
    hello->holds = make_array(arena, act->u.hello.n_holds);
    for (; hello->n_holds < act->u.hello.n_holds; hello->n_holds++)
        hello->holds[hello->n_holds] = make_ref(arena, act->u.hello.holds[hello->n_holds]);
    return hello;
}

/* NULL: nothing was used. */
static Coxswain__V1__Usage *make_usage(struct cox_arena *arena, const struct cox_agent_usage *u)
{
    struct {
        Coxswain__V1__Usage usage;
        Coxswain__V1__Money cost;
    } * m;

    if (u->model_calls == 0 && u->input_tokens == 0 && u->output_tokens == 0 && u->wasted_tokens == 0 &&
        u->cost_micros == 0)
        return NULL;
    m = cox_arena_alloc(arena, sizeof(*m));
    coxswain__v1__usage__init(&m->usage);
    m->usage.model_calls = (int64_t)u->model_calls;
    m->usage.input_tokens = (int64_t)u->input_tokens;
    m->usage.output_tokens = (int64_t)u->output_tokens;
    m->usage.cached_input_tokens = (int64_t)u->cached_input_tokens;
    m->usage.wasted_tokens = (int64_t)u->wasted_tokens;
    if (u->currency[0] != '\0') {
        coxswain__v1__money__init(&m->cost);
        m->cost.micros = (int64_t)u->cost_micros;
        m->cost.currency = cox_arena_dup(arena, u->currency, strnlen(u->currency, sizeof(u->currency)));
        m->usage.cost = &m->cost;
    }
    return &m->usage;
}

static Coxswain__V1__Error *make_error(struct cox_arena *arena, enum cox_code code, struct cox_slice message)
{
    Coxswain__V1__Error *m;

    if (code == COX_CODE_NONE)
        return NULL;
    m = cox_arena_alloc(arena, sizeof(*m));
    coxswain__v1__error__init(m);
    m->code = (char *)(uintptr_t)cox_code_text(code);
    m->message = cox_arena_dup(arena, message.data, message.len);
    return m;
}

static void put_items(struct cox_arena *arena, Coxswain__V1__Result *m, const struct cox_agent_result *r)
{
    m->items = make_array(arena, r->n_items);
    for (; m->n_items < r->n_items; m->n_items++) {
        const struct cox_agent_item_result *from = &r->items[m->n_items];
        Coxswain__V1__ItemResult *item = cox_arena_alloc(arena, sizeof(*item));

        coxswain__v1__item_result__init(item);
        item->index = from->index;
        item->status = (Coxswain__V1__AttemptStatus)from->status;
        item->output_json = bytes_of(from->output);
        item->error = make_error(arena, from->code, from->message);
        m->items[m->n_items] = item;
    }
}

static char *hash_text(struct cox_arena *arena, const struct cox_hash *hash)
{
    static const char prefix[] = "sha256:";
    char *text = cox_arena_alloc(arena, sizeof(prefix) + 2 * sizeof(hash->b));

    memcpy(text, prefix, sizeof(prefix));
    for (size_t i = 0; i < sizeof(hash->b); i++)
        snprintf(text + sizeof(prefix) - 1 + 2 * i, 3, "%02x", hash->b[i]);
    return text;
}

static char **hash_texts(struct cox_arena *arena, const struct cox_hash *hashes, size_t n)
{
    char **texts = make_array(arena, n);

    for (size_t i = 0; i < n; i++)
        texts[i] = hash_text(arena, &hashes[i]);
    return texts;
}

static char *text_of(struct cox_arena *arena, struct cox_slice s)
{
    char *text = cox_arena_alloc(arena, s.len + 1);

    if (s.len > 0)
        memcpy(text, s.data, s.len);
    text[s.len] = 0;
    return text;
}

static Coxswain__V1__WorkspaceState *make_files(struct cox_arena *arena, const struct cox_agent_files *f)
{
    Coxswain__V1__WorkspaceState *m;

    if (!f->told)
        return NULL;
    m = cox_arena_alloc(arena, sizeof(*m));
    coxswain__v1__workspace_state__init(m);
    m->note = text_of(arena, f->note);
    if (!f->saved)
        return m;
    m->tree = hash_text(arena, &f->tree);
    m->packs = hash_texts(arena, f->packs, f->n_packs);
    m->n_packs = f->n_packs;
    m->size = f->size;
    m->files = f->n_files;
    m->serial = f->serial;
    return m;
}

static Coxswain__V1__Result *make_result(struct cox_arena *arena, const struct cox_agent_action *act)
{
    const struct cox_agent_result *r = act->u.result;
    struct {
        Coxswain__V1__Result result;
        Google__Protobuf__Int32Value exit_code;
    } *m = cox_arena_alloc(arena, sizeof(*m));

    coxswain__v1__result__init(&m->result);
    m->result.ref = make_ref(arena, act->ref);
    m->result.status = (Coxswain__V1__AttemptStatus)r->status;
    m->result.output_json = bytes_of(r->output);
    m->result.continue_json = bytes_of(r->continuation_json);
    m->result.artifacts_json = bytes_of(r->artifacts_json);
    m->result.cpu_us = r->cpu_us;
    m->result.run_us = r->run_us;
    m->result.max_rss_bytes = r->max_rss_bytes;
    m->result.usage = make_usage(arena, &r->usage);
    m->result.error = make_error(arena, r->code, r->message);
    put_items(arena, &m->result, r);
    m->result.blobs = hash_texts(arena, r->blobs, r->n_blobs);
    m->result.n_blobs = r->n_blobs;
    m->result.workspace = make_files(arena, &r->files);
    if (r->has_exit_code) {
        google__protobuf__int32_value__init(&m->exit_code);
        m->exit_code.value = r->exit_code;
        m->result.exit_code = &m->exit_code;
    }
    return &m->result;
}

static Coxswain__V1__LogChunk *make_chunk(struct cox_arena *arena, struct cox_ref ref)
{
    Coxswain__V1__LogChunk *chunk = cox_arena_alloc(arena, sizeof(*chunk));

    coxswain__v1__log_chunk__init(chunk);
    chunk->ref = make_ref(arena, ref);
    return chunk;
}

static void put_logs(struct cox_arena *arena, Coxswain__V1__AttachRequest *m,
                     const struct cox_attach_log *logs, size_t n_logs)
{
    for (size_t i = 0; i < n_logs; i++) {
        Coxswain__V1__LogChunk *chunk = make_chunk(arena, logs[i].ref);

        chunk->stream = logs[i].stream;
        chunk->data = bytes_of(logs[i].bytes);
        chunk->reset = logs[i].dropped;
        m->logs[m->n_logs++] = chunk;
    }
}

static void put_spends(struct cox_arena *arena, Coxswain__V1__AttachRequest *m,
                       const struct cox_attach_spend *spends, size_t n_spends)
{
    m->spends = make_array(arena, n_spends);
    for (size_t i = 0; i < n_spends; i++) {
        Coxswain__V1__Spend *spend = cox_arena_alloc(arena, sizeof(*spend));

        coxswain__v1__spend__init(spend);
        spend->ref = make_ref(arena, spends[i].ref);
        spend->usage = make_usage(arena, &spends[i].usage);
        spend->ended_calls = spends[i].n_ended;
        spend->released_tokens = spends[i].released;
        spend->released_guess = spends[i].released_guess;
        m->spends[m->n_spends++] = spend;
    }
}

static void put_action(struct cox_arena *arena, Coxswain__V1__AttachRequest *m,
                       const struct cox_attach_who *who, const struct cox_agent_action *act)
{
    static Coxswain__V1__Beat beat = COXSWAIN__V1__BEAT__INIT;

    switch (act->kind) {
    case COX_AGENT_SEND_HELLO:
        m->hello = make_hello(arena, who, act);
        break;
    case COX_AGENT_SEND_STARTED:
        m->started[m->n_started++] = make_ref(arena, act->ref);
        break;
    case COX_AGENT_SEND_RESULT:
        m->results[m->n_results++] = make_result(arena, act);
        break;
    case COX_AGENT_SEND_RETURNED:
        m->returned[m->n_returned++] = make_ref(arena, act->ref);
        break;
    case COX_AGENT_SEND_CREDIT:
        m->credit = cox_arena_alloc(arena, sizeof(*m->credit));
        coxswain__v1__credit__init(m->credit);
        m->credit->granted = act->u.granted;
        break;
    case COX_AGENT_SEND_LOG_END:
        m->logs[m->n_logs] = make_chunk(arena, act->ref);
        m->logs[m->n_logs++]->end = true;
        break;
    case COX_AGENT_SEND_DRAINING:
        m->draining = true;
        break;
    case COX_AGENT_SEND_BEAT:
        m->beat = &beat;
        break;
    case COX_AGENT_START:
    case COX_AGENT_KILL:
    case COX_AGENT_LOG:
    case COX_AGENT_DIAL:
    case COX_AGENT_HANG_UP:
    case COX_AGENT_EXIT:
        break;
    }
}

Coxswain__V1__AttachRequest *cox_attach_pack(struct cox_arena *arena, const struct cox_attach_who *who,
                                             const struct cox_attach_turn *turn)
{
    Coxswain__V1__AttachRequest *m = cox_arena_alloc(arena, sizeof(*m));
    size_t n[COX_AGENT_EXIT + 1] = { 0 };
    size_t n_sends = turn->n_logs + turn->n_spends;

    for (size_t i = 0; i < turn->n_acts; i++)
        n[turn->acts[i].kind]++;
    for (size_t kind = COX_AGENT_SEND_HELLO; kind <= COX_AGENT_SEND_BEAT; kind++)
        n_sends += n[kind];
    if (n_sends == 0)
        return NULL;
    coxswain__v1__attach_request__init(m);
    m->started = make_array(arena, n[COX_AGENT_SEND_STARTED]);
    m->results = make_array(arena, n[COX_AGENT_SEND_RESULT]);
    m->returned = make_array(arena, n[COX_AGENT_SEND_RETURNED]);
    m->logs = make_array(arena, n[COX_AGENT_SEND_LOG_END] + turn->n_logs);
    put_logs(arena, m, turn->logs, turn->n_logs);
    put_spends(arena, m, turn->spends, turn->n_spends);
    for (size_t i = 0; i < turn->n_acts; i++)
        put_action(arena, m, who, &turn->acts[i]);
    return m;
}
