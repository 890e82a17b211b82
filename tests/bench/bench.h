/* What the files of cox-bench share. One process drives the load from one thread; coxd and the workers are
 * processes of their own, so that what is measured is what users get. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/rpc.h"
#include "cox/tls.h"

#include <sys/types.h>

struct settings {
    const char *workload;
    const char *address; /* of a running orchestrator; NULL: spawn */
    const char *store;
    const char *data_dir; /* NULL: a temporary one */
    const char *tls_dir;  /* made by `cox admin certs`; NULL: plaintext */
    uint32_t slots;       /* of each worker */
    uint32_t workers;
    uint32_t runs;
    uint64_t steps; /* in all; 0: as the contract says */
    bool quiet;
};

/* "cox-bench: ..." on standard error. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- process.c: children, and what they use ---- */

struct process {
    pid_t pid;  /* 0: none */
    bool asked; /* to end */
};

/* Runs argv[0]; its standard output goes to our standard error. It is killed when we end. */
enum cox_err process_start(struct process *p, char *const argv[]);
/* SIGTERM, once. Harmless without a process. */
void process_ask(struct process *p);
/* The same, then waits; false when it did not exit with 0. Harmless without a process. */
bool process_stop(struct process *p);
bool process_alive(struct process *p);
/* CPU time since its start, all threads; 0 when it cannot be known. */
int64_t process_cpu_ns(pid_t pid);
/* What it has written to disks since its start; 0 when it cannot be known. */
uint64_t process_written_len(pid_t pid);
/* The most memory it had resident since process_peak_reset; 0 when it cannot be known. */
uint64_t process_peak_len(pid_t pid);
uint64_t process_rss_len(pid_t pid); /* resident now; 0 when it cannot be known */
void process_peak_reset(pid_t pid);

/* ---- cluster.c: an orchestrator and its workers ---- */

/* NAME.crt, its key, and the CA in a folder that `cox admin certs` made; NULL without a folder. */
char *program_path(const char *name); /* of a program beside this one; freed by cox_free */
const struct cox_tls_files *tls_files_in(const char *dir, const char *name);

#define CLUSTER_WORKERS_MAX 64u

struct cluster {
    struct process coxd;
    struct process workers[CLUSTER_WORKERS_MAX];
    uint32_t n_workers;
    char *address;    /* host:port */
    char *id_prefix;  /* of the workers' ids */
    char *folder;     /* data, ready file; removed at the end */
    char *filesystem; /* of the folder: "ext4" */
};

/* Starts coxd and waits until it serves, then starts workers whose steps give a string of `result_len` bytes,
 * or null for 0. With an address only the workers are started. COX_OK or it has complained. */
enum cox_err cluster_start(struct cluster *c, const struct settings *s, uint32_t result_len);
/* False when a process had died or did not end well. */
bool cluster_stop(struct cluster *c);

struct cpu {
    int64_t coxd_ns, workers_ns, client_ns;
};
struct cpu cluster_cpu(const struct cluster *c);

/* What coxd takes, beside time. */
struct room {
    uint64_t peak_len, written_len;
};
/* Memory counts from here on: the peak, until now that of this moment. */
struct room cluster_room_begin(const struct cluster *c);
struct room cluster_room_since(const struct cluster *c, struct room before);

/* ---- client.c: submits and awaits ---- */

struct client {
    struct cox_rpc_loop *loop;
    struct cox_rpc_channel *channel;
};
void client_init(struct client *c, const char *address, const struct cox_tls_files *tls);
void client_fini(struct client *c);

/* Until `n` workers whose ids begin so are attached. */
enum cox_err client_await_workers(struct client *c, const char *prefix, size_t n);

/* Tasks of one document, submitted in batches, so many of them between submission and result at any time. */
struct load {
    struct cox_slice document;
    size_t n_tasks;
    size_t batch_len; /* tasks in a SubmitTasks; 1: SubmitTask and GetTask */
    size_t n_flights;
    uint32_t steps_a_task; /* as many must have succeeded */
    uint32_t n_items;      /* of the map in each task; 0: there is none */
    const char *outputs;   /* JSON that each task's outputs must be */
};

struct outcome {
    int64_t elapsed_ns;    /* from the first submission to the last result */
    int64_t *latencies_ns; /* of each batch, sorted */
    size_t n_latencies;
    uint64_t resident_len; /* waiting: by which coxd grew */
};
void outcome_fini(struct outcome *o);

/* Submits, awaits and checks every task. Not COX_OK: something did not succeed as it should have, it has
 * complained, and the client can only be finished. */
enum cox_err client_run(struct client *c, const struct load *load, struct outcome *ret);

/* ---- waiting.c: tasks that wait for a signal ---- */

/* Submits all, waits until all of them sleep, then signals some, one after the other: latencies are from the
 * signal to the end of the step behind the wait. */
enum cox_err waiting_run(struct client *c, const struct cluster *cluster, const struct load *load,
                         struct outcome *ret);

/* ---- gateway.c: model calls through the router ---- */

int gateway_main(int argc, char **argv);

/* ---- workload.c ---- */

enum figure { FIGURE_STEPS, FIGURE_TASKS, FIGURE_HOP, FIGURE_LATENCY, FIGURE_ITEMS, FIGURE_WAITING };

struct workload {
    const char *name;
    void (*put_document)(struct cox_buf *out, uint32_t n_steps);
    size_t n_tasks;
    uint32_t steps_a_task;
    bool scales_steps; /* --steps changes the size of a task, else the number of tasks */
    bool maps;         /* one step, mapped over so many items */
    size_t batch_len;
    size_t n_flights;
    uint32_t result_len; /* of each step's output; 0: null */
    enum figure figure;
};
const struct workload *workload_find(const char *name);
bool workload_planned(const char *name); /* in the contract, but not in this version */

/* Size and document of a workload. `text` holds what the load borrows. */
struct workload_text {
    struct cox_buf document;
    struct cox_buf outputs;
};
void workload_load(const struct workload *w, uint64_t steps, struct load *ret, struct workload_text *text);
void workload_text_fini(struct workload_text *text);

/* What steps give, and what the next step of a chain must be given: a JSON string of len bytes, with its
 * quotes two more. */
void put_result(struct cox_buf *out, uint32_t len);

/* ---- report.c ---- */

#define FIGURES_MAX 8
#define RUNS_MAX 1000

struct figures {
    size_t n;
    struct {
        const char *name;
        double value;
    } items[FIGURES_MAX];
};

/* One JSON object a run, on standard output. */
void report_run(const struct settings *s, const struct workload *w, const struct load *load,
                const struct cluster *c, uint32_t run, const struct outcome *o, const struct cpu *used,
                const struct room *taken, struct figures *ret);
/* The median of each figure over the runs. */
void report_median(const struct workload *w, const struct figures *runs, size_t n_runs);

/* ---- worker.c: the verb `worker` ---- */

int worker_main(int argc, char **argv);

/* Slots of one step, which runs until it is ended. */
struct slots;
struct slots *noop_create_one(void);
void noop_destroy_one(struct slots *s);
uint32_t noop_begun(const struct slots *s); /* steps, in all */
void noop_end(struct slots *s);             /* what it has, and from here on each at once */

/* ---- crew.c: the verb `crew`, thousands of simulated workers in one process, for scenarios ---- */

int crew_main(int argc, char **argv);

/* ---- keeper.c: the verbs `submit` and `await`, for scenarios ---- */

int submit_main(int argc, char **argv);
int await_main(int argc, char **argv);

#endif
