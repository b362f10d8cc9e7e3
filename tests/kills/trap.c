/* Stops a process at the n-th system call that changes files below a folder: see trace.py.

   A seccomp filter turns each call that may change files into a signal, in whose handler the call is logged and made,
   made in part, refused, or the process ended instead. Unlike a preload, this sees the calls that libc makes inside of
   fwrite, through which numpy and faiss write. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#define REGISTER(context, name) ((context)->uc_mcontext.gregs[name])
#define NUMBER(context) REGISTER(context, REG_RAX)
#define RESULT(context) REGISTER(context, REG_RAX)
static const int ARGUMENTS[] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
#define ARGUMENT(context, i) REGISTER(context, ARGUMENTS[i])
__asm__(".text\n.globl hashret_call\nhashret_call:\n"
        "movq %rdi, %rax\nmovq %rsi, %rdi\nmovq %rdx, %rsi\nmovq %rcx, %rdx\nmovq %r8, %r10\nmovq %r9, %r8\n"
        "movq 8(%rsp), %r9\nsyscall\n.globl hashret_called\nhashret_called:\nret\n");
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#define NUMBER(context) ((context)->uc_mcontext.regs[8])
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#define ARGUMENT(context, i) ((context)->uc_mcontext.regs[i])
__asm__(".text\n.globl hashret_call\nhashret_call:\n"
        "mov x8, x0\nmov x0, x1\nmov x1, x2\nmov x2, x3\nmov x3, x4\nmov x4, x5\nmov x5, x6\nsvc #0\n"
        ".globl hashret_called\nhashret_called:\nret\n");
#else
#error "no system calls known for this machine"
#endif

long hashret_call(long number, long a, long b, long c, long d, long e, long f); /* the one way past the filter */
extern char hashret_called[];

enum { COUNT, KILL, TEAR, FULL, FAIL };
enum { OPEN, MAKE, WRITE, CUT, RENAME, REMOVE, FLUSH, OTHER };

typedef struct { int number, kind, fd, path, other; const char *name; } Call; /* places of its arguments, -1: none */
static const Call CALLS[] = {
    {SYS_openat, OPEN, 0, 1, -1, "open"},
    {SYS_mkdirat, MAKE, 0, 1, -1, "mkdir"},
    {SYS_symlinkat, MAKE, 1, 2, -1, "symlink"},
    {SYS_linkat, MAKE, 2, 3, -1, "link"},
    {SYS_write, WRITE, 0, -1, -1, "write"},
    {SYS_pwrite64, WRITE, 0, -1, -1, "write"},
    {SYS_writev, WRITE, 0, -1, -1, "write"},
    {SYS_pwritev, WRITE, 0, -1, -1, "write"},
    {SYS_sendfile, WRITE, 0, -1, -1, "write"},
    {SYS_copy_file_range, WRITE, 2, -1, -1, "write"},
    {SYS_fallocate, CUT, 0, -1, -1, "truncate"},
    {SYS_ftruncate, CUT, 0, -1, -1, "truncate"},
    {SYS_renameat2, RENAME, 0, 1, 2, "rename"},
    {SYS_unlinkat, REMOVE, 0, 1, -1, "unlink"},
    {SYS_fsync, FLUSH, 0, -1, -1, "fsync"},
    {SYS_fdatasync, FLUSH, 0, -1, -1, "fsync"},
    {SYS_sync, FLUSH, -1, -1, -1, "sync"},
    {SYS_fchmod, OTHER, 0, -1, -1, "chmod"},
    {SYS_fchmodat, OTHER, 0, 1, -1, "chmod"},
    {SYS_utimensat, OTHER, 0, 1, -1, "utime"},
    {SYS_fsetxattr, OTHER, 0, -1, -1, "setxattr"},
#ifdef SYS_open
    {SYS_open, OPEN, -1, 0, -1, "open"},
    {SYS_mkdir, MAKE, -1, 0, -1, "mkdir"},
    {SYS_symlink, MAKE, -1, 1, -1, "symlink"},
    {SYS_link, MAKE, -1, 1, -1, "link"},
    {SYS_rmdir, REMOVE, -1, 0, -1, "unlink"},
    {SYS_unlink, REMOVE, -1, 0, -1, "unlink"},
    {SYS_rename, RENAME, -1, 0, 1, "rename"},
    {SYS_chmod, OTHER, -1, 0, -1, "chmod"},
#endif
#ifdef SYS_renameat
    {SYS_renameat, RENAME, 0, 1, 2, "rename"},
#endif
};
enum { HOW_MANY = sizeof CALLS / sizeof *CALLS };

static char below[PATH_MAX];
static int mode, at, apart, logged = -1, seen;

static void link_of(int fd, char *out) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, out, PATH_MAX - 1);
    out[length < 0 ? 0 : length] = 0;
}

/* The path that a call names, its folder's symbolic links resolved. */
static void path_of(int folder, const char *path, char *out) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    size_t length = strlen(parent);
    while (length > 1 && parent[length - 1] == '/') parent[--length] = 0;
    char *slash = strrchr(parent, '/');
    const char *name = path + (slash ? slash + 1 - parent : 0);
    if (slash) slash[slash == parent] = 0;
    int fd = hashret_call(SYS_openat, folder, (long)(slash ? parent : "."), O_PATH | O_DIRECTORY, 0, 0, 0);
    if (fd < 0) {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    link_of(fd, out);
    hashret_call(SYS_close, fd, 0, 0, 0, 0, 0);
    length = strlen(out);
    snprintf(out + length, PATH_MAX - length, "/%.*s", (int)strcspn(name, "/"), name);
}

static int is_below(const char *path) {
    size_t length = strlen(below);
    return !strncmp(path, below, length) && (path[length] == '/' || !path[length]);
}

static int is_special(const char *path) { return path[0] != '/' || !strncmp(path, "/dev/", 5) || !strncmp(path, "/proc/", 6); }

static void say(int number, const char *name, long result, const char *path, const char *other) {
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%d\t%s\t%ld\t%s\t%s\n", number, name, result, path, other);
    hashret_call(SYS_write, logged, (long)line, length, 0, 0, 0);
}

/* The folder below which a path lies, of those directly below the watched one. */
static size_t disk(const char *path) { return strlen(below) + 1 + strcspn(path + strlen(below) + 1, "/"); }

static void die(void) {
    hashret_call(SYS_kill, getpid(), SIGKILL, 0, 0, 0, 0);
    for (;;) pause();
}

/* What the call gives instead of what the system would; 1 where it is to be made. */
static long instead(const Call *call, int number, long nr, long *a, const char *path, const char *other) {
    if (apart && call->kind == RENAME && strncmp(path, other, disk(path) + 1)) return -EXDEV;
    if (mode == FULL && number >= at && (call->kind <= WRITE)) {
        if (call->kind == WRITE || call->kind == MAKE || access(path, F_OK)) return -ENOSPC;
    }
    if (number != at) return 1;
    if (mode == FAIL) return -EIO;
    if (mode == TEAR && call->kind == WRITE) {
        if (nr == SYS_writev || nr == SYS_pwritev) {
            struct iovec *parts = (struct iovec *)a[1];
            hashret_call(SYS_write, a[0], (long)parts->iov_base, parts->iov_len / 2, 0, 0, 0);
        } else {
            int size = nr == SYS_sendfile ? 3 : nr == SYS_copy_file_range ? 4 : 2;
            struct stat from;
            if (size > 2 && !fstat(a[size == 3], &from) && a[size] > from.st_size) a[size] = from.st_size;
            a[size] /= 2;
            hashret_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
        }
    }
    if (mode == KILL || mode == TEAR) die();
    return 1;
}

static void on_call(int signal, siginfo_t *info, void *where) {
    ucontext_t *context = where;
    int saved = errno;
    long nr = info->si_syscall, a[6], result;
    for (int i = 0; i < 6; i++) a[i] = ARGUMENT(context, i);
    const Call *call = CALLS;
    while (call->number != nr) call++;
    char path[PATH_MAX] = "", other[PATH_MAX] = "";
    int folder = call->fd < 0 ? AT_FDCWD : (int)a[call->fd];
    if (nr == SYS_sync) snprintf(path, sizeof path, "%s", below);
    else if (call->path < 0) link_of(folder, path);
    else if (a[call->path]) path_of(folder, (const char *)a[call->path], path);
    if (call->kind == RENAME) {
        int second = call->fd < 0 ? AT_FDCWD : (int)a[2];
        path_of(second, (const char *)a[call->fd < 0 ? 1 : 3], other);
    }
    long flags = call->kind == OPEN ? a[call->path + 1] : O_CREAT;
    int changes = flags & (O_CREAT | O_TRUNC);
    int counted = changes && (is_below(path) || (call->kind == RENAME && is_below(other)));
    int number = counted ? __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) : 0;
    const char *name = call->kind == OPEN && flags & O_TRUNC ? "create" : call->name;
    if (nr == SYS_renameat2 && a[4] & RENAME_EXCHANGE) name = "exchange";
    if (counted) say(number, name, 0, path, other); /* before: a kill leaves the line of its call */
    result = counted ? instead(call, number, nr, a, path, other) : 1;
    if (result == 1) result = hashret_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (counted && result < 0) say(number, "failed", result, path, other);
    if (!counted && changes && call->kind != FLUSH && result >= 0 && !is_special(path) && (call->path >= 0 || folder > 2))
        say(0, name, 0, path, other);
    RESULT(context) = result;
    errno = saved;
}

/* From here on, watch: 0, or the error of the system.

   folder: whose calls are counted. how, n: what to do at the n-th; FULL also at all after it. disks: the folders directly
   below are disks of their own, between which nothing is renamed. log: where to write. */
int hashret_watch(const char *folder, int how, int n, int disks, int log) {
    snprintf(below, sizeof below, "%s", folder);
    mode = how, at = n, apart = disks, logged = log, seen = 0;
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL)) return errno;
    unsigned long past = (unsigned long)hashret_called;
    struct sock_filter filter[HOW_MANY + 9] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 0, HOW_MANY + 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)past, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)(past >> 32), HOW_MANY + 1, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    for (int i = 0; i < HOW_MANY; i++)
        filter[7 + i] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, HOW_MANY - i, 0);
    filter[7 + HOW_MANY] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[8 + HOW_MANY] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {HOW_MANY + 9, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) ? errno : 0;
}
