#include "roles.h"

#include <string.h>

static const char *const names[ACCESS_ROLES_NR] = { "reader",   "submitter", "approver",
                                                    "operator", "admin",     "worker" };

const char *access_role_text(unsigned index)
{
    return names[index];
}

unsigned access_role_parse(struct cox_slice text)
{
    for (unsigned i = 0; i < ACCESS_ROLES_NR; i++)
        if (cox_slice_is(text, names[i]))
            return 1u << i;
    return 0;
}

#define PEOPLE (ACCESS_READER | ACCESS_SUBMITTER | ACCESS_APPROVER | ACCESS_OPERATOR | ACCESS_ADMIN)
#define SUBMITS (ACCESS_SUBMITTER | ACCESS_ADMIN)
#define TENDS (ACCESS_SUBMITTER | ACCESS_OPERATOR | ACCESS_ADMIN) /* also what others have begun */
#define DECIDES (ACCESS_APPROVER | ACCESS_ADMIN)
#define OPERATES (ACCESS_OPERATOR | ACCESS_ADMIN)
#define WATCHES (ACCESS_READER | ACCESS_OPERATOR | ACCESS_ADMIN)

#define TASKS "coxswain.v1.TaskService"
#define TEMPLATES "coxswain.v1.TemplateService"
#define SCHEDULES "coxswain.v1.ScheduleService"
#define FLEET "coxswain.v1.FleetService"
#define STATS "coxswain.v1.StatsService"
#define BLOBS "coxswain.v1.BlobService"
#define MODELS "coxswain.v1.ModelService"
#define SCALER "externalscaler.ExternalScaler"

const struct access_rule access_rules[] = {
    { TASKS, "SubmitTask", SUBMITS, 0 },
    { TASKS, "SubmitTasks", SUBMITS, 0 },
    { TASKS, "GetTask", PEOPLE, ACCESS_TASK_TOKEN },
    { TASKS, "BatchGetTasks", PEOPLE, 0 },
    { TASKS, "ListTasks", PEOPLE, 0 },
    { TASKS, "DescribeTask", PEOPLE, ACCESS_TASK_TOKEN },
    { TASKS, "WatchTask", PEOPLE, ACCESS_TASK_TOKEN },
    { TASKS, "GetOutput", PEOPLE, ACCESS_TASK_TOKEN },
    { TASKS, "GetLogs", PEOPLE, ACCESS_TASK_TOKEN },
    { TASKS, "Explain", PEOPLE, 0 },
    { TASKS, "CreateTaskToken", PEOPLE, 0 },
    { TASKS, "CancelTask", TENDS, 0 },
    { TASKS, "PauseTask", TENDS, 0 },
    { TASKS, "ResumeTask", TENDS, 0 },
    { TASKS, "RetryTask", SUBMITS, 0 },
    { TASKS, "ForkTask", SUBMITS, 0 },
    { TASKS, "DeleteTask", SUBMITS, 0 },
    { TASKS, "MessageTask", SUBMITS, 0 },
    { TASKS, "SignalTask", SUBMITS | DECIDES, 0 },
    { TASKS, "ApproveStep", DECIDES, 0 },
    { TEMPLATES, "ApplyTemplate", OPERATES, 0 },
    { TEMPLATES, "GetTemplate", PEOPLE, 0 },
    { TEMPLATES, "ListTemplates", PEOPLE, 0 },
    { TEMPLATES, "DeleteTemplate", OPERATES, 0 },
    { SCHEDULES, "ApplySchedule", SUBMITS, 0 },
    { SCHEDULES, "GetSchedule", PEOPLE, 0 },
    { SCHEDULES, "ListSchedules", PEOPLE, 0 },
    { SCHEDULES, "DeleteSchedule", TENDS, 0 },
    { FLEET, "ListWorkers", OPERATES, ACCESS_WHOLE },
    { FLEET, "DescribeWorker", OPERATES, ACCESS_WHOLE },
    { FLEET, "CordonWorker", OPERATES, ACCESS_WHOLE },
    { FLEET, "DrainWorker", OPERATES, ACCESS_WHOLE },
    { STATS, "GetStats", WATCHES, 0 },
    { STATS, "GetHistory", WATCHES, 0 },
    { STATS, "WatchStats", WATCHES, 0 },
    { STATS, "GetMetrics", WATCHES, ACCESS_WHOLE },
    { BLOBS, "GetBlob", PEOPLE | ACCESS_WORKER, 0 },
    { BLOBS, "PutBlob", TENDS | ACCESS_WORKER, 0 },
    { MODELS, "Complete", SUBMITS | OPERATES, 0 },
    { MODELS, "CompleteForAttempt", ACCESS_WORKER, ACCESS_WHOLE },
    { MODELS, "ListModels", PEOPLE, 0 },
    { MODELS, "DescribeModel", PEOPLE, 0 },
    { MODELS, "GetUsage", PEOPLE, 0 },
    { "coxswain.v1.AdminService", "Backup", ACCESS_ADMIN, ACCESS_WHOLE },
    { "coxswain.v1.WorkerService", "Attach", ACCESS_WORKER | ACCESS_ADMIN, ACCESS_WHOLE },
    { SCALER, "IsActive", WATCHES, 0 },
    { SCALER, "StreamIsActive", WATCHES, 0 },
    { SCALER, "GetMetricSpec", WATCHES, 0 },
    { SCALER, "GetMetrics", WATCHES, 0 },
    { "grpc.health.v1.Health", "Check", 0, ACCESS_ANYBODY },
    { "grpc.health.v1.Health", "Watch", 0, ACCESS_ANY_ROLE },
    { "grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", 0, ACCESS_ANY_ROLE },
    { "grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", 0, ACCESS_ANY_ROLE },
};
const size_t n_access_rules = sizeof(access_rules) / sizeof(access_rules[0]);

const struct access_rule *access_rule_find(const char *service, const char *method)
{
    for (size_t i = 0; i < n_access_rules; i++)
        if (strcmp(access_rules[i].method, method) == 0 && strcmp(access_rules[i].service, service) == 0)
            return &access_rules[i];
    return NULL;
}
