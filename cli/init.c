/* `cox init`: the files of cli/init, and a thousand orders. */
#include "verbs.h"

#include "cox/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ORDERS 1000
#define ODD_ORDER 617 /* the one that the tools do not understand */

extern const unsigned char init_task_yaml[], init_readme[], init_parse_order[], init_price_order[],
    init_write_receipt[], init_cox_py[];
extern const size_t init_task_yaml_len, init_readme_len, init_parse_order_len, init_price_order_len,
    init_write_receipt_len, init_cox_py_len;

const struct cli_option cli_init_options[] = { { 0 } };
const char cli_init_help[] = "Makes task.yaml, three tools in Python, a thousand lines of inputs, and a "
                             "README.md that leads through them.\n"
                             "Files that are there are left alone, and none is made.\n\n"
                             "Example:\n"
                             "  cox init hello && cox dev hello\n";

struct file {
    const char *name;
    const unsigned char *data;
    size_t len;
    mode_t mode;
};

static enum cli_exit fail(const char *path)
{
    cli_error("%s: %s", path, strerror(errno));
    return CLI_USAGE;
}

/* The same orders each time: a guide can speak of them. */
static void put_orders(struct cox_buf *out)
{
    static const char *const names[] = { "pear", "plum", "fig", "quince", "apple", "cherry", "grape" };

    for (unsigned i = 1; i <= ORDERS; i++) {
        const char *name = names[i % (sizeof(names) / sizeof(*names))];
        cox_buf_printf(out, "{\"line\": \"%s, ", name);
        if (i == ODD_ORDER)
            cox_buf_append_str(out, "two");
        else
            cox_buf_printf(out, "%u", i * 7 % 23 + 1);
        cox_buf_printf(out, ", %u.%02u\"}\n", i % 3, i * 37 % 100);
    }
}

static enum cli_exit write_file(const char *path, const struct file *f)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, f->mode);
    bool ok = fd >= 0;

    for (size_t at = 0; ok && at < f->len;) {
        ssize_t n = write(fd, f->data + at, f->len - at);
        ok = n > 0;
        at += ok ? (size_t)n : 0;
    }
    enum cli_exit code = ok ? CLI_OK : fail(path);

    if (fd >= 0)
        close(fd);
    return code;
}

static enum cli_exit make_dir(const char *path)
{
    return mkdir(path, 0777) == 0 || errno == EEXIST ? CLI_OK : fail(path);
}

enum cli_exit cli_init(struct cli *cli)
{
    const char *dir = cli->n_args > 0 ? cli->args[0] : ".";
    struct cox_buf orders = { 0 };
    char *tools = cox_asprintf("%s/tools", dir);

    put_orders(&orders);
    const struct file files[] = {
        { "task.yaml", init_task_yaml, init_task_yaml_len, 0666 },
        { "README.md", init_readme, init_readme_len, 0666 },
        { "orders.jsonl", orders.data, orders.len, 0666 },
        { "tools/cox.py", init_cox_py, init_cox_py_len, 0666 },
        { "tools/parse_order", init_parse_order, init_parse_order_len, 0777 },
        { "tools/price_order", init_price_order, init_price_order_len, 0777 },
        { "tools/write_receipt", init_write_receipt, init_write_receipt_len, 0777 },
    };
    size_t n = sizeof(files) / sizeof(*files);
    enum cli_exit code = CLI_OK;

    for (size_t i = 0; i < n && !code; i++) {
        char *path = cox_asprintf("%s/%s", dir, files[i].name);
        if (access(path, F_OK) == 0) {
            cli_error("%s is there already; nothing was made", path);
            code = CLI_USAGE;
        }
        cox_free(path);
    }
    if (!code)
        code = make_dir(dir);
    if (!code)
        code = make_dir(tools);
    for (size_t i = 0; i < n && !code; i++) {
        char *path = cox_asprintf("%s/%s", dir, files[i].name);
        code = write_file(path, &files[i]);
        cox_free(path);
    }
    if (!code) {
        printf("%s\n", dir);
        cli_note(cli, "next: cox dev %s   (%s/README.md goes on from there)", dir, dir);
    }
    cox_buf_fini(&orders);
    cox_free(tools);
    return code;
}
