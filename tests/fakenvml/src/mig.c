/* MIG: a GPU cut into instances. "index" may leave holes, as on real boxes. */
#include "core.h"

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t h, uint *cur, uint *pend) {
    DEV(h);
    NEED(cur);
    NEED(pend);
    if (!c.p->migmax) RET(E_NOSUP);
    jv *m = j_get(c.d, "mig");
    *cur = (uint)j_int(m, "mode", 0);
    *pend = (uint)j_int(m, "pending", *cur);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t h, uint mode, int *st) {
    (void)mode;
    (void)st;
    DEV(h);
    RET(E_PERM);
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = c.m != NULL;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t h, uint *o) {
    DEV(h);
    PHYS();
    NEED(o);
    *o = mig_on(c.d) ? (uint)c.p->migmax : 0;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t h, uint i, nvmlDevice_t *o) {
    DEV(h);
    PHYS();
    NEED(o);
    if (!c.p->migmax) RET(E_NOSUP);
    if (i >= (uint)c.p->migmax) RET(E_ARG);
    jv *m = NULL, *a = mig_instances(c.d); /* "index" may leave holes */
    int k = 0;
    for (jv *x = a ? a->child : NULL; x; x = x->next, k++)
        if (j_int(x, "index", k) == i) m = x;
    if (!m) RET(E_NOTFOUND);
    *o = handle_for(j_str(m, "uuid", ""), j_str(c.d, "uuid", ""), 1);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t h, nvmlDevice_t *o) {
    DEV(h);
    NEED(o);
    if (!c.m) RET(E_ARG);
    *o = handle_for(j_str(c.d, "uuid", ""), NULL, 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    if (!c.m) RET(E_NOSUP);
    *o = (uint)j_int(c.m, "gi", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    if (!c.m) RET(E_NOSUP);
    *o = (uint)j_int(c.m, "ci", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t h, attrs_t *o) {
    DEV(h);
    NEED(o);
    if (!c.m) RET(E_NOSUP);
    memset(o, 0, sizeof *o);
    uint g = 1;
    sscanf(j_str(c.m, "profile", "1g"), "%ug", &g);
    o->gislices = (uint)j_int(c.m, "slices", g);
    o->cislices = (uint)j_int(c.m, "ci_slices", o->gislices);
    o->sm = (uint)j_int(c.m, "sm", (c.p->sms / 8) * o->gislices);
    o->ce = g;
    o->dec = g > 1;
    o->memMB = (ull)j_int(c.m, "memory_total", 0) / MIB;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t h, attrs_t *o) {
    return nvmlDeviceGetAttributes_v2(h, o);
}
