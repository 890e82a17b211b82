/* Every bound in one place. Queues, names and documents are limited here and nowhere else.
 * `cox version -o json` prints the ones users meet (TASK_FORMAT rule 13). */
#ifndef COX_LIMITS_H
#define COX_LIMITS_H

/* documents */
#define COX_DOCUMENT_LEN_MAX (4u << 20)
#define COX_TASK_STEPS_MAX 100000u
#define COX_TASK_CLASSES_MAX 4096u /* ways in which the steps of a task may ask for a worker */
#define COX_NAME_LEN_MAX 63u
#define COX_LABELS_MAX 64u
#define COX_LABEL_LEN_MAX 256u
#define COX_EXPR_COST_MAX 100000u
#define COX_EXPR_LEN_MAX 16384u
#define COX_EXPR_DEPTH_MAX 64u
#define COX_JSON_DEPTH_MAX 64u
#define COX_VIOLATIONS_MAX 20u /* reported a document; the rest are counted */
#define COX_ATTEMPTS_MAX 1000u /* retry.max_attempts */
#define COX_IDEMPOTENCY_KEY_LEN_MAX 255u
#define COX_IDEMPOTENCY_HOLD_MS (24 * 3600 * 1000LL)

/* values */
#define COX_INLINE_PAYLOAD_LEN_MAX 4096u      /* rule 11: kept in the record and the step page */
#define COX_INLINE_VALUE_LEN_MAX (64u << 10)  /* shown inline to users; above: {"$blob"} */
#define COX_LOGGED_PAYLOAD_LEN_MAX (1u << 20) /* rule 11: larger ones go to the blob store first */
#define COX_STDIO_TAIL_LEN_MAX (64u << 10)    /* of stdout and of stderr, in a run step's output */
#define COX_LOG_LEN_MAX (16u << 20)           /* an attempt's live log kept on its worker */
#define COX_ERROR_MESSAGE_LEN_MAX 1024u

/* expansion */
#define COX_MAP_ITEMS_MAX 10000000u
#define COX_MAP_PAGE_ITEMS 4096u
#define COX_MAP_BATCH_MAX 1000u
#define COX_MAP_ITEMS_LEN_MAX                                                                                \
    (1u << 30) /* of one map's list; and of all held at once: COX_MAP_HELD_LEN_MAX */
#define COX_MAP_HELD_LEN_MAX ((uint64_t)4 << 30)
#define COX_ITEM_OUTPUT_LEN_MAX (64u << 10) /* in a batch's result; larger ones go to the blob store */
#define COX_MAP_PPM_ALL 1000000u            /* tolerated failures of a map, when all may fail */
#define COX_RACE_MAX 100u                   /* alternatives of a race */
#define COX_RACE_DEPTH_MAX 4u               /* races in a race */
#define COX_FRAME_DEPTH_MAX 16u
#define COX_CONTINUATIONS_MAX 10000u /* of one attempt of a program */
#define COX_SIGNALS_MAX 1000u        /* sent and not yet waited for, a task */
#define COX_SIGNAL_LEN_MAX (64u << 10)
#define COX_EVICT_AFTER_MS 1000 /* a task that only waits leaves memory after this long */
#define COX_TEMPLATES_MAX 100000u
#define COX_SCHEDULES_MAX 100000u
#define COX_SCHEDULE_QUEUE_MAX 100u
#define COX_SCHEDULE_LATE_MS 60000  /* a run found no later than this is on time */
#define COX_KEPT_LEN_MAX (1u << 30) /* of all templates and schedules */
#define COX_BLOB_LEN_MAX (1u << 30)
#define COX_BLOB_CHUNK_LEN (64u << 10)

/* agents */
#define COX_PLAN_STEPS_DEFAULT 100u      /* `allow.max_steps` of a plan that does not say */
#define COX_AGENT_DEPTH_MAX 4u           /* agents that are tools of agents */
#define COX_TURNS_MAX 10000u             /* `max_turns` at most */
#define COX_TURNS_DEFAULT 50u            /* of an agent that does not say */
#define COX_TOOLS_MAX 512u               /* of an agent, those of its servers among them */
#define COX_TURN_CALLS_MAX 128u          /* of one answer */
#define COX_TURN_ARGS_LEN_MAX (1u << 20) /* arguments of one call */
#define COX_TURN_PARALLEL_DEFAULT 8u     /* calls at once, unless the agent says otherwise */
#define COX_TURN_REASKS_DEFAULT 2u       /* answers that are none, in a row, before it fails */
#define COX_AGENT_HEARD_MAX 256u         /* words of people that it has not told the model yet */
#define COX_AGENT_WORD_LEN_MAX 16384u    /* bytes of one of them */
#define COX_TURN_KEPT_LEN_MIN 256u       /* texts of agents beyond this are kept once, and referred to */

/* wire */
#define COX_MESSAGE_LEN_MAX (16u << 20) /* one gRPC message */
#define COX_OUTBOX_LEN_MAX (32u << 20)  /* bytes queued to one peer before it is cut off */
#define COX_HELD_LEN_MAX (256u << 20)   /* bytes queued to all peers before large answers are refused */
#define COX_BATCH_TASKS_MAX 1000u       /* SubmitTasks, BatchGetTasks */
#define COX_WORKER_ID_LEN_MAX 128u
#define COX_WORKER_SLOTS_MAX 65536u
#define COX_WORKER_LABELS_MAX 64u
#define COX_WORKER_HANDLERS_MAX 1024u
#define COX_PROGRAM_VERSION_LEN_MAX 64u

/* the HTTP edge */
#define COX_HTTP_CONNECTIONS_MAX 1024u
#define COX_HTTP_BODY_LEN_MAX COX_MESSAGE_LEN_MAX /* of a JSON body, inflated */
#define COX_HTTP_HELD_LEN_MAX (256u << 20)        /* bodies and answers of all connections */
#define COX_HTTP_OUTBOX_LEN_MAX (256u << 10)      /* messages of a stream that its reader has not taken */
#define COX_HTTP_BLOB_WINDOW_LEN (1u << 20)       /* of an upload, on its way to the store */

/* engine */
#define COX_PAGE_STEPS 256u /* steps in one step page */
#define COX_LINK_STEPS_PER_TURN 1000u
#define COX_ATTEMPTS_KEPT 10u              /* past attempts of a step that are remembered: the newest */
#define COX_PAST_MESSAGE_LEN_MAX 256u      /* of each of their messages */
#define COX_SPECS_EVALUATING_MAX 64u       /* large inputs being computed at once */
#define COX_SPEC_LEN_HELD_MAX (256u << 20) /* large inputs computed and waiting for a worker, in all */
#define COX_SPEC_LEN_MAX (8u << 20) /* a step's input: it travels in one message, with room for the rest */
#define COX_IDEMPOTENCY_KEYS_MAX 50000000u
#define COX_LOSSES_MAX 10u     /* worker losses a step survives (TASK_FORMAT rule 3) */
#define COX_CLASSES_MAX 65536u /* of all live tasks */
#define COX_LIVE_TASKS_MAX 20000000u
#define COX_LIVE_STEPS_MAX 100000000u

/* liveness; see ARCHITECTURE rules 7 and 8 */
#define COX_BEAT_MS 2500
#define COX_LOST_MS 8000
#define COX_ADOPTION_MS 60000
#define COX_START_REPORT_MS 20     /* a step that runs longer is reported as started */
#define COX_START_LIMIT_MS 30000   /* an assigned step not reported in this time is taken back */
#define COX_TIMEOUT_GRACE_MS 10000 /* the engine's own timeout fires this much after the worker's */
#define COX_PREFETCH_MS 20         /* worth of work a worker may hold ready beyond its slots */
#define COX_PREFETCH_HOLD_MS 200   /* a prefetched step that waits longer is given back */
#define COX_TIMEOUT_DEFAULT_MS (10 * 60 * 1000LL)

#endif
