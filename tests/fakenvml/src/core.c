/* The state file, handles, and the way into and out of every call.
 *
 *   FAKENVML_STATE   path of the state file (none: driver not loaded)
 *   FAKENVML_LOG     append "pid tid function device result" per call
 */
#include "core.h"
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const struct {
    int code;
    const char *name, *text;
} ERRS[] = {{0, "SUCCESS", "Success"},
            {1, "UNINITIALIZED", "Uninitialized"},
            {2, "INVALID_ARGUMENT", "Invalid Argument"},
            {3, "NOT_SUPPORTED", "Not Supported"},
            {4, "NO_PERMISSION", "Insufficient Permissions"},
            {5, "ALREADY_INITIALIZED", "Already Initialized"},
            {6, "NOT_FOUND", "Not Found"},
            {7, "INSUFFICIENT_SIZE", "Insufficient Size"},
            {8, "INSUFFICIENT_POWER", "Insufficient External Power"},
            {9, "DRIVER_NOT_LOADED", "Driver Not Loaded"},
            {10, "TIMEOUT", "Timeout"},
            {11, "IRQ_ISSUE", "Interrupt Request Issue"},
            {12, "LIBRARY_NOT_FOUND", "NVML Shared Library Not Found"},
            {13, "FUNCTION_NOT_FOUND", "Function Not Found"},
            {14, "CORRUPTED_INFOROM", "Corrupted infoROM"},
            {15, "GPU_IS_LOST", "GPU is lost"},
            {16, "RESET_REQUIRED", "GPU requires reset"},
            {17, "OPERATING_SYSTEM", "The operating system has blocked the request."},
            {18, "LIB_RM_VERSION_MISMATCH", "Driver/library version mismatch"},
            {19, "IN_USE", "In use by another client"},
            {20, "MEMORY", "Insufficient Memory"},
            {21, "NO_DATA", "No data"},
            {22, "VGPU_ECC_NOT_SUPPORTED", "vGPU ECC not supported"},
            {23, "INSUFFICIENT_RESOURCES", "Insufficient Resources"},
            {24, "FREQ_NOT_SUPPORTED", "Frequency not supported"},
            {25, "ARGUMENT_VERSION_MISMATCH", "Argument version mismatch"},
            {26, "DEPRECATED", "Deprecated"},
            {27, "NOT_READY", "Not Ready"},
            {28, "GPU_NOT_FOUND", "GPU not found"},
            {29, "INVALID_STATE", "Invalid state"},
            {30, "RESET_TYPE_NOT_SUPPORTED", "Reset type not supported"},
            {999, "UNKNOWN", "Unknown Error"}};

#define MAGIC 0xF4CE0DE7u

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
int initcount;
static jdoc *doc;
static struct stat last_st;
static struct fdev *handles;
jv *devs[MAXDEV];
int ndev;

const jv *root(void) {
    return doc ? doc->root : NULL;
}

int errcode(const jv *v) {
    if (!v) return 0;
    if (v->t == J_NUM) return (int)v->i;
    if (v->t == J_STR) {
        const char *s = v->s;
        if (!strncmp(s, "NVML_ERROR_", 11)) s += 11;
        for (size_t i = 0; i < sizeof ERRS / sizeof *ERRS; i++)
            if (!strcasecmp(s, ERRS[i].name)) return ERRS[i].code;
        return E_UNKNOWN;
    }
    return 0;
}

const char *bus_of(const jv *d) {
    return j_str(d, "bus", "00000000:00:00.0");
}

int parse_bus(const char *s, uint *dom, uint *bus, uint *dev) {
    uint f = 0;
    *dom = 0;
    if (sscanf(s, "%x:%x:%x.%x", dom, bus, dev, &f) >= 3) return 1;
    *dom = 0;
    return sscanf(s, "%x:%x.%x", bus, dev, &f) >= 2;
}

static int buscmp(const void *a, const void *b) {
    uint x[3], y[3];
    if (!parse_bus(bus_of(*(jv *const *)a), x, x + 1, x + 2) ||
        !parse_bus(bus_of(*(jv *const *)b), y, y + 1, y + 2))
        return 0;
    for (int i = 0; i < 3; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

static void load_state(void) { /* holding mu */
    const char *path = getenv("FAKENVML_STATE");
    struct stat st;
    if (!path || stat(path, &st)) {
        if (doc) j_free(doc);
        doc = NULL;
        ndev = 0;
        memset(&last_st, 0, sizeof last_st);
        return;
    }
    if (doc && st.st_ino == last_st.st_ino && st.st_size == last_st.st_size &&
        st.st_mtim.tv_sec == last_st.st_mtim.tv_sec && st.st_mtim.tv_nsec == last_st.st_mtim.tv_nsec)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    char *buf = malloc((size_t)st.st_size + 1);
    ssize_t n = buf ? read(fd, buf, (size_t)st.st_size) : -1;
    close(fd);
    char err[128] = "";
    jdoc *nd = n >= 0 ? j_parse(buf, (size_t)n, err, sizeof err) : NULL;
    free(buf);
    if (!nd) {
        fprintf(stderr, "fakenvml: %s: %s (keeping the previous state)\n", path, err);
        return;
    }
    if (doc) j_free(doc);
    doc = nd;
    last_st = st;
    ndev = 0;
    jv *a = j_get(doc->root, "devices");
    for (jv *d = a ? a->child : NULL; d && ndev < MAXDEV; d = d->next)
        if (!j_bool(d, "removed", 0)) devs[ndev++] = d;
    qsort(devs, (size_t)ndev, sizeof *devs, buscmp); /* NVML lists in PCI order */
}

struct fdev *handle_for(const char *uuid, const char *parent, int mig) {
    for (struct fdev *h = handles; h; h = h->next)
        if (!strcmp(h->uuid, uuid)) return h;
    struct fdev *h = calloc(1, sizeof *h);
    h->magic = MAGIC;
    h->mig = mig;
    h->next = handles;
    handles = h;
    snprintf(h->uuid, sizeof h->uuid, "%s", uuid);
    snprintf(h->parent, sizeof h->parent, "%s", parent ? parent : "");
    return h;
}

int known(const struct fdev *h) {
    for (struct fdev *x = handles; x; x = x->next)
        if (x == h) return 1;
    return 0;
}

jv *dev_by_uuid(const char *u) {
    for (int i = 0; i < ndev; i++)
        if (!strcmp(j_str(devs[i], "uuid", ""), u)) return devs[i];
    return NULL;
}

int mig_on(const jv *d) {
    return (int)j_int(j_get(d, "mig"), "mode", 0);
}

jv *mig_instances(const jv *d) {
    return mig_on(d) ? j_get(j_get(d, "mig"), "instances") : NULL;
}

jv *mig_by_uuid(const char *u, jv **parent) {
    for (int i = 0; i < ndev; i++) {
        jv *a = mig_instances(devs[i]);
        for (jv *m = a ? a->child : NULL; m; m = m->next)
            if (!strcmp(j_str(m, "uuid", ""), u)) {
                if (parent) *parent = devs[i];
                return m;
            }
    }
    return NULL;
}

static void logcall(const char *fn, const char *uuid, int rc) {
    const char *p = getenv("FAKENVML_LOG");
    if (!p) return;
    int fd = open(p, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return;
    char b[256];
    int n = snprintf(b, sizeof b, "%d %ld %s %s %d\n", getpid(), (long)syscall(SYS_gettid), fn,
                     uuid && *uuid ? uuid : "-", rc);
    if (write(fd, b, (size_t)n) < 0) {
    }
    close(fd);
}

jv *rule(const jv *o, const char *fn) {
    if (!o || o->t != J_OBJ) return NULL;
    jv *v = j_get(o, fn);
    if (v) return v;
    for (v = o->child; v; v = v->next)
        if (strpbrk(v->key, "*?[") && !fnmatch(v->key, fn, 0)) return v;
    return NULL;
}

void nap(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) && errno == EINTR) {
    }
}

void release(call_t *c) {
    c->locked = 0;
    pthread_mutex_unlock(&mu);
}

void leave(call_t *c) {
    if (c->locked) {
        logcall(c->fn, c->uuid, c->rc);
        release(c);
    }
}

static long hang_of(const jv *owner, const char *fn) {
    jv *v = rule(j_get(owner, "hang_ms"), fn);
    return v && v->i > 0 ? (long)v->i : 0;
}

void stall(const char *fn, const char *uuid) { /* holding mu; uuid NULL: what is said of all devices */
    char u[96];
    snprintf(u, sizeof u, "%s", uuid ? uuid : "");
    for (long slept = 0;;) {
        jv *device = NULL;
        const jv *owner = !uuid ? root() : mig_by_uuid(u, &device) ? device : dev_by_uuid(u);
        long left = hang_of(owner, fn) - slept, step = left < 20 ? left : 20;
        if (left <= 0) return;
        pthread_mutex_unlock(&mu);
        nap(step);
        pthread_mutex_lock(&mu);
        load_state();
        slept += step;
    }
}

int enter(call_t *c, const char *fn, nvmlDevice_t h, int need_init) {
    memset(c, 0, sizeof *c);
    c->fn = fn;
    c->idx = -1;
    pthread_mutex_lock(&mu);
    c->locked = 1;
    load_state();
    stall(fn, NULL);
    if (need_init && initcount <= 0) return c->rc = E_UNINIT;
    int e = errcode(rule(j_get(root(), "errors"), fn));
    if (e) return c->rc = e;
    if (!h) return 0;
    if (!known(h) || h->magic != MAGIC) return c->rc = E_ARG;
    c->uuid = h->uuid;
    if (h->mig) {
        c->m = mig_by_uuid(h->uuid, &c->d);
        if (!c->m && !dev_by_uuid(h->parent)) return c->rc = E_LOST;
        if (!c->m) return c->rc = errcode(j_get(root(), "stale_mig_error")) ?: E_ARG;
    } else if (!(c->d = dev_by_uuid(h->uuid)))
        return c->rc = E_LOST; /* hot-removed under an old handle */
    for (int i = 0; i < ndev; i++)
        if (devs[i] == c->d) c->idx = i;
    c->p = preset_of(c->d);
    if (hang_of(c->d, fn)) {
        stall(fn, h->uuid);
        c->m = h->mig ? mig_by_uuid(h->uuid, &c->d) : NULL;
        if (!h->mig) c->d = dev_by_uuid(h->uuid);
        if (!c->d || (h->mig && !c->m)) return c->rc = E_LOST;
        c->p = preset_of(c->d);
    }
    if (j_bool(c->d, "lost", 0)) return c->rc = E_LOST;
    if (c->m && (e = errcode(rule(j_get(c->m, "errors"), fn)))) return c->rc = e;
    if ((e = errcode(rule(j_get(c->d, "errors"), fn)))) return c->rc = e;
    return 0;
}

int put(char *dst, uint len, const char *s) {
    if (!dst) return E_ARG;
    if (strlen(s) + 1 > len) return E_SIZE;
    strcpy(dst, s);
    return OK;
}

int fieldll(const jv *o, const char *k, long long dflt, long long *out) {
    jv *v = j_get(o, k);
    if (v && v->t == J_NULL) return E_NOSUP;
    *out = j_int(o, k, dflt);
    return *out == -1 ? E_NOSUP : OK;
}

EXPORT const char *nvmlErrorString(nvmlReturn_t r) {
    for (size_t i = 0; i < sizeof ERRS / sizeof *ERRS; i++)
        if (ERRS[i].code == r) return ERRS[i].text;
    return "Unknown Error";
}

ull now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (ull)t.tv_sec * 1000000 + (ull)t.tv_nsec / 1000;
}
