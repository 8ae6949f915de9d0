/* Memory, processes, per-cgroup limits, utilization. */
#include "core.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* --- processes and memory --- */
int alive(const jv *p) {
    if (!j_bool(p, "reap", j_bool(root(), "reap", 0))) return 1;
    return !(kill((pid_t)j_int(p, "pid", 0), 0) && errno == ESRCH);
}

int proc_in(const call_t *c, const jv *p, const char *type) {
    const char *t = j_str(p, "type", "C");
    if (type && !strchr(t, *type)) return 0;
    if (!alive(p)) return 0;
    if (c->m) return j_int(p, "gi", -1) == j_int(c->m, "gi", -2) && j_int(p, "ci", 0) == j_int(c->m, "ci", 0);
    return 1;
}

static ull proc_sum(const call_t *c) {
    ull s = 0;
    jv *a = j_get(c->d, "processes");
    for (jv *p = a ? a->child : NULL; p; p = p->next)
        if (proc_in(c, p, NULL)) {
            jv *m = j_get(p, "mem");
            if (m && m->t == J_NUM)
                s += (ull)m->i;
            else
                s += (ull)j_int(p, "real_mem", 0);
        }
    return s;
}

static int memcalc(const call_t *c, mem2_t *o) {
    const jv *x = c->m ? c->m : c->d;
    long long t;
    if (fieldll(x, "memory_total", c->m ? 0 : (long long)(c->p->mib * MIB), &t)) return E_NOSUP;
    o->total = (ull)t;
    o->reserved =
        (ull)j_int(x, "memory_reserved", c->m ? 16 * (long long)MIB : (long long)(c->p->reserved * MIB));
    if (c->m || !mig_on(c->d))
        o->used = (ull)j_int(x, "memory_used", 0) + proc_sum(c);
    else { /* parent of MIG devices: the aggregate */
        o->used = (ull)j_int(c->d, "memory_used", 0);
        jv *a = mig_instances(c->d);
        for (jv *m = a ? a->child : NULL; m; m = m->next) {
            call_t k = *c;
            mem2_t q;
            k.m = m;
            memcalc(&k, &q);
            o->used += q.used;
        }
    }
    ull cap = o->total > o->reserved ? o->total - o->reserved : 0;
    if (o->used > cap) o->used = cap;
    o->free = cap - o->used;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t h, mem2_t *o) {
    DEV(h);
    NEED(o);
    if (o->version != 0x02000028) RET(E_VER);
    RET(memcalc(&c, o));
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t h, mem1_t *o) { /* v1 folds "reserved" into "used" */
    DEV(h);
    NEED(o);
    mem2_t m;
    int e = memcalc(&c, &m);
    if (e) RET(e);
    o->total = m.total;
    o->free = m.free;
    o->used = m.used + m.reserved;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t h, mem1_t *o) {
    DEV(h);
    NEED(o);
    o->total = (ull)c.p->mib * MIB;
    o->used = 2 * MIB;
    o->free = o->total - o->used;
    RET(OK);
}

static int proclist(call_t *c, const char *type, uint *n, void *out, int ver) {
    if (!n) return E_ARG;
    if (!strcmp(type, "M") && !j_bool(c->d, "mps", 0)) {
        *n = 0;
        return OK;
    }
    uint cap = *n, k = 0;
    jv *a = j_get(c->d, "processes");
    for (jv *p = a ? a->child : NULL; p; p = p->next)
        if (proc_in(c, p, type)) k++;
    *n = k;
    if (k == 0) return OK;
    if (!out || cap < k) return E_SIZE;
    k = 0;
    for (jv *p = a->child; p; p = p->next)
        if (proc_in(c, p, type)) {
            jv *m = j_get(p, "mem");
            ull used = m && m->t == J_NUM ? (ull)m->i
                                          : NA64; /* null: not available (WSL, WDDM, other user namespace) */
            uint gi = (uint)j_int(p, "gi", ANYID), ci = (uint)j_int(p, "ci", j_get(p, "gi") ? 0 : ANYID),
                 pid = (uint)j_int(p, "pid", 0);
            if (ver == 1) {
                ((proc1_t *)out)[k].pid = pid;
                ((proc1_t *)out)[k].used = used;
            } else if (ver == 4) {
                procd_t *q = (procd_t *)out + k;
                q->pid = pid;
                q->used = used;
                q->gi = gi;
                q->ci = ci;
                q->cc = (ull)j_int(p, "cc_mem", 0);
            } else {
                proc2_t *q = (proc2_t *)out + k;
                q->pid = pid;
                q->used = used;
                q->gi = gi;
                q->ci = ci;
            }
            k++;
        }
    return OK;
}

#define PROCS(base, ty)                                                                                      \
    EXPORT nvmlReturn_t base(nvmlDevice_t h, uint *n, void *o) {                                             \
        DEV(h);                                                                                              \
        RET(proclist(&c, ty, n, o, 1));                                                                      \
    }                                                                                                        \
    EXPORT nvmlReturn_t base##_v2(nvmlDevice_t h, uint *n, void *o) {                                        \
        DEV(h);                                                                                              \
        RET(proclist(&c, ty, n, o, 2));                                                                      \
    }                                                                                                        \
    EXPORT nvmlReturn_t base##_v3(nvmlDevice_t h, uint *n, void *o) {                                        \
        DEV(h);                                                                                              \
        RET(proclist(&c, ty, n, o, 3));                                                                      \
    }
PROCS(nvmlDeviceGetComputeRunningProcesses, "C")
PROCS(nvmlDeviceGetGraphicsRunningProcesses, "G")
PROCS(nvmlDeviceGetMPSComputeRunningProcesses, "M")

EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t h, proclist_t *l) {
    DEV(h);
    NEED(l);
    if (l->version != 0x1000018) RET(E_VER);
    if (l->mode > 2) RET(E_ARG);
    RET(proclist(&c, l->mode == 0 ? "C" : l->mode == 1 ? "G" : "M", &l->n, l->arr, 4));
}

/* ---- per-cgroup memory limits (driver 615+): only with "memory_limits": true, else the symbol "is missing".
 * Kept in <state file>.limits, one "uuid soft hard cgroup-path" line per call, the last one wins;
 * used = sum over the device's processes whose "cgroup" member is (under) that path. ---- */
static void limpath(char *b, size_t n) {
    const char *p = getenv("FAKENVML_STATE");
    snprintf(b, n, "%s.limits", p ? p : "");
}

static void limget(const char *uuid, const char *ns, ull *soft, ull *hard) {
    char f[4096], u[96], path[2048];
    ull a, b;
    *soft = 0;
    *hard = NA64;
    limpath(f, sizeof f);
    FILE *fp = fopen(f, "re");
    if (!fp) return;
    while (fscanf(fp, "%95s %llu %llu %2047[^\n]", u, &a, &b, path) == 4)
        if (!strcmp(u, uuid) && !strcmp(path, ns)) {
            *soft = a;
            *hard = b;
        }
    fclose(fp);
}

EXPORT nvmlReturn_t nvmlDeviceSetMemoryLimits_v1(nvmlDevice_t h, const setlim_t *l) {
    DEV(h);
    if (!j_bool(root(), "memory_limits", 0)) RET(E_NOFUNC);
    if (c.m) RET(E_NOSUP);
    NEED(l);
    NEED(l->ns);
    if (geteuid() && !j_bool(root(), "memory_limits_any_user", 0)) RET(E_PERM);
    if (l->soft > l->hard || access(l->ns, F_OK)) RET(E_ARG);
    char f[4096];
    limpath(f, sizeof f);
    FILE *fp = fopen(f, "ae");
    if (!fp) RET(E_OS);
    fprintf(fp, "%s %llu %llu %s\n", h->uuid, l->soft, l->hard, l->ns);
    fclose(fp);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryLimits_v1(nvmlDevice_t h, getlim_t *l) {
    DEV(h);
    if (!j_bool(root(), "memory_limits", 0)) RET(E_NOFUNC);
    if (c.m) RET(E_NOSUP);
    NEED(l);
    NEED(l->ns);
    limget(h->uuid, l->ns, &l->soft, &l->hard);
    l->used = 0;
    size_t k = strlen(l->ns);
    jv *a = j_get(c.d, "processes");
    for (jv *p = a ? a->child : NULL; p; p = p->next) {
        const char *g = j_str(p, "cgroup", "");
        if (alive(p) && !strncmp(g, l->ns, k) && (!g[k] || g[k] == '/')) l->used += (ull)j_int(p, "mem", 0);
    }
    RET(OK);
}

/* --- utilization --- */
EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t h, util_t *o) {
    DEV(h);
    NEED(o);
    if (c.m || mig_on(c.d)) RET(E_NOSUP);
    long long g, m = 0;
    int e = fieldll(c.d, "util_gpu", 0, &g);
    if (e) RET(e);
    fieldll(c.d, "util_mem", 0, &m);
    o->gpu = (uint)g;
    o->memory = (uint)m;
    RET(OK);
}

#define ENGINE(fn, key)                                                                                      \
    EXPORT nvmlReturn_t fn(nvmlDevice_t h, uint *u, uint *per) {                                             \
        DEV(h);                                                                                              \
        PHYS();                                                                                              \
        NEED(u);                                                                                             \
        long long v;                                                                                         \
        int e = fieldll(c.d, key, 0, &v);                                                                    \
        if (e) RET(e);                                                                                       \
        *u = (uint)v;                                                                                        \
        if (per) *per = 167000;                                                                              \
        RET(OK);                                                                                             \
    }
ENGINE(nvmlDeviceGetEncoderUtilization, "util_enc")
ENGINE(nvmlDeviceGetDecoderUtilization, "util_dec")
ENGINE(nvmlDeviceGetJpgUtilization, "util_jpg")
ENGINE(nvmlDeviceGetOfaUtilization, "util_ofa")

/* type 0 power, 1 gpu util, 2 mem util, 3 enc, 4 dec, 5 sm clock, 6 mem clock */
EXPORT nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t h, uint type, ull last, uint *vt, uint *n,
                                         sample_t *o) {
    DEV(h);
    NEED(vt);
    NEED(n);
    if (c.m || mig_on(c.d)) RET(E_NOSUP);
    static const char *K[] = {"power_mw", "util_gpu", "util_mem", "util_enc",
                              "util_dec", "clock_sm", "clock_mem"};
    if (type > 6) RET(E_ARG);
    long long v;
    int e = fieldll(c.d, K[type], 0, &v);
    if (e) RET(e);
    *vt = 1;
    const uint N = 20;
    ull t = now_us();
    if (!o) {
        *n = N;
        RET(OK);
    }
    uint k = 0;
    for (uint i = 0; i < N && k < *n; i++) {
        ull ts = t - (ull)(N - i) * 50000;
        if (ts <= last) continue;
        o[k].ts = ts;
        o[k].v.v = 0;
        o[k].v.ui = (uint)v;
        k++;
    }
    *n = k;
    RET(k ? OK : E_NOTFOUND);
}

static uint live_procs(call_t *c) {
    uint k = 0;
    jv *a = j_get(c->d, "processes");
    for (jv *p = a ? a->child : NULL; p; p = p->next)
        if (proc_in(c, p, NULL) && j_get(p, "sm")) k++;
    return k;
}

EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t h, putil_t *o, uint *n, ull last) {
    (void)last;
    DEV(h);
    NEED(n);
    if (c.m || mig_on(c.d)) RET(E_NOSUP);
    uint k = live_procs(&c);
    if (!k) {
        *n = 0;
        RET(E_NOTFOUND);
    }
    if (!o || *n < k) {
        *n = k;
        RET(E_SIZE);
    }
    k = 0;
    ull t = now_us();
    for (jv *p = j_get(c.d, "processes")->child; p; p = p->next)
        if (proc_in(&c, p, NULL) && j_get(p, "sm")) {
            o[k].pid = (uint)j_int(p, "pid", 0);
            o[k].ts = t;
            o[k].sm = (uint)j_int(p, "sm", 0);
            o[k].mem = (uint)j_int(p, "mem_util", 0);
            o[k].enc = 0;
            o[k].dec = 0;
            k++;
        }
    *n = k;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t h, putillist_t *l) {
    DEV(h);
    NEED(l);
    if (l->version != 0x01000018) RET(E_VER);
    if (c.m || mig_on(c.d)) RET(E_NOSUP);
    uint k = live_procs(&c);
    if (!k) {
        l->n = 0;
        RET(E_NOTFOUND);
    }
    if (!l->arr || l->n < k) {
        l->n = k;
        RET(E_SIZE);
    }
    k = 0;
    ull t = now_us();
    for (jv *p = j_get(c.d, "processes")->child; p; p = p->next)
        if (proc_in(&c, p, NULL) && j_get(p, "sm")) {
            putilv1_t *q = l->arr + k++;
            memset(q, 0, sizeof *q);
            q->pid = (uint)j_int(p, "pid", 0);
            q->ts = t;
            q->sm = (uint)j_int(p, "sm", 0);
        }
    l->n = k;
    RET(OK);
}
