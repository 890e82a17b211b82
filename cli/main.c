#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* A connection that got the number of a standard stream that was closed would get what is written to that.
 * What stands in its place can be neither read nor written, which is then told. */
static void hold_standard_fds(void)
{
    int fd = open("/dev/null", O_PATH | O_CLOEXEC);

    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_PATH | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
}

static enum cli_exit run(struct cli *cli, int argc, char **argv)
{
    enum cli_exit code = cli_parse(cli, argc, argv);

    if (code)
        return code;
    if (!cli->verb) {
        if (cli->group)
            cli_help_group(cli->help ? stdout : stderr, cli->group);
        else
            cli_help_program(cli->help ? stdout : stderr);
        return cli->help ? CLI_OK : CLI_USAGE;
    }
    if (cli->help) {
        cli_help_verb(stdout, cli->verb);
        return CLI_OK;
    }
    return cli->verb->run(cli);
}

int main(int argc, char **argv)
{
    struct cli cli = { 0 };
    enum cli_exit code;

    hold_standard_fds();
    code = run(&cli, argc, argv);
    cli_disconnect(&cli);
    cli_parse_fini(&cli);
    if (fflush(stdout) || ferror(stdout)) {
        cli_error("cannot write the result: %s", strerror(errno));
        return CLI_UNAVAILABLE;
    }
    return (int)code;
}
