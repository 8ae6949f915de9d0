/* Power, clocks, temperature, ECC, remapped rows, field values. */
#include "core.h"
#include <unistd.h>

/* --- power, temperature, clocks, misc --- */
UINT_FIELD(nvmlDeviceGetPowerUsage, "power_mw", c.p->tdp * 100)
UINT_FIELD(nvmlDeviceGetPowerManagementLimit, "power_limit_mw", c.p->tdp * 1000)
UINT_FIELD(nvmlDeviceGetPowerManagementDefaultLimit, "power_default_limit_mw", c.p->tdp * 1000)
UINT_FIELD(nvmlDeviceGetEnforcedPowerLimit, "power_limit_mw", c.p->tdp * 1000)
UINT_FIELD(nvmlDeviceGetPerformanceState, "pstate", 0)
UINT_FIELD(nvmlDeviceGetPowerState, "pstate", 0)
UINT_FIELD(nvmlDeviceGetPersistenceMode, "persistence", 1)
UINT_FIELD(nvmlDeviceGetDisplayMode, "display", 0)
UINT_FIELD(nvmlDeviceGetDisplayActive, "display", 0)
UINT_FIELD(nvmlDeviceGetFanSpeed, "fan", -1)
UINT_FIELD(nvmlDeviceGetNumFans, "fans", 0)
UINT_FIELD(nvmlDeviceGetAccountingMode, "accounting", 0)
UINT_FIELD(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen", c.p->pciegen)
UINT_FIELD(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max", c.p->pciegen)
UINT_FIELD(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width", 16)
UINT_FIELD(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max", 16)
UINT_FIELD(nvmlDeviceGetPcieReplayCounter, "pcie_replay", 0)

EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    *o = (uint)j_int(c.d, "compute_mode", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t h, uint fan, uint *o) {
    (void)fan;
    DEV(h);
    PHYS();
    NEED(o);
    long long v;
    int e = fieldll(c.d, "fan", -1, &v);
    if (e) RET(e);
    *o = (uint)v;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t h, uint *a, uint *b) {
    DEV(h);
    PHYS();
    NEED(a);
    NEED(b);
    *a = c.p->tdp * 300;
    *b = c.p->tdp * 1000;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t h, ull *o) {
    DEV(h);
    PHYS();
    NEED(o);
    *o = (ull)j_int(c.d, "energy_mj", 0);
    RET(OK);
}

static int temp(call_t *c, uint s, long long *v) {
    if (s > 0) return E_ARG;
    return fieldll(c->d, "temperature", 35, v);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t h, uint s, uint *o) {
    DEV(h);
    PHYS();
    NEED(o);
    long long v;
    int e = temp(&c, s, &v);
    if (e) RET(e);
    *o = (uint)v;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t h, tempv_t *o) {
    DEV(h);
    PHYS();
    NEED(o);
    if (o->version != 0x100000C) RET(E_VER);
    long long v;
    int e = temp(&c, o->sensor, &v);
    if (e) RET(e);
    o->temp = (int)v;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t h, uint t, uint *o) {
    DEV(h);
    PHYS();
    NEED(o);
    static const uint T[] = {92, 89, 87, 85};
    if (t > 3) RET(E_NOSUP);
    *o = T[t];
    RET(OK);
}

static uint clk(const call_t *c, uint t, int max) {
    uint v = t == 2 ? c->p->memclk : c->p->clk;
    return max ? v : (uint)j_int(c->d, t == 2 ? "clock_mem" : "clock_sm", v);
}

EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t h, uint t, uint *o) {
    DEV(h);
    PHYS();
    NEED(o);
    if (t > 3) RET(E_ARG);
    *o = clk(&c, t, 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t h, uint t, uint *o) {
    DEV(h);
    PHYS();
    NEED(o);
    if (t > 3) RET(E_ARG);
    *o = clk(&c, t, 1);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t h, uint t, uint id, uint *o) {
    (void)id;
    DEV(h);
    PHYS();
    NEED(o);
    if (t > 3) RET(E_ARG);
    *o = clk(&c, t, 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t h, ull *o) {
    DEV(h);
    PHYS();
    NEED(o);
    *o = (ull)j_int(c.d, "throttle", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t h, ull *o) {
    return nvmlDeviceGetCurrentClocksEventReasons(h, o);
}

EXPORT nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t h, uint k, uint *o) {
    (void)k;
    DEV(h);
    PHYS();
    NEED(o);
    *o = (uint)j_int(c.d, "pcie_kbps", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t h, uint m) {
    (void)m;
    DEV(h);
    RET(geteuid() ? E_PERM : OK);
}

EXPORT nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t h, uint m) {
    (void)m;
    DEV(h);
    RET(geteuid() ? E_PERM : OK);
}

/* --- health --- */
EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t h, uint *a, uint *b) {
    DEV(h);
    NEED(a);
    NEED(b);
    if (!c.p->ecc) RET(E_NOSUP);
    *a = (uint)j_int(c.d, "ecc", 1);
    *b = (uint)j_int(c.d, "ecc_pending", *a);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetDefaultEccMode(nvmlDevice_t h, uint *a) {
    DEV(h);
    NEED(a);
    if (!c.p->ecc) RET(E_NOSUP);
    *a = 1;
    RET(OK);
}

/* "ecc_errors": {"corrected": n, "uncorrected": n, "aggregate_corrected": n, "aggregate_uncorrected": n} */
static int eccn(call_t *c, uint type, uint counter, ull *o) {
    if (!c->p->ecc || !j_int(c->d, "ecc", 1)) return E_NOSUP;
    if (type > 1 || counter > 1) return E_ARG;
    static const char *K[2][2] = {{"corrected", "aggregate_corrected"},
                                  {"uncorrected", "aggregate_uncorrected"}};
    *o = (ull)j_int(j_get(c->d, "ecc_errors"), K[type][counter], 0);
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t h, uint t, uint k, ull *o) {
    DEV(h);
    NEED(o);
    RET(eccn(&c, t, k, o));
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t h, uint t, uint k, uint loc, ull *o) {
    DEV(h);
    NEED(o);
    int e = eccn(&c, t, k, o);
    if (!e && loc != 2) *o = 0;
    RET(e);
}

EXPORT nvmlReturn_t nvmlDeviceGetDetailedEccErrors(nvmlDevice_t h, uint t, uint k, ecc4_t *o) {
    DEV(h);
    NEED(o);
    memset(o, 0, sizeof *o);
    RET(eccn(&c, t, k, &o->mem));
}

static int pages(call_t *c, uint cause, uint *n, ull *a, ull *ts) {
    if (c->p->remap || !c->p->ecc) return E_NOSUP; /* Ampere and later remap rows instead */
    if (cause > 1 || !n) return E_ARG;
    jv *l = j_get(j_get(c->d, "retired_pages"), cause ? "dbe" : "sbe");
    uint k = l ? (uint)l->n : 0;
    if (!k) {
        *n = 0;
        return OK;
    }
    if (!a || *n < k) {
        *n = k;
        return E_SIZE;
    }
    k = 0;
    for (jv *x = l->child; x; x = x->next, k++) {
        a[k] = (ull)x->i;
        if (ts) ts[k] = 1700000000ULL * 1000000;
    }
    *n = k;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t h, uint cause, uint *n, ull *a) {
    DEV(h);
    RET(pages(&c, cause, n, a, NULL));
}

EXPORT nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t h, uint cause, uint *n, ull *a, ull *t) {
    DEV(h);
    RET(pages(&c, cause, n, a, t));
}

EXPORT nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t h, uint *o) {
    DEV(h);
    NEED(o);
    if (c.p->remap || !c.p->ecc) RET(E_NOSUP);
    *o = (uint)j_int(j_get(c.d, "retired_pages"), "pending", 0);
    RET(OK);
}

/* "remapped_rows": {"correctable": n, "uncorrectable": n, "pending": 0|1, "failure": 0|1} */
EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t h, uint *a, uint *b, uint *p, uint *f) {
    DEV(h);
    NEED(a);
    NEED(b);
    NEED(p);
    NEED(f);
    jv *r = j_get(c.d, "remapped_rows");
    if (!c.p->remap || (mig_on(c.d) && mig_instances(c.d) && mig_instances(c.d)->n)) RET(E_NOSUP);
    *a = (uint)j_int(r, "correctable", 0);
    *b = (uint)j_int(r, "uncorrectable", 0);
    *p = (uint)j_int(r, "pending", 0);
    *f = (uint)j_int(r, "failure", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows_v2(nvmlDevice_t h, rows2_t *o) {
    DEV(h);
    NEED(o);
    if (!c.p->remap) RET(E_NOSUP);
    jv *r = j_get(c.d, "remapped_rows");
    memset(o, 0, sizeof *o);
    o->corrA = (uint)j_int(r, "correctable", 0);
    o->uncA = (uint)j_int(r, "uncorrectable", 0);
    o->pending = (uint)j_int(r, "pending", 0);
    o->failure = (uint)j_int(r, "failure", 0);
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t h, hist_t *o) {
    DEV(h);
    NEED(o);
    if (!c.p->remap) RET(E_NOSUP);
    uint u = (uint)j_int(j_get(c.d, "remapped_rows"), "uncorrectable", 0);
    memset(o, 0, sizeof *o);
    o->max = 640 > u ? 640 - u : 0;
    o->high = u;
    RET(OK);
}

EXPORT nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t h, repair_t *o) {
    DEV(h);
    NEED(o);
    if (!c.p->remap) RET(E_NOSUP);
    o->chan = (uint)j_int(c.d, "channel_repair_pending", 0);
    o->tpc = (uint)j_int(c.d, "tpc_repair_pending", 0);
    RET(OK);
}

/* field ids: any id can be set in "fields": {"<id>": value}; a few have defaults */
EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t h, int n, field_t *o) {
    DEV(h);
    NEED(o);
    if (n <= 0) RET(E_ARG);
    for (int i = 0; i < n; i++) {
        char k[16];
        snprintf(k, sizeof k, "%u", o[i].fieldId);
        jv *v = j_get(j_get(c.d, "fields"), k);
        o[i].ts = (int64_t)now_us();
        o[i].lat = 0;
        o[i].vtype = 3;
        o[i].ret = OK;
        o[i].v.v = 0;
        if (v && v->t == J_NUM) {
            if (v->is_int)
                o[i].v.v = (ull)v->i;
            else {
                o[i].vtype = 0;
                o[i].v.d = v->d;
            }
            continue;
        }
        switch (v ? -1 : (int)o[i].fieldId) {
        case 91:
            o[i].v.v = (ull)nlinks(c.d, c.p);
            o[i].vtype = 1;
            if (!o[i].v.v) o[i].ret = E_NOSUP;
            break; /* NVLINK_LINK_COUNT */
        case 142:
            o[i].v.v = (ull)j_int(j_get(c.d, "remapped_rows"), "correctable", 0);
            o[i].vtype = 1;
            break;
        case 143:
            o[i].v.v = (ull)j_int(j_get(c.d, "remapped_rows"), "uncorrectable", 0);
            o[i].vtype = 1;
            break;
        case 144:
            o[i].v.v = (ull)j_int(j_get(c.d, "remapped_rows"), "pending", 0);
            o[i].vtype = 1;
            break;
        case 145:
            o[i].v.v = (ull)j_int(j_get(c.d, "remapped_rows"), "failure", 0);
            o[i].vtype = 1;
            break;
        case 230:
            o[i].v.v = (ull)j_int(c.d, "recovery_action", 0);
            o[i].vtype = 1;
            break; /* GET_GPU_RECOVERY_ACTION */
        default:
            o[i].ret = E_NOSUP;
        }
    }
    RET(OK);
}
