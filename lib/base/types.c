#include "cox/types.h"

#include <stdio.h>
#include <string.h>

#define COUNTER_BITS 48
#define COUNTER_MAX (((uint64_t)1 << COUNTER_BITS) - 1)
#define DIGITS_MIN 6
#define DIGITS_MAX 10 /* 48 bits at 5 a digit */

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz"; /* Crockford: no i l o u */

void cox_task_id_format(cox_task_id id, char text[COX_TASK_ID_TEXT_MAX])
{
    char counter[DIGITS_MAX + 1];
    char *p = counter + DIGITS_MAX;
    uint64_t rest = id & COUNTER_MAX;

    *p = '\0';
    for (int n = 0; n < DIGITS_MIN || rest > 0; n++, rest >>= 5)
        *--p = digits[rest & 31];
    snprintf(text, COX_TASK_ID_TEXT_MAX, "t%u-%s", (unsigned)(id >> COUNTER_BITS), p);
}

/* Reads leniently and then compares with what format gives: a task has one text, and all that overflowed, was
 * padded or spelt otherwise is not it. */
enum cox_err cox_task_id_parse(struct cox_slice text, cox_task_id *ret_id)
{
    char canonical[COX_TASK_ID_TEXT_MAX];
    uint64_t shard = 0;
    uint64_t counter = 0;
    size_t i = 1;

    for (; i < text.len && text.data[i] >= '0' && text.data[i] <= '9'; i++)
        shard = shard * 10 + (uint64_t)(text.data[i] - '0');
    for (i++; i < text.len; i++) {
        const char *digit = text.data[i] ? strchr(digits, text.data[i]) : NULL;
        if (!digit)
            return COX_ERR_INVALID;
        counter = counter << 5 | (uint64_t)(digit - digits);
    }
    cox_task_id id = shard << COUNTER_BITS | counter;

    cox_task_id_format(id, canonical);
    if (!cox_slice_is(text, canonical) || counter == 0)
        return COX_ERR_INVALID;
    *ret_id = id;
    return COX_OK;
}

#define CODE_NAME(name) #name,
static const char *const code_texts[] = { COX_CODE_TABLE(CODE_NAME) };
#undef CODE_NAME

const char *cox_code_text(enum cox_code c)
{
    if (c == COX_CODE_NONE)
        return "";
    return (unsigned)c < COX_CODE_NR ? code_texts[c] : "INTERNAL";
}

bool cox_code_parse(struct cox_slice text, enum cox_code *ret)
{
    for (int i = COX_CODE_NONE + 1; i < COX_CODE_NR; i++) {
        if (cox_slice_is(text, cox_code_text((enum cox_code)i))) {
            *ret = (enum cox_code)i;
            return true;
        }
    }
    return false;
}

void cox_ref_format(struct cox_ref ref, char text[COX_REF_TEXT_MAX])
{
    snprintf(text, COX_REF_TEXT_MAX, "%llu/%u/%llu/%llu", (unsigned long long)ref.task, ref.step,
             (unsigned long long)ref.token.epoch, (unsigned long long)ref.token.counter);
}

/* A number at the front, which is taken off; false: none, or too large a one. */
static bool take_number(struct cox_slice *text, uint64_t *ret)
{
    size_t n = 0;

    for (*ret = 0; n < text->len && text->data[n] >= '0' && text->data[n] <= '9'; n++) {
        uint64_t digit = (uint64_t)(text->data[n] - '0');

        if (*ret > (UINT64_MAX - digit) / 10)
            return false;
        *ret = *ret * 10 + digit;
    }
    *text = cox_slice(text->data + n, text->len - n);
    return n > 0;
}

enum cox_err cox_ref_parse(struct cox_slice text, struct cox_ref *ret)
{
    uint64_t n[4];

    for (size_t i = 0; i < 4; i++) {
        if (!take_number(&text, &n[i]) || (i < 3 && (text.len == 0 || text.data[0] != '/')))
            return COX_ERR_INVALID;
        if (i < 3)
            text = cox_slice(text.data + 1, text.len - 1);
    }
    if (text.len > 0 || n[1] > UINT32_MAX)
        return COX_ERR_INVALID;
    *ret = (struct cox_ref){ .task = n[0], .step = (uint32_t)n[1], .token = { n[2], n[3] } };
    return COX_OK;
}

static const char *const task_texts[COX_TASK_STATUS_NR] = {
    "", "PENDING", "RUNNING", "WAITING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED",
};
static const char *const step_texts[COX_STEP_STATUS_NR] = {
    "", "BLOCKED", "READY", "RUNNING", "WAITING", "SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED",
};
static const char *const attempt_texts[COX_ATTEMPT_STATUS_NR] = {
    "", "ASSIGNED", "RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "LOST", "CANCELLED",
};

const char *cox_task_status_text(enum cox_task_status s)
{
    return (unsigned)s < COX_TASK_STATUS_NR ? task_texts[s] : "";
}

const char *cox_step_status_text(enum cox_step_status s)
{
    return (unsigned)s < COX_STEP_STATUS_NR ? step_texts[s] : "";
}

const char *cox_attempt_status_text(enum cox_attempt_status s)
{
    return (unsigned)s < COX_ATTEMPT_STATUS_NR ? attempt_texts[s] : "";
}

void cox_hash_format(const struct cox_hash *h, char text[COX_HASH_TEXT_MAX])
{
    static const char hex[] = "0123456789abcdef";
    char *p = text + 7;

    memcpy(text, "sha256:", 7);
    for (size_t i = 0; i < sizeof(h->b); i++) {
        *p++ = hex[h->b[i] >> 4];
        *p++ = hex[h->b[i] & 15];
    }
    *p = '\0';
}

static int nibble(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool cox_hash_parse(struct cox_slice text, struct cox_hash *ret)
{
    static const char prefix[] = "sha256:";
    size_t at = sizeof(prefix) - 1;
    struct cox_hash h;

    if (text.len != at + 2 * sizeof(h.b) || memcmp(text.data, prefix, at) != 0)
        return false;
    for (size_t i = 0; i < sizeof(h.b); i++, at += 2) {
        int high = nibble(text.data[at]), low = nibble(text.data[at + 1]);
        if (high < 0 || low < 0)
            return false;
        h.b[i] = (uint8_t)(high << 4 | low);
    }
    *ret = h;
    return true;
}
