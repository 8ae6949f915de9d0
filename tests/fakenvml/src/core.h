/* What the parts of the fake share: the loaded state, handles, and the way into and out of every call. */
#ifndef FAKENVML_CORE_H
#define FAKENVML_CORE_H
#define _GNU_SOURCE
#include "json.h"
#include "nvml_abi.h"
#include <stdio.h>
#include <string.h>

#define MAXDEV 64
#define NA64 0xFFFFFFFFFFFFFFFFULL /* NVML's "value not available" */
#define MIB (1024ULL * 1024)
#define ANYID 0xFFFFFFFFu /* "the whole GPU" in place of a GPU or compute instance id */

/* --- presets (presets.c) --- */
typedef struct {
    const char *key, *name;
    uint mib, reserved, devid, subid;
    int cc;
    uint arch, brand, sms, cores, bus;
    uint tdp, links, nvlver;
    int migmax, ecc, remap;
    uint events;
    int pciegen;
    uint clk, memclk;
} preset_t;

extern const preset_t PRESETS[]; /* ends with a key of NULL */
const preset_t *preset_of(const jv *device);

/* --- handles: one object per UUID ever seen; never freed while the library is loaded --- */
struct fdev {
    uint magic;
    char uuid[96];
    char parent[96];
    int mig;
    struct fdev *next;
};

struct fset {
    uint magic;

    struct {
        struct fdev *d;
        ull mask;
        long long since;
    } reg[MAXDEV];

    int n;
    long long last;
    struct fset *next;
};
struct fdev *handle_for(const char *uuid, const char *parent, int mig);
int known(const struct fdev *handle);

/* --- the state file, read again whenever it has changed; all of this only inside a call --- */
extern jv *devs[MAXDEV]; /* the devices that are there, in PCI order as NVML lists them */
extern int ndev;
extern int initcount;
const jv *root(void);
int errcode(const jv *value);                     /* a number, or a name such as "GPU_IS_LOST" */
jv *rule(const jv *object, const char *function); /* exact function name first, then glob members */
const char *bus_of(const jv *device);
int parse_bus(const char *text, uint *domain, uint *bus, uint *device);
jv *dev_by_uuid(const char *uuid);
int mig_on(const jv *device);
jv *mig_instances(const jv *device);
jv *mig_by_uuid(const char *uuid, jv **parent);
int fieldll(const jv *object, const char *key, long long fallback, long long *out); /* null: NOT_SUPPORTED */
int put(char *to, uint length, const char *text);
void nap(long milliseconds);

/* Sleeps, without the lock that is held, as long as "hang_ms" of that device (NULL: of all) says so. */
void stall(const char *fn, const char *uuid);
ull now_us(void);

/* --- one call --- */
typedef struct {
    jv *d; /* the device of the handle, of a MIG instance its parent */
    jv *m; /* the MIG instance, or NULL */
    const preset_t *p;
    int idx;
    const char *fn, *uuid;
    int rc;
    int locked;
} call_t;

/* Takes the lock, reads the state, applies injected errors and hangs. Not 0: the answer of the call. */
int enter(call_t *c, const char *fn, nvmlDevice_t handle, int need_init);
void release(call_t *c); /* releases the lock, logs nothing */
void leave(call_t *c);   /* logs the call and releases the lock; run by the cleanup attribute */

/* These open a call `c` and return from the function on failure. */
#define CALL __attribute__((cleanup(leave))) call_t c
#define SYS()                                                                                                \
    CALL;                                                                                                    \
    if (enter(&c, __func__, NULL, 1)) return c.rc
#define DEV(h)                                                                                               \
    CALL;                                                                                                    \
    if (!(h)) {                                                                                              \
        enter(&c, __func__, NULL, 1);                                                                        \
        RET(c.rc ? c.rc : E_ARG);                                                                            \
    }                                                                                                        \
    if (enter(&c, __func__, (h), 1)) return c.rc
#define RET(x)                                                                                               \
    do {                                                                                                     \
        c.rc = (x);                                                                                          \
        return c.rc;                                                                                         \
    } while (0)
#define NEED(p)                                                                                              \
    do {                                                                                                     \
        if (!(p)) RET(E_ARG);                                                                                \
    } while (0)
#define PHYS() /* not for handles of MIG instances */                                                        \
    do {                                                                                                     \
        if (c.m) RET(E_NOSUP);                                                                               \
    } while (0)
/* A getter of one unsigned number that stands in the state under `key`. */
#define UINT_FIELD(fn, key, fallback)                                                                        \
    EXPORT nvmlReturn_t fn(nvmlDevice_t h, uint *out) {                                                      \
        DEV(h);                                                                                              \
        PHYS();                                                                                              \
        NEED(out);                                                                                           \
        long long v;                                                                                         \
        int e = fieldll(c.d, key, (long long)(fallback), &v);                                                \
        if (e) RET(e);                                                                                       \
        *out = (uint)v;                                                                                      \
        RET(OK);                                                                                             \
    }

/* --- shared between the parts --- */
void pcifill(const jv *device, const preset_t *preset, pci3_t *out); /* devices.c */
int alive(const jv *process);                                        /* memory.c */
int proc_in(const call_t *c, const jv *process, const char *type);   /* memory.c */
int nlinks(const jv *device, const preset_t *preset);                /* topology.c */
nvmlReturn_t fake_stub(const char *fn);                              /* stubs.c */
#endif
