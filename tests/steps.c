/* Every step that a process makes on its disk is counted, and at one of them it ends, or the disk does: LD_PRELOAD it.
 *
 * A step is a call that changes a regular file below STEPS_ROOT: a write, a sync, a cut, a rename, a removal. The
 * count lies in the shared file STEPS_COUNT, so that it is known after a kill as well. In the step STEPS_AT,
 * STEPS_HOW says what happens: "before" and "after" kill the process there, "half" writes half of the octets and
 * then kills it, "full" lets this and all later writes fail with ENOSPC, "io" lets this step fail with EIO.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum what { OFF, BEFORE, AFTER, HALF, FULL, IO };
static char root[PATH_MAX];
static size_t root_length;
static long at;
static enum what how = OFF;
static volatile long *count;
static long no_count;

/* Once more in a child of a process that is ready: see tests/steps.py. */
void steps_arm(const char *below, const char *counter, long step, const char *kind) {
    int fd = open(counter, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    count = &no_count;
    if (fd >= 0 && posix_fallocate(fd, 0, sizeof(long)) == 0) {
        void *found = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (found != MAP_FAILED) count = found;
    }
    if (fd >= 0) close(fd);
    if (realpath(below, root) == NULL) return;
    root_length = strlen(root);
    at = step;
    how = !strcmp(kind, "before") ? BEFORE : !strcmp(kind, "after") ? AFTER : !strcmp(kind, "half") ? HALF
        : !strcmp(kind, "full") ? FULL : !strcmp(kind, "io") ? IO : OFF;
}

__attribute__((constructor)) static void begin(void) {
    const char *below = getenv("STEPS_ROOT"), *counter = getenv("STEPS_COUNT");
    const char *step = getenv("STEPS_AT"), *kind = getenv("STEPS_HOW");
    if (below && counter) steps_arm(below, counter, step ? atol(step) : 0, kind ? kind : "");
}

static int below_root(const char *path) {
    return !strncmp(path, root, root_length) && path[root_length] == '/';
}

static int counts(int fd) {
    char link[32], path[PATH_MAX];
    struct stat facts;
    if (!root_length || fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below_root(path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* 1: the call is to fail with errno; 2: it is to be done by half, and then die(); 3: to be done whole, and then die() */
static int step(int writes) {
    long number = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (how == FULL && at && number >= at && writes) return errno = ENOSPC, 1;
    if (number != at) return 0;
    if (how == BEFORE || (how == HALF && !writes)) die();
    if (how == IO) return errno = EIO, 1;
    return how == HALF ? 2 : how == AFTER ? 3 : 0;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define PLAIN(type, name, parameters, arguments, is_ours, writes) \
    type name parameters { \
        REAL(name); \
        int fate = is_ours ? step(writes) : 0; \
        if (fate == 1) return -1; \
        type result = real arguments; \
        if (fate) die(); \
        return result; \
    }

/* A write of `size` octets: half of them, if that is its fate. */
#define SIZED(name, parameters, arguments) \
    ssize_t name parameters { \
        REAL(name); \
        int fate = counts(fd) ? step(1) : 0; \
        if (fate == 1) return -1; \
        if (fate == 2) size /= 2; \
        ssize_t result = real arguments; \
        if (fate) die(); \
        return result; \
    }

/* The same for many pieces. */
#define PIECES(name, parameters, arguments) \
    ssize_t name parameters { \
        REAL(name); \
        int fate = counts(fd) ? step(1) : 0; \
        struct iovec half; \
        if (fate == 1) return -1; \
        if (fate == 2 && pieces > 0) { \
            half = list[0]; \
            half.iov_len /= 2; \
            list = &half; \
            pieces = 1; \
        } \
        ssize_t result = real arguments; \
        if (fate) die(); \
        return result; \
    }

SIZED(write, (int fd, const void *data, size_t size), (fd, data, size))
SIZED(pwrite, (int fd, const void *data, size_t size, off_t place), (fd, data, size, place))
SIZED(pwrite64, (int fd, const void *data, size_t size, off64_t place), (fd, data, size, place))
PIECES(writev, (int fd, const struct iovec *list, int pieces), (fd, list, pieces))
PIECES(pwritev, (int fd, const struct iovec *list, int pieces, off_t place), (fd, list, pieces, place))
PIECES(pwritev64, (int fd, const struct iovec *list, int pieces, off64_t place), (fd, list, pieces, place))
PIECES(pwritev2, (int fd, const struct iovec *list, int pieces, off_t place, int flags), (fd, list, pieces, place, flags))
PIECES(pwritev64v2, (int fd, const struct iovec *list, int pieces, off64_t place, int flags), (fd, list, pieces, place, flags))
PLAIN(int, fsync, (int fd), (fd), counts(fd), 0)
PLAIN(int, fdatasync, (int fd), (fd), counts(fd), 0)
PLAIN(int, ftruncate, (int fd, off_t size), (fd, size), counts(fd), 0)
PLAIN(int, ftruncate64, (int fd, off64_t size), (fd, size), counts(fd), 0)
PLAIN(int, fallocate, (int fd, int mode, off_t place, off_t size), (fd, mode, place, size), counts(fd), 1)
PLAIN(int, posix_fallocate64, (int fd, off64_t place, off64_t size), (fd, place, size), counts(fd), 1)
PLAIN(int, unlink, (const char *path), (path), below_root(path), 0)
PLAIN(int, rmdir, (const char *path), (path), below_root(path), 0)
PLAIN(int, link, (const char *old, const char *new), (old, new), below_root(new), 0)
PLAIN(int, rename, (const char *old, const char *new), (old, new), below_root(new), 0)
