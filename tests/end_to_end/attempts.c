/* Escape attempts that need system calls a shell does not have. `attempts NAME`: exit 0 and a word if the attempt got
   through, 1 and the error if it was refused, 2 for a name that is unknown. Linked statically, so that it runs in an
   image without a C library. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char zeros[256];

static long cloned(unsigned long flags)
{
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid;
}

static long traced(void)
{
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    long result = ptrace(PTRACE_ATTACH, child, 0, 0);
    int failure = errno;
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    errno = failure;
    return result;
}

static long read_of_another(void)
{
    char here[8];
    struct iovec mine = {here, 8}, other = {zeros, 8};
    return process_vm_readv(1, &mine, 1, &other, 1, 0);
}

static long set_user_id_gained(void)
{
    struct stat self;
    if (stat("/proc/self/exe", &self) != 0 || setresuid(1000, 1000, 1000) != 0)
        return -1;
    return setresuid(0, 0, 0);
}

static long typed_into_terminal(void)
{
    char letter = 'x';
    int terminal = open("/dev/console", O_RDWR);
    return terminal < 0 ? -1 : ioctl(terminal, TIOCSTI, &letter);
}

static long handle_opened(void)
{
    struct file_handle *handle = (struct file_handle *)zeros;
    handle->handle_bytes = 8;
    handle->handle_type = 1;
    handle->f_handle[0] = 2; /* the root directory of an ext file system, as "shocker" had it */
    return open_by_handle_at(open("/", O_RDONLY), handle, O_RDONLY);
}

static long attempt(const char *name)
{
#define ON(word) if (strcmp(name, word) == 0) return
    ON("keyctl") syscall(SYS_keyctl, 0, -3, 1);
    ON("add-key") syscall(SYS_add_key, "user", "x", "y", 1, -3);
    ON("request-key") syscall(SYS_request_key, "user", "x", 0, -3);
    ON("bpf") syscall(SYS_bpf, 0, zeros, 72);
    ON("perf-event") syscall(SYS_perf_event_open, zeros, 0, -1, -1, 0);
    ON("io-uring") syscall(SYS_io_uring_setup, 1, zeros);
    ON("userfaultfd") syscall(SYS_userfaultfd, 0);
    ON("kexec") syscall(SYS_kexec_load, 0, 0, 0, 0);
    ON("module") syscall(SYS_init_module, zeros, 1, "");
    ON("syslog") syscall(SYS_syslog, 3, zeros, 100);
    ON("reboot") syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0);
    ON("settime") syscall(SYS_clock_settime, 0, zeros);
    ON("sethostname-of-host") sethostname("owned", 5);
    ON("raw-socket") socket(AF_INET, SOCK_RAW, 1);
    ON("packet-socket") socket(AF_PACKET, SOCK_RAW, 0x0300);
    ON("cipher-socket") socket(AF_ALG, SOCK_SEQPACKET, 0);
    ON("hypervisor-socket") socket(AF_VSOCK, SOCK_STREAM, 0);
    ON("secret-memory") syscall(447, 0);
    ON("unshare-user") unshare(CLONE_NEWUSER);
    ON("unshare-net") unshare(CLONE_NEWNET);
    ON("unshare-mount") unshare(CLONE_NEWNS);
    ON("unshare-cgroup") unshare(CLONE_NEWCGROUP);
    ON("clone-user") cloned(CLONE_NEWUSER);
    ON("clone-mount") cloned(CLONE_NEWNS);
    ON("clone3-user") syscall(SYS_clone3, zeros, 64);
    ON("setns") setns(open("/proc/1/ns/mnt", O_RDONLY), 0);
    ON("ptrace") traced();
    ON("process-vm") read_of_another();
    ON("mount") mount("none", "/tmp", "tmpfs", 0, 0);
    ON("bind-mount") mount("/proc", "/tmp", 0, MS_BIND, 0);
    ON("umount") umount2("/proc", MNT_DETACH);
    ON("open-tree") syscall(428, -100, "/", 1);
    ON("fsopen") syscall(430, "proc", 0);
    ON("pivot-root") syscall(SYS_pivot_root, "/", "/");
    ON("open-by-handle") handle_opened();
    ON("mknod") mknod("/tmp/disk", S_IFBLK | 0600, 254 << 8);
    ON("new-privileges-back") prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
    ON("root-again") set_user_id_gained();
    ON("typed-into-terminal") typed_into_terminal();
    ON("swapon") syscall(SYS_swapon, "/tmp", 0);
    ON("quotactl") syscall(SYS_quotactl, 0, 0, 0, 0);
    ON("fanotify") syscall(SYS_fanotify_init, 0, 0);
    _exit(2);
}

int main(int count, char **words)
{
    errno = 0;
    if (count != 2)
        return 2;
    if (attempt(words[1]) >= 0) {
        printf("%s got through\n", words[1]);
        return 0;
    }
    printf("%s: %s\n", words[1], strerror(errno));
    return 1;
}
