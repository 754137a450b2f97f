/* One container's supervisor: runs its command, keeps its output, ends it when it must end, records how it ended.
 *
 *   supervise DIR COMMAND [ARGUMENT...]     fd 3: told "started"; fd 4: DIR/spec, flocked, held for life
 *   supervise --join GROUP                  joins a control group, and ends: why, supervisor.py's `hasten` tells
 *
 * It outlives the agent and needs nobody: limits count in CLOCK_BOOTTIME, which an operator's date and a sleeping
 * laptop don't bend. node/runtime/supervisor.py starts it and documents the files of DIR; supervise.py is its twin
 * for hosts without a compiler, held to the same tests. No allocation, no library, one poll loop. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_FD = 3, LOCK_FD = 4, CGROUPS_MAX = 16, DEPTH_MAX = 8, TEXT_MAX = 512 };
enum { KILL_RETRY_MS = 300, REST_TRIES = 10, TELL_RETRY_MS = 10, LOOK_MS = 1000, BUSY_RETRIES = 100, BUSY_WAIT_US = 5000 };
typedef long long int64;

enum phase { STARTING, RUNNING, STOPPING, KILLING };

struct stream {                       /* DIR/stdout holds the head, DIR/stdout.OFFSET the last two tail segments */
    const char *name;
    int pipe, file;
    int64 size, segment_end, tails[2]; /* bytes seen; where the next segment begins; offsets of kept segments */
};

static struct {                       /* the orders, as read from DIR/orders */
    int lxc;
    int64 start_timeout_ms, time_limit_ms, grace_ms, log_bytes, owner, stop_signal, warn_signal, warn_ms, warn_alone;
    char cgroups[CGROUPS_MAX][TEXT_MAX], memory[TEXT_MAX], cpu[TEXT_MAX], join[TEXT_MAX], workdir[TEXT_MAX];
    int cgroup_count;
} orders = {.start_timeout_ms = 60000, .grace_ms = 10000, .log_bytes = 1 << 20, .owner = -1, .stop_signal = SIGTERM};

static struct {
    enum phase phase;
    pid_t child;
    int ended, status, timer, signals, ready, oom, command, rest_tries;
    int64 seek_at, seek_slowly_at, rest_at, deadline, start_by, look_at, limit_at, warn_at, stop_at, ooms, started_unix_ms;
    int told, suspect, timed_out, lease_expired;
    char error[TEXT_MAX];
    struct stream out, err;
} self = {.timer = -1, .ready = -1, .oom = -1, .command = -1, .out = {.name = "stdout"}, .err = {.name = "stderr"}};

static char buffer[16384];

static int64 now_ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void fail(const char *format, ...) {       /* the first failure is the reason; what follows from it is not */
    va_list arguments;
    if (self.error[0]) return;
    va_start(arguments, format);
    vsnprintf(self.error, sizeof self.error, format, arguments);
    va_end(arguments);
}

/* ---- small files ---- */

static int read_text(const char *directory, const char *name, char *text, int size) {
    char path[2 * TEXT_MAX];
    snprintf(path, sizeof path, "%s%s%s", directory, *directory ? "/" : "", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int count = fd < 0 ? -1 : (int)read(fd, text, size - 1);
    if (fd >= 0) close(fd);
    text[count > 0 ? count : 0] = 0;
    return count;
}

static int write_text(const char *directory, const char *name, const char *text) {
    char path[2 * TEXT_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int done = fd >= 0 && write(fd, text, strlen(text)) >= 0;
    if (fd >= 0) close(fd);
    return done;
}

static int64 read_number(const char *directory, const char *name, const char *key) {
    char text[2048], *at = text;
    if (read_text(directory, name, text, sizeof text) < 0) return -1;
    if (*key && !(at = strstr(text, key))) return -1;
    return strtoll(at + strlen(key), NULL, 10);
}

static void record(const char *hidden, const char *name, const char *text) {   /* over what is there; it appears whole */
    int fd = open(hidden, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), length = strlen(text);
    int whole = fd >= 0 && write(fd, text, length) == length && ftruncate(fd, length) == 0;
    if (fd >= 0) close(fd);
    if (whole && rename(hidden, name) < 0) { /* the agent finds none, and does without it */ }
}

static void take_order(const char *key, const char *value) {
    static const struct { const char *key; int64 *number; char *text; } table[] = {
        {"start_timeout_ms", &orders.start_timeout_ms, 0}, {"time_limit_ms", &orders.time_limit_ms, 0},
        {"grace_ms", &orders.grace_ms, 0}, {"log_bytes", &orders.log_bytes, 0}, {"owner", &orders.owner, 0},
        {"stop_signal", &orders.stop_signal, 0}, {"warn_signal", &orders.warn_signal, 0},
        {"warn_ms", &orders.warn_ms, 0}, {"warn_alone", &orders.warn_alone, 0},
        {"memory", 0, orders.memory}, {"cpu", 0, orders.cpu}, {"join", 0, orders.join}, {"workdir", 0, orders.workdir},
    };
    if (!strcmp(key, "kind")) orders.lxc = !strcmp(value, "lxc");
    if (!strcmp(key, "cgroup") && orders.cgroup_count < CGROUPS_MAX)
        snprintf(orders.cgroups[orders.cgroup_count++], TEXT_MAX, "%s", value);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(key, table[i].key)) continue;
        if (table[i].number) *table[i].number = strtoll(value, NULL, 10);
        else snprintf(table[i].text, TEXT_MAX, "%s", value);
    }
}

static void read_orders(void) {
    char *rest = NULL;
    if (read_text("", "orders", buffer, sizeof buffer) < 0) fail("cannot read its orders: %s", strerror(errno));
    for (char *line = strtok_r(buffer, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *space = strchr(line, ' ');
        if (space) *space = 0, take_order(line, space + 1);
    }
}

/* ---- output: a head and a sliding tail, so that a flood costs no more disk than the orders allow ---- */

static void next_segment(struct stream *stream) {
    char path[64];
    int64 head = orders.log_bytes / 2, tail = orders.log_bytes / 4;
    if (stream->file >= 0) close(stream->file);
    if (stream->size == 0 && stream->segment_end == 0) {
        snprintf(path, sizeof path, "%s", stream->name);
    } else {
        if (stream->tails[0]) snprintf(path, sizeof path, "%s.%lld", stream->name, stream->tails[0]), unlink(path);
        stream->tails[0] = stream->tails[1];
        stream->tails[1] = stream->size;
        snprintf(path, sizeof path, "%s.%lld", stream->name, stream->size);
    }
    stream->segment_end = stream->size + (stream->size ? tail : head);
    stream->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void keep(struct stream *stream, const char *data, int64 count) {
    while (count > 0) {
        if (stream->size >= stream->segment_end) next_segment(stream);
        int64 part = stream->segment_end - stream->size < count ? stream->segment_end - stream->size : count;
        int64 done = stream->file < 0 ? -1 : write(stream->file, data, part);
        if (done <= 0) stream->segment_end = stream->size + (done = part);  /* disk full: a gap, then a new segment */
        stream->size += done, data += done, count -= done;
    }
}

static void drain(struct stream *stream, int turns) {
    while (turns-- > 0 && stream->pipe >= 0) {
        ssize_t count = read(stream->pipe, buffer, sizeof buffer);
        if (count > 0) keep(stream, buffer, count);
        else if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        else close(stream->pipe), stream->pipe = -1;
    }
}

static int open_stream(struct stream *stream) {    /* returns the command's end */
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) { fail("no pipe: %s", strerror(errno)); return -1; }
    stream->pipe = ends[0], stream->file = -1;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    if (orders.owner >= 0 && fchown(ends[1], orders.owner, orders.owner) < 0)  /* lets it reopen /dev/stdout */
        fail("cannot give its output to user %lld: %s", orders.owner, strerror(errno));
    return ends[1];
}

/* ---- signals to everything inside ---- */

enum whom { ALL, REST, COMMAND };                  /* everything inside; all but LXC's init; what that started first, alone */

static int meant_last;                             /* the last process that a signal was meant for */

static int is_meant(int pid, int number, enum whom whom) {
    char path[64], text[2048], *at;
    int outside, inside = 0, deeper, found = 0;
    if (whom == ALL && (number == 0 || number == SIGKILL)) return 1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    if (read_text("", path, text, sizeof text) < 0 || !(at = strstr(text, "NSpid:"))) return whom == ALL;
    if ((at = strtok(at, "\n"))) found = sscanf(at + 6, "%d %d %d", &outside, &inside, &deeper);
    if (whom == COMMAND) return found == 2 && inside == 2;
    if (whom == REST) return found != 2 || inside != 1;
    char *last = strrchr(at, '\t');                /* not LXC's own init: that would cut the grace short */
    return found < 2 || !last || atoi(last) != 1;
}

static int signal_tree(const char *path, int number, enum whom whom, int depth) {   /* how many processes it reached */
    char file[2 * TEXT_MAX];
    int reached = 0;
    snprintf(file, sizeof file, "%s/cgroup.procs", path);
    FILE *list = fopen(file, "re");
    for (int pid; list && fscanf(list, "%d", &pid) == 1;)
        if (pid > 0 && is_meant(pid, number, whom)) meant_last = pid, reached += kill(pid, number) == 0;
    if (list) fclose(list);
    DIR *directory = depth < DEPTH_MAX ? opendir(path) : NULL;
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (entry->d_type != DT_DIR || !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        reached += signal_tree(file, number, whom, depth + 1);
    }
    if (directory) closedir(directory);
    return reached;
}

static int signal_payload(int number, enum whom whom) {
    char payload[TEXT_MAX + 16];
    snprintf(payload, sizeof payload, "%s/payload", orders.cgroups[0]);
    return orders.cgroup_count ? signal_tree(payload, number, whom, 0) : 0;
}

static int count_inside(void) { return signal_payload(0, ALL); }

static void thaw(void) {
    for (int i = 0; i < orders.cgroup_count; i++) {
        write_text(orders.cgroups[i], "payload/freezer.state", "THAWED");
        write_text(orders.cgroups[i], "payload/cgroup.freeze", "0");
    }
}

static void kill_descendants(void) {               /* of a bare process: orphans come to us, the subreaper */
    char path[64], list[4096], *rest = NULL;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    read_text("", path, list, sizeof list);
    if ((rest = strrchr(list, ' '))) *rest = 0;    /* what follows may be half a number */
    for (char *word = strtok_r(list, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        if (atoi(word) > 0) kill(atoi(word), SIGKILL);
}

static int signal_inside(int number) {
    int killed = 0, reached = 0;
    if (!orders.lxc && self.child > 0 && !self.ended) reached = kill(-self.child, number) == 0;
    if (!orders.lxc && number == SIGKILL) kill_descendants();
    for (int i = 0; number == SIGKILL && i < orders.cgroup_count; i++)
        killed |= write_text(orders.cgroups[i], "payload/cgroup.kill", "1");
    if (!killed) reached += signal_payload(number, ALL);
    thaw();                                        /* only now: what is frozen bears no child that would miss the signal */
    return reached;
}

/* ---- the life ---- */

static void set_deadline(int64 at) {
    struct itimerspec when = {.it_value = {at / 1000, at % 1000 * 1000000}};
    self.deadline = at;
    timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void kill_all(void) {
    if (self.phase == STARTING || self.phase == KILLING) kill(self.child, SIGKILL);
    self.phase = KILLING;
    signal_inside(SIGKILL);
    set_deadline(now_ms(CLOCK_BOOTTIME) + KILL_RETRY_MS);
}

static void tell(void) {                           /* LXC's init may not have forked the command yet: then again soon */
    if (!self.told) self.told = signal_inside(orders.stop_signal) > 0;
    int64 soon = now_ms(CLOCK_BOOTTIME) + TELL_RETRY_MS;
    set_deadline(self.told || soon > self.stop_at ? self.stop_at : soon);
}

static void warn(int64 now) {                      /* what is frozen stays so, and gets it when it goes on */
    enum whom whom = orders.warn_alone ? COMMAND : ALL;
    int reached = orders.lxc ? signal_payload(orders.warn_signal, whom)
                             : kill(whom == ALL ? -self.child : self.child, orders.warn_signal) == 0;
    self.warn_at = reached ? 0 : now + TELL_RETRY_MS;
}

static int64 count_ooms(void) {
    int64 more = 0;
    if (self.oom < 0) return self.ooms = orders.memory[0] ? read_number(orders.memory, "memory.events", "oom_kill ") : 0;
    if (read(self.oom, &more, sizeof more) > 0) self.ooms += more;
    return self.ooms;
}

static int look(void) {                            /* LXC waits for ever for an init that was killed during the set-up */
    char children[64], text[32];
    snprintf(children, sizeof children, "/proc/%d/task/%d/children", self.child, self.child);
    int empty = orders.cgroup_count && !count_inside() && read_text("", children, text, sizeof text) > 0;
    int stuck = empty && self.suspect;             /* twice in a row: it may just have ended, and LXC be slow */
    self.suspect = empty;
    self.look_at = empty ? now_ms(CLOCK_BOOTTIME) + LOOK_MS : 0;
    return stuck;
}

static void end_rest(int64 now) {                  /* the command has ended: LXC's init, left alone, ends with its exit code */
    int left = signal_payload(SIGKILL, REST);
    self.seek_at = 0, self.rest_at = left ? now + KILL_RETRY_MS : 0;  /* once alone, it takes what time a busy host gives it */
    if (left && ++self.rest_tries > REST_TRIES) kill_all();
}

static void seek(int64 now) {                      /* LXC's init may not have forked the command yet, or it ended already */
    int there = signal_payload(0, COMMAND) > 0;
    self.command = there ? (int)syscall(SYS_pidfd_open, meant_last, 0) : -1;
    self.seek_at = self.command >= 0 || !count_inside() ? 0 : now + (now < self.seek_slowly_at ? TELL_RETRY_MS : LOOK_MS);
    if (there || now < self.seek_slowly_at) return;
    int rest = signal_payload(0, REST);
    if (rest > 0 && rest < count_inside()) end_rest(now);      /* LXC's init is there, and its command is not */
}

static void plan(void);

static void on_command_ended(void) {
    close(self.command), self.command = -1;
    if (self.phase != RUNNING) return;             /* while it is being stopped, the others have their grace, too */
    end_rest(now_ms(CLOCK_BOOTTIME));
    if (self.phase == RUNNING) plan();
}

static void begin_stop(int64 grace_ms) {
    int64 at = now_ms(CLOCK_BOOTTIME) + grace_ms;
    if (self.phase == KILLING || self.ended) return;
    if (self.phase == STARTING) fail("stopped before its command ran");
    if (self.phase == STARTING || grace_ms <= 0) { kill_all(); return; }
    if (self.phase == STOPPING && self.stop_at <= at) return;
    self.phase = STOPPING;
    self.stop_at = at;
    tell();
}

static int64 lease_deadline(void) { return read_number("", "lease", ""); }

static void plan(void) {                           /* while running: the next moment at which to look again */
    int64 lease = lease_deadline(), at = self.limit_at;
    if (self.look_at && (!at || self.look_at < at)) at = self.look_at;
    if (self.warn_at && (!at || self.warn_at < at)) at = self.warn_at;
    if (self.seek_at && (!at || self.seek_at < at)) at = self.seek_at;
    if (self.rest_at && (!at || self.rest_at < at)) at = self.rest_at;
    if (lease >= 0 && (!at || lease < at)) at = lease ? lease : 1;
    set_deadline(at);
}

static void on_deadline(void) {
    int64 now = now_ms(CLOCK_BOOTTIME), lease = lease_deadline();
    if (!self.deadline || now < self.deadline) return;
    if (self.phase == STARTING && count_ooms() > 0) fail("its memory limit is too small for its set-up");
    else if (self.phase == STARTING && now < self.start_by) { set_deadline(now + LOOK_MS); return; }
    if (self.phase == STARTING) fail("its set-up took longer than %lld ms", orders.start_timeout_ms);
    if (self.phase == STOPPING && now < self.stop_at) { tell(); return; }
    if (self.phase != RUNNING) { kill_all(); return; }
    if (self.look_at && now >= self.look_at && look()) { kill_all(); return; }
    self.timed_out = self.limit_at && now >= self.limit_at;
    self.lease_expired = !self.timed_out && lease >= 0 && now >= lease;
    if (self.timed_out || self.lease_expired) begin_stop(orders.grace_ms);
    else {                                         /* the lease was renewed meanwhile, or it is time to warn */
        if (self.warn_at && now >= self.warn_at) warn(now);
        if (self.seek_at && now >= self.seek_at) seek(now);
        if (self.rest_at && now >= self.rest_at) end_rest(now);
        if (self.phase == RUNNING) plan();
    }
}

static void on_orders(void) {
    int64 grace_ms = read_number("", "stop", "");
    if (self.phase == RUNNING) plan();
    if (grace_ms >= 0) begin_stop(grace_ms);
}

static void on_started(void) {
    char text[128];
    if (self.ready >= 0) close(self.ready), self.ready = -1;
    if (self.phase != STARTING) return;
    self.phase = RUNNING;
    self.started_unix_ms = now_ms(CLOCK_REALTIME);
    self.look_at = now_ms(CLOCK_BOOTTIME) + LOOK_MS;
    if (orders.lxc) self.seek_at = now_ms(CLOCK_BOOTTIME), self.seek_slowly_at = self.seek_at + LOOK_MS;
    if (orders.time_limit_ms > 0) self.limit_at = now_ms(CLOCK_BOOTTIME) + orders.time_limit_ms;
    if (self.limit_at && orders.warn_signal) self.warn_at = self.limit_at > orders.warn_ms ? self.limit_at - orders.warn_ms : 1;
    snprintf(text, sizeof text, "started_unix_ms %lld\nchild %d\n", self.started_unix_ms, self.child);
    record(".running", "running", text);
    if (write(STATUS_FD, "started\n", 8) < 0) { /* the agent is gone: the record will tell the next one */ }
    close(STATUS_FD);
    on_orders();
}

static void on_signal(void) {
    struct signalfd_siginfo info;
    int status;
    while (read(self.signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) on_orders();
        if (info.ssi_signo == SIGQUIT) begin_stop(0);
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) begin_stop(orders.grace_ms);
    }
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == self.child) self.ended = 1, self.status = status;
}

static void execute(char **command, int out, int err, int report) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);              /* no supervisor, no container: its limits would be nobody's */
    setsid();
    umask(022);                                    /* the agent's own lets nobody but root read what a command writes */
    dup2(out, 1), dup2(err, 2);
    if (!orders.workdir[0] || chdir(orders.workdir) == 0) execvp(command[0], command);
    int number = errno;
    if (write(report, &number, sizeof number) < 0) _exit(126);
    _exit(127);
}

static void start(char **command) {
    int report[2], number = 0, out = open_stream(&self.out), err = open_stream(&self.err);
    if (self.error[0]) return;
    if (pipe2(report, O_CLOEXEC) < 0 || (self.child = fork()) < 0) { fail("no process: %s", strerror(errno)); return; }
    if (self.child == 0) execute(command, out, err, report[1]);
    close(out), close(err), close(report[1]);
    if (read(report[0], &number, sizeof number) > 0) fail("cannot run %s: %s", command[0], strerror(number));
    close(report[0]);
    self.start_by = now_ms(CLOCK_BOOTTIME) + orders.start_timeout_ms;
    set_deadline(now_ms(CLOCK_BOOTTIME) + LOOK_MS);
    if (!self.error[0] && !orders.lxc) on_started();
}

static void watch_oom(void) {                      /* v1 forgets its count with the cgroup; v2 keeps it in the parent's events */
    char path[2 * TEXT_MAX], text[64];
    snprintf(path, sizeof path, "%s/memory.oom_control", orders.memory);
    int control = orders.memory[0] ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (control < 0 || (self.oom = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) return;
    snprintf(text, sizeof text, "%d %d", self.oom, control);
    if (!write_text(orders.memory, "cgroup.event_control", text)) fail("cannot watch for memory exhaustion");
    close(control);
}

static void prepare(void) {
    char text[256], boot[64] = "";
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    signal(SIGPIPE, SIG_IGN);
    syscall(SYS_close_range, LOCK_FD + 1, ~0U, 0);  /* whatever the agent's libraries left open */
    fcntl(STATUS_FD, F_SETFD, FD_CLOEXEC), fcntl(LOCK_FD, F_SETFD, FD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    self.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    self.timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    read_text("", "/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    snprintf(text, sizeof text, "pid %d\nboot %s", getpid(), boot);
    record(".supervisor", "supervisor", text);
    read_orders();
    watch_oom();
    if (orders.lxc && (self.ready = open("ready", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0) fail("no ready pipe");
}

static void join(void) {                           /* while the command begins: the kernel may let it wait */
    if (orders.join[0] && !write_text(orders.join, "cgroup.procs", "0")) fail("cannot join %s", orders.join);
}

static void supervise(void) {
    int64 ignored;
    while (!self.ended) {
        struct pollfd fds[] = {{self.signals, POLLIN, 0}, {self.timer, POLLIN, 0}, {self.ready, POLLIN, 0},
                               {self.out.pipe, POLLIN, 0}, {self.err.pipe, POLLIN, 0}, {self.command, POLLIN, 0}};
        if (poll(fds, 6, -1) < 0 && errno != EINTR) kill_all();
        if (fds[2].revents) on_started();
        if (fds[3].revents) drain(&self.out, 4);
        if (fds[4].revents) drain(&self.err, 4);
        if (fds[5].revents) on_command_ended();
        if (fds[1].revents && read(self.timer, &ignored, sizeof ignored) > 0) on_deadline();
        if (fds[0].revents) on_signal();
    }
    struct pollfd ready = {self.ready, POLLIN, 0};  /* set up and ended between two looks */
    if (self.phase == STARTING && poll(&ready, 1, 0) > 0) on_started();
}

static void clear(void) {                          /* everything inside is dead when this returns */
    if (!orders.lxc) while (kill_descendants(), waitpid(-1, NULL, 0) > 0) {}
    for (int turn = 0; orders.cgroup_count && count_inside() && turn < BUSY_RETRIES; turn++) {
        signal_inside(SIGKILL);
        usleep(BUSY_WAIT_US);
    }
}

static void finish(void) {
    struct rusage usage;
    int64 peak = read_number(orders.memory, "memory.peak", ""), cpu_ns = read_number(orders.cpu, "cpuacct.usage", "");
    int64 ended_unix_ms = now_ms(CLOCK_REALTIME);
    if (peak < 0) peak = read_number(orders.memory, "memory.max_usage_in_bytes", "");
    if (cpu_ns < 0 && (cpu_ns = read_number(orders.cpu, "cpu.stat", "usage_usec ")) > 0) cpu_ns *= 1000;
    count_ooms();
    clear();
    drain(&self.out, 64), drain(&self.err, 64);    /* the pipes' whole content: they hold 64 KiB each */
    getrusage(RUSAGE_CHILDREN, &usage);
    if (peak < 0) peak = usage.ru_maxrss * 1024LL;
    if (cpu_ns < 0) cpu_ns = ((int64)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000LL
                           + ((int64)usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
    int exit_code = WIFEXITED(self.status) ? WEXITSTATUS(self.status) : 128 + WTERMSIG(self.status);
    if (self.phase == KILLING && orders.lxc && (exit_code == 1 || WIFSIGNALED(self.status)))
        exit_code = 128 + SIGKILL;  /* lxc-execute's word for it; SIGPIPE where it was still talking to what was killed */
    if (!self.error[0] && !self.started_unix_ms) fail("%s before its command ran", orders.lxc ? "lxc-execute ended" : "ended");
    if (!self.error[0] && orders.lxc && WIFSIGNALED(self.status) && self.phase != KILLING)
        fail("lxc-execute was killed by signal %d", WTERMSIG(self.status));
    snprintf(buffer, sizeof buffer, "exit_code %d\noom_killed %d\ntimed_out %d\nlease_expired %d\nmemory_peak_bytes %lld\ncpu_ns %lld\n"
             "started_unix_ms %lld\nended_unix_ms %lld\nerror %s\n", exit_code, self.ooms > 0, self.timed_out, self.lease_expired,
             peak, cpu_ns, self.started_unix_ms, ended_unix_ms, self.error);
    record(".exit", "exit", buffer);               /* the agent has reserved its place on the disk */
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "--join")) return !write_text(arguments[2], "cgroup.procs", "0");
    if (count < 3 || chdir(arguments[1]) < 0) return 2;
    prepare();
    if (!self.error[0]) start(arguments + 2), join();
    if (self.error[0] && self.child > 0) kill_all();
    if (self.child > 0) supervise();
    finish();
    return 0;
}
