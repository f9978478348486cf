/* Loaded into a process with LD_PRELOAD: counts what the process does to files below a folder, and
 * at a chosen operation kills the process or fills the disk.
 *
 * KILL: before operation number `at` the process dies by SIGKILL; a write is half done by then.
 * FULL: from operation `at` on everything that needs space fails with ENOSPC, as on a full disk;
 *       renaming and removing go on working.
 * Writes through stdio's own buffers inside libc cannot be seen from here; Python, Rust and C++
 * streams call write().
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, FULL };

static int mode = OFF;
static long at, operations;
static char root[PATH_MAX];

void fault_arm(int new_mode, long new_at, const char *folder) {
    mode = new_mode, at = new_at, operations = 0;
    snprintf(root, sizeof root, "%s", folder);
}

long fault_operations(void) { return operations; }

static int below(const char *path) {
    char whole[PATH_MAX];
    if (mode == OFF || path == NULL) return 0;
    if (path[0] != '/') {
        if (getcwd(whole, sizeof whole - 1) == NULL) return 0;
        strncat(whole, "/", sizeof whole - strlen(whole) - 1);
        strncat(whole, path, sizeof whole - strlen(whole) - 1);
        path = whole;
    }
    return strncmp(path, root, strlen(root)) == 0;
}

static int below_fd(int fd) {
    char link[64], path[PATH_MAX];
    struct stat facts;
    if (mode == OFF || fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* One operation: whether it is the one that the process must not survive. */
static int strikes(void) { return __atomic_add_fetch(&operations, 1, __ATOMIC_SEQ_CST) == at; }

static int full(void) {
    return __atomic_add_fetch(&operations, 1, __ATOMIC_SEQ_CST) >= at && mode == FULL;
}

#define ORIGINAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

#define WRITE(call, half, fd)                                   \
    if (below_fd(fd)) {                                         \
        if (mode == FULL) {                                     \
            if (full()) return errno = ENOSPC, -1;              \
        } else if (strikes() && mode == KILL) {                 \
            half;                                               \
            raise(SIGKILL);                                     \
        }                                                       \
    }                                                           \
    return call

ssize_t write(int fd, const void *bytes, size_t count) {
    WRITE(ORIGINAL(write)(fd, bytes, count), ORIGINAL(write)(fd, bytes, count / 2), fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t place) {
    WRITE(ORIGINAL(pwrite)(fd, bytes, count, place),
          ORIGINAL(pwrite)(fd, bytes, count / 2, place), fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t place) {
    WRITE(ORIGINAL(pwrite64)(fd, bytes, count, place),
          ORIGINAL(pwrite64)(fd, bytes, count / 2, place), fd);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    WRITE(ORIGINAL(writev)(fd, parts, count), ORIGINAL(writev)(fd, parts, count / 2), fd);
}

int ftruncate(int fd, off_t length) {
    WRITE(ORIGINAL(ftruncate)(fd, length), (void)0, fd);
}

int ftruncate64(int fd, off64_t length) {
    WRITE(ORIGINAL(ftruncate64)(fd, length), (void)0, fd);
}

int fsync(int fd) {
    WRITE(ORIGINAL(fsync)(fd), (void)0, fd);
}

#define NEEDS_SPACE(path)                              \
    if (below(path)) {                                 \
        if (mode == FULL) {                            \
            if (full()) return errno = ENOSPC, -1;     \
        } else if (strikes() && mode == KILL)          \
            raise(SIGKILL);                            \
    }

#define NEEDS_NONE(path) \
    if (below(path) && strikes() && mode == KILL) raise(SIGKILL)

#define OPEN(name, call)                                                   \
    mode_t bits = 0;                                                       \
    if (flags & (O_CREAT | O_TMPFILE)) {                                   \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        bits = va_arg(rest, mode_t);                                       \
        va_end(rest);                                                      \
        NEEDS_SPACE(path)                                                  \
    }                                                                      \
    return call

int open(const char *path, int flags, ...) {
    OPEN(open, ORIGINAL(open)(path, flags, bits));
}

int open64(const char *path, int flags, ...) {
    OPEN(open64, ORIGINAL(open64)(path, flags, bits));
}

int mkdir(const char *path, mode_t bits) {
    NEEDS_SPACE(path)
    return ORIGINAL(mkdir)(path, bits);
}

int link(const char *from, const char *path) {
    NEEDS_SPACE(path)
    return ORIGINAL(link)(from, path);
}

int symlink(const char *from, const char *path) {
    NEEDS_SPACE(path)
    return ORIGINAL(symlink)(from, path);
}

int rename(const char *from, const char *path) {
    NEEDS_NONE(path);
    return ORIGINAL(rename)(from, path);
}

int renameat2(int from_folder, const char *from, int folder, const char *path, unsigned flags) {
    NEEDS_NONE(path);
    return ORIGINAL(renameat2)(from_folder, from, folder, path, flags);
}

int unlink(const char *path) {
    NEEDS_NONE(path);
    return ORIGINAL(unlink)(path);
}

/* shutil.rmtree goes by open folders. */
int unlinkat(int folder, const char *path, int flags) {
    char link[64], whole[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = path[0] == '/' || folder == AT_FDCWD ? -1 : readlink(link, whole, sizeof whole);
    if (length >= 0) whole[length < PATH_MAX ? length : PATH_MAX - 1] = 0;
    NEEDS_NONE(length < 0 ? path : whole);
    return ORIGINAL(unlinkat)(folder, path, flags);
}

int rmdir(const char *path) {
    NEEDS_NONE(path);
    return ORIGINAL(rmdir)(path);
}

int chmod(const char *path, mode_t bits) {
    NEEDS_NONE(path);
    return ORIGINAL(chmod)(path, bits);
}
