#include "run_output.h"

#include "cox/json.h"
#include "cox/limits.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#define MESSAGE_LINES 20

/* A byte of output is at most six characters of JSON ("\u0000"). */
_Static_assert(2 * 6 * COX_STDIO_TAIL_LEN_MAX + 100 <= COX_LOGGED_PAYLOAD_LEN_MAX, "tails fit an output");

int run_exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void run_output_text(struct cox_buf *out, int exit_code, struct cox_slice stdout_tail,
                     struct cox_slice stderr_tail)
{
    cox_buf_printf(out, "{\"exit_code\":%d,\"stdout\":", exit_code);
    cox_json_quote(out, stdout_tail);
    cox_buf_append_str(out, ",\"stderr\":");
    cox_json_quote(out, stderr_tail);
    cox_buf_append_str(out, "}");
}

enum cox_err run_output_check(struct cox_slice text, struct cox_buf *message)
{
    struct cox_json_place place;

    if (cox_json_check(text, &place) == COX_OK)
        return COX_OK;
    cox_buf_printf(message, "stdout is not JSON: line %u, column %u: expected %s", place.line, place.column,
                   place.expected);
    return COX_ERR_INVALID;
}

enum cox_err run_output_json(struct cox_buf *out, struct cox_slice text, struct cox_buf *message)
{
    enum cox_err err = run_output_check(text, message);

    if (err == COX_OK)
        cox_buf_append_slice(out, cox_json_trim(text));
    return err;
}

/* Appends `text` as valid UTF-8. */
static void put_utf8(struct cox_buf *b, struct cox_slice text)
{
    struct cox_buf quoted = { 0 };

    cox_json_quote(&quoted, text);
    cox_json_unquote(b, cox_buf_slice(&quoted));
    cox_buf_fini(&quoted);
}

/* Cuts to at most `len_max` bytes, between characters. */
static void clip(struct cox_buf *b, size_t len_max)
{
    if (b->len <= len_max)
        return;
    b->len = len_max;
    while (b->len > 0 && (b->data[b->len] & 0xC0) == 0x80)
        b->len--;
}

/* The last lines, without the empty ones at the end; less than `len_max` bytes. */
static struct cox_slice last_lines(struct cox_slice s, size_t len_max)
{
    size_t begin;
    int n_lines = 0;

    while (s.len > 0 && (s.data[s.len - 1] == '\n' || s.data[s.len - 1] == '\r' || s.data[s.len - 1] == ' '))
        s.len--;
    begin = s.len;
    while (begin > 0 && s.len - begin < len_max) {
        if (s.data[begin - 1] == '\n' && ++n_lines == MESSAGE_LINES)
            break;
        begin--;
    }
    while (begin > 0 && begin < s.len && (s.data[begin] & 0xC0) == 0x80)
        begin++;
    return begin < s.len ? cox_slice(s.data + begin, s.len - begin) : cox_slice(NULL, 0);
}

void run_failure_message(struct cox_buf *message, int status, struct cox_slice stderr_tail)
{
    struct cox_buf lines = { 0 };
    size_t room = COX_ERROR_MESSAGE_LEN_MAX / 2;

    if (WIFSIGNALED(status) && sigabbrev_np(WTERMSIG(status)))
        cox_buf_printf(message, "killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
    else if (WIFSIGNALED(status))
        cox_buf_printf(message, "killed by signal %d", WTERMSIG(status));
    else
        cox_buf_printf(message, "exited with code %d", WEXITSTATUS(status));
    put_utf8(&lines, last_lines(stderr_tail, room));
    if (lines.len > 0) {
        cox_buf_append_str(message, ": ");
        cox_buf_append_slice(message, cox_buf_slice(&lines));
    }
    cox_buf_fini(&lines);
    clip(message, COX_ERROR_MESSAGE_LEN_MAX);
}

void run_exec_message(struct cox_buf *message, const char *program, const char *path_env, int errnum)
{
    struct cox_buf text = { 0 };

    cox_buf_printf(&text, "cannot run \"%.200s\": ", program);
    if (errnum == ENOENT && !strchr(program, '/'))
        cox_buf_printf(&text, "not found in PATH (%.600s)", path_env);
    else if (errnum == ENOEXEC)
        cox_buf_append_str(&text, "not an executable format; a script needs a #! line");
    else
        cox_buf_append_str(&text, strerror(errnum));
    put_utf8(message, cox_buf_slice(&text));
    clip(message, COX_ERROR_MESSAGE_LEN_MAX);
    cox_buf_fini(&text);
}
