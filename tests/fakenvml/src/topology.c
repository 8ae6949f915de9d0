/* CPU affinity, PCI topology, NVLink, peer to peer. */
#include "core.h"
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

/* --- affinity --- */
static void cpulist(const char *s, unsigned long *set, uint words) { /* "0-47,96-143" */
    while (s && *s) {
        char *e;
        long a = strtol(s, &e, 10), b = a;
        if (e == s) break;
        if (*e == '-') {
            s = e + 1;
            b = strtol(s, &e, 10);
        }
        for (long i = a; i <= b; i++)
            if (i >= 0 && (ull)i / 64 < words) set[i / 64] |= 1UL << (i % 64);
        s = *e == ',' ? e + 1 : e;
        if (*e != ',') break;
    }
}

static int cpus(call_t *c, uint words, unsigned long *set, const char *key) {
    if (!words || !set) return E_ARG;
    jv *v = j_get(c->d, key);
    if (v && v->t == J_NULL) return E_NOSUP;
    memset(set, 0, words * sizeof *set);
    const char *s = j_str(c->d, key, NULL);
    char b[32];
    if (!s) {
        snprintf(b, sizeof b, "0-%ld", sysconf(_SC_NPROCESSORS_CONF) - 1);
        s = b;
    }
    cpulist(s, set, words);
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t h, uint n, unsigned long *set) {
    DEV(h);
    RET(cpus(&c, n, set, "cpus"));
}

EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t h, uint n, unsigned long *set,
                                                        uint scope) {
    DEV(h);
    if (scope > 1) RET(E_ARG);
    RET(cpus(&c, n, set, scope == 1 && j_get(c.d, "socket_cpus") ? "socket_cpus" : "cpus"));
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t h, uint n, unsigned long *set, uint scope) {
    DEV(h);
    if (scope > 1 || !n) RET(E_ARG);
    NEED(set);
    memset(set, 0, n * sizeof *set);
    long long v = j_int(c.d, "numa_node", -1);
    if (v < 0) RET(E_NOSUP);
    if ((ull)v / 64 < n) set[v / 64] = 1UL << (v % 64);
    RET(OK);
}

/* only for GPUs that ARE NUMA nodes (Grace): null/absent elsewhere */
EXPORT nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    long long v;
    int e = fieldll(c.d, "gpu_numa_node", -1, &v);
    if (e) RET(e);
    *o = (uint)v;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceSetCpuAffinity(nvmlDevice_t h) {
    DEV(h);
    unsigned long s[16];
    int e = cpus(&c, 16, s, "cpus");
    if (e) RET(e);
    cpu_set_t want, have;
    CPU_ZERO(&want);
    for (int i = 0; i < 1024; i++)
        if (s[i / 64] >> (i % 64) & 1) CPU_SET(i, &want);
    sched_getaffinity(0, sizeof have, &have);
    CPU_AND(&want, &want, &have);
    if (!CPU_COUNT(&want)) RET(E_UNKNOWN);
    RET(sched_setaffinity(0, sizeof want, &want) ? E_UNKNOWN : OK); /* calling thread only, like NVML 8.0+ */
}

EXPORT nvmlReturn_t nvmlDeviceClearCpuAffinity(nvmlDevice_t h) {
    DEV(h);
    cpu_set_t s;
    CPU_ZERO(&s);
    for (long i = 0; i < sysconf(_SC_NPROCESSORS_CONF); i++) CPU_SET(i, &s);
    RET(sched_setaffinity(0, sizeof s, &s) ? E_UNKNOWN : OK);
}

/* --- topology: "path": "numa/hostbridge/bridge/switch" --- */
static int level(const jv *a, const jv *b) {
    const char *x = j_str(a, "board", NULL), *y = j_str(b, "board", NULL);
    if (x && y && !strcmp(x, y)) return 0;
    const char *p = j_str(a, "path", "0/0/0/0"), *q = j_str(b, "path", "0/0/0/0");
    int same = 0;
    for (;;) {
        size_t i = strcspn(p, "/"), j = strcspn(q, "/");
        if (i != j || strncmp(p, q, i)) break;
        same++;
        if (!p[i] || !q[j]) break;
        p += i + 1;
        q += j + 1;
    }
    static const int L[] = {50, 40, 30, 20, 10};
    return L[same > 4 ? 4 : same];
}

#define TWO()                                                                                                \
    CALL;                                                                                                    \
    if (enter(&c, __func__, a, 1)) return c.rc;                                                              \
    NEED(a);                                                                                                 \
    NEED(b);                                                                                                 \
    if (!known(b)) RET(E_ARG);                                                                               \
    jv *d2 = dev_by_uuid(b->mig ? b->parent : b->uuid);                                                      \
    if (!d2 || j_bool(d2, "lost", 0)) RET(E_LOST)

EXPORT nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b, uint *o) {
    TWO();
    NEED(o);
    if (j_bool(root(), "topology_not_supported", 0)) RET(E_NOSUP);
    *o = c.d == d2 ? 0 : (uint)level(c.d, d2);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t a, nvmlDevice_t b, int *o) {
    TWO();
    NEED(o);
    *o = c.d == d2 || level(c.d, d2) == 0;
    RET(OK);
}

static int fill(uint *n, nvmlDevice_t *o, jv **m, uint k) {
    if (!n) return E_ARG;
    if (*n == 0) {
        *n = k;
        return OK;
    }
    if (!o) return E_ARG;
    if (*n < k) k = *n;
    for (uint i = 0; i < k; i++) o[i] = handle_for(j_str(m[i], "uuid", ""), NULL, 0);
    *n = k;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t h, int lv, uint *n, nvmlDevice_t *o) {
    DEV(h);
    jv *m[MAXDEV];
    uint k = 0;
    if (j_bool(root(), "topology_not_supported", 0)) RET(E_NOSUP);
    /* "within" the level (as NVIDIA's own mock does); "nearest_exact": true for exactly that level */
    int exact = j_bool(root(), "nearest_exact", 0);
    for (int i = 0; i < ndev; i++)
        if (devs[i] != c.d) {
            int l = level(c.d, devs[i]);
            if (exact ? l == lv : l <= lv) m[k++] = devs[i];
        }
    RET(fill(n, o, m, k));
}

EXPORT nvmlReturn_t nvmlSystemGetTopologyGpuSet(uint cpu, uint *n, nvmlDevice_t *o) {
    SYS();
    jv *m[MAXDEV];
    uint k = 0;
    for (int i = 0; i < ndev; i++) {
        unsigned long s[16] = {0};
        cpulist(j_str(devs[i], "cpus", "0-1023"), s, 16);
        if (cpu < 1024 && s[cpu / 64] >> (cpu % 64) & 1) m[k++] = devs[i];
    }
    RET(fill(n, o, m, k));
}

/* "nvlink": {"switch": true, "links": 18}  or  {"peers": {"<uuid>": 4, ...}} ; "down": [link, ...] */
int nlinks(const jv *d, const preset_t *p) {
    jv *nv = j_get(d, "nvlink");
    if (!nv || nv->t != J_OBJ) return 0;
    jv *pe = j_get(nv, "peers");
    if (pe) {
        int k = 0;
        for (jv *x = pe->child; x; x = x->next) k += (int)x->i;
        return k;
    }
    return (int)j_int(nv, "links", p->links);
}

static int link_up(const jv *d, int i) {
    jv *a = j_get(j_get(d, "nvlink"), "down");
    for (jv *x = a ? a->child : NULL; x; x = x->next)
        if (x->i == i) return 0;
    return 1;
}

static const char *link_peer(const jv *d, int i) {
    jv *pe = j_get(j_get(d, "nvlink"), "peers");
    int k = 0;
    for (jv *x = pe ? pe->child : NULL; x; x = x->next) {
        if (i < k + x->i) return x->key;
        k += (int)x->i;
    }
    return NULL;
}

#define LINK()                                                                                               \
    DEV(h);                                                                                                  \
    PHYS();                                                                                                  \
    int nl = nlinks(c.d, c.p);                                                                               \
    if (!nl) RET(E_NOSUP);                                                                                   \
    if (link >= (uint)nl) RET(E_ARG)

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t h, uint link, uint *o) {
    LINK();
    NEED(o);
    *o = (uint)link_up(c.d, (int)link);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t h, uint link, uint *o) {
    LINK();
    NEED(o);
    *o = c.p->nvlver;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t h, uint link, uint cap, uint *o) {
    (void)cap;
    LINK();
    NEED(o);
    *o = 1;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t h, uint link, uint k, ull *o) {
    (void)k;
    LINK();
    NEED(o);
    *o = (ull)j_int(j_get(c.d, "nvlink"), "errors", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t h, uint link, uint *o) {
    LINK();
    NEED(o);
    *o = link_peer(c.d, (int)link) ? 0 : 2;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t h, uint link, pci3_t *o) {
    LINK();
    NEED(o);
    if (!link_up(c.d, (int)link)) RET(E_NOSUP);
    const char *u = link_peer(c.d, (int)link);
    jv *p = u ? dev_by_uuid(u) : NULL;
    if (p)
        pcifill(p, preset_of(p), o);
    else {
        memset(o, 0, sizeof *o);
        o->bus = 5 + link % 4;
        snprintf(o->busId, 32, "%08X:%02X:00.0", 0, o->bus);
        snprintf(o->busIdLegacy, 16, "0000:%02X:00.0", o->bus);
        o->pciDeviceId = 0x22A310DE;
    } /* an NVSwitch */
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo(nvmlDevice_t h, uint link, pci3_t *o) {
    return nvmlDeviceGetNvLinkRemotePciInfo_v2(h, link, o);
}

static int nvlinked(const jv *a, const jv *b) {
    int na = nlinks(a, preset_of(a)), nb = nlinks(b, preset_of(b)), up = 0;
    if (!na || !nb) return 0;
    if (!j_get(j_get(a, "nvlink"), "peers")) {
        for (int i = 0; i < na; i++) up |= link_up(a, i);
        if (!up) return 0;
        up = 0;
        for (int i = 0; i < nb; i++) up |= link_up(b, i);
        return up;
    }
    for (int i = 0; i < na; i++) {
        const char *u = link_peer(a, i);
        if (u && !strcmp(u, j_str(b, "uuid", "")) && link_up(a, i)) return 1;
    }
    return 0;
}

/* index: 0 read, 1 write, 2 nvlink, 3 atomics, 4 pci
 * status: 0 ok, 1 chipset, 2 gpu, 3 topology, 4 regkey, 5 not supported */
EXPORT nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t a, nvmlDevice_t b, int idx, int *o) {
    TWO();
    NEED(o);
    if (idx < 0 || idx > 4) RET(E_ARG);
    int nv = nvlinked(c.d, d2);
    int pci = (int)j_int(c.d, "p2p_status", level(c.d, d2) <= 40 ? 0 : 3);
    if (c.m || mig_on(c.d) || mig_on(d2)) {
        *o = 5; /* no P2P with MIG */
        RET(OK);
    }
    *o = idx == 2 ? (nv ? 0 : 5) : idx == 4 ? pci : nv ? 0 : pci;
    RET(OK);
}
